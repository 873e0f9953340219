"""Logits that hold no probabilities are refused before a token is taken from them."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lrc_tl.errors import NotFiniteError
from lrc_tl.models.hooking import Block
from lrc_tl.passes.finite import gives_probabilities


def finite_logits(model: Any, prompts: Sequence[str]) -> Block:
    """A block in which logits without a softmax are refused before a token is taken from them."""
    step = 0

    def check(module: Any, args: Any, logits: Tensor | None) -> None:
        nonlocal step
        if logits is not None:
            _require_finite(logits[:, -1], prompts, f"for new token {step}")
        step += 1

    return Block(lambda session: session.watch_output(model.unembed, check))


def _require_finite(logits: Float[Tensor, "row d_vocab"], prompts: Sequence[str], where: str) -> None:
    good = gives_probabilities(logits)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        raise NotFiniteError(
            f"the logits {where} behind {prompts[row]!r} are not finite: {int((~logits[row].isfinite()).sum())} "
            f"of {logits.shape[1]}, and some in {int((~good).sum())} of {len(good)} rows; load the model in "
            "float32, check its weights, or steer less strongly"
        )
