"""Side effects: nothing without an edit, KL as written out in NumPy, and the right statements for each edit."""

import math

import numpy as np
import pytest
import torch
from test_activations import random_prompts
from tiny_models import D_MODEL

import lrc_tl as lrc


@pytest.fixture
def prompts():
    return random_prompts(9, seed=2)


@pytest.fixture
def edits(prompts):
    return [lrc.evaluation.Edit(prompt=prompt, target="w30") for prompt in prompts[:4]]


def noise(rows, seed=0):
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(seed))


def test_no_edit_has_no_side_effects(word_model, edits, prompts):
    statements = lrc.evaluation.unrelated_statements(edits, prompts[4:], n=12)
    ((found,),) = lrc.evaluation.side_effects(word_model, statements, {"m": noise(4)}, betas=[0.0]).values()
    assert found.mean_kl == pytest.approx(0, abs=1e-6)
    assert found.share_kept == 1
    assert found.log_prob_change.abs().max() < 1e-4


@pytest.mark.parametrize("layers", [None, [1]])
def test_the_divergence_is_that_of_two_runs_written_out(word_model, edits, prompts, layers):
    statements = lrc.evaluation.unrelated_statements(edits, prompts[4:], n=7)
    differences = {"a": noise(4), "b": noise(4, seed=1)}
    found = lrc.evaluation.side_effects(word_model, statements, differences, betas=[0.2, 0.6], layers=layers)
    for name, beta, place in (("a", 0.2, 0), ("b", 0.6, 1)):
        for row, (number, prompt) in enumerate(statements):
            tokens = lrc.relations.tokenize_prompt(word_model, prompt)
            vector, at = differences[name][number], tokens.subject_position

            def add(residual, hook, vector=vector, at=at, beta=beta):
                changed = residual.clone()
                changed[0, at] += beta * residual[0, at].norm() * vector.to(residual)
                return changed

            ids = torch.tensor([tokens.input_ids])
            hooks = [(f"blocks.{layer}.hook_resid_post", add) for layer in layers or range(3)]
            with word_model.hooks(fwd_hooks=hooks):
                edited = word_model(ids)[0].double().log_softmax(-1).numpy()
            clean = word_model(ids)[0].double().log_softmax(-1).numpy()
            last = len(tokens.text_ids) - 1
            kl = np.sum(np.exp(edited[last]) * (edited[last] - clean[last]))
            result = found[name][place]
            assert float(result.kl[row]) == pytest.approx(kl, rel=1e-3, abs=1e-4)
            assert bool(result.kept[row]) == (edited[last].argmax() == clean[last].argmax())
            least = [
                min(x[last + step, token] for step, token in enumerate(tokens.object_ids)) for x in (edited, clean)
            ]
            assert float(result.log_prob_change[row]) == pytest.approx(least[0] - least[1], abs=1e-3)


def test_unrelated_statements_use_every_edit_and_statement_evenly_and_none_twice(edits, prompts):
    statements = lrc.evaluation.unrelated_statements(edits, prompts[4:8], n=12)  # 4 edits, 4 statements
    assert len(set(statements)) == 12
    for number in range(4):
        assert sum(edit == number for edit, _ in statements) == 3
        assert sum(prompt == prompts[4 + number] for _, prompt in statements) == 3
    assert len(lrc.evaluation.unrelated_statements(edits, prompts[4:6], n=100)) == 8
    with pytest.raises(ValueError, match="4 edits, 0 prompts and n = 3 were given"):
        lrc.evaluation.unrelated_statements(edits, [], n=3)


def test_other_facts_are_those_about_the_edited_subject():
    first, second = (lrc.Prompt(text=f"{name} is in", subject=name, object="x") for name in ("Lyon", "Bonn"))
    others = [
        lrc.Prompt(text=f"{name} lies on the", subject=name, object="y") for name in ("Bonn", "Oslo", "Bonn")
    ]
    edits = [lrc.evaluation.Edit(prompt=first, target="z"), lrc.evaluation.Edit(prompt=second, target="z")]
    assert lrc.evaluation.same_subject_statements(edits, others) == ((1, others[0]), (1, others[2]))


def test_nothing_to_look_at_is_no_number(word_model):
    ((found,),) = lrc.evaluation.side_effects(word_model, [], {"m": noise(4)}, betas=[0.2]).values()
    assert found.n_statements == 0
    assert math.isnan(found.mean_kl)
    assert math.isnan(found.share_kept)


def test_bad_input_is_refused(word_model, edits, prompts):
    statements = lrc.evaluation.unrelated_statements(edits, prompts[4:], n=3)
    with pytest.raises(ValueError, match="beta is nan"):
        lrc.evaluation.side_effects(word_model, statements, {"m": noise(4)}, betas=[math.nan])
    with pytest.raises(ValueError, match="'m' has 1 differences, but a statement names a later edit"):
        lrc.evaluation.side_effects(word_model, statements, {"m": noise(1)}, betas=[0.1])
    with pytest.raises(ValueError, match="layers is empty; give the layers to edit"):
        lrc.evaluation.side_effects(word_model, statements, {"m": noise(4)}, betas=[0.1], layers=[])


@pytest.mark.parametrize("measure", ["causality_curves", "side_effects"])
def test_differences_of_several_methods_have_one_shape(word_model, edits, prompts, measure):
    given = {
        "causality_curves": edits,
        "side_effects": lrc.evaluation.unrelated_statements(edits, prompts[4:], n=3),
    }[measure]
    run = getattr(lrc.evaluation, measure)
    with pytest.raises(TypeError, match=r"entry 'b' of `differences` is a tensor of float32 and shape \(4, 5\)"):
        run(word_model, given, {"a": noise(4), "b": noise(4)[:, :5]}, betas=[0.1])
    with pytest.raises(TypeError, match=r"entry 'a' of `differences` is a tensor of int64"):
        run(word_model, given, {"a": noise(4).long()}, betas=[0.1])


def test_statements_come_with_the_number_of_their_edit(word_model, prompts):
    with pytest.raises(TypeError, match=r"item 0 of `statements` is a Prompt; it must be tuple\[int"):
        lrc.evaluation.side_effects(word_model, prompts[:2], {"m": noise(4)}, betas=[0.1])
