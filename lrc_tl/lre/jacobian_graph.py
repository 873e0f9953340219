"""The graph of one prompt that Jacobians go through, and how many of their rows memory is enough for."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lrc_tl.errors import NotFiniteError
from lrc_tl.lre.lean_reverse import lean_reverse
from lrc_tl.lre.mlp_jacobian import bytes_kept, is_worth_it
from lrc_tl.lre.needed_positions import needed_gradients, object_hooks, reads_only_objects
from lrc_tl.models.hooked_model import HookedModel, hook_name, is_hooked_transformer
from lrc_tl.models.hooking import hooked_pass, inside
from lrc_tl.models.sizes import ModelSizes, model_sizes
from lrc_tl.models.weights import require_differentiable
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.padding import whole_rows
from lrc_tl.passes.prefix_cache import PrefixCache, prefix_cache
from lrc_tl.relations.object_aggregation import Aggregations, aggregations
from lrc_tl.relations.prompts import TokenizedPrompt, object_positions
from lrc_tl.turns import turn

Pair: TypeAlias = tuple[int, int]
"""A subject layer and an object layer."""
ROWS_AT_ONCE = 128
"""Rows of a Jacobian in one reverse pass on a CPU: few enough for the cache, enough for full matrix products."""


def checked_positions(
    model: HookedModel,
    tokens: TokenizedPrompt,
    object_layers: Iterable[int],
    object_aggregation: Aggregations,
) -> dict[int, list[int]]:
    """Positions of the object at each object layer, after checks that its Jacobian can be computed.

    Raises:
        ValueError: as `subject_object_jacobians`, except for layers and memory; a layer without an aggregation.
    """
    of_layers = aggregations(object_layers, object_aggregation)
    require_differentiable(model)
    positions = {layer: object_positions(tokens, aggregation) for layer, aggregation in of_layers.items()}
    first = min(at[0] for at in positions.values())
    if first < tokens.subject_position:
        raise ValueError(
            f"the object is read at position {first}, before the subject at "
            f"{tokens.subject_position}, which cannot act on it; the text must go on after the subject"
        )
    return positions


def goes_forward(pairs: Sequence[Pair]) -> bool:
    """Whether columns that go up from each subject layer pass fewer layers than rows down from each object layer.

    Columns from one subject layer serve all object layers above it, and rows from one object layer all subject
    layers below it.
    """
    up: dict[int, int] = {}
    down: dict[int, int] = {}
    for subject, object_ in pairs:
        up[subject] = max(up.get(subject, 0), object_ - subject)
        down[object_] = max(down.get(object_, 0), object_ - subject)
    return sum(up.values()) < sum(down.values())


def n_exact_passes(pairs: Sequence[Pair]) -> int:
    """Passes of `d_model` rows or columns that the whole Jacobians of these pairs take."""
    return len({subject for subject, _ in pairs} if goes_forward(pairs) else {object_ for _, object_ in pairs})


def subject_object_graph(
    model: HookedModel,
    tokens: TokenizedPrompt,
    pairs: Sequence[Pair],
    positions: Mapping[int, Sequence[int]],
    *,
    cache: PrefixCache | None = None,
    mlp_jacobians: bool = False,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The subject's residual at each subject layer and the object at each object layer, in one graph.

    `positions` are those of the object at each object layer.
    `cache` is that of the tokens before the subject; it is made here where none is given. `mlp_jacobians` pay
    where many rows are pulled back through the graph, which keeps them.
    """
    subject_layers = {subject for subject, _ in pairs}
    object_layers = {object_ for _, object_ in pairs}
    lowest, highest = min(subject_layers), max(object_layers)
    ids = torch.tensor([tokens.input_ids], device=model.cfg.device)
    start = tokens.subject_position
    if cache is None:
        cache = prefix_cache(model, ids[:, :start], stop_at_layer=highest + 1)
    skipped = start if cache is not None else 0
    subject_at = start - skipped
    object_at = {layer: [position - skipped for position in at] for layer, at in positions.items()}
    subjects: dict[int, Tensor] = {}
    objects: dict[int, Tensor] = {}
    reads_objects_alone = False

    def at(layer: int) -> Any:
        # One function a layer: an object at a subject layer is read from the tensor that holds the subject.
        def take(residual: Tensor, hook: Any) -> Tensor:
            if layer in subject_layers:
                # A copy in float32 or wider, so that gradients of a narrower model arrive there.
                subject = wide_of(residual[0, subject_at]).clone()
                if layer == lowest:
                    residual, subject = residual.detach(), subject.detach().requires_grad_(True)
                subjects[layer] = subject
                # The subject must be a tensor that everything later really uses, or it has no gradient.
                same = subject.to(residual.dtype)[None, None]
                rebuilt = [residual[:, :subject_at], same, residual[:, subject_at + 1 :]]
                residual = torch.cat(rebuilt, dim=1)
            if layer in object_layers:
                read = residual[0] if reads_objects_alone and layer == highest else residual[0, object_at[layer]]
                objects[layer] = wide_of(read).mean(0)
            return residual

        return take

    fwd_hooks = [(hook_name(model, layer), at(layer)) for layer in sorted(subject_layers | object_layers)]
    arguments = cache.arguments(ids.shape[1] - skipped) if cache is not None else {}
    layers = range(lowest + 1, highest + 1)

    def work() -> None:
        hooks = [*fwd_hooks, *(object_hooks(highest, object_at[highest]) if reads_objects_alone else [])]
        # Steering that is on is told where the text ends; there is no cache then.
        with whole_rows(model, [ids.shape[1] - skipped]):
            hooked_pass(
                model, ids[:, skipped:], fwd_hooks=hooks, stop_at_layer=highest + 1, gradients=True, **arguments
            )

    # Replaced methods and cached entries are the model's: one fit at a time.
    with turn(model):
        reads_objects_alone = _reads_objects_alone(model, pairs)
        needed = needed_gradients(
            model,
            lowest=lowest,
            highest=highest,
            subject=subject_at,
            objects=object_at[highest] if reads_objects_alone else None,
        )
        run = partial(inside, cache.without_gradients(layers), work) if cache is not None else work
        inside(lean_reverse(model, layers, mlp_jacobians=mlp_jacobians), partial(inside, needed, run))
    for kind, taken in (("subject", subjects), ("object", objects)):
        for layer, activation in taken.items():
            if not torch.isfinite(activation).all():
                raise NotFiniteError(
                    f"the {kind} activation of {tokens.prompt.text!r} at layer {layer} is not finite; load the "
                    "model in float32 or float64 and check its weights"
                )
    return subjects, objects


