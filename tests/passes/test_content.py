"""Which tokens of a text are read: content alone, against a plain pass."""

import pytest
import torch
from tiny_steering import residuals

import lrc_tl as lrc

HOOK = "blocks.1.hook_resid_post"
TEXTS = ("w1 w2 w3 w4 w5", "w6 w7", "w8 <eos> w9 w10 <eos>")
CONTENT = ((0, 1, 2, 3, 4), (0, 1), (0, 2, 3))
"""Places of the words, where nothing stands in front."""
WHERE = (
    ("last", slice(-1, None)), ("mean", slice(None)), (-2, slice(-2, -1)), (0, slice(0, 1)),
    (slice(1, 3), slice(1, 3)),
)  # fmt: skip


@pytest.mark.parametrize(("at", "places"), WHERE)
def test_content_tokens_are_read_and_special_ones_never(any_word_model, at, places):
    model = any_word_model
    found = lrc.passes.content_activations(model, TEXTS, layer=1, at=at)
    for text, content, acts in zip(TEXTS, CONTENT, found, strict=True):
        ids = model.to_tokens(text)
        first = int(model.cfg.default_prepend_bos)
        assert ids.shape[1] == first + len(text.split())
        chosen = [place + first for place in content[places]]
        torch.testing.assert_close(acts, residuals(model, ids, hook=HOOK)[0, chosen].mean(0), rtol=1e-4, atol=1e-4)


def test_a_place_that_is_not_there_is_refused_with_the_tokens_that_are(word_model):
    for at in (2, -3, slice(4, 6)):
        with pytest.raises(
            lrc.errors.PositionError, match=r"'w6 w7' has no content tokens at .*has 2: \['w6', 'w7'\]"
        ):
            lrc.passes.content_activations(word_model, ["w6 w7"], layer=1, at=at)
    with pytest.raises(lrc.errors.PositionError, match="no content tokens at 'mean'; it has 0"):
        lrc.passes.content_activations(word_model, ["<eos>"], layer=1, at="mean")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"at": "first"}, ValueError, "at is 'first'; allowed are 'last', 'mean', a place such as -2"),
        ({"at": 1.5}, TypeError, "at is a float; give 'last'"),
        ({"at": True}, TypeError, "boolean"),
        ({"layer": 7}, ValueError, "layer"),
        ({"texts": []}, ValueError, "a text is empty, or there are none"),
        ({"texts": ["w1", " "]}, ValueError, "a text is empty, or there are none"),
        ({"texts": "w1"}, TypeError, "texts is one string"),
    ],
)
def test_bad_input_is_refused(word_model, given, error, message):
    arguments = {"texts": ["w1"], "layer": 1, **given}
    with pytest.raises(error, match=message):
        lrc.passes.content_activations(word_model, arguments.pop("texts"), **arguments)
