"""The Jacobian of every family, three ways, and what a low-rank fit makes of it."""

import pytest
import torch
from reference.finite_differences import central_differences
from reference.hugging_face_jacobian import subject_object_jacobian as plain_jacobian
from zoo_families import WIDTH, blocks_of, some_prompts

import lrc_tl as lrc

PAIR = {"subject_layer": 0, "object_layer": 2}
FLOAT64 = {
    *((name, "bridge") for name in ("GPT-2", "GPT-NeoX", "GPT-BigCode", "Falcon")),
    *((name, "hooked_transformer") for name in (
        "GPT-2", "GPT-J", "GPT-NeoX", "Llama", "Qwen 2", "Qwen 3", "Mistral", "Phi 3", "Bloom",
    )),
}  # fmt: skip
"""Where all that depends on the subject is computed in float64."""


def tokens_of(case, number=0):
    return lrc.relations.tokenize_prompt(case.model, some_prompts(4)[number])


def relative(got, expected):
    # Two zeros are alike: a window may be too short for any way from the subject to the object.
    return float((got - expected).norm() / expected.norm().clamp_min(1e-30))


def test_the_jacobian_is_that_of_finite_differences(case):
    tokens = tokens_of(case)
    found = lrc.lre.subject_object_jacobian(case.model, tokens, **PAIR)
    assert float(found.jacobian.norm()) > 0
    directions = torch.randn(3, WIDTH, dtype=found.subject.dtype, generator=torch.Generator().manual_seed(0))
    in_float64 = (case.name, case.backend) in FLOAT64
    expected = central_differences(
        case.model, tokens, found.subject, directions, n_positions=len(tokens.object_positions),
        step=1e-3 if in_float64 else case.family.step, **PAIR,
    )  # fmt: skip
    assert relative(found.jacobian @ directions.T, expected) < (1e-7 if in_float64 else case.family.difference)


@pytest.mark.parametrize("object_layer", [1, 2])
def test_the_jacobian_is_that_of_plain_autograd_of_transformers(case, object_layer):
    tokens = tokens_of(case)
    found = lrc.lre.subject_object_jacobian(case.model, tokens, subject_layer=0, object_layer=object_layer)
    jacobian, subject, object_ = plain_jacobian(
        case.plain, tokens.input_ids, tokens.subject_position, subject_layer=0, object_layer=object_layer,
        object_positions=tokens.object_positions, layers=blocks_of(case.plain, case.family),
    )  # fmt: skip
    allowed = 1e-5  # most compute a part in float32 whatever their dtype
    assert relative(found.jacobian, jacobian) < allowed
    assert relative(found.subject, subject) < allowed
    assert relative(found.object, object_) < allowed


def test_a_low_rank_fit_finds_the_leading_part_of_the_exact_one(case):
    prompts = some_prompts(4)
    exact = lrc.LinearRelationalEmbedding.fit(case.model, prompts, **PAIR, progress=False)
    low = lrc.LinearRelationalEmbedding.fit(
        case.model, prompts, **PAIR, solver=lrc.LowRank(rank=4), progress=False
    )
    assert low.solver == "low_rank"
    # No weight of its rank is nearer to the exact one than that one's leading part; this is nearly as near.
    rank = int(torch.linalg.matrix_rank(low.weight, rtol=1e-6))
    error = float((low.weight - exact.weight).norm())
    least = [float(exact.singular_values[kept:].norm()) for kept in (rank, 9)]
    assert 9 <= rank < WIDTH
    assert 0.999 * least[0] < error < 1.2 * least[1]
    assert relative(low.bias, exact.bias) < 1e-4
    safe = lrc.LinearRelationalEmbedding.fit(
        case.model, prompts, **PAIR, solver=lrc.LowRank(rank=3, min_cosine=0.99), progress=False
    )
    vectors = [lre.concepts(case.model, prompts, rank=3).vectors for lre in (safe, exact)]
    assert float((vectors[0] * vectors[1]).sum(1).min()) > 0.99
