"""Exact Jacobians of the object activation with respect to the residual stream at the subject."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import NotFiniteError
from lrc_tl.lre.lean_reverse import lean_reverse, only_positions_hook
from lrc_tl.lre.mlp_jacobian import bytes_kept, is_worth_it
from lrc_tl.markup.brief import brief_fields
from lrc_tl.models.hooked_model import HookedModel, hook_name, is_hooked_transformer, layer_number
from lrc_tl.models.hooking import hooked_pass, inside
from lrc_tl.models.sizes import ModelSizes, model_sizes
from lrc_tl.models.weights import require_differentiable
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.padding import whole_rows
from lrc_tl.passes.prefix_cache import PrefixCache, prefix_cache
from lrc_tl.relations.prompts import ObjectAggregation, TokenizedPrompt, object_positions
from lrc_tl.turns import turn

ROWS_AT_ONCE = 128
"""Rows of a Jacobian in one reverse pass on a CPU: few enough for the cache, enough for full matrix products."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectObjectJacobian:
    """First-order behaviour of one prompt between a subject layer and an object layer."""

    jacobian: Float[Tensor, "d_object d_subject"]
    subject: Float[Tensor, " d_subject"]
    """Residual stream at the last subject token, subject layer."""
    object: Float[Tensor, " d_object"]
    """Residual stream at the object positions, object layer: their mean, or the first."""

    __repr__ = brief_fields


def check_layers(model: HookedModel, subject_layer: int, object_layer: int) -> tuple[int, int]:
    """Both layers counted from the start.

    Raises:
        ValueError: a layer is outside the model, or the object layer lies below the subject layer.
    """
    subject, object_ = layer_number(model, subject_layer), layer_number(model, object_layer)
    if object_ < subject:
        raise ValueError(
            f"object layer {object_} lies below subject layer {subject}; read the object at the same layer or a "
            "later one"
        )
    return subject, object_


def layer_pairs(
    model: HookedModel, subject_layers: Sequence[int], object_layers: Sequence[int]
) -> list[tuple[int, int]]:
    """Every (subject layer, object layer) with the object at the subject's layer or above, counted from the start.

    Raises:
        ValueError: a layer is outside the model, or no pair is left.
    """
    subjects = sorted({layer_number(model, layer) for layer in as_tuple(subject_layers, "subject_layers")})
    objects = sorted({layer_number(model, layer) for layer in as_tuple(object_layers, "object_layers")})
    pairs = [(subject, object_) for object_ in objects for subject in subjects if subject <= object_]
    if not pairs:
        raise ValueError(
            f"no pair of layers: subject layers {subjects or 'none'}, object layers {objects or 'none'}; an "
            "object layer must be a subject layer or lie above one"
        )
    return pairs


@numbers_checked
def subject_object_jacobian(
    model: HookedModel,
    tokens: TokenizedPrompt,
    *,
    subject_layer: int,
    object_layer: int,
    object_aggregation: ObjectAggregation = "mean",
    memory_limit: int | None = None,
) -> SubjectObjectJacobian:
    """d object / d subject with every other position of the subject layer held fixed.

    See `subject_object_jacobians`, which this calls for one subject layer.

    Raises:
        ValueError: as `subject_object_jacobians`.
    """
    subject_layer, object_layer = check_layers(model, subject_layer, object_layer)
    pairs = jacobian_grid(
        model,
        tokens,
        [(subject_layer, object_layer)],
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
    )
    return next(pairs)[1]


