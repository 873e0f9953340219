"""LRE faithfulness and causality on planted LREs, where the answer is known."""

from dataclasses import replace

import pytest
import torch
from test_activations import random_prompts

import lrc_tl as lrc
from lrc_tl.evaluation.causality import counterfactual_edits


@pytest.fixture
def prompts():
    return random_prompts(6, seed=4)


@pytest.fixture
def lre(word_model, prompts):
    return lrc.LinearRelationalEmbedding.fit(
        word_model, prompts[:2], subject_layer=1, object_layer=-1, object_aggregation="first_token", progress=False
    )


def constant(lre, bias):
    return replace(lre, weight=torch.zeros_like(lre.weight), bias=bias.to(lre.bias))


def test_an_lre_that_gives_one_prompts_own_residual_says_what_it_says_there(word_model, lre, prompts):
    final = lrc.passes.object_activations(word_model, prompts, layer=-1, object_aggregation="first_token")
    for place in range(3):
        found = lrc.evaluation.lre_faithfulness(word_model, constant(lre, final[place]), prompts)
        assert found.same[place]
        assert len(set(found.lre_tokens)) == 1
        assert found.faithfulness == sum(t == found.model_tokens[place] for t in found.model_tokens) / 6


def test_an_lre_on_its_one_prompt_is_exact_and_beta_multiplies_the_weight_alone(word_model, prompts):
    for prompt in prompts:
        own = lrc.LinearRelationalEmbedding.fit(
            word_model,
            [prompt],
            subject_layer=1,
            object_layer=-1,
            object_aggregation="first_token",
            progress=False,
        )
        assert lrc.evaluation.lre_faithfulness(word_model, own, [prompt]).faithfulness == 1
        scaled = replace(own, weight=own.weight / 4)
        assert lrc.evaluation.lre_faithfulness(word_model, scaled, [prompt], lre_beta=4.0).faithfulness == 1
        biased = lrc.evaluation.lre_faithfulness(word_model, own, prompts, lre_beta=0.0)
        assert (
            biased.lre_tokens
            == lrc.evaluation.lre_faithfulness(word_model, constant(own, own.bias), prompts).lre_tokens
        )


def test_other_layers_and_means_over_tokens_are_refused(word_model, lre, prompts):
    with pytest.raises(ValueError, match="an LRE with object layer 2 and 'first_token'; this one has layer 1"):
        lrc.evaluation.lre_faithfulness(word_model, replace(lre, object_layer=1), prompts)
    with pytest.raises(ValueError, match="no prompts to be faithful on"):
        lrc.evaluation.lre_faithfulness(word_model, lre, [])


def test_the_edit_is_the_inverted_difference_at_the_subject_layer(word_model, lre, prompts):
    edits = counterfactual_edits(prompts, per_object=1)
    found = lrc.evaluation.lre_causality(word_model, lre, edits, prompts, rank=5)
    final = lrc.passes.object_activations(word_model, prompts, layer=-1, object_aggregation="first_token").double()
    inverse = torch.linalg.pinv(_rank(lre.weight.double(), 5), rtol=1e-8)
    for row, edit in enumerate(edits):
        target = torch.stack([final[n] for n, prompt in enumerate(prompts) if prompt.object == edit.target]).mean(
            0
        )
        shift = inverse @ (target - final[prompts.index(edit.prompt)])
        tokens = lrc.relations.tokenize_prompt(word_model, edit.prompt)

        def put(residual, hook, shift=shift, at=tokens.subject_position):
            changed = residual.clone()
            changed[0, at] += shift.to(residual)
            return changed

        for column, name in enumerate((edit.prompt.object, edit.target)):
            whole = lrc.relations.tokenize_prompt(word_model, replace(edit.prompt, object=name))
            with word_model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", put)]):
                log_probs = word_model(torch.tensor([whole.input_ids]))[0].double().log_softmax(-1)
            least = min(
                float(log_probs[at, token])
                for at, token in zip(whole.object_positions, whole.object_ids, strict=True)
            )
            assert float(found.edited[row, column]) == pytest.approx(least, abs=2e-3)
    assert found.layers == (1,)


def test_replacing_an_object_by_itself_changes_nothing(word_model, lre, prompts):
    own = prompts[0]
    other = replace(prompts[1], object=own.object + " w3")
    edit = lrc.evaluation.Edit(prompt=own, target=other.object)
    # The only prompt with the target is the edit's own text, so o' and o are read at the same place.
    same = lrc.evaluation.lre_causality(word_model, lre, [edit], [replace(own, object=other.object)], rank=3)
    torch.testing.assert_close(same.edited, same.clean, rtol=0, atol=1e-4)
    assert same.edit_share == pytest.approx(0, abs=1e-6)


def test_a_target_without_a_prompt_is_refused(word_model, lre, prompts):
    with pytest.raises(ValueError, match=r"no prompt has the targets \['w99'\]"):
        lrc.evaluation.lre_causality(
            word_model, lre, [lrc.evaluation.Edit(prompt=prompts[0], target="w99")], prompts, rank=3
        )


def _rank(weight, rank):
    u, s, vh = torch.linalg.svd(weight)
    return u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
