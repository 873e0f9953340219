"""What is padding in a batch: what its mask or the lengths of its rows say, never a token's id.

Many tokenizers pad with a token that texts end with too (the end of a turn in a chat, the end of a document), so
an id alone does not tell. Passes of our own say how long each row is; where nothing says it, ids that look padded
are refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel

_whole_rows: ContextVar[tuple[Any, tuple[int, ...]] | None] = ContextVar("_whole_rows", default=None)


@contextmanager
def whole_rows(model: HookedModel, lengths: Sequence[int]) -> Iterator[None]:
    """Inside the block, each pass of `model` is over rows of these many new tokens, padded on the right.

    Steering that is on then sees of each row what it would see if the row were run alone.
    """
    before = _whole_rows.get()
    try:
        try:
            _whole_rows.set((model, tuple(lengths)))
            yield
        finally:
            _whole_rows.set(before)
    finally:  # again, should an interrupt have come before it
        _whole_rows.set(before)


def told_lengths(model: Any) -> tuple[int, ...] | None:
    """What `whole_rows` says about the pass that `model` is in."""
    told = _whole_rows.get()
    return told[1] if told is not None and told[0] is model else None


def own_tokens(
    lengths: Sequence[int], width: int, *, side: str = "right", device: str | torch.device
) -> Bool[Tensor, "batch width"]:
    """True where rows of these lengths, padded to `width` on one side, have their own tokens."""
    columns = torch.arange(width, device=device)
    ends = torch.tensor(lengths, device=device)[:, None]
    return columns < ends if side == "right" else columns >= width - ends


def looks_padded(
    tokenizer: Any, ids: Int[Tensor, "batch width"], real: Bool[Tensor, "batch width"]
) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Which of several rows begin, and which end, with the pad token where `real` says that they have text.

    A single row is never padded. Where texts begin with the pad token, one of them in front is not padding.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    none = torch.zeros(len(ids), dtype=torch.bool, device=real.device)
    if pad is None or len(ids) == 1:
        return none, none
    is_pad = (ids.to(real.device) == pad) & real
    leading = ((is_pad | ~real).long().cumprod(1).bool() & is_pad).sum(1)
    trailing = ((is_pad | ~real).flip(1).long().cumprod(1).bool() & is_pad.flip(1)).sum(1)
    return leading > (1 if pad == getattr(tokenizer, "bos_token_id", None) else 0), trailing > 0
