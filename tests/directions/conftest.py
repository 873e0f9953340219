"""What the tests of directions share."""

import pytest
import torch
from tiny_steering import HOOK

import lrc_tl as lrc


@pytest.fixture
def direction():
    vector = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="x", hook_name=HOOK)
