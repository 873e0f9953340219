"""Directions of tiny models, and what their tests see of a run."""

import tiny_steering
import torch
from tiny_steering import HOOK

import lrc_tl as lrc


def named(seed, name, hook=HOOK, **given):
    vector = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name=name, hook_name=hook, **given)


def residuals(model, ids, layer):
    return tiny_steering.residuals(model, ids, hook=f"blocks.{layer}.hook_resid_post")