@numbers_checked
def subject_object_jacobians(
    model: HookedModel,
    tokens: TokenizedPrompt,
    *,
    subject_layers: Sequence[int],
    object_layer: int,
    object_aggregation: ObjectAggregation = "mean",
    memory_limit: int | None = None,
) -> dict[int, SubjectObjectJacobian]:
    """d object / d subject for each subject layer (counted from the start), all from one reverse pass.

    `J_l = d object / d h_l[subject]`, where `h_l` is the residual stream after layer `l` and its other positions
    are held fixed: the gradient that the reverse pass has at that position on its way down. At equal layers J is
    the identity where the positions coincide (over n where n positions are averaged) and zero where they do not.
    All tensors are float32 or wider. A bfloat16 or float16 model is run and differentiated in its own dtype; the
    activations that are read, and all sums over prompts, are float32.

    Args:
        memory_limit: bytes that the reverse pass may add to the model, its activations and the results; sets how
            many rows of the Jacobian are computed at once. By default as many as run fast.

    Raises:
        ValueError: bad layers; the object is read before the subject; weights that are inference tensors;
            `memory_limit` is too small for one row.
        NotFiniteError: activations or a Jacobian that are not finite.
        ModelError: weights that are quantised, or lie on several devices.
        OutOfMemoryError: there is no memory for one row. Before that, with a warning, fewer are computed at once.
    """
    subject_layers = as_tuple(subject_layers, "subject_layers")
    pairs = [check_layers(model, subject_layer, object_layer) for subject_layer in subject_layers]
    if not pairs:
        raise ValueError("no subject layers; give at least one")
    grid = jacobian_grid(model, tokens, pairs, object_aggregation=object_aggregation, memory_limit=memory_limit)
    return {subject_layer: jacobian for (subject_layer, _), jacobian in grid}


def jacobian_grid(
    model: HookedModel,
    tokens: TokenizedPrompt,
    pairs: Sequence[tuple[int, int]],
    *,
    object_aggregation: ObjectAggregation = "mean",
    memory_limit: int | None = None,
    pieces: PieceSize | None = None,
) -> Iterator[tuple[tuple[int, int], SubjectObjectJacobian]]:
    """Each (subject layer, object layer) of `pairs`, made by `layer_pairs`, with its Jacobian.

    One forward pass for all pairs and one reverse pass for each object layer. The results of one object layer are
    in memory together. Where memory runs out, fewer rows are computed at once; prompts that share `pieces`
    remember how many.

    Raises:
        ValueError: as `subject_object_jacobians`, except for the layers.
        OutOfMemoryError: as `subject_object_jacobians`.
    """
    pieces = row_pieces() if pieces is None else pieces
    positions = checked_positions(model, tokens, object_aggregation)
    kept = mlp_jacobian_bytes(model, tokens, pairs, memory_limit)
    n_rows = rows_at_once(model, tokens, memory_limit, kept=kept)
    # Entered for each piece of work, and never across a yield: these modes belong to the caller's thread.
    with torch.inference_mode(False), torch.enable_grad():
        subjects, objects = subject_object_graph(model, tokens, pairs, positions, mlp_jacobians=kept > 0)
    for object_layer in sorted(objects):
        wanted = sorted({subject for subject, object_ in pairs if object_ == object_layer})
        with torch.inference_mode(False), torch.enable_grad():
            jacobians = _reverse(objects[object_layer], [subjects[layer] for layer in wanted], n_rows, pieces)
        for layer, jacobian in zip(wanted, jacobians, strict=True):
            if not torch.isfinite(jacobian).all():
                raise NotFiniteError(
                    f"the Jacobian of {tokens.prompt.text!r} from layer {layer} to {object_layer} is not finite; "
                    "load the model in float32 or float64 and check its weights"
                )
            yield (
                (layer, object_layer),
                SubjectObjectJacobian(
                    jacobian=jacobian, subject=subjects[layer].detach(), object=objects[object_layer].detach()
                ),
            )


def checked_positions(
    model: HookedModel, tokens: TokenizedPrompt, object_aggregation: ObjectAggregation
) -> list[int]:
    """Positions of the object, after checks that its Jacobian can be computed.

    Raises:
        ValueError: as `subject_object_jacobians`, except for layers and memory.
    """
    if object_aggregation not in get_args(ObjectAggregation):
        allowed = " or ".join(map(repr, get_args(ObjectAggregation)))
        raise ValueError(f"object_aggregation is {object_aggregation!r}; allowed are {allowed}")
    require_differentiable(model)
    positions = object_positions(tokens, object_aggregation)
    if positions[0] < tokens.subject_position:
        raise ValueError(
            f"the object is read at position {positions[0]}, before the subject at "
            f"{tokens.subject_position}, which cannot act on it; the text must go on after the subject"
        )
    return positions


