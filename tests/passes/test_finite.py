"""What is not finite is refused with its place and count, by every entry point that runs the model."""

import math

import pytest
import torch
from test_activations import random_prompts
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.evaluation.classification import classify_scores
from lrc_tl.passes.batches import right_padded
from lrc_tl.passes.finite import gives_probabilities, require_finite_residuals


@pytest.fixture
def prompts():
    return random_prompts(8, seed=5)


@pytest.fixture
def edits(prompts):
    return [lrc.evaluation.Edit(prompt=prompt, target="w30") for prompt in prompts]


@pytest.fixture
def last_layer_is_nan(word_model):
    """The model with a NaN in its last layer, as a damaged file gives it; the layers before are well."""
    weight = next(w for name, w in word_model.named_parameters() if ".2." in name and "mlp" in name and w.ndim > 1)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.view(-1)[0] = math.nan
    yield word_model
    with torch.no_grad():
        weight.copy_(kept)


def concepts(prompts):
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.eye(D_MODEL)[number], relation="r", object_name=name, hook_name="blocks.0.hook_resid_post"
            )
            for number, name in enumerate(dict.fromkeys(prompt.object for prompt in prompts))
        }
    )


def noise(rows):
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(0))


def test_a_known_filter_never_says_that_a_broken_model_gave_another_answer(last_layer_is_nan, prompts):
    message = r"the residuals or logits of \d+ of \d+ runs are not finite, the first behind '<bos> w"
    with pytest.raises(lrc.errors.NotFiniteError, match=message):
        lrc.filter_known(last_layer_is_nan, prompts)


def test_a_broken_model_is_refused_by_evaluate_and_by_every_measure_of_edits(last_layer_is_nan, prompts, edits):
    model, differences = last_layer_is_nan, noise(len(edits))
    lre = lrc.LinearRelationalEmbedding(
        weight=torch.eye(D_MODEL), bias=torch.zeros(D_MODEL), subject_layer=0, object_layer=2, relation="r",
        object_aggregation="first_token", n_prompts=1, prompts_hash="",
        fingerprint=lrc.models.ModelFingerprint.of(model),
    )  # fmt: skip
    calls = {
        "evaluate": lambda: lrc.evaluate(model, concepts(prompts), prompts),
        "causality": lambda: lrc.evaluation.causality_curve(model, edits, differences, betas=[0.1]),
        "side effects": lambda: lrc.evaluation.side_effects(
            model, lrc.evaluation.unrelated_statements(edits, prompts, n=5), {"m": differences}, betas=[0.1]
        ),
        "calibration": lambda: lrc.calibrate_strength(
            model,
            lrc.tuning.at_subject(
                model,
                lrc.Steering(
                    operation=lrc.steering.Add(vector=torch.eye(D_MODEL)[0], strength=0.1),
                    hook_name="blocks.0.hook_resid_post",
                ),
            ),
            edits,
        ),
        "faithfulness": lambda: lrc.evaluation.lre_faithfulness(model, lre, prompts),
    }
    for name, call in calls.items():
        with pytest.raises(lrc.errors.NotFiniteError, match=r"not finite"):
            print(name, call())


@pytest.mark.parametrize("layers", [None, [1, 2]])
def test_an_edit_that_breaks_the_model_is_no_failed_edit(word_model, prompts, edits, layers):
    differences = noise(len(edits)).double()
    differences /= differences.norm(dim=-1, keepdim=True)
    (found,) = lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.1], layers=layers)
    assert found.edited.isfinite().all()
    message = (
        r"the residuals or logits of \d+ of \d+ runs are not finite, the first behind '<bos> w[\w ]+' under "
        r"an edit of size 1e\+160; give a smaller edit"
    )
    with pytest.raises(lrc.errors.NotFiniteError, match=message):
        lrc.evaluation.causality_curve(word_model, edits, differences, betas=[1e160], layers=layers)
    pairs = lrc.evaluation.unrelated_statements(edits, prompts, n=5)
    with pytest.raises(lrc.errors.NotFiniteError, match="give a smaller edit"):
        lrc.evaluation.side_effects(word_model, pairs, {"m": differences}, betas=[1e160], layers=layers)


def test_one_broken_text_is_named_and_counted(word_model, prompts, monkeypatch):
    marked = prompts[3].subject
    (token,) = word_model.to_tokens(marked)[0, 1:].tolist()
    others = [prompt for prompt in prompts if marked not in f"{prompt.text} {prompt.object}".split()]
    given = [*others, prompts[3]]
    assert len(others) > 2
    ids = []

    def padded(model, sequences):
        ids[:] = [right_padded(model, sequences)]
        return ids[0]

    def spoil(residual, hook):
        changed = residual.clone()
        changed[ids[0] == token] = math.nan
        return changed

    for module in ("batches", "residuals"):
        monkeypatch.setattr(f"lrc_tl.passes.{module}.right_padded", padded)
    with word_model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", spoil)]):
        with pytest.raises(
            lrc.errors.NotFiniteError, match=rf"the residuals or logits of 1 of {len(given)} runs.*{marked}"
        ):
            lrc.filter_known(word_model, given)
        message = rf"{marked}.* at layer 1 is not finite \(1 of {len(given)} texts\)"
        with pytest.raises(lrc.errors.NotFiniteError, match=message):
            lrc.subject_activations(word_model, given, layer=1)


def test_scores_that_are_not_finite_are_no_classification():
    scores = torch.tensor([[1.0, 2.0], [math.nan, 0.0], [math.inf, 0.0]])
    with pytest.raises(
        lrc.errors.NotFiniteError, match="scores of 2 of 3 subjects are not finite, the first in row 1"
    ):
        classify_scores(("a", "b"), scores, ["a", "b", "a"])


def test_tokens_that_a_model_forbids_leave_probabilities_as_they_are():
    logits = torch.tensor([[1.0, -math.inf], [math.nan, 0], [math.inf, 0], [-math.inf, -math.inf], [0, 1]])
    assert gives_probabilities(logits).tolist() == [True, False, False, False, True]
    assert gives_probabilities(logits).tolist() == logits.softmax(-1).isfinite().all(-1).tolist()


def test_residuals_without_a_row_for_each_text_are_refused():
    with pytest.raises(TypeError, match=r"`residuals` is a tensor of float32 and shape \(3,\)"):
        require_finite_residuals(torch.ones(3), ["w1"], layer=0)
