"""Positions to steer: ways of naming them, and their mask in one forward pass."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.models.chat import Text, as_text
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.chunk import Chunk
from lrc_tl.relations.prompts import subject_token

Where: TypeAlias = (
    Literal["all", "prompt", "generated"]
    | int
    | slice
    | Sequence[int]
    | Bool[Tensor, "batch width"]
    | Callable[[Chunk], Bool[Tensor, "batch pos"]]
)
"""Positions to steer, counted in the tokens of each row: with the beginning-of-sequence token, without padding.

`"all"`, `"prompt"` and `"generated"` leave padding alone; `"all"` and `"prompt"` leave beginning-of-sequence
tokens alone too, wherever they stand. Other special tokens, such as the end of a turn in a chat, are text. An int,
a slice or one int per row means what it says; negative numbers count from the end of the prompt. A mask has the
shape of the padded prompt. A callable is given the `Chunk` of each pass.
"""


def select(where: Where, chunk: Chunk, *, bos: bool = False) -> Bool[Tensor, "batch pos"]:
    """Mask of the positions of `chunk` that `where` names.

    Raises:
        TypeError: `where` names no positions.
        ValueError: a position past the end, an empty slice, a mask or row count that does not fit, or a place that
            cannot be known in this pass.
    """
    if isinstance(where, str):
        return _select_named(where, chunk, bos=bos)
    if isinstance(where, Tensor):
        return _select_mask(where, chunk)
    if callable(where):
        chosen = where(chunk)
        if chosen.dtype != torch.bool or chosen.shape != chunk.index.shape:
            raise ValueError(
                f"the callable for `where` returned {chosen.dtype} of shape {tuple(chosen.shape)}; this pass "
                f"needs torch.bool of shape {tuple(chunk.index.shape)}"
            )
        return chosen.to(chunk.index.device)
    if isinstance(where, slice):
        return _select_slice(where, chunk)
    rows = chunk.index.shape[0]
    try:
        positions = [index(position) for position in (where if isinstance(where, Iterable) else [where] * rows)]
    except TypeError as error:
        raise TypeError(
            f"`where` is {where!r}; give a word, an int, a slice, one int per row, a mask or a callable"
        ) from error
    if len(positions) != rows:
        raise ValueError(
            f"`where` holds {len(positions)} positions, but the batch has {rows} rows; give one per row"
        )
    wanted = torch.tensor(positions, device=chunk.index.device)
    if any(position < 0 for position in positions):
        wanted = torch.where(wanted < 0, wanted + _prompt_lengths(chunk, "a negative position"), wanted)
    _require_inside(wanted, torch.tensor(positions, device=HOST), chunk)
    return (chunk.index == wanted[:, None]) & (chunk.index >= 0)


def _select_named(where: str, chunk: Chunk, *, bos: bool) -> Tensor:
    if where not in ("all", "prompt", "generated"):
        raise ValueError(f"`where` is {where!r}; allowed words are 'all', 'prompt' and 'generated'")
    chosen = chunk.index >= 0
    if where != "all":
        generated = chunk.generated(why=f"where={where!r}")
        chosen = chosen & (generated if where == "generated" else ~generated)
    if bos or where == "generated":
        return chosen
    if chunk.bos is None:
        raise ValueError(
            "the model was given embeddings, so it cannot be seen which of them are beginning-of-sequence tokens; "
            "give tokens or text, or steer it too with bos=True"
        )
    return chosen & ~chunk.bos


def _select_mask(mask: Tensor, chunk: Chunk) -> Tensor:
    rows, length = chunk.index.shape
    width = chunk.prompt_width
    fits = mask.dtype == torch.bool and mask.ndim == 2 and mask.shape[0] == rows
    if not fits or (mask.shape[1] < chunk.offset + length if width is None else mask.shape[1] != width):
        raise ValueError(
            f"the mask for `where` is {mask.dtype} of shape {tuple(mask.shape)}; it must be torch.bool of the "
            f"shape of the padded prompt, here ({rows}, {width if width is not None else chunk.offset + length})"
        )
    chosen = torch.zeros(rows, length, dtype=torch.bool, device=chunk.index.device)
    inside = mask[:, chunk.offset : chunk.offset + length].to(chosen.device)
    chosen[:, : inside.shape[1]] = inside
    return chosen


def _select_slice(where: slice, chunk: Chunk) -> Tensor:
    if where.step not in (None, 1):
        raise ValueError(f"`where` is {where}; only slices with step 1 are allowed")
    start, stop = where.start or 0, where.stop
    if stop is not None and stop <= start and (start < 0) == (stop < 0):
        raise ValueError(f"`where` is {where}, which holds no position; its end must lie after its start")
    first = torch.full((chunk.index.shape[0],), start, device=chunk.index.device)
    if start < 0:
        first = first + _prompt_lengths(chunk, "a negative position")
    _require_inside(first, torch.tensor([start], device=HOST), chunk)
    chosen = chunk.index >= first[:, None]
    if stop is not None:
        end = torch.full_like(first, stop)
        if stop < 0:
            end = end + _prompt_lengths(chunk, "a negative position")
        # Of ends that are counted from different sides, this depends on the prompt.
        if bool((empty := end <= first).any()):
            row = int(empty.nonzero()[0])
            raise ValueError(
                f"`where` is {where}, which holds no position of row {row}: it goes from {int(first[row])} to "
                f"before {int(end[row])}; give another range, or one position per row"
            )
        _require_inside(end - 1, torch.tensor([stop - 1], device=HOST), chunk)
        chosen = chosen & (chunk.index < end[:, None])
    return chosen & (chunk.index >= 0)


def _prompt_lengths(chunk: Chunk, why: str) -> Tensor:
    chunk.generated(why=why)
    assert chunk.prompt_lengths is not None
    return chunk.prompt_lengths


def _require_inside(wanted: Tensor, given: Tensor, chunk: Chunk) -> None:
    if chunk.limit is None:
        return
    outside = (wanted < 0) | (wanted >= chunk.limit)
    if outside.any():
        row = int(outside.nonzero()[0])
        position = int(given[row] if given.numel() > 1 else given[0])
        raise ValueError(
            f"position {position} of `where` is outside row {row}, of which {int(chunk.limit[row])} positions are "
            "run (padding not counted)"
        )


@dataclass(frozen=True, kw_only=True)
class LastTokenOf:
    """`where` for the last of some tokens with which every row must begin: the last subject token of a text.

    Raises:
        ValueError: when called on a pass over other tokens.
    """

    ids: tuple[int, ...]

    @property
    def position(self) -> int:
        """Its absolute position, the beginning-of-sequence token counted."""
        return len(self.ids) - 1

    def __call__(self, chunk: Chunk) -> Bool[Tensor, "batch pos"]:
        """The mask of that position."""
        if chunk.ids is not None and chunk.offset == 0:
            wanted = torch.tensor(self.ids, device=chunk.index.device)
            begins = (chunk.index >= 0) & (chunk.index < len(self.ids))
            expected = torch.where(begins, wanted[chunk.index.clamp(0, len(self.ids) - 1)], -1)
            same = (torch.where(begins, chunk.ids.to(wanted.device), -1) == expected).all(1)
            whole = begins.sum(1) == len(self.ids)
            if not bool((same & whole).all()):
                row = int((~(same & whole)).nonzero()[0])
                raise ValueError(
                    f"row {row} does not begin with the text that was given up to its subject, so the subject is "
                    "not where it was found; give the text that is run"
                )
        return chunk.index == self.position


@numbers_checked
def last_subject_token(
    model: HookedModel, text: Text, *, subject: str, subject_start: int | None = None
) -> LastTokenOf:
    """`where` for the last token of `subject` in `text`; refuses to be used on another text.

    The last occurrence in the text counts, as a whole word, or the one at character `subject_start`. The text is
    taken as it is, a chat prompt with its last line break; messages as `lrc_tl.models.chat_text` puts them. For a
    batch of different texts give their `.position`s as a list.

    Raises:
        PositionError: the subject is not in the text, or covers no token.
    """
    ids, position = subject_token(model, as_text(model, text), subject=subject, subject_start=subject_start)
    return LastTokenOf(ids=ids[: position + 1])
