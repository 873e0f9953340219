"""The attribute lens, on models whose answer is an affine map of the subject, and on others."""

import pytest
import tiny_models
import torch
from entry_point_rows import planted
from normed_models import KINDS, normed_model

import lrc_tl as lrc
from lrc_tl.errors import FingerprintMismatch

TEXT = "w1 w2 w30 w31 w7"


@pytest.fixture(scope="module", params=KINDS)
def model(request, one_thread, tmp_path_factory):
    if request.param.startswith("hooked"):
        tiny_models.require_hooked_transformer()
    return normed_model(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def linear_model(one_thread, tmp_path_factory):
    """Attention alone, the same to every earlier token, and no norm: the answer is affine in the subject."""
    tiny_models.require_hooked_transformer()
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    model = tiny_models.hooked_transformer(tokenizer, normalization=None, attn_only=True)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
        model.blocks[0].attn.W_O.zero_()  # so that behind it only the subject's own place knows the subject
    return model.eval().requires_grad_(False)


def test_of_a_linear_model_it_is_the_models_answer(linear_model):
    prompts = [
        lrc.Prompt(text=f"w1 w{n} w3 w4", subject=f"w{n}", object="w9", relation="r") for n in range(10, 14)
    ]
    lre = lrc.LinearRelationalEmbedding.fit(
        linear_model, prompts, subject_layer=0, object_layer=2, object_aggregation="first_token", progress=False
    )
    for number in range(14, 30):  # subjects that it was not fitted on
        text = f"w1 w{number} w3 w4"
        answer = linear_model(linear_model.to_tokens(text))[0, -1]
        found = lrc.lre.attribute_lens(linear_model, lre, text, k=48, layers=[0])
        assert torch.equal(found.ids[0, 2], answer.argsort(descending=True))
        expected = answer.softmax(-1).sort(descending=True).values
        torch.testing.assert_close(found.probabilities[0, 2], expected, rtol=1e-9, atol=1e-12)


def test_every_cell_is_the_readout_of_what_the_lre_makes_of_its_residual(model):
    lre = planted(model, object_layer=2)
    found = lrc.lre.attribute_lens(model, lre, TEXT, k=5)
    _, cache = model.run_with_cache(model.to_tokens(TEXT))
    for layer in range(3):
        for place in range(6):
            state = lre.predict(cache[f"blocks.{layer}.hook_resid_post"][0, place])
            expected = lrc.directions.readout(model, state, k=5).top
            assert found.ids[layer, place].tolist() == [word.token for word in expected]


def test_with_the_identity_as_lre_it_is_the_logit_lens(model):
    given = planted(model, object_layer=2)
    fields = {name: getattr(given, name) for name in ("subject_layer", "object_layer", "fingerprint", "relation")}
    identity = lrc.LinearRelationalEmbedding(
        **fields, weight=torch.eye(12, dtype=torch.float64), bias=torch.zeros(12, dtype=torch.float64),
        object_aggregation="first_token", n_prompts=1, prompts_hash="",
    )  # fmt: skip
    found, plain = lrc.lre.attribute_lens(model, identity, TEXT), lrc.directions.logit_lens(model, TEXT)
    assert torch.equal(found.ids, plain.ids)
    assert found.label == "attribute lens of 'said' (0 to 2)"


def test_the_scale_is_of_the_weight_alone(model):
    lre = planted(model, object_layer=2)
    found = lrc.lre.attribute_lens(model, lre, TEXT, k=4, lre_beta=0.0)
    expected = lrc.directions.readout(model, lre.bias, k=4).top
    assert found.ids.reshape(-1, 4).unique(dim=0).tolist() == [[word.token for word in expected]]


def test_an_lre_of_another_model_is_refused(model, linear_model):
    with pytest.raises(FingerprintMismatch):
        lrc.lre.attribute_lens(model, planted(linear_model), TEXT)