def _reads_objects_alone(model: HookedModel, pairs: Sequence[Pair]) -> bool:
    """Whether the highest layer ends with the object's positions."""
    highest = max(object_ for _, object_ in pairs)
    return highest not in {subject for subject, _ in pairs} and reads_only_objects(model, highest)


def mlp_jacobian_bytes(
    model: HookedModel, tokens: TokenizedPrompt, pairs: Sequence[Pair], memory_limit: int | None
) -> int:
    """What the Jacobians of the MLPs take in a grid; 0 where the reverse passes had better go without them."""
    n_rows = n_exact_passes(pairs) * int(model.cfg.d_model)
    kept = mlp_jacobian_size(model, tokens, pairs)
    return kept if mlp_jacobians_pay(model, n_rows) and kept <= mlp_jacobian_room(model, memory_limit) else 0


def mlp_jacobians_pay(model: HookedModel, n_rows: int) -> bool:
    """Whether so many rows, pulled back through one graph, take less with the Jacobians of the MLPs."""
    return is_hooked_transformer(model) and is_worth_it(model, n_rows)


def mlp_jacobian_size(model: HookedModel, tokens: TokenizedPrompt, pairs: Sequence[Pair]) -> int:
    """Bytes of the Jacobians of the MLPs that rows of these pairs go through, at most."""
    lowest, highest = min(subject for subject, _ in pairs), max(object_ for _, object_ in pairs)
    n_after = len(tokens.input_ids) - tokens.subject_position
    n_places = n_after * (highest - lowest)
    if n_places and _reads_objects_alone(model, pairs):
        n_places -= n_after - len(tokens.object_ids)
    return bytes_kept(model, n_places)


def mlp_jacobian_room(model: HookedModel, memory_limit: int | None) -> int:
    """Bytes that Jacobians of MLPs may take at any time: a quarter of the memory that there is for a fit.

    On a CPU, without a limit, a quarter of what the weights take: beside those they shall not show.
    """
    free = free_bytes(torch.device(model.cfg.device))
    if memory_limit is not None:
        return memory_limit // 4
    if free is not None:
        return free // 4
    return sum(parameter.nbytes for parameter in model.parameters()) // 4


def rows_at_once(model: HookedModel, tokens: TokenizedPrompt, memory_limit: int | None, *, kept: int = 0) -> int:
    """Rows of a Jacobian in one pass, by default as many as run fast, and on a GPU as fit into what is free there.

    `kept` bytes are taken by something else all the while.

    Raises:
        ValueError: `memory_limit` is too small for one row.
    """
    d_model = int(model.cfg.d_model)
    device = torch.device(model.cfg.device)
    if memory_limit is None and device.type == HOST.type:
        return min(d_model, ROWS_AT_ONCE)
    n_tokens = len(tokens.input_ids)
    row = row_bytes(model_sizes(model), n_tokens=n_tokens, n_after=n_tokens - tokens.subject_position)
    if memory_limit is None:
        free = free_bytes(device)
        return d_model if free is None else max(1, min(d_model, (free - kept) // row))
    if memory_limit < row:
        raise ValueError(
            f"memory_limit is {memory_limit} bytes, but one row of the Jacobian takes about {row}; raise it, or "
            "give shorter prompts"
        )
    return int(min(d_model, max(1, (memory_limit - kept) // row)))


def row_bytes(sizes: ModelSizes, *, n_tokens: int, n_after: int) -> int:
    """What one row takes at the worst moment of a block: a few tensors of the widest kind, keys of all tokens."""
    after = n_after * (4 * sizes.d_mlp + 4 * sizes.d_model + 4 * sizes.d_heads)
    return sizes.itemsize * (after + 4 * n_tokens * sizes.d_heads)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be had on a GPU, what torch holds back there included; None on other devices."""
    if device.type != "cuda":
        return None
    held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held_back


def row_pieces() -> PieceSize:
    """Of a fit, whose prompts share it."""
    return PieceSize("rows of a Jacobian")
