"""Generated text comes with numbers that an independent run of the same tokens gives."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_steering import residuals

import lrc_tl as lrc
from lrc_tl.steering import generation

HOOK = "blocks.1.hook_resid_post"
TEXTS = ["w1 w2 w3 w4 w5", "w9 w8 w7"]


def unit(seed=0):
    vector = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector / vector.norm()


def adding(strength=6.0, **place):
    return lrc.Steering(
        operation=lrc.steering.Add(vector=unit(), strength=strength, unit="absolute"), hook_name=HOOK, **place
    )


def teacher_forced(model, prompt, new, strength):
    """Log-probabilities and scores of `new`, one row in one pass, edited by hand from its second token on."""
    start = model.to_tokens(prompt)[0].tolist()
    kept = []

    def edit(residual, hook):
        edited = residual.clone()
        edited[:, 1:] += strength * unit().to(residual)
        kept.append(edited[0] @ unit().to(residual))
        return edited

    with model.hooks(fwd_hooks=[(HOOK, edit)]):
        logits = model(torch.tensor([[*start, *new]]))[0]
    log_probs = logits.log_softmax(-1)[len(start) - 1 : -1]
    return log_probs, kept[0][len(start) :]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_probabilities_scores_and_kl_are_those_of_the_tokens(word_model, temperature):
    made = lrc.generate(word_model, TEXTS, steering=adding(), max_new_tokens=5, temperature=temperature, seed=4)
    assert [one.prompt for one in made] == TEXTS
    for one in made:
        new = one.token_ids.tolist()
        assert one.text == word_model.tokenizer.decode(new, skip_special_tokens=True)
        steered, scores = teacher_forced(word_model, one.prompt, new, 6.0)
        plain, _ = teacher_forced(word_model, one.prompt, new, 0.0)
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(one.log_probs, steered[range(len(new)), new], **close)
        torch.testing.assert_close(one.kl, (steered.exp() * (steered - plain)).sum(-1), **close)
        ends = int(new[-1] == word_model.tokenizer.eos_token_id)
        torch.testing.assert_close(one.scores[: len(new) - ends, 0], scores[: len(new) - ends], **close)
        assert one.scores.isnan().sum() == ends
        assert (one.kl > 0).all()
        if temperature == 0:
            assert new == steered.argmax(-1).tolist()


def test_scores_are_those_of_the_direction_where_it_writes_with_another_vector(word_model):
    direction = lrc.ConceptDirection.from_unscaled(
        3 * unit(0), write_vector=unit(0) + 0.5 * unit(1), offset=1.5, relation="r", object_name="x",
        hook_name=HOOK,
    )  # fmt: skip
    plain = replace(direction, write_vector=None, write_rule=None, offset=0.0)
    n_read = 0
    for steering in (
        direction.add(strength=6.0, unit="score"),
        direction.clamp(value=7.0),
        direction.add(strength=0.1),
    ):
        both = [steering, plain.add(strength=0.0)]
        for made in lrc.generate(word_model, TEXTS, steering=both, max_new_tokens=4):
            known = ~made.scores[:, 0].isnan()
            start = word_model.to_tokens(made.prompt)[0].tolist()
            with steering.on(word_model):
                h = residuals(word_model, torch.tensor([[*start, *made.token_ids.tolist()]]))[0, len(start) :]
            expected = direction.score(h)[known].double()
            scores = made.scores[known].double()
            torch.testing.assert_close(scores[:, 0], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(3 * scores[:, 1] - 1.5, expected, rtol=1e-4, atol=1e-4)
            n_read += int(known.sum())
    assert n_read >= 3


def test_a_sweep_over_strengths_is_the_single_runs(word_model):
    strengths = [-4.0, 0.0, 5.0]
    swept = lrc.generate(word_model, TEXTS, steering=adding(), strengths=strengths, max_new_tokens=4)
    assert [(one.prompt, one.strength) for one in swept] == [(text, s) for text in TEXTS for s in strengths]
    for one in swept:
        (alone,) = lrc.generate(word_model, one.prompt, steering=adding(one.strength), max_new_tokens=4)
        assert one.token_ids.tolist() == alone.token_ids.tolist()
        for field in ("log_probs", "kl", "scores"):
            torch.testing.assert_close(
                getattr(one, field), getattr(alone, field), rtol=1e-4, atol=1e-4, equal_nan=True
            )
    still = [one for one in swept if one.strength == 0]
    assert all((one.kl.abs() < 1e-5).all() for one in still)


MIXTURES = [order for n in (1, 2, 3) for order in itertools.permutations((None, 0, 9.0), n)] + [(9.0, None, 9.0)]


@pytest.mark.parametrize("own", [4.0, 0.0, torch.tensor([3.0, -5.0])], ids=str)
@pytest.mark.parametrize("kind", ["add", "swap"])
def test_every_mixture_of_strengths_is_the_single_runs_and_none_is_the_steerings_own(word_model, kind, own):
    def steering(amount):
        swap = lrc.steering.Swap(remove=unit(1), add=unit(2), beta=amount)
        return adding(amount) if kind == "add" else lrc.Steering(operation=swap, hook_name=HOOK)

    def run(amount, **strengths):
        return lrc.generate(word_model, TEXTS, steering=steering(amount), max_new_tokens=3, **strengths)

    alone = {strength: run(own if strength is None else strength) for strength in (None, 0, 9.0)}
    assert (alone[9.0][0].kl > 1e-3).any()
    for mixture in MIXTURES:
        rows = run(own, strengths=list(mixture))
        assert [row.strength for row in rows] == [*mixture, *mixture]
        for place, row in enumerate(rows):
            expected = alone[row.strength][place // len(mixture)]
            assert row.token_ids.tolist() == expected.token_ids.tolist()
            for field in ("log_probs", "kl", "scores"):
                torch.testing.assert_close(
                    getattr(row, field), getattr(expected, field), rtol=1e-4, atol=1e-4, equal_nan=True
                )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_whose_logits_are_not_finite_is_refused_with_where_and_how_many(word_model, temperature):
    def overflow(residual, hook):  # in the second row, from the second new token on
        if residual.shape[1] == 1:
            residual = residual.clone()
            residual[1] = float("inf")
            return residual

    with (
        word_model.hooks(fwd_hooks=[("blocks.2.hook_resid_post", overflow)]),
        pytest.raises(
            ValueError,
            match="the logits for new token 1 behind 'w9 w8 w7' are not finite: 48 of 48, and some in 1 of 2 "
            "rows; load the model in float32",
        ),
    ):
        lrc.generate(word_model, TEXTS, max_new_tokens=4, temperature=temperature)
    made = lrc.generate(word_model, TEXTS, max_new_tokens=4, temperature=temperature)
    assert all(one.log_probs.isfinite().all() for one in made)


def test_an_unsteered_model_whose_logits_are_not_finite_is_refused_too(word_model):
    passes = []

    def overflow(residual, hook):  # in the second pass over many tokens: the prompt and what was generated
        passes.extend([1] * (residual.shape[1] > 1))
        return residual * float("inf") if len(passes) == 2 else None

    with (
        word_model.hooks(fwd_hooks=[("blocks.2.hook_resid_post", overflow)]),
        pytest.raises(
            lrc.errors.NotFiniteError, match=r"logits of 1 of 1 runs are not finite, the first behind '.*w1 w2"
        ),
    ):
        lrc.generate(word_model, TEXTS[0], steering=adding(0.1), max_new_tokens=3)


def test_batches_that_memory_allows_give_the_same(word_model, monkeypatch):
    place = adding(torch.tensor([2.0, 7.0]), where=[2, 1])
    together = lrc.generate(word_model, TEXTS, steering=place, max_new_tokens=4)
    monkeypatch.setattr(generation, "MAX_LOGITS", 1)
    apart = lrc.generate(word_model, TEXTS, steering=place, max_new_tokens=4)
    for one, other in zip(together, apart, strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=1e-4, atol=1e-4)


def test_a_mask_of_the_padded_prompts_is_right_in_every_batch(word_model, monkeypatch):
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 2], mask[1, 5], mask[2, 4] = True, True, True
    steering = adding(where=mask)
    together = lrc.generate(word_model, [*TEXTS, "w4 w6"], steering=steering, max_new_tokens=3)
    monkeypatch.setattr(generation, "MAX_LOGITS", 4 * word_model.cfg.d_vocab)  # one row a batch
    apart = lrc.generate(word_model, [*TEXTS, "w4 w6"], steering=steering, max_new_tokens=3)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"the mask for `where` has shape \(3, 6\), .* here \(2, 6\)"):
        lrc.generate(word_model, TEXTS, steering=steering, max_new_tokens=3)


def test_a_swap_is_swept_by_its_beta(word_model):
    swap = lrc.Steering(
        operation=lrc.steering.Swap(remove=unit(1), add=unit(2), beta=0.1), hook_name=HOOK, layers="all"
    )
    swept = lrc.generate(word_model, TEXTS[0], steering=swap, strengths=[0.0, 1.0], max_new_tokens=3)
    assert swept[1].kl.max() > 100 * swept[0].kl.abs().max() + 1e-3
    assert swept[1].scores.shape == (len(swept[1].token_ids), 1)


def test_nothing_steered_is_the_models_own_text(word_model):
    made = lrc.generate(word_model, TEXTS[0], max_new_tokens=4)
    plain = word_model.generate(TEXTS[0], max_new_tokens=4, do_sample=False, verbose=False, return_type="tokens")
    start = word_model.to_tokens(TEXTS[0]).shape[1]
    assert made[0].token_ids.tolist() == plain[0, start:][: len(made[0].token_ids)].tolist()
    assert made[0].scores.shape == (len(made[0].token_ids), 0)
    assert not made[0].kl.any()


def test_a_row_ends_with_its_end_of_sequence_token(word_model):
    made = lrc.generate(word_model, [TEXTS[0]] * 24, max_new_tokens=12, temperature=3.0, seed=1)
    eos = word_model.tokenizer.eos_token_id
    ended = [one for one in made if eos in one.token_ids.tolist()]
    assert 0 < len(ended) < len(made)
    for one in made:
        ids = one.token_ids.tolist()
        assert ids.index(eos) == len(ids) - 1 if one in ended else len(ids) == 12
        assert len(one.log_probs) == len(one.kl) == len(one.scores) == len(ids)
    assert "<eos>" not in ended[0].text


def test_sampling_repeats_with_its_seed_and_leaves_the_global_state(word_model):
    before = torch.random.get_rng_state()
    first, again, other = (
        [one.token_ids.tolist() for one in lrc.generate(word_model, TEXTS, temperature=2.0, seed=seed)]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "a prompt is empty, or there are none"),
        (["w1", " "], {}, "a prompt is empty, or there are none"),
        ("w1", {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ("w1", {"temperature": float("nan")}, "temperature nan"),
        ("w1", {"strengths": [1.0]}, "1 strengths for 0 steerings that add, swap or clamp"),
        ("w1", {"strengths": [], "steering": adding()}, "0 strengths for 1 steerings"),
        ("w1", {"strengths": [1.0], "steering": [adding(), adding()]}, "1 strengths for 2 steerings"),
        ("w1", {"strengths": [float("inf")], "steering": adding()}, "strength is .*inf.* must be a finite number"),
        (["w1", "w2"], {"steering": adding(where=[1])}, "`where` holds 1 rows, but there are 2 prompts"),
        (["w1", "w2"], {"steering": adding(where=[1, 1, 1])}, "`where` holds 3 rows, but there are 2 prompts"),
        (["w1", "w2"], {"steering": adding(torch.ones(3))}, "an amount of the steering holds 3 rows"),
        (["w1", "w2"], {"steering": adding(torch.ones(1))}, "an amount of the steering holds 1 rows"),
    ],
)
def test_bad_input_is_refused(word_model, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        lrc.generate(word_model, prompts, **options)


def sampled(model, number):
    (one,) = lrc.generate(model, f"w{number} w2", temperature=1.0, seed=number, max_new_tokens=5)
    return one.token_ids.tolist()


def test_what_is_sampled_with_a_seed_does_not_depend_on_other_threads(word_model):
    numbers = list(range(10))
    alone = [sampled(word_model, number) for number in numbers]
    state, stop = torch.get_rng_state(), threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(1)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: sampled(word_model, number), numbers)) == alone
    assert torch.equal(torch.get_rng_state(), state)
    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        assert [sampled(word_model, number) for number in numbers] == alone
    finally:
        stop.set()
        drawing.join()


@pytest.mark.parametrize("strength", ["3", "x", 1j, [1.0]], ids=repr)
def test_a_strength_that_is_no_number_is_refused_with_its_place(word_model, strength):
    with pytest.raises(TypeError, match=r"strengths\[1\] is .*; give a number"):
        lrc.generate(word_model, TEXTS, steering=adding(), strengths=[None, strength])


def test_strengths_of_numpy_and_torch_come_back_as_plain_numbers(word_model):
    given = [np.float32(3), np.int64(3), torch.tensor(3.0), None, 3]
    made = lrc.generate(word_model, "w1 w2", steering=adding(3.0), strengths=given, max_new_tokens=2)
    assert [one.strength for one in made] == [3.0, 3.0, 3.0, None, 3.0]
    assert [type(one.strength) for one in made] == [float, float, float, type(None), float]
    assert all(torch.equal(one.token_ids, made[0].token_ids) for one in made)
