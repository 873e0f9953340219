"""The background that subject statistics are made from: which activations it gives, and where they come from."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.batches import kept_residuals, length_batches, whole_text_ids
from lrc_tl.passes.finite import require_finite_residuals
from lrc_tl.passes.shared_prefixes import ReadSequence, residuals_at_positions
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.prompts import Prompt, subject_tokens
from lrc_tl.relations.relation_files import built_in_relations, load_relation
from lrc_tl.relations.special_tokens import special_ids

Background: TypeAlias = Sequence[Prompt] | Sequence[str]
"""Prompts, or plain texts."""


def built_in_background() -> tuple[Prompt, ...]:
    """A zero-shot prompt for each subject and template of all built-in relations."""
    return tuple(
        prompt for name in built_in_relations() for prompt in load_relation(name).prompts(templates="all")
    )


def background_rows(
    model: HookedModel, background: Background, layers: Sequence[int], *, progress: bool
) -> tuple[
    Literal["subjects", "texts"],
    tuple[str, ...],
    Int[Tensor, " sample"],
    dict[int, Float[Tensor, "sample d_model"]],
]:
    """Kind and names of the sources, the source of each activation, and the activations by layer, on the CPU.

    Raises:
        TypeError: the background holds something else than prompts alone or texts alone.
        ValueError: no prompts and no texts, or a text that is empty or fills the model's context.
        NotFiniteError: residuals that are not finite.
    """
    items: tuple[Any, ...] = as_tuple(cast(Sequence[Any], background), "background", (Prompt, str))
    if not items:
        raise ValueError("the background is empty; give prompts or texts, or None for the built-in relations")
    if len({isinstance(item, str) for item in items}) > 1:
        raise TypeError("the background mixes prompts and plain texts; give one kind")
    with ProgressBar("subject statistics", total=len(items), progress=progress) as bar:
        if isinstance(items[0], str):
            return "texts", *_text_rows(model, items, layers, bar)
        return "subjects", *_subject_rows(model, items, layers, bar)


def _subject_rows(
    model: HookedModel, prompts: tuple[Prompt, ...], layers: Sequence[int], bar: ProgressBar
) -> tuple[tuple[str, ...], Tensor, dict[int, Tensor]]:
    subjects = [prompt.subject.strip() for prompt in prompts]
    numbers = {subject: number for number, subject in enumerate(dict.fromkeys(subjects))}
    rows_of = _distinct_sequences(model, prompts)
    rows = list(rows_of.values())
    residuals = residuals_at_positions(
        model,
        list(rows_of),
        layers,
        ran=lambda batch: bar.advance(sum(len(rows[number]) for number in batch)),
    )
    number_of = torch.empty(len(prompts), dtype=torch.long, device=HOST)
    for number, of_sequence in enumerate(rows):
        number_of[of_sequence] = number
    samples = {layer: of_layer[number_of] for layer, of_layer in residuals.items()}
    for layer, of_layer in samples.items():
        require_finite_residuals(of_layer, [prompt.text for prompt in prompts], layer=layer)
    return tuple(numbers), torch.tensor([numbers[subject] for subject in subjects], device=HOST), samples


def _distinct_sequences(model: HookedModel, prompts: tuple[Prompt, ...]) -> dict[ReadSequence, list[int]]:
    """What must be run, and the prompts that each sequence serves.

    Texts that are equal up to their subject's last token are one. Those that are equal before it are a group.
    """
    needs_whole_text = is_steered(model)  # positions may count from the end of the text
    sequences: dict[ReadSequence, list[int]] = {}
    for row, prompt in enumerate(prompts):
        ids, position = subject_tokens(model, prompt)
        sequence = ReadSequence(
            ids=ids if needs_whole_text else ids[: position + 1],
            position=position,
            group=prompt.text[: prompt.subject_span()[0]],
        )
        sequences.setdefault(sequence, []).append(row)
    return sequences


def _text_rows(
    model: HookedModel, texts: tuple[str, ...], layers: Sequence[int], bar: ProgressBar
) -> tuple[tuple[str, ...], Tensor, dict[int, Tensor]]:
    texts = tuple(dict.fromkeys(texts))
    if empty := [number for number, text in enumerate(texts) if not text.strip()]:
        raise ValueError(f"background[{empty[0]}] is an empty text; give at least one word")
    special = special_ids(model.tokenizer)
    sequences = [whole_text_ids(model, text, n_more=0) for text in texts]
    positions = [[place for place, token in enumerate(ids) if token not in special] for ids in sequences]
    names = {layer: hook_name(model, layer) for layer in layers}
    residuals: dict[int, list[Tensor]] = {layer: [torch.empty(0, device=HOST)] * len(texts) for layer in layers}
    for rows in length_batches([len(ids) for ids in sequences]):
        batch = [sequences[row] for row in rows]
        kept = kept_residuals(model, batch, names.values(), read=lambda _, residual: wide_of(residual).cpu())
        for layer, name in names.items():
            for number, row in enumerate(rows):
                residuals[layer][row] = kept[name][number, positions[row]]
        bar.advance(len(rows))
    samples = {layer: torch.cat(residuals[layer]) for layer in layers}
    source_of = torch.tensor([number for number, places in enumerate(positions) for _ in places], device=HOST)
    for layer in layers:
        require_finite_residuals(samples[layer], [texts[number] for number in source_of.tolist()], layer=layer)
    return texts, source_of, samples