def mlp_jacobian_bytes(
    model: HookedModel, tokens: TokenizedPrompt, pairs: Sequence[tuple[int, int]], memory_limit: int | None
) -> int:
    """What the Jacobians of the MLPs take in a grid; 0 where the reverse passes had better go without them."""
    object_layers = {object_ for _, object_ in pairs}
    if not is_hooked_transformer(model) or not is_worth_it(model, len(object_layers) * int(model.cfg.d_model)):
        return 0
    n_layers = max(object_layers) - min(subject for subject, _ in pairs)
    n_positions = len(tokens.input_ids) - tokens.subject_position
    kept = bytes_kept(model, n_layers=n_layers, n_positions=n_positions)
    free = free_bytes(torch.device(model.cfg.device))
    if memory_limit is not None:
        most = memory_limit // 4
    elif free is not None:
        most = free // 4
    else:  # on a CPU, beside the weights, they shall not show
        most = sum(parameter.nbytes for parameter in model.parameters()) // 4
    return kept if kept <= most else 0


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


def subject_object_graph(
    model: HookedModel,
    tokens: TokenizedPrompt,
    pairs: Sequence[tuple[int, int]],
    positions: list[int],
    *,
    cache: PrefixCache | None = None,
    mlp_jacobians: bool = False,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The subject's residual at each subject layer and the object at each object layer, in one graph.

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
    subject_at, object_at = start - skipped, [position - skipped for position in positions]
    subjects: dict[int, Tensor] = {}
    objects: dict[int, Tensor] = {}
    only: tuple[str, Any] | None = None

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
                read = residual[0] if only and layer == highest else residual[0, object_at]
                objects[layer] = wide_of(read).mean(0)
            return residual

        return take

    fwd_hooks = [(hook_name(model, layer), at(layer)) for layer in sorted(subject_layers | object_layers)]
    arguments = cache.arguments(ids.shape[1] - skipped) if cache is not None else {}
    layers = range(lowest + 1, highest + 1)

    def work() -> None:
        hooks = [*fwd_hooks, *([only] if only else [])]
        # Steering that is on is told where the text ends; there is no cache then.
        with whole_rows(model, [ids.shape[1] - skipped]):
            hooked_pass(
                model, ids[:, skipped:], fwd_hooks=hooks, stop_at_layer=highest + 1, gradients=True, **arguments
            )

    # Replaced methods and cached entries are the model's: one fit at a time.
    with turn(model):
        if highest not in subject_layers:
            only = only_positions_hook(model, highest, object_at)
        spared = partial(inside, cache.without_gradients(layers), work) if cache is not None else work
        inside(lean_reverse(model, layers, mlp_jacobians=mlp_jacobians), spared)
    for kind, taken in (("subject", subjects), ("object", objects)):
        for layer, activation in taken.items():
            if not torch.isfinite(activation).all():
                raise NotFiniteError(
                    f"the {kind} activation of {tokens.prompt.text!r} at layer {layer} is not finite; load the "
                    "model in float32 or float64 and check its weights"
                )
    return subjects, objects


def row_pieces() -> PieceSize:
    """Of a fit, whose prompts share it."""
    return PieceSize("rows of a Jacobian")


def _reverse(target: Tensor, sources: list[Tensor], n_rows: int, pieces: PieceSize) -> list[Tensor]:
    """d target / d source for each source, at most `n_rows` rows of all of them at a time."""

    # vmap over the reverse pass turns it into matrix products over all rows.
    def pull_back(row: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(target, sources, row, retain_graph=True, materialize_grads=True)

    jacobians = [target.new_empty(len(target), len(source)) for source in sources]

    def compute(start: int, stop: int) -> None:
        rows = target.new_zeros(stop - start, len(target))
        rows.diagonal(start).fill_(1)
        for jacobian, block in zip(jacobians, torch.func.vmap(pull_back)(rows), strict=True):
            jacobian[start:stop] = block

    pieces.run(len(target), n_rows, compute)
    return jacobians
