"""One score for a whole text: the scores of its tokens at the last subject token, their mean, or the largest.

Words count: special tokens, wherever they stand, are left out unless asked for, and padding always is.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.probe import Probe, Score
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.chat import Text, as_texts
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.batches import kept_residuals, length_batches, right_padded, whole_text_ids
from lrc_tl.passes.padding import looks_padded, own_tokens
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.special_tokens import special_ids
from lrc_tl.steering.places import last_subject_token

Pool: TypeAlias = Literal["last_subject_token", "mean", "max"]
TokenMask: TypeAlias = Bool[Tensor, "batch pos"]
"""True at the tokens that count."""
Positions: TypeAlias = Int[Tensor, " batch"]
"""Of one token per row; negative ones count from the end of the row."""


class SupportsHookNames(Protocol):
    """A cache: tensors by the names of hook points."""

    def __getitem__(self, hook_name: str, /) -> Tensor:
        """The residuals at a hook point."""
        ...


_ASK = "by='mean' and by='max' take `mask` (see token_mask), by='last_subject_token' takes `positions`"


@checked
def pool_scores(
    scores: Float[Tensor, "batch pos *concept"],
    *,
    by: Pool,
    mask: TokenMask | None = None,
    positions: Positions | None = None,
) -> Float[Tensor, " batch *concept"]:
    """One score per row: at `positions`, or the mean or maximum over the tokens that `mask` shows.

    In the units and dtype of `scores`. What the mask hides may hold anything, NaN too.

    Raises:
        ValueError: not exactly the one of `mask` and `positions` that `by` needs, a row without tokens, a position
            outside the row, or a chosen score that is not finite.
    """
    counted = _counted_tokens(scores.shape[0], scores.shape[1], scores.device, by, mask, positions)
    column = counted.reshape(*counted.shape, *[1] * (scores.ndim - 2))
    if not bool(torch.isfinite(scores.masked_fill(~column, 0)).all()):
        raise ValueError("the scores of some tokens are not finite; load the model in float32")
    if by == "max":
        return scores.masked_fill(~column, -torch.inf).amax(1)
    return scores.masked_fill(~column, 0).sum(1) / column.sum(1)


def token_mask(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    attention_mask: Tensor | None = None,
    bos: bool = False,
) -> Bool[Tensor, "batch pos"]:
    """True at the words of each row: not at padding nor, without `bos`, at special tokens, wherever they stand.

    Special are the beginning and end of sequence, the marks of a chat and what else the tokenizer calls so, except
    its token for unknown words. With `bos` they count; then only `attention_mask` tells them from padding, and a
    single row is never padded without one.

    Raises:
        ValueError: `attention_mask` is not of the shape of `tokens`, or there is none and several rows look padded
            where special tokens count.
    """
    special = sorted(special_ids(model.tokenizer))
    words = ~torch.isin(tokens, torch.tensor(special, dtype=tokens.dtype, device=tokens.device))
    real = torch.ones_like(words)
    if attention_mask is not None:
        if attention_mask.shape != tokens.shape:
            raise ValueError(
                f"the attention mask has shape {tuple(attention_mask.shape)}, the tokens {tuple(tokens.shape)}; "
                "they must be equal"
            )
        real = attention_mask.to(tokens.device) != 0
    elif bos:
        leading, trailing = looks_padded(model.tokenizer, tokens, real)
        if bool((leading | trailing).any()):
            raise ValueError(
                f"row {int((leading | trailing).nonzero()[0])} begins or ends with the tokenizer's pad token, and "
                "nothing says whether it is padding; give attention_mask, with ones where it is text"
            )
    return real if bos else real & words


@checked
def pool_acts(
    score: Score,
    acts: Float[Tensor, "batch pos d_model"],
    *,
    by: Pool,
    mask: TokenMask | None = None,
    positions: Positions | None = None,
) -> Float[Tensor, " batch *concept"]:
    """One score per row of stored residuals: at `positions`, or over the tokens that `mask` shows.

    In residual-stream units. `token_mask` makes the mask from token ids; negative positions count from the end
    of the row, padding included. `score` is `ConceptDirection.score` or `ConceptSet.scores`.

    Raises:
        ValueError: not exactly the one of `mask` and `positions` that `by` needs, a row without tokens, a
            position outside the row, or residuals that are not finite.
    """
    counted = _counted_tokens(acts.shape[0], acts.shape[1], acts.device, by, mask, positions)
    hidden = acts.masked_fill(~counted[..., None], 0)  # padding may hold NaN
    if not bool(torch.isfinite(hidden).all()):
        raise ValueError("the residuals are not finite; load the model in float32")
    return pool_scores(score(hidden), by="max" if by == "max" else "mean", mask=counted)


def cached_acts(cache: SupportsHookNames, hook_name: str) -> Float[Tensor, "batch pos d_model"]:
    """What an `ActivationCache` of `run_with_cache` (or a plain dict) holds at a hook point.

    Raises:
        LookupError: the cache does not hold the hook point.
        ValueError: it holds no `batch pos d_model` there (its batch dimension was removed).
    """
    try:
        acts = cache[hook_name]
    except (KeyError, IndexError) as error:
        raise LookupError(
            f"the cache does not hold {hook_name!r}; run run_with_cache with it in names_filter"
        ) from error
    if acts.ndim != 3:
        raise ValueError(
            f"the cache holds a tensor of shape {tuple(acts.shape)} at {hook_name}; it must be "
            "batch, pos, d_model, so keep its batch dimension"
        )
    return acts


def pool_texts(
    probe: Probe,
    score: Score,
    model: HookedModel,
    texts: Sequence[Text],
    *,
    by: Pool,
    subjects: Sequence[str] | None,
    bos: bool,
    progress: bool = True,
) -> Float[Tensor, " text *concept"]:
    """One score per text; `subjects`, one per text, are needed for the last subject token.

    `bos` counts special tokens in the mean and the maximum too: the beginning of sequence, and those that the
    text spells out, such as the marks of a chat. `score` is that of the probe.

    Raises:
        FingerprintMismatch: the probe was made on another model.
        LookupError: the model has no such hook point.
        PositionError: a subject is not in its text.
        ValueError: no texts, an empty one or one that fills the model's context, subjects where `by` needs
            none or not one per text where it does, or residuals that are not finite.
    """
    texts, subjects = _checked_texts(model, texts, subjects, by)
    probe.require_model(model)
    sequences = [whole_text_ids(model, text) for text in texts]
    ends = [len(sequence) for sequence in sequences]
    if subjects is not None:
        with_subjects = zip(texts, subjects, strict=True)
        ends = [last_subject_token(model, text, subject=subject).position + 1 for text, subject in with_subjects]
        if not is_steered(model):  # no residual sees what comes after it, but steering may count from the end
            sequences = [sequence[:end] for sequence, end in zip(sequences, ends, strict=True)]
    scores: list[Tensor | None] = [None] * len(texts)
    with ProgressBar("scores", total=len(texts), progress=progress) as bar:
        for rows in length_batches([len(sequence) for sequence in sequences]):
            batch = [sequences[row] for row in rows]
            kept = kept_residuals(model, batch, [probe.hook_name], read=lambda _, residual: residual.detach())
            if subjects is not None:
                positions = torch.tensor([ends[row] - 1 for row in rows], device=HOST)
                pooled = pool_acts(score, kept[probe.hook_name], by=by, positions=positions)
            else:
                ids = right_padded(model, batch)
                real = own_tokens([len(sequence) for sequence in batch], ids.shape[1], device=ids.device)
                mask = token_mask(model, ids, attention_mask=real, bos=bos)
                if not bool(mask.any(1).all()):
                    text = texts[rows[int((~mask.any(1)).nonzero()[0])]]
                    raise ValueError(
                        f"{text!r} holds special tokens alone; give a word, or count them with bos=True"
                    )
                pooled = pool_acts(score, kept[probe.hook_name], by=by, mask=mask)
            for row, row_scores in zip(rows, pooled, strict=True):
                scores[row] = row_scores
            bar.advance(len(rows))
    return torch.stack([row_scores for row_scores in scores if row_scores is not None])


def _checked_texts(
    model: HookedModel, texts: Sequence[Text], subjects: Sequence[str] | None, by: Pool
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Texts and subjects as tuples; there must be subjects, one per text, exactly where `by` needs them."""
    if isinstance(texts, str) or isinstance(subjects, str):
        raise ValueError("give a list of texts (and of subjects), also for one; `read` scores each token of one")
    texts = as_texts(model, texts, "texts")
    subjects = None if subjects is None else as_tuple(subjects, "subjects", str)
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("a text is empty, or there are none; give at least one word for each")
    at_subject = by == "last_subject_token"
    if at_subject != (subjects is not None) or (subjects is not None and len(subjects) != len(texts)):
        given = "no subjects" if subjects is None else f"{len(subjects)} subjects"
        raise ValueError(
            f"{given} for {len(texts)} texts and by={by!r}; by='last_subject_token' needs one for each text, the "
            "others take none"
        )
    return texts, subjects


def _counted_tokens(
    batch: int, pos: int, device: torch.device, by: Pool, mask: Tensor | None, positions: Tensor | None
) -> Tensor:
    """The mask of the tokens that count: those of `mask`, or the one at each position."""
    needed, other = (positions, mask) if by == "last_subject_token" else (mask, positions)
    if needed is None or other is not None:
        raise ValueError(f"by={by!r} was given the wrong one of `mask` and `positions`: {_ASK}")
    if mask is not None:
        if not bool(mask.any(1).all()):
            row = int((~mask.any(1)).nonzero()[0])
            raise ValueError(f"row {row} of the mask shows no token; show one at least")
        return mask.to(device)
    assert positions is not None
    outside = (positions < -pos) | (positions >= pos)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(f"position {int(positions[row])} is outside row {row}, which has {pos} tokens")
    return torch.arange(pos, device=device) == (positions.to(device) % pos)[:, None]
