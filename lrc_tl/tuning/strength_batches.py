"""One text at many strengths of a steering, as the rows of one batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import inside, without_gradients
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.batches import MAX_LOGIT_POSITIONS, MAX_TOKENS, picked_before_unembedding, run
from lrc_tl.passes.chunk import Chunk
from lrc_tl.passes.left_padded import generate_from
from lrc_tl.steering.places import LastTokenOf, Where, select
from lrc_tl.steering.steering import Steering, steer


def require_adjustable(steering: Steering) -> None:
    """Check that one strength can be put in place of the steering's own, and that one row serves any text.

    Raises:
        ValueError: its operation has no strength, it follows a schedule, or its places are given by row.
    """
    if not steering.operation.has_strength:
        raise ValueError(
            f"{steering.operation.kind} has no strength to choose; give a steering that adds or swaps"
        )
    if steering.when is not None:
        raise ValueError("a steering with a schedule has no one strength; calibrate it without `when`")
    where = steering.where
    if isinstance(where, Tensor) or (isinstance(where, Sequence) and not isinstance(where, str)):
        raise ValueError(
            "`where` is given row by row, but each text is a batch of its own here; give a function that makes "
            "the steering of each edit, such as `at_subject(model, steering)`"
        )


def at_strengths(steering: Steering, strengths: Sequence[float]) -> Steering:
    """The steering with one strength (beta for a swap) for each row of a batch."""
    rows = torch.tensor(list(strengths), dtype=torch.float64, device=HOST)
    return replace(steering, operation=steering.operation.with_amount(rows))


def as_if_generated(steering: Steering, n_prompt: int) -> Steering:
    """The same places in a pass over a prompt of `n_prompt` tokens with its continuation: as if it were generated.

    A plain pass takes all that it is given for the prompt, so `"prompt"`, `"generated"` and negative positions
    would name other tokens than in `generate`.
    """
    where, bos = steering.where, steering.bos

    def places(chunk: Chunk) -> Bool[Tensor, "batch pos"]:
        lengths = torch.full((chunk.index.shape[0],), n_prompt, device=chunk.index.device)
        return select(where, replace(chunk, prompt_width=n_prompt, prompt_lengths=lengths), bos=bos)

    return replace(steering, where=places)


def at_last_token(steering: Steering) -> Steering:
    """The steering on a text without a subject: the last subject token becomes the last token of the prompt."""
    last: Where = -1
    return replace(steering, where=last) if isinstance(steering.where, LastTokenOf) else steering


def map_logits(
    model: HookedModel,
    steering: Steering,
    ids: Sequence[int],
    *,
    n_prompt: int,
    strengths: Sequence[float],
    reduce: Callable[[Float[Tensor, "strength pos d_vocab"]], Tensor],
) -> Float[Tensor, " strength *reduced"]:
    """`reduce` of the log-probabilities at every position that predicts a token after the prompt, by strength.

    `ids` are the prompt's `n_prompt` tokens and its continuation; the position after the last of `ids` is
    predicted too. `reduce` is given some strengths at a time: it must treat them apart, and keep their axis first.
    """
    kept = len(ids) - n_prompt + 1
    size = max(1, min(MAX_LOGIT_POSITIONS // kept, MAX_TOKENS // len(ids)))
    placed = as_if_generated(steering, n_prompt)

    reduced = []
    for start in range(0, len(strengths), size):
        rows = strengths[start : start + size]
        batch = torch.tensor([list(ids)] * len(rows), device=model.cfg.device)
        wanted = torch.arange(n_prompt - 1, len(ids), device=model.cfg.device).repeat(len(rows), 1)
        picked = picked_before_unembedding(wanted)
        logits = inside(
            steer(model, [at_strengths(placed, rows)]),
            partial(run, model, batch, lengths=[len(ids)] * len(rows), fwd_hooks=[picked]),
        )
        reduced.append(reduce(wide_of(logits).log_softmax(-1)).cpu())
    return torch.cat(reduced)


def continuations(
    model: HookedModel, steering: Steering, ids: Sequence[int], *, strengths: Sequence[float], n_new: int
) -> list[list[int]]:
    """Greedy continuations of the prompt `ids`, one for each strength, without the end of sequence."""
    eos = getattr(model.tokenizer, "eos_token_id", None)

    def generate() -> Tensor:
        sequences: Tensor = generate_from(
            model, [ids] * len(strengths), max_new_tokens=n_new, do_sample=False, stop_at_eos=eos is not None,
            eos_token_id=eos,
        )  # fmt: skip
        return sequences

    sequences = inside(steer(model, [at_strengths(steering, strengths)]), partial(without_gradients, generate))
    rows = sequences[:, len(ids) :].tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]
