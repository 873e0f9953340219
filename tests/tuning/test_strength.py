"""The chosen strength is the smallest that works, within limits, and what is reported is what single runs give."""

import math

import pytest
import torch
from tiny_models import D_MODEL
from tiny_steering import HOOK, unit
from tiny_strength import NEUTRAL, NO_LIMITS, adding, calibrate, edit

import lrc_tl as lrc
from lrc_tl.tuning.neutral_effects import NeutralEffects
from lrc_tl.tuning.strength import STRENGTHS


def feasible_where(holds):
    """A success callable that reads nothing but the strength."""

    def planted(model, edit, steering, strengths):
        return torch.tensor([1.0 if holds(strength) else -1.0 for strength in strengths])

    return planted


@pytest.mark.parametrize("threshold", [0.013, 0.09, 0.5617])
@pytest.mark.parametrize("refinements", [0, 3, 8])
def test_a_planted_threshold_is_found_within_the_tolerance_of_the_refinement(word_model, threshold, refinements):
    found = calibrate(word_model, feasible_where(lambda s: s >= threshold), refinements=refinements)
    ratio = STRENGTHS[1] / STRENGTHS[0]
    assert threshold <= found.strength <= threshold * ratio ** (2**-refinements) * (1 + 1e-12)
    assert len(found.points) == len(found.grid) + refinements
    assert found.chosen.feasible


def test_of_several_intervals_in_which_it_works_the_first_is_refined(word_model):
    works = feasible_where(lambda s: 0.05 <= s < 0.12 or s >= 0.4)
    found = calibrate(word_model, works, refinements=10)
    assert found.strength == pytest.approx(0.05, rel=1e-3)
    by_strength = {point.strength: point.success_rate for point in found.points}
    assert by_strength[STRENGTHS[9]] == by_strength[STRENGTHS[0]] == 0
    assert by_strength[STRENGTHS[-1]] == 1


def test_the_smallest_strength_that_was_given_is_taken_as_it_is(word_model):
    found = calibrate(word_model, feasible_where(lambda s: s > 0), strengths=[0.02, 0.3])
    assert found.strength == 0.02
    assert "(the smallest tried)" in repr(found)


@pytest.mark.parametrize("threshold", [2e-5, 3e-4, 1.7, 6.0])
def test_the_default_search_goes_on_until_the_answer_lies_inside(word_model, threshold):
    found = calibrate(word_model, feasible_where(lambda s: s >= threshold), refinements=8)
    assert threshold <= found.strength <= threshold * 1.01
    assert "(the smallest tried)" not in repr(found)
    assert found.grid[0] < threshold < found.grid[-1]
    assert len(found.points) == len(found.grid) + 8


@pytest.mark.parametrize(("works", "ends"), [(lambda s: s > 0, (1e-5, 1.0)), (lambda s: False, (1e-3, 10.0))])
def test_the_default_search_is_bounded(word_model, works, ends):
    found = calibrate(word_model, feasible_where(works))
    assert (found.grid[0], found.grid[-1]) == pytest.approx(ends)
    assert found.strength == (found.grid[0] if works(1.0) else None)


def test_the_search_does_not_go_beyond_a_limit_that_is_exceeded(word_model):
    limits = lrc.Limits(kl=1e-9, perplexity_ratio=None, repetition=None)
    found = calibrate(word_model, feasible_where(lambda s: s >= 5), limits=limits)
    assert found.strength is None
    assert found.grid == STRENGTHS


def test_a_limit_excludes_strengths_that_succeed(word_model):
    free = calibrate(word_model, feasible_where(lambda s: s >= 0.3))
    rows = {point.strength: point.kl for point in free.points}
    limit = rows[STRENGTHS[10]] * 0.99  # 0.316 is too strong, 0.178 does not succeed
    assert rows[STRENGTHS[9]] < limit
    limits = lrc.Limits(kl=limit, perplexity_ratio=None, repetition=None)
    narrow = calibrate(word_model, feasible_where(lambda s: s >= 0.3), limits=limits)
    assert narrow.strength is None or narrow.chosen.kl <= limit
    assert STRENGTHS[10] not in [point.strength for point in narrow.points if point.feasible]
    late = calibrate(word_model, feasible_where(lambda s: s >= 0.5), limits=limits)
    assert late.strength is None
    assert late.chosen is None
    assert late.first_broken[0] == "kl"
    assert late.reached_at >= 0.5 > late.first_broken[1] > STRENGTHS[9]
    assert "none feasible: success is reached from strength 0.5" in late.reason
    assert "the limit on kl is the first exceeded" in late.reason


