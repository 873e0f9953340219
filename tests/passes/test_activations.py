"""Activations from batches equal those of prompts run alone."""

import random

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.passes.batches import kept_residuals, length_batches, logits_at


def random_prompts(count, *, seed=0):
    generator = random.Random(seed)
    prompts = []
    for _ in range(count):
        words = [f"w{number}" for number in generator.sample(range(40), generator.randint(2, 9))]
        spoken = generator.choice(words)
        object_ = " ".join(f"w{generator.randrange(40)}" for _ in range(generator.randint(1, 3)))
        prompts.append(lrc.Prompt(text=" ".join(words), subject=spoken, object=object_))
    return prompts


def alone(model, ids, layer):
    kept = []
    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", lambda r, hook: kept.append(r[0].clone()))]):
        model(torch.tensor([ids]))
    return kept[0]


@pytest.mark.parametrize("max_tokens", [1, 30, 4096])
@pytest.mark.parametrize("aggregation", ["mean", "first_token"])
def test_a_batched_pass_reads_what_each_prompt_run_alone_shows(word_model, max_tokens, aggregation):
    prompts = random_prompts(20)
    found = lrc.passes.prompt_activations(
        word_model, prompts, subject_layers=[0, -1], object_layers=[1], object_aggregation=aggregation,
        max_tokens=max_tokens,
    )  # fmt: skip
    assert set(found.subject) == {0, -1}
    for row, prompt in enumerate(prompts):
        tokens = lrc.relations.tokenize_prompt(word_model, prompt)
        for layer in (0, -1):
            expected = alone(word_model, tokens.input_ids, layer % 3)[tokens.subject_position]
            torch.testing.assert_close(found.subject[layer][row], expected, rtol=1e-4, atol=1e-4)
        predicting = list(tokens.object_positions)[: 1 if aggregation == "first_token" else None]
        expected = alone(word_model, tokens.input_ids, 1)[predicting].mean(0)
        torch.testing.assert_close(found.object[1][row], expected, rtol=1e-4, atol=1e-4)


def test_each_object_layer_may_have_its_own_aggregation_even_the_same_layer_asked_twice(word_model):
    prompts = random_prompts(9)
    found = lrc.passes.prompt_activations(
        word_model, prompts, object_layers=[2, 1, -1], object_aggregation={2: "mean", 1: "mean", -1: "first_token"}
    ).object
    assert list(found) == [2, 1, -1]
    for layer, aggregation in ((2, "mean"), (1, "mean"), (-1, "first_token")):
        expected = lrc.passes.object_activations(word_model, prompts, layer=layer, object_aggregation=aggregation)
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[2], found[-1])
    with pytest.raises(ValueError, match=r"no entry for the object layers \[1\]"):
        lrc.passes.prompt_activations(word_model, prompts, object_layers=[1], object_aggregation={2: "mean"})


def test_logits_are_those_of_each_sequence_run_alone(word_model):
    generator = random.Random(1)
    sequences = [[generator.randrange(4, 48) for _ in range(generator.randint(2, 9))] for _ in range(15)]
    positions = [sorted(generator.sample(range(len(s)), generator.randint(1, len(s)))) for s in sequences]
    seen = set()
    for row, logits in logits_at(word_model, sequences, positions, max_tokens=25):
        expected = word_model(torch.tensor([sequences[row]]))[0, positions[row]]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        seen.add(row)
    assert seen == set(range(15))


def test_batches_hold_every_row_once_and_stay_below_the_limit():
    lengths = [random.Random(number).randint(1, 30) for number in range(100)]
    batches = list(length_batches(lengths, max_tokens=64))
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 64 for batch in batches)


def test_no_prompts_and_a_layer_outside_the_model_are_refused(word_model):
    with pytest.raises(ValueError, match="no prompts to read activations from"):
        lrc.passes.prompt_activations(word_model, [], subject_layers=[0])
    with pytest.raises(ValueError, match="layer 7 is outside the model; allowed are -3 to 2"):
        lrc.subject_activations(word_model, random_prompts(1), layer=7)


def test_residuals_that_are_not_finite_are_refused(word_model):
    def spoil(residual, hook):
        return residual * float("nan")

    with (
        word_model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", spoil)]),
        pytest.raises(ValueError, match="at layer 1 is not finite"),
    ):
        lrc.subject_activations(word_model, random_prompts(2), layer=1)


def test_kept_residuals_are_those_of_each_sequence_alone_under_the_names_asked_for(word_model):
    sequences = [word_model.to_tokens(text)[0].tolist() for text in ("w1 w2 w3", "w4", "w5 w6")]
    names = ["blocks.1.hook_resid_post", "blocks.0.hook_resid_mid"]
    kept = kept_residuals(word_model, sequences, names, read=lambda name, residual: (name, residual))
    assert list(kept) == sorted(names)  # as the pass comes to them
    for name, (read_at, residual) in kept.items():
        assert read_at == name
        for row, ids in enumerate(sequences):
            alone = []
            with word_model.hooks([(name, lambda resid, hook, alone=alone: alone.append(resid))]):
                word_model(torch.tensor([ids]))
            torch.testing.assert_close(residual[row, : len(ids)], alone[0][0])


def test_the_pass_of_kept_residuals_ends_above_the_highest_layer_and_leaves_nothing(word_model):
    seen = []
    above = [
        (f"blocks.{layer}.hook_resid_post", lambda resid, hook, layer=layer: seen.append(layer))
        for layer in range(3)
    ]
    with word_model.hooks(above):
        kept_residuals(word_model, [[1, 5, 6]], ["blocks.1.hook_resid_post"], read=lambda name, residual: None)
    assert seen == [0, 1]
    assert not word_model.hook_dict["blocks.1.hook_resid_post"]._forward_hooks
