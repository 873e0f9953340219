"""Residuals of the words of plain texts: the last one, their mean, a span. Special tokens never count."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import PositionError
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.chat import Text, as_texts
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.precision import wide_of
from lrc_tl.passes.batches import kept_residuals, length_batches, whole_text_ids
from lrc_tl.passes.finite import require_finite_residuals
from lrc_tl.relations.special_tokens import special_ids

At: TypeAlias = Literal["last", "mean"] | int | slice
"""Which content tokens of a text are read: the last, the mean of all, one by its place, or the mean of a slice.

Places count content tokens alone, from 0, or from the end where they are negative.
"""


@numbers_checked
def content_activations(
    model: HookedModel, texts: Sequence[Text], *, layer: int, at: At = "last", progress: bool = True
) -> Float[Tensor, "text d_model"]:
    """Residual stream at the content tokens `at` of each text (their mean where they are several).

    Texts are run as they are, chats as `lrc_tl.models.chat_text` puts them. Special tokens, such as the beginning
    of sequence and the marks of a chat, are no content, wherever they stand. In float32 or wider.

    Raises:
        PositionError: a text has no such content token; the text shows those that it has.
        TypeError: `at` is of another type, or `texts` is no list of texts.
        ValueError: no texts, an empty one or one that fills the model's context, another word for `at`, a layer
            outside the model, or residuals that are not finite.
    """
    _require_at(at)
    texts = as_texts(model, texts, "texts")
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("a text is empty, or there are none; give at least one word for each")
    name = hook_name(model, layer)
    sequences = [whole_text_ids(model, text) for text in texts]
    places = [_places(model, text, ids, at) for text, ids in zip(texts, sequences, strict=True)]
    with ProgressBar("activations", total=len(texts), progress=progress) as bar:
        rows = dict(bar.over(_means(model, name, sequences, places)))
    acts = torch.stack([rows[number] for number in range(len(texts))])
    require_finite_residuals(acts, texts, layer=layer)
    return acts


def _means(
    model: HookedModel, name: str, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Tensor]]:
    """The number of each text with the mean residual over its places."""
    for batch in length_batches([len(sequence) for sequence in sequences]):
        kept = kept_residuals(
            model,
            [sequences[row] for row in batch],
            [name],
            read=lambda _, residual, batch=batch: [  # type: ignore[misc]
                wide_of(residual[number, places[row]]).mean(0) for number, row in enumerate(batch)
            ],
        )
        yield from zip(batch, kept[name], strict=True)


def _places(model: HookedModel, text: str, ids: Sequence[int], at: At) -> list[int]:
    special = special_ids(model.tokenizer)
    content = [place for place, token in enumerate(ids) if token not in special]
    if at == "mean":
        chosen = content
    elif isinstance(at, slice):
        chosen = content[at]
    else:
        place = -1 if at == "last" else int(at)
        chosen = content[place : place + 1 or None] if -len(content) <= place < len(content) else []
    if not chosen:
        tokens = [model.tokenizer.decode([ids[place]]) for place in content]
        raise PositionError(f"{text[:60]!r} has no content tokens at {at!r}; it has {len(content)}: {tokens[:20]}")
    return chosen


def _require_at(at: At) -> None:
    if isinstance(at, str) and at not in ("last", "mean"):
        raise ValueError(f"at is {at!r}; allowed are 'last', 'mean', a place such as -2, or slice(2, 5)")
    if isinstance(at, bool) or not isinstance(at, str | int | slice):
        raise TypeError(f"at is a {type(at).__name__}; give 'last', 'mean', a place such as -2, or slice(2, 5)")
