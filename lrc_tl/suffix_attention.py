"""Attention of HookedTransformer over a cached prefix, with gradients for the keys and values after it alone.

HookedTransformer joins cached and new keys before it rotates them, so a reverse pass computes gradients for the
whole text and then drops those of the prefix, at a cost that grows with the few-shot examples. Here the two parts
stay apart. 3.9 is the last TransformerLens with HookedTransformer, so the methods replaced here will not change.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def suffix_gradients(model: Any, n_prefix: int, layers: Sequence[int]) -> Iterator[None]:
    """Inside the block these layers give the same values, and no gradients to the first `n_prefix` positions.

    For a HookedTransformer that is called with a cache of `n_prefix` positions. Hooks see what they always see.
    """
    with ExitStack() as stack:
        for layer in layers:
            attention = model.blocks[layer].attn
            for name, method in _methods(attention, n_prefix).items():
                # An attribute of the module hides the method of its class.
                setattr(attention, name, method)
                stack.callback(delattr, attention, name)
        yield


def _methods(attention: Any, n_prefix: int) -> dict[str, Any]:
    rotate = attention.apply_rotary
    cap = float(attention.cfg.attn_scores_soft_cap)

    def apply_rotary(x: Tensor, past_kv_pos_offset: int = 0, attention_mask: Tensor | None = None) -> Tensor:
        if past_kv_pos_offset:  # queries: all of them come after the prefix
            rotated: Tensor = rotate(x, past_kv_pos_offset, attention_mask)
            return rotated
        with torch.no_grad():
            prefix = rotate(x, 0, attention_mask)[:, :n_prefix]
        return torch.cat([prefix, rotate(x[:, n_prefix:], n_prefix, None)], dim=1)

    def calculate_attention_scores(q: Tensor, k: Tensor) -> Tensor:
        queries = _grouped(q, k.shape[2])
        keys = k[0].permute(1, 2, 0)
        both = [_shared(queries, keys[..., :n_prefix].detach()), queries @ keys[..., n_prefix:]]
        scores = torch.cat(both, dim=-1).reshape(1, q.shape[2], q.shape[1], k.shape[1]) / attention.attn_scale
        return cap * torch.tanh(scores / cap) if cap > 0 else scores

    def calculate_z_scores(v: Tensor, pattern: Tensor) -> Tensor:
        n_heads, n_queries = pattern.shape[1:3]
        weights = pattern.reshape(v.shape[2], -1, v.shape[1])
        values = v[0].permute(1, 0, 2)
        z = _shared(weights[..., :n_prefix], values[:, :n_prefix].detach())
        z = z + weights[..., n_prefix:] @ values[:, n_prefix:]
        hooked: Tensor = attention.hook_z(z.reshape(n_heads, n_queries, -1).permute(1, 0, 2)[None])
        return hooked

    return {
        "apply_rotary": apply_rotary,
        "calculate_attention_scores": calculate_attention_scores,
        "calculate_z_scores": calculate_z_scores,
    }


def _grouped(q: Tensor, n_groups: int) -> Tensor:
    """Queries `1 pos head d_head` as `group (head pos) d_head`: the heads of a group share keys and values."""
    return q[0].permute(1, 0, 2).reshape(n_groups, -1, q.shape[-1])


def _shared(varying: Tensor, constant: Tensor) -> Tensor:
    """`varying @ constant` for each group, as plain matrix products.

    Under vmap a batched product would copy the constant once for each row; a plain one joins the rows.
    """
    return torch.stack([left @ right for left, right in zip(varying, constant, strict=True)])