def test_a_window_between_two_strengths_of_the_grid_is_found(word_model):
    works = feasible_where(lambda s: s >= 0.21)
    free = calibrate(word_model, works, strengths=[0.1, 0.25, 0.9], refinements=0)
    limit = free.points[1].kl
    limits = lrc.Limits(kl=limit, perplexity_ratio=None, repetition=None)
    found = calibrate(word_model, works, strengths=[0.1, 0.9], limits=limits, refinements=12)
    assert 0.21 <= found.strength <= 0.21 * 9**2**-11
    coarse = calibrate(word_model, works, strengths=[0.1, 0.9], limits=limits, refinements=0)
    assert coarse.strength is None


def test_none_feasible_is_a_result_that_says_how_near_it_came(word_model):
    edits = [edit(number) for number in range(4)]

    def one_of_four(model, edit, steering, strengths):
        sign = 1.0 if edit == edits[0] else -1.0
        return torch.tensor([sign * strength for strength in strengths])

    found = calibrate(word_model, one_of_four, edits=edits, wanted=0.5)
    assert found.strength is None
    assert found.reached_at is None
    assert found.first_broken is None
    assert {point.success_rate for point in found.points} == {0.25}
    assert {point.wrong_way for point in found.points} == {0.75}
    assert found.unsteered.wrong_way == found.unsteered.success_rate == 0
    assert "none feasible: success rate at most 0.25" in repr(found)
    assert calibrate(word_model, one_of_four, edits=edits, wanted=0.25, strengths=[0.1, 0.2]).strength == 0.1


def log_odds(model, text, objects, change, places):
    """log p(target) - log p(object) in one plain pass, edited by hand."""

    def by_hand(residual, hook):
        changed = residual.clone()
        for place in places:
            h = residual[:, place]
            changed[:, place] = h + h.norm(dim=-1, keepdim=True) * change.to(residual)
        return changed

    layers = [HOOK] if len(places) > 1 else [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    with model.hooks(fwd_hooks=[(name, by_hand) for name in layers]):
        log_probs = model(model.to_tokens(text))[0, -1].log_softmax(-1)
    own, target = (int(model.to_tokens(name)[0, -1]) for name in objects)
    return float(log_probs[target] - log_probs[own])


def test_the_curve_of_an_added_concept_is_that_of_passes_edited_by_hand(word_model):
    edits = [edit(number) for number in range(3)]
    found = calibrate(word_model, lrc.tuning.target_beats_object, edits=edits, refinements=0)
    for point in (found.unsteered, *found.points):
        by_hand = [
            log_odds(word_model, one.prompt.text, ("w5", "w7"), point.strength * unit(), (1, 2, 3))
            for one in edits
        ]
        assert point.mean_margin == pytest.approx(sum(by_hand) / 3, abs=2e-4)
        assert point.success_rate == sum(margin > 0 for margin in by_hand) / 3


def concept_set():
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(vector=unit(seed), relation="r", object_name=name, hook_name=HOOK)
            for seed, name in enumerate(("w5", "w6", "w7"))
        }
    )


def test_a_swap_takes_each_prompt_from_its_own_object_to_the_target_at_its_own_subject(word_model):
    prompts = [
        lrc.Prompt(text="w20 w10 w41", subject="w10", object="w5"),
        lrc.Prompt(text="w11 w41", subject="w11", object="w6"),
        lrc.Prompt(text="w12 w41", subject="w12", object="w7"),
    ]
    edits = lrc.edits_towards(prompts, "w7")
    assert [(one.prompt.object, one.target) for one in edits] == [("w5", "w7"), ("w6", "w7")]
    swap = lrc.swap_at_subject(word_model, concept_set())
    found = lrc.calibrate_strength(word_model, swap, edits, limits=NO_LIMITS, neutral_texts=NEUTRAL, refinements=0)
    assert found.operation == "Swap"
    for point in found.points:
        first = log_odds(word_model, "w20 w10 w41", ("w5", "w7"), point.strength * (unit(2) - unit(0)), (2,))
        second = log_odds(word_model, "w11 w41", ("w6", "w7"), point.strength * (unit(2) - unit(1)), (1,))
        assert point.mean_margin == pytest.approx((first + second) / 2, abs=2e-4)


