"""Forward passes with an edit at one position: what lies before that position is run once and shared by many rows.

Nothing before the edited position depends on the edit, so rows that agree up to there (other strengths, directions
and objects on one prompt) take its keys and values from a cache.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.plain_numbers import real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.models.hooking import hooked_pass
from lrc_tl.numerics.precision import wide_of
from lrc_tl.passes.batches import (
    MAX_LOGITS,
    MAX_TOKENS,
    Hooks,
    length_batches,
    picked_before_unembedding,
    right_padded,
)
from lrc_tl.passes.finite import LogitsCheck
from lrc_tl.passes.padding import whole_rows
from lrc_tl.passes.prefix_cache import prefix_cache
from lrc_tl.relations.prompts import TokenizedPrompt
from lrc_tl.steering.operations import Unit, shift_along

EditedLayers: TypeAlias = Sequence[int] | Mapping[int, float]
"""Layers to edit, or the share of the edit that each of them gets."""
LayersGiven: TypeAlias = Iterable[int] | Mapping[int, float]
"""The same as a caller may give it: a generator or an array too, until `given_layers` has read it."""
_LEAST_SPARED = 128
"""Tokens that a cached prefix must spare its rows; below that, rows run whole in larger batches, which is faster:
each small batch reads all weights again."""


@dataclass(frozen=True, kw_only=True)
class EditedSequence:
    """Token ids, the position that is edited, and the positions whose logits are wanted."""

    ids: tuple[int, ...]
    edited_position: int
    wanted: tuple[int, ...]
    """At the edited position or after it."""

    @classmethod
    def of_object(cls, tokens: TokenizedPrompt) -> "EditedSequence":
        """A prompt with its object behind it: edited at the last subject token, read where the object is said."""
        return cls(
            ids=tokens.input_ids,
            edited_position=tokens.subject_position,
            wanted=tuple(tokens.object_positions),
        )

    def __post_init__(self) -> None:
        if not 0 <= self.edited_position <= min(self.wanted, default=-1) <= max(self.wanted) < len(self.ids):
            raise ValueError(
                f"logits at {list(self.wanted)} of {len(self.ids)} tokens with an edit at {self.edited_position}; "
                "give positions inside the sequence, at the edit or after it"
            )


def given_layers(layers: LayersGiven | None) -> EditedLayers | None:
    """The layers that a caller gave, to be read more than once; None means all.

    Raises:
        ValueError: there are none.
    """
    if layers is not None and not isinstance(layers, Mapping):
        layers = as_tuple(layers, "layers")
    if layers is not None and not layers:
        raise ValueError("layers is empty; give the layers to edit, or None for all")
    return layers


def given_betas(betas: Iterable[float]) -> tuple[float, ...]:
    """The betas that a caller gave, as Python's numbers.

    Raises:
        ValueError: one is not finite.
    """
    numbers = real_numbers(as_tuple(betas, "betas"), "betas")
    for beta in numbers:
        if not math.isfinite(beta):
            raise ValueError(f"beta is {beta}; it must be a finite number")
    return numbers


@checked
def edited_logits(
    model: HookedModel,
    sequences: Sequence[EditedSequence],
    sequence_of: Int[Tensor, " row"],
    shifts: Float[Tensor, "row d_model"],
    *,
    layers: EditedLayers | None,
    unit: Unit = "share",
    max_tokens: int = MAX_TOKENS,
) -> Iterator[tuple[int, Float[Tensor, "pos d_vocab"]]]:
    """For each row, its number and the logits at its sequence's wanted positions, in no fixed order.

    Row `r` runs `sequences[sequence_of[r]]` while `|h| shifts[r]` (`unit="share"`, |h| in the edited run, in the
    residual's dtype) or `shifts[r]` (`"absolute"`) is added at the edited position in each of `layers` (None:
    all), times the layer's share where these are given.

    Raises:
        ValueError: a layer outside the model, given twice, or a share that is not finite.
        NotFiniteError: logits without a softmax; the edit is too large, or the model is broken.
    """
    check = LogitsCheck(model)
    shares = _layer_shares(model, layers)
    numbers = sequence_of.tolist()
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, number in enumerate(numbers):
        groups[sequences[number].ids[: sequences[number].edited_position]].append(row)
    alone: list[int] = []
    for prefix, rows in groups.items():
        cache = None
        if (len(rows) - 1) * len(prefix) >= _LEAST_SPARED:
            ids = torch.tensor([prefix], device=model.cfg.device)
            cache = prefix_cache(model, ids, stop_at_layer=int(model.cfg.n_layers))
        if cache is None:
            alone += rows
            continue
        for batch in _batches(model, sequences, numbers, rows, len(prefix), max_tokens):
            batch_sequences = [sequences[numbers[row]] for row in batch]
            yield from _run(model, batch_sequences, batch, shifts, shares, unit, len(prefix), cache, check)
    for batch in _batches(model, sequences, numbers, alone, 0, max_tokens):
        batch_sequences = [sequences[numbers[row]] for row in batch]
        yield from _run(model, batch_sequences, batch, shifts, shares, unit, 0, None, check)


def _layer_shares(model: HookedModel, layers: EditedLayers | None) -> dict[str, float]:
    """The share of the edit at each hook point; 1 where none is given."""
    layers = range(int(model.cfg.n_layers)) if layers is None else layers
    given = layers.items() if isinstance(layers, Mapping) else ((layer, 1.0) for layer in layers)
    shares: dict[str, float] = {}
    for layer, share in given:
        name = hook_name(model, layer)
        if name in shares:
            raise ValueError(f"layer {layer} of {list(layers)} was given twice; give each once")
        if not math.isfinite(float(share)):
            raise ValueError(f"layer {layer} gets {share} of the edit; give a finite number")
        shares[name] = float(share)
    return shares


def _batches(
    model: HookedModel,
    sequences: Sequence[EditedSequence],
    numbers: list[int],
    rows: list[int],
    skipped: int,
    max_tokens: int,
) -> Iterator[list[int]]:
    lengths = [len(sequences[numbers[row]].ids) - skipped for row in rows]
    for batch in length_batches(lengths, max_tokens=max_tokens):
        most = max(len(sequences[numbers[rows[place]]].wanted) for place in batch)
        size = max(1, MAX_LOGITS // (most * int(model.cfg.d_vocab)))
        for start in range(0, len(batch), size):
            yield [rows[place] for place in batch[start : start + size]]


def _run(
    model: HookedModel,
    sequences: list[EditedSequence],
    batch: list[int],
    shifts: Tensor,
    shares: dict[str, float],
    unit: Unit,
    skipped: int,
    cache: Any,
    check: LogitsCheck,
) -> Iterator[tuple[int, Tensor]]:
    device = model.cfg.device
    batch_shifts = shifts[batch]
    row = torch.arange(len(batch), device=device)
    overflowed = torch.zeros(len(batch), dtype=torch.bool, device=device)
    at = torch.tensor([sequence.edited_position - skipped for sequence in sequences], device=device)
    most = max(len(sequence.wanted) for sequence in sequences)
    wanted = torch.tensor(
        [[p - skipped for p in s.wanted] + [0] * (most - len(s.wanted)) for s in sequences], device=device
    )

    def edit(residual: Tensor, hook: Any, *, share: float) -> Tensor:
        h = wide_of(residual[row, at])
        changed = residual.clone()
        changed[row, at] = (h + shift_along(h, batch_shifts.to(h), share, unit)).to(residual.dtype)
        overflowed.logical_or_(~wide_of(changed[row, at]).norm(dim=-1).isfinite())
        return changed

    following = [sequence.ids[skipped:] for sequence in sequences]
    ids = right_padded(model, following)
    arguments: dict[str, Any] = {"attention_mask": torch.ones_like(ids)} if cache is None else {}
    if cache is not None:
        arguments = cache.arguments(ids.shape[1], n_rows=len(batch))
    editing: Hooks = [(name, partial(edit, share=share)) for name, share in shares.items()]
    fwd_hooks = [*editing, picked_before_unembedding(wanted)]
    with whole_rows(model, list(map(len, following))):
        logits = hooked_pass(model, ids, fwd_hooks=fwd_hooks, **arguments)
    check.require(logits, [sequence.ids for sequence in sequences], batch_shifts, overflowed)
    for place, number in enumerate(batch):
        yield number, logits[place, : len(sequences[place].wanted)]
