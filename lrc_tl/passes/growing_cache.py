"""Keys and values of several rows, to which passes add: a row that goes on by a token is not run again."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST

_MOST_BYTES = 2**29
"""Keys and values that are kept of a batch; rows of a larger one are run again."""


@runtime_checkable
class GrowingCache(Protocol):
    """Keys and values of several rows; a pass with these arguments adds the tokens that it runs."""

    def arguments(self, n_following: int) -> dict[str, Any]:
        """Arguments of a forward pass over the next `n_following` tokens of each row."""

    def of_rows(self, rows: Sequence[int], length: int) -> "GrowingCache | None":
        """What is kept of these rows' first `length` tokens, in memory of its own; None where it cannot be cut."""

    def joined(self, others: Sequence["GrowingCache"]) -> "GrowingCache | None":
        """The rows of this cache and of others with as many tokens, in order; None where they cannot be joined."""


def is_small(model: HookedModel, n_rows: int, length: int) -> bool:
    """Whether keys and values of so many rows of so many tokens may be kept."""
    cfg = model.cfg
    n_heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    width = 2 * int(n_heads) * int(cfg.d_head) * int(cfg.n_layers)
    return n_rows * length * width * int(cfg.dtype.itemsize) <= _MOST_BYTES


class GrowingHookedCache:
    """HookedTransformer's cache."""

    def __init__(self, cache: Any) -> None:
        entries = [replace(entry, frozen=False) for entry in cache.entries]
        self._cache = replace(cache, entries=entries, frozen=False)

    @classmethod
    def empty(cls, model: Any, n_rows: int) -> "GrowingHookedCache":
        """Of rows of which nothing was run."""
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        return cls(TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, n_rows))

    def arguments(self, n_following: int) -> dict[str, Any]:
        mask = self._cache.previous_attention_mask
        return {"past_kv_cache": self._cache, "attention_mask": mask.new_ones(len(mask), n_following)}

    def of_rows(self, rows: Sequence[int], length: int) -> "GrowingHookedCache":
        def cut(kept: Tensor) -> Tensor:
            return kept[list(rows), :length]

        entries = [
            replace(entry, past_keys=cut(entry.past_keys), past_values=cut(entry.past_values))
            for entry in self._cache.entries
        ]
        mask = cut(self._cache.previous_attention_mask)
        return GrowingHookedCache(replace(self._cache, entries=entries, previous_attention_mask=mask))

    def joined(self, others: Sequence[GrowingCache]) -> "GrowingHookedCache | None":
        caches = [self._cache, *(other._cache for other in others if isinstance(other, GrowingHookedCache))]
        entries = [
            replace(
                layer[0],
                past_keys=torch.cat([entry.past_keys for entry in layer]),
                past_values=torch.cat([entry.past_values for entry in layer]),
            )
            for layer in zip(*(cache.entries for cache in caches), strict=True)
        ]
        mask = torch.cat([cache.previous_attention_mask for cache in caches])
        return GrowingHookedCache(replace(self._cache, entries=entries, previous_attention_mask=mask))


class GrowingHuggingFaceCache:
    """A cache of the library that a Bridge wraps, never cut: how that is asked for differs by version."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def arguments(self, n_following: int) -> dict[str, Any]:
        return {"past_key_values": self._cache, "use_cache": True}

    def of_rows(self, rows: Sequence[int], length: int) -> "GrowingHuggingFaceCache | None":
        if int(self._cache.get_seq_length()) != length:
            return None
        cache = deepcopy(self._cache)
        cache.batch_select_indices(torch.tensor(list(rows), device=HOST))
        return GrowingHuggingFaceCache(cache)

    def joined(self, others: Sequence[GrowingCache]) -> None:
        return None
