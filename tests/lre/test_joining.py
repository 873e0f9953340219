"""LREs of parts of the prompts, joined, are the LRE of all of them."""

import pytest
import torch
from test_lre import PROMPTS, fit, model  # noqa: F401

from lrc_tl.lre.joining import combined


def test_lres_of_parts_combine_to_the_lre_of_all_prompts(model):  # noqa: F811
    whole = fit(model)
    parts = combined([fit(model, PROMPTS[:1]), fit(model, PROMPTS[1:])])
    torch.testing.assert_close(parts.weight, whole.weight)
    torch.testing.assert_close(parts.bias, whole.bias)
    assert (parts.n_prompts, parts.relation) == (4, whole.relation)
    with pytest.raises(ValueError, match="the LREs differ in object_layer; combine LREs of the same layers"):
        combined([whole, fit(model, object_layer=1)])
    with pytest.raises(ValueError, match="no LREs to combine"):
        combined([])
