"""What methods need of their training prompts: residuals of subjects and objects, from one pass for all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lrc_tl.methods.backgrounds import dual_layers
from lrc_tl.methods.method import MethodVariant, components_of
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.passes.residuals import PromptResiduals
from lrc_tl.relations.prompts import ObjectAggregation, Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingActivations:
    """Residuals of the training prompts at the layers that methods need, one row for each prompt."""

    subject: Mapping[int, Tensor]
    """By layer, at the last subject token."""
    object: Mapping[tuple[int, ObjectAggregation], Tensor]
    """By layer and by how objects of several tokens are read."""
    zero_shot: Mapping[int, Tensor]
    """By layer, at the last subject token of each prompt without its examples; for dual directions."""


def training_residuals(model: HookedModel, variants: Sequence[MethodVariant]) -> PromptResiduals:
    """What the variants need of training prompts, by how objects of several tokens are read; none is read yet."""
    components = components_of(variants, int(model.cfg.n_layers))
    return PromptResiduals(
        model,
        subject_layers=dict.fromkeys(variant.subject_layer for variant in components),
        objects=dict.fromkeys(
            (variant.object_layer, variant.method.aggregation)
            for variant in components
            if variant.object_layer is not None
        ),
    )


def training_activations(
    model: HookedModel,
    variants: Sequence[MethodVariant],
    prompts: Sequence[Prompt],
    *,
    residuals: PromptResiduals | None = None,
) -> TrainingActivations:
    """Subjects and objects that the variants need, from one pass over the prompts.

    One more over the prompts without their examples where a variant has dual directions. `residuals` are the
    `training_residuals` where another pass has read them.
    """
    residuals = training_residuals(model, variants) if residuals is None else residuals
    residuals.read(prompts)
    zero_shot: dict[int, Tensor] = {}
    if layers_of_duals := dual_layers(components_of(variants, int(model.cfg.n_layers))):
        plain = [prompt.without_examples() for prompt in prompts]
        zero_shot = prompt_activations(model, plain, subject_layers=layers_of_duals).subject
    return TrainingActivations(
        subject={layer: residuals.of(prompts, layer, "subject") for layer in residuals.subject_layers},
        object={key: residuals.of(prompts, *key) for key in residuals.objects},
        zero_shot=zero_shot,
    )