def test_a_subject_that_stands_twice_is_edited_where_its_prompt_says(word_model):
    text = "w10 w3 w10 w41"
    for start, place in ((0, 1), (None, 3)):
        prompt = lrc.Prompt(text=text, subject="w10", object="w5", subject_start=start)
        (one,) = lrc.edits_towards([prompt], "w7")
        for steering_of in (
            lrc.tuning.at_subject(word_model, adding()),
            lrc.swap_at_subject(word_model, concept_set()),
        ):
            assert steering_of(one).where.position == place


def test_repetition_beyond_that_without_steering_is_limited(word_model):
    found = calibrate(
        word_model, feasible_where(lambda s: True), limits=lrc.Limits(kl=None, perplexity_ratio=None)
    )
    for point in found.points:
        more = point.repetition - found.unsteered.repetition
        assert point.broken == (("repetition",) if more > 0.2 else ())
    assert found.to_frame().repetition.notna().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_exceed_every_limit(word_model, monkeypatch, value):
    def broken(model, steerings, texts, *, strengths, new_tokens):
        return tuple(
            NeutralEffects(kl=0.0, perplexity_ratio=value if strength else 1.0, repetition=None)
            for strength in strengths
        )

    monkeypatch.setattr("lrc_tl.tuning.strength.neutral_effects", broken)
    found = calibrate(word_model, feasible_where(lambda s: True), limits=lrc.Limits(repetition=None))
    assert found.strength is None
    assert found.first_broken == ("perplexity_ratio", STRENGTHS[0])
    unlimited = lrc.Limits(kl=None, perplexity_ratio=None, repetition=None)
    found = calibrate(word_model, feasible_where(lambda s: True), limits=unlimited)
    assert (found.strength is None) == math.isnan(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_margins_that_are_not_finite_are_counted_apart_and_their_strength_is_never_chosen(word_model, value):
    broken_from = STRENGTHS[len(STRENGTHS) // 2]

    def success(model, edit, steering, strengths):
        return torch.tensor([value if strength >= broken_from else strength - 5.0 for strength in strengths])

    found = calibrate(word_model, success, limits=lrc.Limits(kl=None, perplexity_ratio=None, repetition=None))
    assert found.strength is None
    for point in found.points:
        broken = point.strength >= broken_from
        assert point.not_finite == (found.n_edits if broken else 0)
        assert point.broken == (("not_finite",) if broken else ())
        assert (point.success_rate, point.wrong_way) == (0, 0)
    assert found.to_frame().not_finite.max() == found.n_edits


def test_an_unsteered_model_that_is_not_finite_is_refused_before_any_strength_is_tried(word_model):
    tried = []

    def success(model, edit, steering, strengths):
        tried.extend(strengths)
        return torch.full((len(strengths),), math.nan)

    with pytest.raises(lrc.errors.NotFiniteError, match=r"without steering the margins of (\d+) of \1 edits"):
        calibrate(word_model, success)
    assert set(tried) == {0.0}


def test_the_result_shows_and_exports_the_whole_curve(word_model):
    found = calibrate(word_model, feasible_where(lambda s: s >= 0.09), seed=3)
    frame = found.to_frame()
    assert frame.strength.tolist() == sorted(frame.strength)
    assert frame.strength[0] == 0
    assert frame.loc[frame.feasible, "strength"].min() == found.strength
    data = found.to_dict()
    assert data["strength"] == found.strength
    assert data["seed"] == 3
    assert data["limits"] == {"kl": None, "perplexity_ratio": None, "repetition": None}
    assert [point["strength"] for point in data["points"]] == frame.strength.tolist()[1:]
    assert data["fingerprint"]["d_model"] == D_MODEL
    assert f"strength {found.strength:.4g}: success rate 1.00, within limits" in repr(found)
    assert "wrong_way" in str(found)


def good(model, edit, steering, strengths):
    return torch.ones(len(strengths))


@pytest.mark.parametrize(
    ("steering", "options", "message"),
    [
        (adding(), {"edits": []}, "no edits to calibrate on"),
        (adding(), {"strengths": []}, "give one or more finite numbers above 0"),
        (adding(), {"strengths": [0.1, -0.2]}, "give one or more finite numbers above 0"),
        (adding(), {"strengths": [math.nan]}, "give one or more finite numbers above 0"),
        (adding(), {"wanted": 0.0}, "wanted is 0.0"),
        (adding(), {"refinements": -1}, "refinements -1"),
        (adding(), {"neutral_texts": []}, "at least one steering and one neutral text"),
        (adding(), {"neutral_texts": ["w1 w2"]}, "has 3 tokens; give texts of four or more"),
        (adding(), {"success": lambda *_: torch.ones(2, 2)}, r"margins of shape \(2, 2\) for 1 strengths"),
        (adding(where=[1]), {}, "`where` is given row by row"),
        (adding(when=lrc.Schedule(kind="first", steps=2)), {}, "a steering with a schedule has no one strength"),
        (
            lrc.Steering(operation=lrc.steering.Reflect(vector=unit()), hook_name=HOOK),
            {},
            "Reflect has no strength to choose",
        ),
        (
            lrc.Steering(operation=lrc.steering.Add(vector=unit(), strength=1.0, unit="absolute"), hook_name=HOOK),
            {},
            "strengths with unit='absolute' depend on the model",
        ),
    ],
)
def test_bad_input_is_refused(word_model, steering, options, message):
    options = {"edits": [edit()], "success": good, "neutral_texts": NEUTRAL, **options}
    edits = options.pop("edits")
    with pytest.raises(ValueError, match=message):
        lrc.calibrate_strength(word_model, steering, edits, **options)


def test_edits_and_limits_that_make_no_sense_are_refused(word_model):
    with pytest.raises(ValueError, match="none of the 1 prompts has another object than 'w5'"):
        lrc.edits_towards([edit().prompt], "w5")
    with pytest.raises(ValueError, match="has no word in its last line"):
        lrc.free_text_edits(["?!"], "w5")
    with pytest.raises(ValueError, match="within is 0"):
        lrc.tuning.object_named(within=0)
    for name, value in (("kl", -0.1), ("perplexity_ratio", 0.5), ("repetition", math.nan)):
        with pytest.raises(ValueError, match=f"the limit on {name} is {value}"):
            lrc.Limits(**{name: value})
    kinds = iter([adding(), lrc.swap_at_subject(word_model, concept_set())(edit())])
    with pytest.raises(ValueError, match="the edits are steered in different ways"):
        lrc.calibrate_strength(word_model, lambda edit: next(kinds), [edit(), edit(1)], success=good)


@pytest.mark.real_model
def test_gemma_needs_some_strength_to_swap_a_country_and_not_much(gemma):
    relation = lrc.load_relation("city_in_country")
    prompts = [prompt for prompt in relation.prompts() if prompt.object in ("France", "Japan", "Italy")]
    concepts = lrc.mean_concepts(gemma, prompts, layer=9)
    edits = lrc.edits_towards([prompt for prompt in prompts if prompt.object != "Italy"][::4], "Japan")
    found = lrc.calibrate_strength(
        gemma, lrc.swap_at_subject(gemma, concepts), edits[:4], strengths=[0.01, 0.1, 0.4], refinements=1,
        limits=lrc.Limits(repetition=None), neutral_texts=lrc.tuning.NEUTRAL_TEXTS[:2], wanted=0.75,
    )  # fmt: skip
    assert found.unsteered.success_rate == 0
    assert 0.01 < found.strength <= 0.4
    assert found.chosen.kl <= 0.5
    kls = [point.kl for point in found.points]
    assert kls == sorted(kls)
