"""Exact Jacobian of the object activation with respect to the residual stream at the subject."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.models import HookedModel, hook_name, prefix_cache
from lrc_tl.prompts import TokenizedPrompt

ObjectAggregation = Literal["mean", "first_token"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectObjectJacobian:
    """First-order behaviour of one prompt between a subject layer and an object layer."""

    jacobian: Float[Tensor, "d_object d_subject"]
    subject: Float[Tensor, " d_subject"]
    """Residual stream at the last subject token, subject layer."""
    object: Float[Tensor, " d_object"]
    """Residual stream at the object positions, object layer: their mean, or the first."""


def check_layers(model: HookedModel, subject_layer: int, object_layer: int) -> tuple[int, int]:
    """Both layers counted from the start.

    Raises:
        ValueError: a layer is outside the model, or the object layer lies below the subject layer.
    """
    names = hook_name(model, subject_layer), hook_name(model, object_layer)
    subject, object_ = (int(name.split(".")[1]) for name in names)
    if object_ < subject:
        raise ValueError(
            f"object layer {object_} lies below subject layer {subject}; read the object at the same layer or a "
            "later one"
        )
    return subject, object_


def object_positions(tokens: TokenizedPrompt, aggregation: ObjectAggregation) -> list[int]:
    """Positions that are averaged: all object positions, or the first alone."""
    positions = list(tokens.object_positions)
    return positions if aggregation == "mean" else positions[:1]


def subject_object_jacobian(
    model: HookedModel,
    tokens: TokenizedPrompt,
    *,
    subject_layer: int,
    object_layer: int,
    object_aggregation: ObjectAggregation = "mean",
) -> SubjectObjectJacobian:
    """d object / d subject with every other position of the subject layer held fixed.

    Reverse mode over all rows of the object at once; the gradient is taken in the model's own dtype, so load the
    model in float32 or wider. Equal layers are allowed: J is the identity where the two positions coincide.

    Raises:
        ValueError: bad layers, the subject lies after the object is read, or the model is narrower than float32.
    """
    subject_layer, object_layer = check_layers(model, subject_layer, object_layer)
    positions = object_positions(tokens, object_aggregation)
    if positions[0] < tokens.subject_position:
        raise ValueError(
            f"the object is read at position {positions[0]}, before the subject at "
            f"{tokens.subject_position}, which cannot act on it; the text must go on after the subject"
        )
    taken: dict[str, Tensor] = {}

    # These hooks return new tensors, so the leaf is what every later layer really uses.
    def replace_subject(residual: Tensor, hook: Any) -> Tensor:
        if residual.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"the residual stream is {residual.dtype}; load the model in float32 or float64")
        leaf = residual[0, subject_at].detach().clone().requires_grad_(True)
        taken["subject"] = leaf
        at_subject = torch.arange(residual.shape[1], device=residual.device) == subject_at
        return torch.where(at_subject[None, :, None], leaf, residual.detach())

    def read_object(residual: Tensor, hook: Any) -> None:
        taken["object"] = residual[0, [position - skipped for position in positions]].mean(0)

    fwd_hooks = [(hook_name(model, subject_layer), replace_subject), (hook_name(model, object_layer), read_object)]
    call: Any = model
    with torch.inference_mode(False), torch.enable_grad():
        ids = torch.tensor([tokens.input_ids], device=model.cfg.device)
        # Tokens before the subject do not depend on it: their keys and values stay outside the graph.
        start = tokens.subject_position
        cached = prefix_cache(model, ids[:, :start], ids.shape[1] - start, stop_at_layer=object_layer + 1)
        skipped = start if cached is not None else 0
        subject_at = start - skipped
        with model.hooks(fwd_hooks=fwd_hooks):
            call(ids[:, skipped:], stop_at_layer=object_layer + 1, **(cached or {}))
        subject, object_ = taken["subject"], taken["object"]
        rows = torch.eye(object_.shape[0], dtype=object_.dtype, device=object_.device)
        (jacobian,) = torch.autograd.grad(
            object_, subject, grad_outputs=rows, is_grads_batched=True, materialize_grads=True
        )
    return SubjectObjectJacobian(jacobian=jacobian, subject=subject.detach(), object=object_.detach())
