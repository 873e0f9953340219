"""Directions of tiny models, and what their tests see of a run."""

import tiny_steering
import torch
from tiny_steering import HOOK

import lrc_tl as lrc

FINGERPRINT = lrc.models.ModelFingerprint(
    name="m",
    n_layers=3,
    d_model=12,
    d_vocab=48,
    processing="raw",
    tokenizer="none",
    bos="none",
    behaviour={"0": [1.0, *range(8)], "2": [2.0, *range(8)]},
    model_class="HookedTransformer",
    transformer_lens="3.9.0",
    torch="2.9",
    dtype="float32",
    device="cpu",
)


def named(seed, name, hook=HOOK, **given):
    vector = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name=name, hook_name=hook, **given)


def residuals(model, ids, layer):
    return tiny_steering.residuals(model, ids, hook=f"blocks.{layer}.hook_resid_post")
