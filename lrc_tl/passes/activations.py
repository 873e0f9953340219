"""Residuals at subject and object positions: many prompts and all asked layers in one batched pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.no_booleans import no_booleans
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.models.hooked_model import HookedModel, hook_layer, hook_name
from lrc_tl.passes.batches import MAX_TOKENS, length_batches, right_padded, run
from lrc_tl.passes.finite import require_finite_residuals
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, object_positions, subject_token, tokenize_prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptActivations:
    """Residuals of the prompts' subjects and objects, by layer as it was asked for."""

    subject: dict[int, Float[Tensor, "prompt d_model"]]
    """At the last subject token."""
    object: dict[int, Float[Tensor, "prompt d_model"]]
    """At the positions that predict the object: their mean, or the first."""


@no_booleans
def prompt_activations(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int] = (),
    object_layers: Sequence[int] = (),
    object_aggregation: ObjectAggregation | Mapping[int, ObjectAggregation] = "mean",
    max_tokens: int = MAX_TOKENS,
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
    subject_names = {layer: hook_name(model, layer) for layer in subject_layers}
    object_names = {layer: hook_name(model, layer) for layer in object_layers}
    aggregations = (
        dict(object_aggregation)
        if isinstance(object_aggregation, Mapping)
        else dict.fromkeys(object_layers, object_aggregation)
    )
    if without := [layer for layer in object_layers if layer not in aggregations]:
        raise ValueError(f"object_aggregation has no entry for the object layers {without}; give one for each")
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    if object_layers:
        sequences = [t.input_ids for t in tokenized]
    elif is_steered(model):  # positions may count from the end of the text
        sequences = [t.text_ids for t in tokenized]
    else:  # a subject needs no token after it, and its own residual does not see them
        sequences = [t.text_ids[: t.subject_position + 1] for t in tokenized]
    d_model = int(model.cfg.d_model)
    kept_subject: dict[int, Tensor] = {}
    kept_object: dict[int, Tensor] = {}
    names = {hook_layer(name): name for name in (*subject_names.values(), *object_names.values())}

    def keep(layer: int, rows: list[int]) -> Any:
        name = names[layer]

        def hook_function(residual: Tensor, hook: Any) -> None:
            wide = torch.promote_types(residual.dtype, torch.float32)

            def store(kept: dict[int, Tensor], asked: int, row: int, value: Tensor) -> None:
                if asked not in kept:
                    kept[asked] = torch.empty(len(prompts), d_model, dtype=wide, device=residual.device)
                kept[asked][row] = value

            for number, row in enumerate(rows):
                for asked in (asked for asked, its_name in subject_names.items() if its_name == name):
                    at = tokenized[row].subject_position
                    store(kept_subject, asked, row, residual[number, at].to(wide))
                for asked in (asked for asked, its_name in object_names.items() if its_name == name):
                    positions = object_positions(tokenized[row], aggregations[asked])
                    store(kept_object, asked, row, residual[number, positions].to(wide).mean(0))

        return hook_function

    if names:
        for rows in length_batches([len(sequence) for sequence in sequences], max_tokens=max_tokens):
            ids = right_padded(model, [sequences[row] for row in rows])
            fwd_hooks = [(name, keep(layer, rows)) for layer, name in names.items()]
            lengths = [len(sequences[row]) for row in rows]
            run(model, ids, lengths=lengths, fwd_hooks=fwd_hooks, stop_at_layer=max(names) + 1)
    for layer, residuals in (*kept_subject.items(), *kept_object.items()):
        require_finite_residuals(residuals, [prompt.text for prompt in prompts], layer=layer)
    return PromptActivations(
        subject={layer: kept_subject[layer] for layer in subject_layers},
        object={layer: kept_object[layer] for layer in object_layers},
    )


@no_booleans
def subject_activations(
    model: HookedModel, prompts: Sequence[Prompt], *, layer: int
) -> Float[Tensor, "prompt d_model"]:
    """Residual stream at the last subject token of each prompt, in float32 or wider."""
    return prompt_activations(model, prompts, subject_layers=[layer]).subject[layer]


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
    kept: list[Tensor] = []
    name = hook_name(model, layer)

    def keep(residual: Tensor, hook: Any) -> None:
        kept.append(residual[0, position].to(torch.promote_types(residual.dtype, torch.float32)))

    stop = hook_layer(name) + 1
    run(model, right_padded(model, [ids]), lengths=[len(ids)], fwd_hooks=[(name, keep)], stop_at_layer=stop)
    require_finite_residuals(kept[0][None], [text], layer=layer)
    return kept[0]


@no_booleans
def object_activations(
    model: HookedModel, prompts: Sequence[Prompt], *, layer: int, object_aggregation: ObjectAggregation = "mean"
) -> Float[Tensor, "prompt d_model"]:
    """Residual stream at the positions that predict the object (their mean, or the first), float32 or wider."""
    found = prompt_activations(model, prompts, object_layers=[layer], object_aggregation=object_aggregation)
    return found.object[layer]
