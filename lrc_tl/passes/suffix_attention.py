"""Attention of HookedTransformer over a cached prefix, with gradients for the keys and values after it alone.

HookedTransformer joins cached and new keys before it rotates them, so a reverse pass computes gradients for the
whole text and then drops those of the prefix, at a cost that grows with the few-shot examples. Here the two parts
stay apart. 3.9 is the last TransformerLens with HookedTransformer, so the methods replaced here will not change.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_tl.models.hooking import Block, Session, replace_for


def suffix_gradients(model: Any, cache: Any, layers: Sequence[int]) -> Block:
    """Inside the block these layers give the same values, and no gradients to the positions in `cache`.

    For a HookedTransformer that is called with this cache, in this thread's turn. Hooks see what they always see.
    """

    def put_on(session: Session) -> None:
        for layer in layers:
            for owner, methods in _methods(model.blocks[layer].attn, cache[layer]):
                for name, method in methods.items():
                    replace_for(session, owner, name, method)

    return Block(put_on)


class _Joined:
    """A prefix and a suffix along one axis, joined, and later found again without cutting.

    The reverse of a cut fills a gradient of the whole length with zeros; a part that was kept needs none.
    """

    def __init__(self, n_prefix: int) -> None:
        self._n_prefix = n_prefix
        self._kept: list[tuple[Tensor, int, Tensor, Tensor]] = []

    def join(self, prefix: Tensor, suffix: Tensor) -> Tensor:
        joined = torch.cat([prefix, suffix], dim=1)
        self._kept.append((joined, joined._version, prefix, suffix))
        return joined

    def parts(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        for whole, version, prefix, suffix in self._kept:
            # A hook may have given another tensor, or changed this one in place.
            if whole is joined and joined._version == version:
                return prefix, suffix
        return joined[:, : self._n_prefix].detach(), joined[:, self._n_prefix :]


def _methods(attention: Any, entry: Any) -> list[tuple[Any, dict[str, Any]]]:
    rotate = attention.apply_rotary
    cap = float(attention.cfg.attn_scores_soft_cap)
    n_prefix = int(entry.past_keys.shape[1])
    both = _Joined(n_prefix)

    def append(new_keys: Tensor, new_values: Tensor) -> tuple[Tensor, Tensor]:
        return both.join(entry.past_keys, new_keys), both.join(entry.past_values, new_values)

    def apply_rotary(x: Tensor, past_kv_pos_offset: int = 0, attention_mask: Tensor | None = None) -> Tensor:
        if past_kv_pos_offset:  # queries: all of them come after the prefix
            rotated: Tensor = rotate(x, past_kv_pos_offset, attention_mask)
            return rotated
        prefix, suffix = both.parts(x)
        with torch.no_grad():
            prefix = rotate(prefix, 0, None)
        return both.join(prefix, rotate(suffix, n_prefix, None))

    def calculate_attention_scores(q: Tensor, k: Tensor) -> Tensor:
        queries = _grouped(q, k.shape[2])
        prefix, suffix = (part[0].permute(1, 2, 0) for part in both.parts(k))
        scores = torch.cat([_shared(queries, prefix), queries @ suffix], dim=-1)
        scores = scores.reshape(1, q.shape[2], q.shape[1], k.shape[1]) / attention.attn_scale
        return cap * torch.tanh(scores / cap) if cap > 0 else scores

    def calculate_z_scores(v: Tensor, pattern: Tensor) -> Tensor:
        n_heads, n_queries = pattern.shape[1:3]
        weights = pattern.reshape(v.shape[2], -1, v.shape[1])
        prefix, suffix = (part[0].permute(1, 0, 2) for part in both.parts(v))
        z = _shared(weights[..., :n_prefix], prefix) + weights[..., n_prefix:] @ suffix
        hooked: Tensor = attention.hook_z(z.reshape(n_heads, n_queries, -1).permute(1, 0, 2)[None])
        return hooked

    attending = {
        "apply_rotary": apply_rotary,
        "calculate_attention_scores": calculate_attention_scores,
        "calculate_z_scores": calculate_z_scores,
    }
    return [(entry, {"append": append}), (attention, attending)]


def _grouped(q: Tensor, n_groups: int) -> Tensor:
    """Queries `1 pos head d_head` as `group (head pos) d_head`: the heads of a group share keys and values."""
    return q[0].permute(1, 0, 2).reshape(n_groups, -1, q.shape[-1])


def _shared(varying: Tensor, constant: Tensor) -> Tensor:
    """`varying @ constant` for each group, as plain matrix products.

    Under vmap a batched product would copy the constant once for each row; a plain one joins the rows.
    """
    return torch.stack([left @ right for left, right in zip(varying, constant, strict=True)])
