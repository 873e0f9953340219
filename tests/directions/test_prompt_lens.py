"""A lens over a prompt: every layer and token."""

import pytest
import tiny_models
import torch
from normed_models import KINDS, normed_model

import lrc_tl as lrc
from lrc_tl.directions import PromptLens

TEXT = "w1 w2 w30 w31 w7"


@pytest.fixture(scope="module", params=KINDS)
def model(request, one_thread, tmp_path_factory):
    if request.param.startswith("hooked"):
        tiny_models.require_hooked_transformer()
    return normed_model(request.param, tmp_path_factory.mktemp("model"))


def test_the_last_layer_says_what_the_model_says_at_every_token(model):
    found = lrc.directions.logit_lens(model, TEXT, k=4)
    own = model(model.to_tokens(TEXT))[0]
    expected = own.softmax(-1).topk(4)
    assert torch.equal(found.ids[-1], expected.indices)
    torch.testing.assert_close(found.probabilities[-1], expected.values, rtol=1e-4, atol=1e-5)


def test_every_cell_is_the_readout_of_its_residual(model):
    found = lrc.directions.logit_lens(model, TEXT)
    _, cache = model.run_with_cache(model.to_tokens(TEXT))
    for layer in range(3):
        for place in range(6):
            state = cache[f"blocks.{layer}.hook_resid_post"][0, place]
            words = lrc.directions.readout(model, state, k=3).top
            assert [word for word, _ in found.top(layer=layer, position=place)] == [word.text for word in words]


def test_a_frame_has_a_row_for_every_layer_token_and_word(model):
    found = lrc.directions.logit_lens(model, TEXT, k=2, layers=[-1, 0])
    frame = found.to_frame()
    assert found.layers == (0, 2)
    assert frame.shape == (2 * 6 * 2, 7)
    at = frame[(frame.layer == 2) & (frame.position == 5)].sort_values("place")
    assert list(zip(at.word, at.probability, strict=True)) == list(found.top(layer=2, position=-1))
    assert at.token.unique().tolist() == ["w7"]


def test_special_tokens_are_told_apart(model):
    assert lrc.directions.logit_lens(model, TEXT).special == (0,)


def test_what_is_refused(model):
    with pytest.raises(ValueError, match="the text is empty"):
        lrc.directions.logit_lens(model, " ")
    with pytest.raises(ValueError, match="k is 0; allowed are 1 to 48"):
        lrc.directions.logit_lens(model, TEXT, k=0)
    with pytest.raises(ValueError, match="layer 3 is outside the model"):
        lrc.directions.logit_lens(model, TEXT, layers=[3])
    with pytest.raises(ValueError, match="no layers were given"):
        lrc.directions.logit_lens(model, TEXT, layers=[])
    found = lrc.directions.logit_lens(model, TEXT, layers=[1])
    with pytest.raises(ValueError, match="layer 2 was not read; these were: 1"):
        found.top(layer=2, position=0)
    with pytest.raises(ValueError, match="position 6 is outside the text of 6 tokens"):
        found.top(layer=1, position=6)


def test_parts_must_fit_together():
    with pytest.raises(ValueError, match="2 layers and 1 tokens"):
        PromptLens(
            label="",
            tokens=("a",),
            layers=(0, 1),
            words=((("b",),),),
            ids=torch.zeros(1, 1, 1, dtype=torch.long),
            probabilities=torch.ones(1, 1, 1),
        )
