"""Reverse passes of HookedTransformer through the first and the last layer of a pair, where they matter alone.

Of the first layer's attention only what the subject gives it counts: other positions of the subject layer are held
fixed. Of the last layer only the object's positions are read. Everything between is needed at every position.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel, block_hook, is_hooked_transformer
from lrc_tl.models.hooking import Block, Hooks, Session, acting_hooks, replace_for

Projections = tuple[Tensor, ...]


def reads_only_objects(model: HookedModel, layer: int) -> bool:
    """Whether in this layer the positions that nobody reads can be left out.

    Not where that would show (hooks of others in the layer), nor where nothing can be left out (a
    TransformerBridge, a layer whose parts run side by side).
    """
    if not is_hooked_transformer(model) or model.cfg.attn_only or model.cfg.parallel_attn_mlp:
        return False
    return not any(acting_hooks(module) for module in model.blocks[layer].modules())


def object_hooks(layer: int, positions: Sequence[int]) -> Hooks:
    """Hooks that leave only `positions` in a layer, from what its heads put together on."""
    n_positions: list[int] = []

    def cut(z: Tensor, hook: Any) -> Tensor:
        n_positions[:] = [z.shape[1]]
        return _at(z, positions)

    def put_back(attention: Tensor, hook: Any) -> Tensor:
        nothing = attention.new_zeros(1, n_positions[0], attention.shape[2])
        return _put(nothing, attention, positions)

    return [
        (block_hook(layer, "attn.hook_z"), cut),
        (block_hook(layer, "hook_attn_out"), put_back),  # the residual stream before it has all positions
        (block_hook(layer, "hook_resid_mid"), lambda residual, hook: _at(residual, positions)),
    ]


def needed_gradients(
    model: HookedModel, *, lowest: int, highest: int, subject: int, objects: Sequence[int] | None
) -> Block:
    """Inside the block queries, keys and values give gradients where they can be needed, their values unchanged.

    In the layer above `lowest`, the lowest subject layer, to the subject's position alone. In `highest`, the
    highest object layer, queries at the positions of `objects` alone; None: all of them are needed. A layer with a
    hook in its attention stays as it is, and so does a TransformerBridge. For a pass of one text in this thread's
    turn with the model.
    """

    def put_on(session: Session) -> None:
        if not is_hooked_transformer(model):
            return
        for layer in sorted({lowest + 1, highest} & set(range(lowest + 1, highest + 1))):
            keys = [subject] if layer == lowest + 1 else None
            queries = keys
            if layer == highest and objects is not None:
                queries = [position for position in objects if keys is None or position in keys]
            attention: Any = model.blocks[layer].attn
            if (queries, keys) != (None, None) and not any(acting_hooks(part) for part in attention.modules()):
                projected = _projected(attention, (queries, keys, keys))
                replace_for(session, attention, "calculate_qkv_matrices", projected)

    return Block(put_on)


def _projected(attention: Any, needed: Sequence[Sequence[int] | None]) -> Callable[..., Projections]:
    project = attention.calculate_qkv_matrices

    def calculate_qkv_matrices(query_input: Tensor, key_input: Tensor, value_input: Tensor) -> Projections:
        inputs = (query_input, key_input, value_input)
        with torch.no_grad():
            everywhere = project(*inputs)
        parts = project(
            *(given if at is None else _at(given, at) for given, at in zip(inputs, needed, strict=True))
        )
        return tuple(
            part if at is None else _put(whole, part, at)
            for whole, part, at in zip(everywhere, parts, needed, strict=True)
        )

    return calculate_qkv_matrices


def _at(x: Tensor, positions: Sequence[int]) -> Tensor:
    """`x` at these positions of its second axis."""
    if _are_adjacent(positions):  # the reverse of a slice takes less than that of a list
        return x[:, positions[0] : positions[-1] + 1]
    return x[:, list(positions)]


def _put(x: Tensor, part: Tensor, positions: Sequence[int]) -> Tensor:
    """`x` with `part` at these positions of its second axis."""
    if _are_adjacent(positions):
        return torch.cat([x[:, : positions[0]], part, x[:, positions[-1] + 1 :]], dim=1)
    return x.index_copy(1, torch.tensor(list(positions), dtype=torch.long, device=x.device), part)


def _are_adjacent(positions: Sequence[int]) -> bool:
    return len(positions) > 0 and list(positions) == list(range(positions[0], positions[-1] + 1))
