"""Forward passes with an edit at one position: what lies before that position is run once and shared by many rows.

Nothing before the edited position depends on the edit, so rows that agree up to there (other strengths, directions
and objects on one prompt) take its keys and values from a cache.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.batches import (
    MAX_LOGITS,
    MAX_TOKENS,
    Hooks,
    length_batches,
    picked_before_unembedding,
    right_padded,
)
from lrc_tl.passes.finite import LogitsCheck
from lrc_tl.passes.growing_cache import GrowingCache, is_small
from lrc_tl.passes.padding import whole_rows
from lrc_tl.passes.prefix_cache import PrefixCache, growing_cache, keeps_own_cache, prefix_cache
from lrc_tl.relations.prompts import TokenizedPrompt
from lrc_tl.steering.operations import Unit, shift_along

EditedLayers: TypeAlias = Sequence[int] | Mapping[int, float]
"""Layers to edit, or the share of the edit that each of them gets."""
LayersGiven: TypeAlias = Iterable[int] | Mapping[int, float]
"""The same as a caller may give it: a generator or an array too, until `given_layers` has read it."""
_LEAST_SPARED = 128
"""Tokens that a cached prefix must spare its rows; below that, rows run whole in larger batches, which is faster:
each small batch reads all weights again."""
_LEAST_SPARED_ON_GPU = 2**13
"""The same where the model is not on the CPU: a prefix costs two passes more, which take their launches' time
there, however few tokens they run."""


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


Follow: TypeAlias = Callable[[int], Sequence[int] | None]
"""Asked for a row once its logits were given: the token ids to go on with, or None where that is all.

