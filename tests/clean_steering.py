"""Steerings of tiny models by the scores of their clean runs, and the same by hand."""

import torch
from reference.clean_scores import ByHand, generated_by_hand
from tiny_steering import HOOK, N_NEW, generate, unit

import lrc_tl as lrc
from lrc_tl.steering.along_vector import Dual


def oblique():
    """A writing vector at 60 degrees or so to the reading one."""
    vector = unit(3) + 0.7 * unit()
    return vector / vector.norm()


def dual(kind):
    return Dual(write=oblique(), scale=0.3, offset=1.5) if kind == "oblique" else None


def from_clean(does="reflect", layers=(1, 2), kind="plain", **place):
    operation = lrc.steering.FromClean(does=does, vector=unit(), dual=dual(kind))
    return lrc.Steering(operation=operation, hook_name=HOOK, layers=layers, **place)


def by_hand(does="reflect", layers=(1, 2), kind="plain", **place):
    written = {"write": oblique(), "scale": 0.3, "offset": 1.5} if kind == "oblique" else {}
    return ByHand(does, layers, unit(), **written, **place)


def score(residual, kind="plain"):
    read = residual @ unit(dtype=residual.dtype)
    return 0.3 * read - 1.5 if kind == "oblique" else read


def close(model):
    exact = next(model.parameters()).dtype == torch.float64
    return {"rtol": 1e-9, "atol": 1e-9} if exact else {"rtol": 2e-3, "atol": 2e-3}


def assert_generates(model, steerings, hands, texts, *, cache, others=()):
    """`model.generate` under the steerings gives what each row alone gives by hand."""
    with lrc.steer(model, steerings):
        tokens, logits = generate(model, texts, cache=cache)
    for row, text in enumerate(texts):
        start = model.to_tokens(text)[0].tolist()
        wanted, wanted_logits = generated_by_hand(model, start, hands, n_new=N_NEW, others=others)
        assert tokens[row] == wanted
        torch.testing.assert_close(logits[row], wanted_logits, **close(model))
