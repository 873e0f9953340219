"""Exact Jacobians of the object activation with respect to the residual stream at the subject."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import NotFiniteError
from lrc_tl.lre.jacobian_graph import (
    Pair,
    checked_positions,
    goes_forward,
    mlp_jacobian_bytes,
    row_pieces,
    rows_at_once,
    subject_object_graph,
)
from lrc_tl.lre.jacobian_products import JacobianProducts
from lrc_tl.markup.brief import brief_fields
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.relations.object_aggregation import Aggregations
from lrc_tl.relations.prompts import ObjectAggregation, TokenizedPrompt


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
    pairs: Sequence[Pair],
    *,
    object_aggregation: Aggregations = "mean",
    memory_limit: int | None = None,
    pieces: PieceSize | None = None,
) -> Iterator[tuple[Pair, SubjectObjectJacobian]]:
    """Each (subject layer, object layer) of `pairs`, made by `layer_pairs`, with its Jacobian.

    One forward pass for all pairs, and one reverse pass for each object layer; or, where that goes through fewer
    layers, columns forward from each subject layer. What one such pass gives is in memory together. Where memory
    runs out, fewer rows are computed at once; prompts that share `pieces` remember how many.

    Raises:
        ValueError: as `subject_object_jacobians`, except for the layers.
        OutOfMemoryError: as `subject_object_jacobians`.
    """
    ways = _up if goes_forward(pairs) else _down
    for pair, jacobian, subject, object_ in ways(
        model, tokens, pairs, object_aggregation, memory_limit, row_pieces() if pieces is None else pieces
    ):
        if not torch.isfinite(jacobian).all():
            raise NotFiniteError(
                f"the Jacobian of {tokens.prompt.text!r} from layer {pair[0]} to {pair[1]} is not finite; load "
                "the model in float32 or float64 and check its weights"
            )
        yield pair, SubjectObjectJacobian(jacobian=jacobian, subject=subject, object=object_)


_Found = Iterator[tuple[Pair, Tensor, Tensor, Tensor]]
"""Pairs with their Jacobian, subject and object."""


def _down(
    model: HookedModel,
    tokens: TokenizedPrompt,
    pairs: Sequence[Pair],
    object_aggregation: Aggregations,
    memory_limit: int | None,
    pieces: PieceSize,
) -> _Found:
    """By rows that are pulled back from each object layer."""
    positions = checked_positions(model, tokens, {object_ for _, object_ in pairs}, object_aggregation)
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
            yield (layer, object_layer), jacobian, subjects[layer].detach(), objects[object_layer].detach()


def _up(
    model: HookedModel,
    tokens: TokenizedPrompt,
    pairs: Sequence[Pair],
    object_aggregation: Aggregations,
    memory_limit: int | None,
    pieces: PieceSize,
) -> _Found:
    """By columns that go forward from each subject layer, to all object layers above it at once."""
    graph = JacobianProducts(
        model,
        tokens,
        pairs,
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
        pieces=pieces,
        mlp_jacobians=mlp_jacobian_bytes(model, tokens, pairs, memory_limit) > 0,
    )
    for subject_layer in sorted({subject for subject, _ in pairs}):
        subject = graph.subject(subject_layer)
        columns = torch.eye(len(subject), dtype=subject.dtype, device=subject.device)
        for object_layer, products in sorted(graph.forward(subject_layer, columns).items()):
            yield (subject_layer, object_layer), products.T.contiguous(), subject, graph.object(object_layer)


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