All of them but the last are what the row was run on, or its beginning; the logits behind the last come next.
"""


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
    follow: Follow | None = None,
) -> Iterator[tuple[int, Float[Tensor, "pos d_vocab"]]]:
    """For each row, its number and the logits at its sequence's wanted positions, in no fixed order.

    Row `r` runs `sequences[sequence_of[r]]` while `|h| shifts[r]` (`unit="share"`, |h| in the edited run, in the
    residual's dtype) or `shifts[r]` (`"absolute"`) is added at the edited position in each of `layers` (None:
    all), times the layer's share where these are given.

    With `follow` a row may go on token by token: its number comes again, with the logits behind the new token.
    Only that token is run where keys and values of the row could be kept, else the whole row.

    Raises:
        ValueError: a layer outside the model, given twice, or a share that is not finite.
        NotFiniteError: logits without a softmax; the edit is too large, or the model is broken.
    """
    runs = _Runs(model, sequences, sequence_of.tolist(), shifts, _layer_shares(model, layers), unit, follow)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, number in enumerate(runs.sequence_of):
        groups[sequences[number].ids[: sequences[number].edited_position]].append(row)
    alone: list[int] = []
    for prefix, rows in groups.items():
        cache = None
        if (len(rows) - 1) * len(prefix) >= least_spared(model.cfg.device):
            ids = torch.tensor([prefix], device=model.cfg.device)
            cache = prefix_cache(model, ids, stop_at_layer=int(model.cfg.n_layers))
        if cache is None:
            alone += rows
            continue
        for batch in _batches(model, sequences, runs.sequence_of, rows, len(prefix), max_tokens):
            yield from runs.of_batch(batch, len(prefix), cache)
    for batch in _batches(model, sequences, runs.sequence_of, alone, 0, max_tokens):
        yield from runs.of_batch(batch, 0, None)
    yield from runs.going_on()
    again = list(runs.again)
    if not again:
        return
    longer = [
        replace(sequences[runs.sequence_of[row]], ids=tuple(ids), wanted=(len(ids) - 1,))
        for row, ids in runs.again.items()
    ]
    in_order = torch.arange(len(again), device=HOST)
    for place, logits in edited_logits(
        model,
        longer,
        in_order,
        shifts[again],
        layers=layers,
        unit=unit,
        max_tokens=max_tokens,
        follow=None if follow is None else lambda place: follow(again[place]),
    ):
        yield again[place], logits


def least_spared(device: str | torch.device) -> int:
    """Tokens that a cached prefix must spare its rows on this device."""
    return _LEAST_SPARED if torch.device(device).type == HOST.type else _LEAST_SPARED_ON_GPU


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


class _Runs:
    """The batches of one `edited_logits`."""

    def __init__(
        self,
        model: HookedModel,
        sequences: Sequence[EditedSequence],
        sequence_of: list[int],
        shifts: Tensor,
        shares: dict[str, float],
        unit: Unit,
        follow: Follow | None,
    ) -> None:
        self._model, self._sequences, self.sequence_of = model, sequences, sequence_of
        self._shifts, self._shares, self._unit, self._follow = shifts, shares, unit, follow
        self._check = LogitsCheck(model)
        self.again: dict[int, Sequence[int]] = {}
        """Rows that go on but have to be run as a whole, with their token ids."""
        self._waiting: dict[int, list[_Waiting]] = defaultdict(list)
        """By how many token ids they have."""

    def of_batch(self, batch: list[int], skipped: int, cache: PrefixCache | None) -> Iterator[tuple[int, Tensor]]:
        """The logits of these rows, and of what follows them; `cache` holds their first `skipped` tokens."""
        model = self._model
        sequences = [self._sequences[self.sequence_of[row]] for row in batch]
        following = [sequence.ids[skipped:] for sequence in sequences]
        ids = right_padded(model, following)
        n_rows, width = ids.shape
        growing = self._growing(cache, n_rows=n_rows, length=skipped + width)
        if growing is not None:
            arguments = growing.arguments(width)
        elif cache is not None:
            arguments = cache.arguments(width, n_rows=n_rows)
        else:
            arguments = {"attention_mask": torch.ones_like(ids)}
        edit = _BatchEdit(model, sequences, self._shifts[batch], skipped, self._unit)
        editing: Hooks = [(name, partial(edit, share=share)) for name, share in self._shares.items()]
        most = max(len(sequence.wanted) for sequence in sequences)
        wanted = torch.tensor(
            [[p - skipped for p in s.wanted] + [0] * (most - len(s.wanted)) for s in sequences], device=ids.device
        )
        with whole_rows(model, list(map(len, following))):
            logits = hooked_pass(model, ids, fwd_hooks=[*editing, picked_before_unembedding(wanted)], **arguments)
        self._check.require(logits, [sequence.ids for sequence in sequences], self._shifts[batch], edit.overflowed)
        for place, row in enumerate(batch):
            yield row, logits[place, : len(sequences[place].wanted)]
        del logits
        if self._follow is not None:
            self._put_aside(batch, growing)
        if self.is_full:
            yield from self.going_on()

    def _growing(self, cache: PrefixCache | None, *, n_rows: int, length: int) -> GrowingCache | None:
        """A cache for rows some of which may go on; None where that is not asked, or cannot be kept."""
        model = self._model
        if self._follow is None or (cache is None and not keeps_own_cache(model)):
            return None
        if not is_small(model, n_rows, length):
            return None
        return growing_cache(model, n_rows=n_rows) if cache is None else cache.growing(n_rows=n_rows)

    def _put_aside(self, rows: Sequence[int], cache: GrowingCache | None) -> None:
        """Keep what is needed of those of the rows that go on."""
        assert self._follow is not None
        by_length: dict[int, dict[int, Sequence[int]]] = defaultdict(dict)
        for place, row in enumerate(rows):
            if (ids := self._follow(row)) is not None:
                by_length[len(ids)][place] = ids
        for length, ids_at in by_length.items():
            going = [rows[place] for place in ids_at]
            part = None if cache is None else cache.of_rows(list(ids_at), length - 1)
            if part is None:
                self.again |= dict(zip(going, ids_at.values(), strict=True))
            else:
                self._waiting[length].append(_Waiting(rows=going, ids=list(ids_at.values()), cache=part))

    @property
    def is_full(self) -> bool:
        """Whether as many rows wait as one pass takes, or as memory may be used for."""
        if not self._waiting:
            return False
        n_rows = sum(len(part.rows) for parts in self._waiting.values() for part in parts)
        return n_rows >= self._most_rows or not is_small(self._model, n_rows, max(self._waiting))

    @property
    def _most_rows(self) -> int:
        return max(1, MAX_LOGITS // int(self._model.cfg.d_vocab))

    def going_on(self) -> Iterator[tuple[int, Tensor]]:
        """The logits behind one more token, and another, of the rows that wait, until none goes on."""
        while self._waiting:
            for part in _joined(self._waiting.pop(min(self._waiting)), self._most_rows):
                last = torch.tensor([[ids[-1]] for ids in part.ids], device=self._model.cfg.device)
                logits = hooked_pass(self._model, last, fwd_hooks=[], **part.cache.arguments(1))
                self._check.require(logits, part.ids, self._shifts[part.rows])
                yield from zip(part.rows, logits, strict=True)
                del logits
                self._put_aside(part.rows, part.cache)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting:
    """Rows that go on by one token, the last of their `ids`; the cache holds the others."""

    rows: list[int]
    ids: list[Sequence[int]]
    cache: GrowingCache


def _joined(parts: Sequence[_Waiting], most: int) -> Iterator[_Waiting]:
    """The parts in larger ones of at most so many rows, as far as their caches can be joined."""
    together: list[_Waiting] = []
    for part in [*parts, None]:
        n_rows = sum(len(one.rows) for one in together)
        if together and (part is None or n_rows + len(part.rows) > most):
            first, *others = together
            cache = first.cache.joined([one.cache for one in others]) if others else None
            if cache is None:
                yield from together
            else:
                rows = [row for one in together for row in one.rows]
                yield _Waiting(rows=rows, ids=[ids for one in together for ids in one.ids], cache=cache)
            together = []
        if part is not None:
            together.append(part)


class _BatchEdit:
    """The edit of a batch, as a hook."""

    def __init__(
        self,
        model: HookedModel,
        sequences: Sequence[EditedSequence],
        shifts: Tensor,
        skipped: int,
        unit: Unit,
    ) -> None:
        device = model.cfg.device
        self._shifts, self._unit = shifts, unit
        self._row = torch.arange(len(sequences), device=device)
        self._at = torch.tensor([sequence.edited_position - skipped for sequence in sequences], device=device)
        self.overflowed = torch.zeros(len(sequences), dtype=torch.bool, device=device)
        """Rows in which the edit left a residual without a finite norm."""

    def __call__(self, residual: Tensor, hook: Any, *, share: float) -> Tensor:
        h = wide_of(residual[self._row, self._at])
        changed = residual.clone()
        shift = shift_along(h, self._shifts.to(h), share, self._unit)
        changed[self._row, self._at] = (h + shift).to(residual.dtype)
        self.overflowed.logical_or_(~wide_of(changed[self._row, self._at]).norm(dim=-1).isfinite())
        return changed
