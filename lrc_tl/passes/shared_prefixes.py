"""Residuals of many short texts of which groups begin alike: what a group shares is run once."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.models.hooking import hooked_pass, keeping
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.batches import length_batches, right_padded
from lrc_tl.passes.padding import whole_rows
from lrc_tl.passes.prefix_cache import PrefixCache, prefix_caches

LEAST_SPARED = 64
"""Tokens that a shared beginning must spare its group; below that, larger batches of whole texts are faster."""
MOST_PADDING = 24
"""Tokens of padding that one longer row may add to a batch. A batch of its own reads all weights again, which
costs about as much."""


@dataclass(frozen=True, kw_only=True)
class ReadSequence:
    """Token ids, and the one position that is read in them."""

    ids: tuple[int, ...]
    position: int
    group: Hashable
    """Sequences of one group may begin alike."""


def residuals_at_positions(
    model: HookedModel,
    sequences: Sequence[ReadSequence],
    layers: Sequence[int],
    *,
    ran: Callable[[Sequence[int]], None],
) -> dict[int, Float[Tensor, "sequence d_model"]]:
    """By layer, the residual at each sequence's position, in float32 or wider, on the CPU.

    `ran` is told the numbers of the sequences of each batch that has been run. The beginning that a group shares
    is run once and kept as keys and values, where the model has such a cache (`prefix_caches`); that changes the
    last bits at most.
    """
    residuals: dict[int, Tensor] = {}
    for batch, skipped, cache in _batches(model, sequences, stop_at_layer=max(layers) + 1):
        kept = _read(model, [sequences[row] for row in batch], layers, skipped, cache)
        for layer in layers:
            at_positions = kept[hook_name(model, layer)]
            if layer not in residuals:
                residuals[layer] = at_positions.new_empty(len(sequences), at_positions.shape[1])
            residuals[layer][batch] = at_positions
        ran(batch)
    return residuals


def _batches(
    model: HookedModel, sequences: Sequence[ReadSequence], *, stop_at_layer: int
) -> Iterator[tuple[list[int], int, PrefixCache | None]]:
    """Numbers of sequences, how many of their first tokens have been run, and these tokens' keys and values."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, sequence in enumerate(sequences):
        groups[sequence.group].append(row)
    alone: list[int] = []
    sharing: list[tuple[list[int], int]] = []
    for rows in groups.values():
        shared = _shared_length([sequences[row] for row in rows])
        if (len(rows) - 1) * shared >= LEAST_SPARED:
            sharing.append((rows, shared))
        else:
            alone += rows
    prefixes = [sequences[rows[0]].ids[:shared] for rows, shared in sharing]
    for (rows, shared), cache in zip(
        sharing, prefix_caches(model, prefixes, stop_at_layer=stop_at_layer), strict=True
    ):
        if cache is None:
            alone += rows
            continue
        for batch in _even_batches([len(sequences[row].ids) for row in rows]):
            yield [rows[place] for place in batch], shared, cache
    for batch in _even_batches([len(sequences[row].ids) for row in alone]):
        yield [alone[place] for place in batch], 0, None


def _even_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """`length_batches`, split where the padding of the shorter rows would cost more than another batch."""
    for rows in length_batches(lengths):
        batch: list[int] = []
        for row in rows:
            if batch and len(batch) * (lengths[row] - lengths[batch[-1]]) > MOST_PADDING:
                yield batch
                batch = []
            batch.append(row)
        yield batch


def _shared_length(sequences: Sequence[ReadSequence]) -> int:
    """How many tokens all sequences begin with, before the first position that is read."""
    first, limit = sequences[0].ids, min(sequence.position for sequence in sequences)
    return next(
        (place for place in range(limit) if any(sequence.ids[place] != first[place] for sequence in sequences)),
        limit,
    )


def _read(
    model: HookedModel,
    sequences: Sequence[ReadSequence],
    layers: Sequence[int],
    skipped: int,
    cache: PrefixCache | None,
) -> dict[str, Tensor]:
    following = [sequence.ids[skipped:] for sequence in sequences]
    ids = right_padded(model, following)
    positions = torch.tensor([sequence.position - skipped for sequence in sequences], device=HOST)
    arguments: dict[str, Any] = {"attention_mask": torch.ones_like(ids)}
    if cache is not None:
        arguments = cache.arguments(ids.shape[1], n_rows=len(ids))
    kept: dict[str, Tensor] = {}
    names = [hook_name(model, layer) for layer in layers]
    with whole_rows(model, list(map(len, following))):
        hooked_pass(
            model,
            ids,
            fwd_hooks=list(keeping(kept, names, partial(_at_positions, positions))),
            stop_at_layer=max(layers) + 1,
            **arguments,
        )
    return kept


def _at_positions(positions: Tensor, _: str, residual: Tensor) -> Tensor:
    rows = torch.arange(len(positions), device=residual.device)
    at_positions: Tensor = residual[rows, positions.to(residual.device)]
    return wide_of(at_positions).cpu()
