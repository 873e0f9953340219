"""Keys and values of the tokens before the subject: run once, without gradients.

Nothing before the subject depends on it, so only the subject and what follows need a graph. HookedTransformer has
its own cache; a Bridge around a Hugging Face model takes that library's. Like `models`, this module may import
`transformer_lens` and `transformers`, and does so only when it is used.
"""

import inspect
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from lrc_tl.models.clean_pass import clean_pass
from lrc_tl.models.hooked_model import HookedModel, block_hook, is_bridge, is_hooked_transformer
from lrc_tl.models.hooking import Block, hooked_pass
from lrc_tl.passes.batches import length_batches, right_padded
from lrc_tl.passes.growing_cache import GrowingCache, GrowingHookedCache, GrowingHuggingFaceCache
from lrc_tl.passes.suffix_attention import suffix_gradients
from lrc_tl.passes.tracking import is_steered


@runtime_checkable
class PrefixCache(Protocol):
    """Keys and values of a run prefix."""

    def arguments(self, n_following: int, *, n_rows: int = 1) -> dict[str, Any]:
        """Arguments of one forward pass over the next `n_following` tokens of each row.

        All rows share the prefix; the cache itself stays as it is.
        """

    def growing(self, *, n_rows: int) -> GrowingCache:
        """A cache of `n_rows` rows that begin with the prefix, for passes to add to; this one stays as it is."""

    def without_gradients(self, layers: Sequence[int]) -> Block:
        """Around that forward pass: no gradients to the prefix in these layers, where there would be some."""


def prefix_cache(model: HookedModel, prefix: Int[Tensor, "1 pos"], *, stop_at_layer: int) -> PrefixCache | None:
    """The keys and values of `prefix` in the layers below `stop_at_layer`, computed here without gradients.

    None where there is no prefix, or where the model keeps no cache that can be trusted (a Bridge around one of
    TransformerLens's own small models, or one that leaves its layers' caches empty; a HookedTransformer with
    ungrouped keys): then run the whole sequence. None too while a steering is on: it may count from the end of a
    text, of which a prefix knows nothing.
    """
    if prefix.shape[1] == 0 or is_steered(model):
        return None
    if keeps_own_cache(model):
        return _HookedCache(model, prefix, stop_at_layer)
    if is_hooked_transformer(model):
        return None
    return _hugging_face_cache(model, prefix, stop_at_layer)


def prefix_caches(
    model: HookedModel, prefixes: Sequence[Sequence[int]], *, stop_at_layer: int
) -> list[PrefixCache | None]:
    """`prefix_cache` of each, those of a HookedTransformer from batched passes."""
    caches: list[PrefixCache | None] = [None] * len(prefixes)
    if is_steered(model):
        return caches
    if not keeps_own_cache(model):
        rows = [torch.tensor([list(prefix)], dtype=torch.long, device=model.cfg.device) for prefix in prefixes]
        return [prefix_cache(model, row, stop_at_layer=stop_at_layer) for row in rows]
    filled = [number for number, prefix in enumerate(prefixes) if prefix]
    for batch in length_batches([len(prefixes[number]) for number in filled]):
        chosen = [filled[row] for row in batch]
        ids = right_padded(model, [prefixes[number] for number in chosen])
        together = _HookedCache(model, ids, stop_at_layer)
        for row, number in enumerate(chosen):
            caches[number] = together.row(row, len(prefixes[number]))
    return caches


def growing_cache(model: HookedModel, *, n_rows: int) -> GrowingCache | None:
    """An empty cache of so many rows; None where only a HookedTransformer's own would do, or a steering is on."""
    if is_steered(model) or not keeps_own_cache(model):
        return None
    return GrowingHookedCache.empty(model, n_rows)


def keeps_followed_cache(model: HookedModel) -> bool:
    """Whether the model, generating with a cache, tells how many tokens that holds: else steering cannot follow.

    Models without attention keep a state of no length, and some adapters of the Bridge leave the cache empty. The
    answer for a class comes from one pass of two tokens.
    """
    if not is_bridge(model):
        return True
    wrapped = model.original_model
    kind = type(wrapped)
    if kind not in _follows_cache:
        _follows_cache[kind] = _tells_of_its_cache(model, wrapped)
    return _follows_cache[kind]


_follows_cache: dict[type, bool] = {}


def _tells_of_its_cache(model: HookedModel, wrapped: Any) -> bool:
    from transformers import DynamicCache, PretrainedConfig

    config = getattr(wrapped, "config", None)
    if not isinstance(config, PretrainedConfig):  # one of TransformerLens's own small models
        return True
    if "past_key_values" not in inspect.signature(wrapped.forward).parameters:
        return False
    cache = DynamicCache(config=config)
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.cfg.device)
    last = block_hook(int(model.cfg.n_layers) - 1)
    clean_pass(
        model,
        lambda: model(ids, past_key_values=cache, use_cache=True),
        reads=[(last, lambda residual, hook: None)],
    )
    return bool(cache.layers) and int(cache.get_seq_length()) == 2


