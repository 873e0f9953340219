"""Weights of nearly no rank, massive activations, directions that are nearly alike, objects that begin alike."""

import pytest
import tiny_models
import torch
from test_activations import random_prompts
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.passes.answers import is_accepted

PLACE = {"subject_layer": 0, "object_layer": 2, "progress": False}
HOOK = "blocks.0.hook_resid_post"


def with_sink(tokenizer, dtype, size):
    """A model whose beginning-of-sequence token has `size` times the residual of others, and all attention."""
    model = tiny_models.hooked_transformer(tokenizer, dtype=dtype).eval().requires_grad_(False)
    with torch.no_grad():
        model.embed.W_E[1] *= size
        model.embed.W_E[1, 0] = size
    return model


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_an_attention_sink_with_massive_activations_leaves_a_fit_in_float32_accurate(one_thread, tmp_path, size):
    tokenizer = tiny_models.word_tokenizer(tmp_path)
    prompts = random_prompts(4, seed=5)
    models = [with_sink(tokenizer, dtype, size) for dtype in (torch.float32, torch.float64)]
    models[1].load_state_dict(models[0].state_dict())  # initial weights depend on the dtype
    acts = lrc.passes.prompt_activations(models[0], prompts, subject_layers=[0]).subject[0]
    kept = []
    with models[0].hooks(fwd_hooks=[(HOOK, lambda residual, hook: kept.append(residual[0, 0].norm()))]):
        models[0](models[0].to_tokens(prompts[0].text))
    assert kept[0] > 0.2 * size > 5 * acts.norm(dim=-1).max()  # massive, and only at the first token
    narrow, wide = (lrc.LinearRelationalEmbedding.fit(model, prompts, **PLACE) for model in models)
    error = (narrow.weight.double() - wide.weight).norm() / wide.weight.norm()
    assert error < 1e-4
    first, second = (
        lre.concepts(model, prompts, rank=3) for lre, model in zip((narrow, wide), models, strict=True)
    )
    for name in second:
        assert float(first[name].vector.double() @ second[name].vector) > 1 - 1e-5
    # Steering leaves that token alone unless it is asked for.
    with next(iter(first.values())).steer(models[0], 0.5):
        steered = []
        with models[0].hooks(fwd_hooks=[(HOOK, lambda residual, hook: steered.append(residual[0, 0].norm()))]):
            models[0](models[0].to_tokens(prompts[0].text))
    assert steered[0] == kept[0]


def lre_with(singular_values, dtype=torch.float64):
    n = len(singular_values)
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    return lrc.LinearRelationalEmbedding(
        weight=((u * torch.tensor(singular_values, dtype=torch.float64)) @ v.T).to(dtype),
        bias=torch.zeros(n, dtype=dtype), subject_layer=0, object_layer=2, object_aggregation="mean", n_prompts=1,
        prompts_hash="0" * 64, relation="r", fingerprint=FINGERPRINT,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_values_near_zero_are_no_rank_and_a_ridge_fades_them_out(dtype):
    eps = torch.finfo(dtype).eps
    lre = lre_with([10.0, 1.0, 0.1, eps / 10, 1e-300, 0.0], dtype)
    assert lre.numerical_rank == 3
    with pytest.raises(ValueError, match="the numerical rank of this weight is 3"):
        lre.invert(torch.ones(6, dtype=dtype), rank=4)
    targets = torch.eye(6, dtype=dtype)
    assert float(lre.invert(targets, rank=3).norm(dim=-1).max()) < 1.01 / 0.1
    assert float(lre.invert(targets, ridge=0.2).norm(dim=-1).max()) < 1 / (2 * 0.2 * 10) * 1.01
    with pytest.raises(ValueError, match="the weight is zero"):
        lre_with([0.0] * 6, dtype).invert(targets, ridge=0.2)


def nearly_alike(apart):
    generator = torch.Generator().manual_seed(1)
    base, other = (torch.randn(tiny_models.D_MODEL, generator=generator, dtype=torch.float64) for _ in range(2))
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                base + share * other, relation="r", object_name=name, hook_name=HOOK, fingerprint=None
            )
            for name, share in (("a", 0.0), ("b", apart), ("c", -1.0))
        }
    )


@pytest.mark.parametrize("apart", [0.0, 1e-15, 1e-9, 1e-4, 0.3])
def test_directions_that_are_nearly_alike_give_small_edits_and_finite_angles(apart):
    concepts = nearly_alike(apart)
    acts = torch.randn(2, 3, tiny_models.D_MODEL, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    operation = lrc.steering.Swap(remove=concepts["a"].vector, add=concepts["b"].vector, beta=0.5)
    share = operation.shift(acts).norm(dim=-1) / acts.norm(dim=-1)
    assert bool(share.isfinite().all())
    assert float(share.max()) <= 0.5 * apart * 3 + 1e-14  # no direction is scaled up to be told apart
    assert concepts.subspace().rank == (2 if apart < 1e-3 else 3)
    angles = lrc.directions.principal_angles(concepts.subspace(), concepts.subspace())
    assert bool(torch.as_tensor(angles).isfinite().all())
    scores = [float(acts[0, 0] @ direction.vector) for direction in concepts.values()]
    assert abs(scores[0] - scores[1]) <= 3 * apart * float(acts[0, 0].norm()) + 1e-12


def test_objects_that_begin_with_the_same_token_are_told_apart(word_model):
    prompts = [
        lrc.Prompt(text=f"w{number} w2 w3", subject=f"w{number}", object=f"w20 w{21 + number % 2}", relation="r")
        for number in range(6, 12)
    ]
    objects = ("w20 w21", "w20 w22", "w20")
    answers = ("w20 w21", "w20 w22", "w20", "w20 w21 w5")
    assert [is_accepted(answer, prompts[0], objects) for answer in answers] == [True, False, False, True]
    one = prompts[0]
    shorter = lrc.Prompt(text=one.text, subject=one.subject, object="w20", relation="r", relation_objects=objects)
    assert not is_accepted("w20 w21", shorter, objects)  # it goes on to be another object of the relation
    means, firsts = (
        lrc.fit_concepts(
            word_model, prompts, method=method, subject_layer=0, object_layer=1, rank=3, progress=False
        )
        for method in ("lrc", "lrc-final")
    )
    for concepts in (means, firsts):
        assert set(concepts) == {"w20 w21", "w20 w22"}
        assert bool(concepts.vectors.isfinite().all())
    # Each is as likely as its least likely token, so what they have in common does not decide.
    edits = [
        lrc.evaluation.Edit(prompt=prompt, target="w20 w22" if prompt.object == "w20 w21" else "w20 w21")
        for prompt in prompts
    ]
    differences = torch.stack([means[edit.target].vector - means[edit.prompt.object].vector for edit in edits])
    (result,) = lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.1])
    assert bool(result.edited.isfinite().all())
    assert result.success.shape == (len(edits),)
