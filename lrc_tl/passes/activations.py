"""Residuals at subject and object positions: many prompts and all asked layers in one batched pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.markup.brief import brief_fields
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.precision import wide_of
from lrc_tl.passes.batches import MAX_TOKENS, kept_residuals
from lrc_tl.passes.finite import require_finite_residuals
from lrc_tl.passes.residuals import PromptResiduals
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.object_aggregation import Aggregations, aggregations
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, subject_token


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptActivations:
    """Residuals of the prompts' subjects and objects, by layer as it was asked for."""

    subject: dict[int, Float[Tensor, "prompt d_model"]]
    """At the last subject token."""
    object: dict[int, Float[Tensor, "prompt d_model"]]
    """At the positions that predict the object: their mean, or the first."""

    __repr__ = brief_fields


@numbers_checked
def prompt_activations(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int] = (),
    object_layers: Sequence[int] = (),
    object_aggregation: Aggregations = "mean",
    max_tokens: int = MAX_TOKENS,
    progress: bool = True,
) -> PromptActivations:
    """Subject and object residuals of every prompt at every layer asked for, in one batched pass.

    Only the asked positions are kept. The pass stops above the highest layer. `object_aggregation` may differ by
    layer, as it was asked for. `max_tokens` bounds a batch: about `4 * max_tokens * d_mlp` bytes for each
    activation in float32.

    Raises:
        ValueError: no prompts, or a layer outside the model or without an aggregation.
        NotFiniteError: residuals that are not finite.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    subject_layers = as_tuple(subject_layers, "subject_layers")
    object_layers = as_tuple(object_layers, "object_layers")
    if not prompts:
        raise ValueError("no prompts to read activations from; give at least one")
    by_layer = aggregations(object_layers, object_aggregation)
    residuals = PromptResiduals(model, subject_layers=subject_layers, objects=by_layer.items())
    residuals.read(prompts, max_tokens=max_tokens, progress=progress)
    return PromptActivations(
        subject={layer: residuals.of(prompts, layer, "subject") for layer in subject_layers},
        object={layer: residuals.of(prompts, layer, by_layer[layer]) for layer in object_layers},
    )


@numbers_checked
def subject_activations(
    model: HookedModel, prompts: Sequence[Prompt], *, layer: int, progress: bool = True
) -> Float[Tensor, "prompt d_model"]:
    """Residual stream at the last subject token of each prompt, in float32 or wider."""
    return prompt_activations(model, prompts, subject_layers=[layer], progress=progress).subject[layer]


@checked
def text_activation(
    model: HookedModel, text: str, *, subject: str, subject_start: int | None = None, layer: int
) -> Float[Tensor, " d_model"]:
    """Residual stream at the last subject token of one text that is run as it is, in float32 or wider.

    Raises:
        PositionError: the subject is not in the text.
        ValueError: a layer outside the model, or a residual that is not finite.
    """
    ids, position = subject_token(model, text, subject=subject, subject_start=subject_start)
    if not is_steered(model):  # else positions may count from the end of the text
        ids = ids[: position + 1]
    name = hook_name(model, layer)
    kept = kept_residuals(model, [ids], [name], read=lambda _, residual: wide_of(residual[0, position]))
    require_finite_residuals(kept[name][None], [text], layer=layer)
    return kept[name]


@numbers_checked
def object_activations(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    layer: int,
    object_aggregation: ObjectAggregation = "mean",
    progress: bool = True,
) -> Float[Tensor, "prompt d_model"]:
    """Residual stream at the positions that predict the object (their mean, or the first), float32 or wider."""
    activations = prompt_activations(
        model, prompts, object_layers=[layer], object_aggregation=object_aggregation, progress=progress
    )
    return activations.object[layer]
