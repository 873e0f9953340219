"""Steerings of tiny models, and what the tests of steering see of a run."""

import torch
from tiny_models import D_MODEL

import lrc_tl as lrc

HOOK = "blocks.1.hook_resid_post"
WORDS = ("w1 w2 w3 w4 w5", "w9 w8 w7")
TOKENS = torch.tensor([[1, 5, 6, 7, 8]])
N_NEW = 5


def unit(seed=0, dtype=torch.float64):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (vector / vector.norm()).to(dtype)


def adding(strength=9.0, **place):
    return lrc.Steering(
        operation=lrc.steering.Add(vector=unit(), strength=strength, unit="absolute"), hook_name=HOOK, **place
    )


def residuals(model, tokens, hook=HOOK, **given):
    kept = []
    with model.hooks(fwd_hooks=[(hook, lambda residual, hook: kept.append(residual.clone()))]):
        model(tokens, **given)
    return kept[0]


def generate(model, texts, *, cache=True, n_new=N_NEW):
    """New tokens and the logits that they came from, by row."""
    made = model.generate(
        list(texts), max_new_tokens=n_new, do_sample=False, stop_at_eos=False, verbose=False,
        use_past_kv_cache=cache, return_type="tokens", output_logits=True,
    )  # fmt: skip
    return made.sequences[:, -n_new:].tolist(), torch.stack(made.logits, dim=1)