def keeps_own_cache(model: HookedModel) -> bool:
    """Whether the model takes TransformerLens's own cache."""
    # Its cache has one entry a key-value head, which fails for keys that are spread over all heads.
    return is_hooked_transformer(model) and not model.cfg.ungroup_grouped_query_attention


class _HookedCache:
    """HookedTransformer's cache, frozen so that a forward pass leaves it as it was."""

    def __init__(self, model: Any, prefix: Tensor, stop_at_layer: int) -> None:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        self._cache = TransformerLensKeyValueCache.init_cache(model.cfg, prefix.device, len(prefix))
        hooked_pass(
            model,
            prefix,
            fwd_hooks=[],
            past_kv_cache=self._cache,
            attention_mask=torch.ones_like(prefix),
            stop_at_layer=stop_at_layer,
        )
        self._cache.freeze()
        self._prefix = prefix
        self._model = model

    def row(self, number: int, length: int) -> "_HookedCache":
        """The cache of one row of a batch that is padded on the right, in memory of its own."""
        cache_of_row = copy(self)
        rows = slice(number, number + 1)
        cache_of_row._prefix = self._prefix[rows, :length]
        cache_of_row._cache = copy(self._cache)
        cache_of_row._cache.previous_attention_mask = self._cache.previous_attention_mask[rows, :length]
        cache_of_row._cache.entries = [copy(entry) for entry in self._cache.entries]
        for entry in cache_of_row._cache.entries:  # those above the last layer run are empty
            entry.past_keys = entry.past_keys[rows, :length].clone()
            entry.past_values = entry.past_values[rows, :length].clone()
        return cache_of_row

    def arguments(self, n_following: int, *, n_rows: int = 1) -> dict[str, Any]:
        following = torch.ones(n_rows, n_following, dtype=self._prefix.dtype, device=self._prefix.device)
        return {"past_kv_cache": self._of_rows(n_rows), "attention_mask": following}

    def growing(self, *, n_rows: int) -> GrowingCache:
        return GrowingHookedCache(self._of_rows(n_rows))

    def _of_rows(self, n_rows: int) -> Any:
        cache = self._cache
        if n_rows == 1:
            return cache
        entries = [
            replace(
                entry,
                past_keys=entry.past_keys.expand(n_rows, -1, -1, -1),
                past_values=entry.past_values.expand(n_rows, -1, -1, -1),
            )
            for entry in cache.entries
        ]
        mask = cache.previous_attention_mask.expand(n_rows, -1)
        return replace(cache, entries=entries, previous_attention_mask=mask)

    def without_gradients(self, layers: Sequence[int]) -> Block:
        return suffix_gradients(self._model, self._cache, layers)


class _HuggingFaceCache:
    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def arguments(self, n_following: int, *, n_rows: int = 1) -> dict[str, Any]:
        return self.growing(n_rows=n_rows).arguments(n_following)

    def growing(self, *, n_rows: int) -> GrowingCache:
        # A forward pass appends to the cache that it is given: a second pass would attend to the suffix twice.
        cache = deepcopy(self._cache)
        if n_rows > 1:
            cache.batch_repeat_interleave(n_rows)
        return GrowingHuggingFaceCache(cache)

    def without_gradients(self, layers: Sequence[int]) -> Block:
        return Block(lambda session: None)


def _hugging_face_cache(model: Any, prefix: Tensor, stop_at_layer: int) -> _HuggingFaceCache | None:
    wrapped = model.original_model
    config = getattr(wrapped, "config", None)
    if config is None or "past_key_values" not in inspect.signature(wrapped.forward).parameters:
        return None
    from transformers import DynamicCache, PretrainedConfig
    from transformers.cache_utils import CacheLayerMixin

    if not isinstance(config, PretrainedConfig):
        return None
    cache = DynamicCache(config=config)
    # Layers of linear attention keep a state in place of keys, which cannot be cut or repeated as these are.
    if not all(isinstance(layer, CacheLayerMixin) for layer in cache.layers[:stop_at_layer]):
        return None
    hooked_pass(model, prefix, fwd_hooks=[], past_key_values=cache, use_cache=True, stop_at_layer=stop_at_layer)
    filled = [cache.get_seq_length(layer) for layer in range(min(stop_at_layer, len(cache.layers)))]
    # Some adapters warn and leave the cache empty; a model with recurrent layers has no keys to count.
    if len(filled) < stop_at_layer or any(length != prefix.shape[1] for length in filled):
        return None
    return _HuggingFaceCache(cache)
