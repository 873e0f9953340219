"""One score for a whole text: the scores of its tokens at the last subject token, their mean, or the largest.

Words count: special tokens, wherever they stand, are left out unless asked for, and padding always is.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.batches import kept_residuals, length_batches, right_padded, whole_text_ids
from lrc_tl.passes.padding import looks_padded, own_tokens
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.special_tokens import special_ids
from lrc_tl.steering.places import last_subject_token

Pool: TypeAlias = Literal["last_subject_token", "mean", "max"]
_ASK = "by='mean' and by='max' take `mask` (see token_mask), by='last_subject_token' takes `positions`"


@checked
def pool_scores(
    scores: Float[Tensor, "batch pos *concept"],
    *,
    by: Pool,
    mask: Bool[Tensor, "batch pos"] | None = None,
    positions: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch *concept"]:
    """One score a row: at `positions`, or the mean or maximum over the tokens that `mask` shows.

    In the units and dtype of `scores`. What the mask hides may hold anything, NaN too.

    Raises:
        ValueError: not exactly the one of `mask` and `positions` that `by` needs, a row without tokens, a position
            outside the row, or a chosen score that is not finite.
    """
    shown = _shown(scores.shape[0], scores.shape[1], scores.device, by, mask, positions)
    column = shown.reshape(*shown.shape, *[1] * (scores.ndim - 2))
    if not bool(torch.isfinite(scores.masked_fill(~column, 0)).all()):
        raise ValueError("the scores of some tokens are not finite; load the model in float32")
    if by == "max":
        largest: Tensor = scores.masked_fill(~column, -torch.inf).amax(1)
        return largest
    mean: Tensor = scores.masked_fill(~column, 0).sum(1) / column.sum(1)
    return mean


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
    words: Tensor = ~torch.isin(tokens, torch.tensor(special, dtype=tokens.dtype, device=tokens.device))
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
    mask: Tensor = real if bos else real & words
    return mask


@runtime_checkable
class _Scoring(Protocol):
    @property
    def hook_name(self) -> str: ...

    def require_model(self, model: HookedModel) -> None: ...

    def _token_scores(self, resid: Tensor) -> Tensor: ...


class Pooling:
    """Pooled scores from tensors, a cache and text: `batch` for a direction, `batch concept` for a set."""

    @checked
    def pool(
        self: Any,
        resid: Float[Tensor, "batch pos d_model"],
        *,
        by: Pool,
        mask: Bool[Tensor, "batch pos"] | None = None,
        positions: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch *concept"]:
        """One score a row of stored residuals: at `positions`, or over the tokens that `mask` shows.

        In residual-stream units. `token_mask` makes the mask from token ids; negative positions count from the end
        of the row, padding included.

        Raises:
            ValueError: not exactly the one of `mask` and `positions` that `by` needs, a row without tokens, a
                position outside the row, or residuals that are not finite.
        """
        scoring: _Scoring = self
        shown = _shown(resid.shape[0], resid.shape[1], resid.device, by, mask, positions)
        hidden = resid.masked_fill(~shown[..., None], 0)  # padding may hold NaN
        if not bool(torch.isfinite(hidden).all()):
            raise ValueError("the residuals are not finite; load the model in float32")
        scores: Tensor = pool_scores(
            scoring._token_scores(hidden), by="max" if by == "max" else "mean", mask=shown
        )
        return scores

    def pool_cache(
        self: Any,
        cache: Any,
        *,
        by: Pool,
        mask: Bool[Tensor, "batch pos"] | None = None,
        positions: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch *concept"]:
        """`pool` of what an `ActivationCache` of `run_with_cache` (or a plain dict) holds at the hook point.

        Raises:
            LookupError: the cache does not hold the hook point.
            ValueError: it holds no `batch pos d_model` there (its batch dimension was removed), or what `pool`
                refuses.
        """
        scoring: _Scoring = self
        try:
            resid = cache[scoring.hook_name]
        except (KeyError, IndexError) as error:
            raise LookupError(
                f"the cache does not hold {scoring.hook_name!r}; run run_with_cache with it in names_filter"
            ) from error
        if resid.ndim != 3:
            raise ValueError(
                f"the cache holds a tensor of shape {tuple(resid.shape)} at {scoring.hook_name}; it must be "
                "batch, pos, d_model, so keep its batch dimension"
            )
        pooled: Tensor = self.pool(resid, by=by, mask=mask, positions=positions)
        return pooled

    def pool_texts(
        self: Any,
        model: HookedModel,
        texts: Sequence[str],
        *,
        by: Pool,
        subjects: Sequence[str] | None = None,
        bos: bool = False,
    ) -> Float[Tensor, " text *concept"]:
        """One score a text; `subjects`, one a text, are needed for the last subject token.

        `bos` counts special tokens in the mean and the maximum too: the beginning of sequence, and those that the
        text spells out, such as the marks of a chat.

        Raises:
            FingerprintMismatch: the vectors were made on another model.
            LookupError: the model has no such hook point.
            PositionError: a subject is not in its text.
            ValueError: no texts, an empty one or one that fills the model's context, subjects where `by` needs
                none or not one a text where it does, or residuals that are not finite.
        """
        scoring: _Scoring = self
        return _pooled_texts(scoring, self.pool, model, texts, by, subjects, bos)


def _pooled_texts(
    scoring: _Scoring,
    pool: Callable[..., Tensor],
    model: HookedModel,
    texts: Sequence[str],
    by: Pool,
    subjects: Sequence[str] | None,
    bos: bool,
) -> Tensor:
    if isinstance(texts, str) or isinstance(subjects, str):
        raise ValueError("give a list of texts (and of subjects), also for one; `read` scores each token of one")
    texts = as_tuple(texts, "texts", str)
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
    scoring.require_model(model)
    sequences = [whole_text_ids(model, text) for text in texts]
    ends = [len(sequence) for sequence in sequences]
    if subjects is not None:
        found_at = zip(texts, subjects, strict=True)
        ends = [last_subject_token(model, text, subject=subject).position + 1 for text, subject in found_at]
        if not is_steered(model):  # no residual sees what comes after it, but steering may count from the end
            sequences = [sequence[:end] for sequence, end in zip(sequences, ends, strict=True)]
    found: list[Tensor | None] = [None] * len(texts)
    for rows in length_batches([len(sequence) for sequence in sequences]):
        batch = [sequences[row] for row in rows]
        kept = kept_residuals(model, batch, [scoring.hook_name], read=lambda _, residual: residual.detach())
        resid = kept[scoring.hook_name]
        if at_subject:
            pooled = pool(resid, by=by, positions=torch.tensor([ends[row] - 1 for row in rows]))
        else:
            ids = right_padded(model, batch)
            real = own_tokens([len(sequence) for sequence in batch], ids.shape[1])
            mask = token_mask(model, ids, attention_mask=real, bos=bos)
            if not bool(mask.any(1).all()):
                text = texts[rows[int((~mask.any(1)).nonzero()[0])]]
                raise ValueError(f"{text!r} holds special tokens alone; give a word, or count them with bos=True")
            pooled = pool(resid, by=by, mask=mask)
        for row, one in zip(rows, pooled, strict=True):
            found[row] = one
    return torch.stack([one for one in found if one is not None])


def _shown(
    batch: int, pos: int, device: torch.device, by: Pool, mask: Tensor | None, positions: Tensor | None
) -> Tensor:
    """The mask of the tokens that count."""
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
