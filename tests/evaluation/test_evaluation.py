"""Accuracy and causality: known answers by hand, and the edit against the plain context manager."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from test_activations import random_prompts
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.evaluation.classification import classify_scores
from lrc_tl.evaluation.summary import random_differences, swap_differences
from lrc_tl.relations.words import answer_verdict

HOOK = "blocks.1.hook_resid_post"


def concepts_of(vectors):
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name=name, hook_name=HOOK)
            for name, vector in vectors.items()
        }
    )


def axes(*names):
    return concepts_of({name: torch.eye(D_MODEL)[number] for number, name in enumerate(names)})


def test_orthogonal_concepts_classify_as_planted():
    activations = torch.eye(D_MODEL)[[0, 0, 1, 2]] + 0.1
    found = lrc.evaluation.classify_activations(axes("a", "b", "c"), activations, ["a", "b", "b", "c"])
    assert found.predicted == ("a", "a", "b", "c")
    assert (found.n_correct, found.accuracy) == (3, 0.75)
    assert found.places == (1, 3, 1, 1)  # the second's right object ties with the third: ties count against it
    assert found.chance == 0.5
    assert found.top(2) == 0.75
    assert found.confusion["b", "a"] == 1


def test_a_tie_for_the_first_place_is_not_right():
    found = lrc.evaluation.classify_activations(axes("a", "b"), torch.ones(1, D_MODEL), ["a"])
    assert found.accuracy == 0


def test_an_object_without_a_direction_is_wrong_and_has_no_rank():
    found = lrc.evaluation.classify_activations(axes("a", "b"), torch.eye(D_MODEL)[:1], ["elsewhere"])
    assert (found.accuracy, found.places, found.mean_reciprocal_rank) == (0, (0,), 0)


def test_bad_input_to_classification_is_refused():
    with pytest.raises(ValueError, match="one object cannot classify"):
        lrc.evaluation.classify_activations(axes("a"), torch.eye(D_MODEL)[:1], ["a"])
    with pytest.raises(ValueError, match="1 activations and 2 objects were given"):
        lrc.evaluation.classify_activations(axes("a", "b"), torch.eye(D_MODEL)[:1], ["a", "b"])


def test_centring_takes_away_what_all_subjects_share():
    shared = 5 * torch.eye(D_MODEL)[0]
    activations = torch.eye(D_MODEL)[[1, 2]] + shared
    # The first direction points along the shared part, so it wins everywhere.
    tilted = concepts_of({"a": torch.eye(D_MODEL)[1] + torch.eye(D_MODEL)[0], "b": torch.eye(D_MODEL)[2]})
    assert lrc.evaluation.classify_activations(tilted, activations, ["a", "b"]).predicted == ("a", "a")
    centred = lrc.evaluation.classify_activations(tilted, activations, ["a", "b"], centre=shared)
    assert (centred.predicted, centred.accuracy) == (("a", "b"), 1)


@pytest.mark.parametrize("multiclass", ["standardised", "multinomial"])
def test_calibrated_scores_make_up_for_an_offset_of_one_concept(multiclass):
    train = torch.eye(D_MODEL)[[1, 2] * 20] + 5 * torch.eye(D_MODEL)[0]
    names = ["a", "b"] * 20
    tilted = concepts_of({"a": torch.eye(D_MODEL)[1] + torch.eye(D_MODEL)[0], "b": torch.eye(D_MODEL)[2]})
    ready = tilted.calibrate(train, names, multiclass=multiclass)
    assert lrc.evaluation.classify_activations(ready, train, names).accuracy == 0.5
    assert lrc.evaluation.classify_activations(ready, train, names, calibrated=True).accuracy == 1
    with pytest.raises(ValueError, match="the set has no probabilities"):
        lrc.evaluation.classify_activations(tilted, train, names, calibrated=True)


def test_one_test_prompt_is_right_or_wrong_and_the_matrix_has_one_entry():
    right = lrc.evaluation.classify_activations(axes("a", "b", "c"), torch.eye(D_MODEL)[:1], ["a"])
    assert (right.accuracy, right.chance, right.top(1)) == (1, 1, 1)
    wrong = lrc.evaluation.classify_activations(axes("a", "b", "c"), torch.eye(D_MODEL)[:1], ["b"])
    assert (wrong.accuracy, wrong.top(1), wrong.top(3)) == (0, 0, 1)
    assert wrong.confusion_matrix().to_dict() == {"a": {"b": 1}, "b": {"b": 0}, "c": {"b": 0}}


def test_the_confusion_matrix_counts_every_subject_once():
    activations = torch.eye(D_MODEL)[[0, 1, 1, 2]]
    found = lrc.evaluation.classify_activations(axes("a", "b", "c"), activations, ["a", "b", "a", "elsewhere"])
    matrix = found.confusion_matrix()
    assert list(matrix.index) == ["a", "b", "elsewhere"]
    assert list(matrix.columns) == ["a", "b", "c"]
    assert matrix.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert matrix.to_numpy().sum() == found.n_prompts


def prompts_by_object(**counts):
    return [
        lrc.Prompt(text=f"{name}{n} is", subject=f"{name}{n}", object=name)
        for name, count in counts.items()
        for n in range(count)
    ]


def test_each_object_has_at_most_five_different_edits_with_even_targets():
    prompts = prompts_by_object(a=8, b=2, c=1, d=3)
    edits = lrc.evaluation.counterfactual_edits(prompts, seed=1)
    counts = Counter(edit.prompt.object for edit in edits)
    assert counts == {"a": 5, "b": 5, "c": 3, "d": 5}
    assert len(set(edits)) == len(edits)
    assert all(edit.target != edit.prompt.object for edit in edits)
    for name in "abcd":
        targets = Counter(edit.target for edit in edits if edit.prompt.object == name)
        assert max(targets.values()) - min(targets.get(t, 0) for t in "abcd" if t != name) <= 1
    assert (
        edits
        == lrc.evaluation.counterfactual_edits(prompts, seed=1)
        != lrc.evaluation.counterfactual_edits(prompts, seed=2)
    )


def test_edits_need_two_objects():
    with pytest.raises(ValueError, match=r"at least two objects.*given are \['a'\]"):
        lrc.evaluation.counterfactual_edits(prompts_by_object(a=3))


@pytest.fixture
def edits():
    """Objects of one to three tokens."""
    prompts = list({prompt.object: prompt for prompt in random_prompts(8, seed=3)}.values())
    assert {len(prompt.object.split()) for prompt in prompts} == {1, 2, 3}
    return lrc.evaluation.counterfactual_edits(prompts, per_object=2)


@pytest.fixture
def directions(edits):
    generator = torch.Generator().manual_seed(0)
    names = sorted({edit.prompt.object for edit in edits})
    return concepts_of({name: torch.randn(D_MODEL, generator=generator) for name in names})


def least_log_prob(model, tokens, text_length):
    log_probs = model(torch.tensor([tokens])).float()[0].log_softmax(-1)
    return min(float(log_probs[at - 1, tokens[at]]) for at in range(text_length, len(tokens)))


def test_causality_is_what_swapping_one_prompt_at_a_time_gives(word_model, edits, directions):
    (found,) = lrc.evaluation.causality_curve(word_model, edits, swap_differences(directions, edits), betas=[0.3])
    for row, edit in enumerate(edits):
        tokens = lrc.relations.tokenize_prompt(word_model, edit.prompt).text_ids
        for column, name in enumerate((edit.prompt.object, edit.target)):
            ids = [*tokens, *word_model.tokenizer(name, add_special_tokens=False)["input_ids"]]
            clean = least_log_prob(word_model, ids, len(tokens))
            with directions.swap(
                word_model,
                remove=edit.prompt.object,
                add=edit.target,
                text=edit.prompt.text,
                subject=edit.prompt.subject,
                beta=0.3,
            ):
                edited = least_log_prob(word_model, ids, len(tokens))
            assert float(found.clean[row, column]) == pytest.approx(clean, abs=1e-4)
            assert float(found.edited[row, column]) == pytest.approx(edited, abs=1e-3)
    expected = (found.edited[:, 1] > found.edited[:, 0]).double().mean()
    assert found.causality == float(expected)


def test_an_edit_towards_its_own_object_is_refused(word_model, edits, directions):
    wrong = [*edits[1:], lrc.evaluation.Edit(prompt=edits[0].prompt, target=f" {edits[0].prompt.object}")]
    with pytest.raises(ValueError, match=f"1 of {len(edits)} edits have their prompt's own object as target"):
        lrc.evaluation.causality_curve(word_model, wrong, swap_differences(directions, edits), betas=[0.3])


def test_no_edit_changes_nothing(word_model, edits, directions):
    (found,) = lrc.evaluation.causality_curve(word_model, edits, swap_differences(directions, edits), betas=[0.0])
    torch.testing.assert_close(found.edited, found.clean, rtol=0, atol=1e-5)
    assert found.edit_share == 0


def test_the_random_control_has_the_norms_of_the_real_differences(edits, directions):
    real = swap_differences(directions, edits)
    control = random_differences(real, seed=1)
    torch.testing.assert_close(control.norm(dim=-1), real.norm(dim=-1))
    assert torch.equal(control, random_differences(real, seed=1))
    assert torch.nn.functional.cosine_similarity(control, real).abs().max() < 0.95


def test_evaluate_gives_counts_and_refuses_one_object(word_model, edits, directions):
    prompts = list(dict.fromkeys(edit.prompt for edit in edits))
    result = lrc.evaluate(word_model, directions, prompts, beta=0.2, seed=4)
    data = result.to_dict()
    assert (data["n_prompts"], data["n_objects"]) == (len(prompts), len(directions))
    assert data["n_edits"] == len(result.edits) > 0
    assert data["accuracy"] == data["n_correct"] / data["n_prompts"]
    with pytest.raises(ValueError, match="one object cannot classify"):
        lrc.evaluate(word_model, axes("a"), prompts)
    with pytest.raises(ValueError, match="beta is nan"):
        lrc.evaluate(word_model, directions, prompts, beta=float("nan"))


def test_a_single_layer_edit_is_the_plain_hook_at_that_layer(word_model, edits, directions):
    differences = swap_differences(directions, edits)
    (found,) = lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.4], layers=[1])
    for row, edit in enumerate(edits):
        tokens = lrc.relations.tokenize_prompt(word_model, edit.prompt)
        at = tokens.subject_position

        def add(residual, hook, row=row, at=at):
            changed = residual.clone()
            changed[:, at] += 0.4 * residual[:, at].norm(dim=-1, keepdim=True) * differences[row].to(residual)
            return changed

        for column, name in enumerate((edit.prompt.object, edit.target)):
            ids = [*tokens.text_ids, *word_model.tokenizer(name, add_special_tokens=False)["input_ids"]]
            with word_model.hooks(fwd_hooks=[(HOOK, add)]):
                edited = least_log_prob(word_model, ids, len(tokens.text_ids))
            assert float(found.edited[row, column]) == pytest.approx(edited, abs=1e-3)
    assert found.layers == (1,)
    with pytest.raises(ValueError, match="layers is empty"):
        lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.4], layers=[])


def test_hard_success_is_what_greedy_decoding_under_the_edit_says(word_model, edits, directions):
    """Targets that greedy decoding gives are planted: what the edited model says becomes the target.

    All edits are of one relation, so a target is not said where a longer object of another edit is.
    """
    beta, planted, continuations = 0.6, [], []
    differences = swap_differences(directions, edits)
    for row, edit in enumerate(edits):
        ids = list(lrc.relations.tokenize_prompt(word_model, edit.prompt).text_ids)
        n = len(ids)
        swap = {"remove": edit.prompt.object, "add": edit.target, "beta": beta}
        with directions.swap(word_model, text=edit.prompt.text, subject=edit.prompt.subject, **swap):
            for _ in range(6):
                ids.append(int(word_model(torch.tensor([ids]))[0, -1].argmax()))
        words = word_model.tokenizer.decode(ids[n:]).partition("<eos>")[0].split()
        continuations.append(words)
        said = [word for word in words[: row % 2 + 1] if word.startswith("w")]
        if len(said) == row % 2 + 1:
            planted.append((row, lrc.evaluation.Edit(prompt=edit.prompt, target=" ".join(said))))
    assert {len(edit.target.split()) for _, edit in planted} == {1, 2}
    rows = [row for row, _ in planted]
    asked = [*(edit for _, edit in planted), *edits]
    (found,) = lrc.evaluation.causality_curve(
        word_model, asked, torch.cat([differences[rows], differences]), betas=[beta], generated=True
    )
    objects = {name for edit in asked for name in (edit.prompt.object, edit.target)}
    expected = []
    for row, edit in zip([*rows, *range(len(edits))], asked, strict=True):
        begun = {name for name in objects if continuations[row][: len(name.split())] == name.split()}
        expected.append(edit.target in begun and edit.target == max(begun, key=len))
    assert found.generated.tolist() == expected
    assert sum(expected[: len(rows)]) >= 3
    assert found.hard_causality == float(found.generated.double().mean())
    (soft,) = lrc.evaluation.causality_curve(word_model, edits, differences, betas=[beta])
    assert soft.hard_causality is None


def test_several_methods_at_once_are_each_alone(word_model, edits, directions):
    from lrc_tl.evaluation.causality import causality_curves

    real = swap_differences(directions, edits)
    both = {"real": real, "random": random_differences(real, seed=1)}
    found = causality_curves(word_model, edits, both, betas=[0.1, 0.5])
    for name, differences in both.items():
        for one, alone in zip(
            found[name],
            lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.1, 0.5]),
            strict=True,
        ):
            torch.testing.assert_close(one.edited, alone.edited, rtol=0, atol=1e-4)
            assert (one.beta, one.edit_share) == (alone.beta, alone.edit_share)


def test_a_target_that_goes_on_as_a_longer_word_was_not_generated(word_model, edits, directions, monkeypatch):
    differences = swap_differences(directions, edits)
    said = []
    for edit in edits:
        ids = list(lrc.relations.tokenize_prompt(word_model, edit.prompt).text_ids)
        swap = {"remove": edit.prompt.object, "add": edit.target, "beta": 0.6}
        with directions.swap(word_model, text=edit.prompt.text, subject=edit.prompt.subject, **swap):
            for _ in range(2):
                ids.append(int(word_model(torch.tensor([ids]))[0, -1].argmax()))
        said.append(word_model.tokenizer.decode(ids[-2:]).split())
    rows = [row for row, words in enumerate(said) if len(words) == 2 and all(w.startswith("w") for w in words)]
    planted = [lrc.evaluation.Edit(prompt=edits[row].prompt, target=said[row][0]) for row in rows]
    assert len(planted) >= 3

    def generated():
        (found,) = lrc.evaluation.causality_curve(
            word_model, planted, differences[rows], betas=[0.6], generated=True
        )
        return found.generated

    assert generated().all()
    # As from a tokenizer whose second token goes on with the first one's word.
    monkeypatch.setattr(
        "lrc_tl.passes.answers.answer_verdict",
        lambda text, *given, complete: answer_verdict(text.replace(" ", ""), *given, complete=complete),
    )
    assert not generated().any()


def test_shares_of_layers_scale_the_edit_and_are_kept_in_the_result(word_model, edits, directions):
    differences = swap_differences(directions, edits)
    (whole,) = lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.4], layers=[0, 2])
    (half,) = lrc.evaluation.causality_curve(
        word_model, edits, 2 * differences, betas=[0.4], layers={0: 0.5, 2: 0.5}
    )
    torch.testing.assert_close(half.edited, whole.edited)
    assert (half.layers, half.layer_shares) == ((0, 2), (0.5, 0.5))
    assert (whole.layers, whole.layer_shares) == ((0, 2), ())
    with pytest.raises(ValueError, match="layers is empty"):
        lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.4], layers={})


def test_whole_numbers_and_those_of_numpy_serve_as_beta(word_model):
    prompts = random_prompts(6)
    concepts = axes(*(prompt.object for prompt in prompts))
    for beta in (1, 0, np.float32(0.5), np.int64(2)):
        found = lrc.evaluate(word_model, concepts, prompts, beta=beta)
        again = lrc.evaluate(word_model, concepts, prompts, beta=float(beta))
        torch.testing.assert_close(found.causality_result.edited, again.causality_result.edited)
        assert type(found.causality_result.beta) is float


def test_a_number_of_another_kind_is_refused_in_a_few_lines(word_model):
    prompts = random_prompts(6)
    concepts = axes(*(prompt.object for prompt in prompts))
    for beta in ("0.1", True, [0.1]):
        with pytest.raises(TypeError) as caught:
            lrc.evaluate(word_model, concepts, prompts, beta=beta)
        assert "beta" in str(caught.value)
        assert len(str(caught.value).splitlines()) < 5


def test_chance_is_the_commonest_objects_share_and_uniform_chance_one_over_the_candidates():
    found = lrc.evaluation.classify_activations(
        axes("a", "b", "c", "d"), torch.eye(D_MODEL)[[0, 0, 0, 1, 2]], list("aaabc")
    )
    assert (found.chance, found.uniform_chance) == (0.6, 0.25)


def test_a_loop_over_sets_runs_the_unedited_prompts_once(word_model, monkeypatch):
    prompts = random_prompts(6)
    first, second = (
        concepts_of({p.object: unit for p, unit in zip(prompts, units, strict=True)})
        for units in torch.randn(2, 6, D_MODEL, generator=torch.Generator().manual_seed(0))
    )
    rows = []
    run = lrc.evaluation.causality.edited_logits

    def counted(model, sequences, sequence_of, shifts, **options):
        rows.append(len(shifts))
        return run(model, sequences, sequence_of, shifts, **options)

    monkeypatch.setattr("lrc_tl.evaluation.causality.edited_logits", counted)
    earlier = lrc.evaluate(word_model, first, prompts)
    alone = lrc.evaluate(word_model, second, prompts)
    taken = lrc.evaluate(word_model, second, prompts, clean=earlier)
    for name, value in alone.to_dict().items():
        assert taken.to_dict()[name] == (
            pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
        )
    torch.testing.assert_close(taken.causality_result.edited, alone.causality_result.edited, rtol=0, atol=1e-4)
    assert (rows[0], rows[-1]) == (rows[1], rows[1] / 2)
    with pytest.raises(ValueError, match=r"clean has other edits .*seed 0\) than these .*seed 1\)"):
        lrc.evaluate(word_model, second, prompts, clean=earlier, seed=1)


def test_scores_and_differences_have_a_row_for_each_prompt_or_edit():
    with pytest.raises(TypeError, match=r"`scores` is a tensor of .* it must be Float"):
        classify_scores(("a", "b"), torch.ones(2), ["a", "b"])
    with pytest.raises(TypeError, match=r"`differences` is a tensor of .* it must be Float"):
        random_differences(torch.ones(3), seed=0)


def test_numbers_of_edits_that_do_not_fit_are_refused(word_model, edits):
    n = len(edits)
    curves = partial(lrc.evaluation.causality_curves, word_model, edits, betas=[0.1])
    with pytest.raises(ValueError, match="differences are empty; give those of at least one method"):
        curves({})
    with pytest.raises(ValueError, match=f"{n} edits and 1 differences were given; give one for each edit"):
        curves({"lrc": torch.zeros(1, D_MODEL)})
    with pytest.raises(TypeError, match=r"`clean` is a tensor of float32 and shape \(1, 2\); it must be"):
        curves({"lrc": torch.zeros(n, D_MODEL)}, clean=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="per_object is 0; ask for at least one edit"):
        lrc.evaluation.counterfactual_edits([edit.prompt for edit in edits], per_object=0)
