"""Residuals at subject and object positions: many prompts and all asked layers in one batched pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.markup.brief import brief_fields
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.batches import MAX_TOKENS, kept_residuals, length_batches
from lrc_tl.passes.finite import require_finite_residuals
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.object_aggregation import Aggregations, aggregations
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, object_positions, subject_token, tokenize_prompt


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
    subject_names = {layer: hook_name(model, layer) for layer in subject_layers}
    object_names = {layer: hook_name(model, layer) for layer in object_layers}
    by_layer = aggregations(object_layers, object_aggregation)
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    if object_layers:
        sequences = [t.input_ids for t in tokenized]
    elif is_steered(model):  # positions may count from the end of the text
        sequences = [t.text_ids for t in tokenized]
    else:  # a subject needs no token after it, and its own residual does not see them
        sequences = [t.text_ids[: t.subject_position + 1] for t in tokenized]
    subjects = {
        layer: _Reading(hook_name=name, positions=[[t.subject_position] for t in tokenized])
        for layer, name in subject_names.items()
    }
    objects = {
        layer: _Reading(hook_name=name, positions=[object_positions(t, by_layer[layer]) for t in tokenized])
        for layer, name in object_names.items()
    }
    readings = [*subjects.values(), *objects.values()]
    if readings:
        names = dict.fromkeys(reading.hook_name for reading in readings)

        def read(batch: Sequence[int], start: int, stop: int) -> None:
            rows = batch[start:stop]
            kept_residuals(model, [sequences[row] for row in rows], names, read=partial(_read_all, readings, rows))

        pieces = PieceSize("prompts")
        with ProgressBar("activations", total=len(sequences), progress=progress) as bar:
            for batch in length_batches([len(sequence) for sequence in sequences], max_tokens=max_tokens):
                pieces.run(len(batch), len(batch), partial(read, batch))
                bar.advance(len(batch))
    for layer, reading in (*subjects.items(), *objects.items()):
        require_finite_residuals(reading.residuals, [prompt.text for prompt in prompts], layer=layer)
    return PromptActivations(
        subject={layer: subjects[layer].residuals for layer in subject_layers},
        object={layer: objects[layer].residuals for layer in object_layers},
    )


class _Reading:
    """What is read at one hook point: for each prompt the mean residual over its positions, float32 or wider.

    The positions of a prompt follow each other.
    """

    def __init__(self, *, hook_name: str, positions: Sequence[Sequence[int]]) -> None:
        self.hook_name, self._positions = hook_name, positions
        self.residuals = torch.empty(0, device=HOST)
        """A row for each prompt, after the passes over all of them."""

    def take(self, rows: Sequence[int], residual: Float[Tensor, "row pos d_model"]) -> None:
        """Read the prompts with the numbers `rows`, of which the pass is."""
        wide = torch.promote_types(residual.dtype, torch.float32)
        if not len(self.residuals):
            n_prompts, d_model = len(self._positions), residual.shape[-1]
            self.residuals = torch.empty(n_prompts, d_model, dtype=wide, device=residual.device)
        for number, row in enumerate(rows):
            first, last = self._positions[row][0], self._positions[row][-1]
            self.residuals[row] = residual[number, first : last + 1].to(wide).mean(0)


def _read_all(readings: Sequence[_Reading], rows: Sequence[int], name: str, residual: Tensor) -> None:
    for reading in readings:
        if reading.hook_name == name:
            reading.take(rows, residual)


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
