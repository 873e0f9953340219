"""Jacobians on the packaged Gemma: HookedTransformer, the Bridge and plain Hugging Face agree."""

import math

import pytest
import torch
from reference.hugging_face_jacobian import subject_object_jacobian as hugging_face_jacobian

import lrc_tl as lrc
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.models.packaged import PACKAGED, packaged_folder

pytestmark = pytest.mark.real_model

PROMPT = lrc.Prompt(
    text="Madrid is located in the country of Spain\nThe city of Abidjan is located in the country of",
    subject="Abidjan",
    object="Côte d'Ivoire",
)
LAYERS = {"subject_layer": 8, "object_layer": 12}
ROWS = range(0, 640, 40)


@pytest.fixture(scope="module")
def bridge():
    return lrc.load_model("packaged:gemma-3-270m", backend="bridge")


@pytest.fixture(scope="module")
def reference(bridge):
    """Rows of W and b from the whole sequence without a cache, by Hugging Face alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        packaged_folder(PACKAGED["packaged:gemma-3-270m"]), dtype=torch.float32, attn_implementation="eager"
    )
    tokens = lrc.relations.tokenize_prompt(bridge, PROMPT)
    assert tokens.subject_position > 5
    assert len(tokens.object_ids) > 2
    jacobian, subject, object_ = hugging_face_jacobian(
        model.requires_grad_(False),
        tokens.input_ids,
        tokens.subject_position,
        object_positions=tokens.object_positions,
        rows=ROWS,
        **LAYERS,
    )
    return jacobian, object_[list(ROWS)] - jacobian @ subject


def assert_matches(model, reference):
    lre = lrc.LinearRelationalEmbedding.fit(model, [PROMPT], **LAYERS, progress=False)
    weight, bias = reference
    assert weight.norm() > 1
    assert (lre.weight[list(ROWS)] - weight).norm() / weight.norm() < 1e-5
    assert (lre.bias[list(ROWS)] - bias).norm() / bias.norm() < 1e-5


@pytest.mark.smoke
def test_the_bridge_gives_the_weight_and_bias_of_hugging_face(bridge, reference):
    assert_matches(bridge, reference)


def test_hooked_transformer_gives_the_weight_and_bias_of_hugging_face(request, reference):
    if hooked_transformer() is None:
        pytest.skip("this TransformerLens has no HookedTransformer")
    assert_matches(request.getfixturevalue("gemma"), reference)


def test_low_rank_directions_on_gemma_are_those_of_the_exact_fit(gemma):
    facts = ("Madrid", "Osaka", "Lyon")
    prompts = [one for one in lrc.load_relation("city_in_country").prompts(shots=2) if one.subject in facts]
    assert len({prompt.object for prompt in prompts}) == 3
    where = {**LAYERS, "progress": False}
    exact = lrc.LinearRelationalEmbedding.fit(gemma, prompts, **where)
    fast = lrc.LinearRelationalEmbedding.fit(gemma, prompts, **where, solver=lrc.LowRank(rank=48))
    assert fast.n_products < 640 / 2
    torch.testing.assert_close(fast.bias, exact.bias, rtol=0, atol=1e-4 * float(exact.bias.norm()))
    true, found = (lre.concepts(gemma, prompts, rank=48) for lre in (exact, fast))
    for name in true:
        cosine = float(true[name].vector @ found[name].vector)
        assert cosine > 0.99
        assert math.acos(min(cosine, 1.0)) <= fast.direction_errors[name]
