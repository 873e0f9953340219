"""What a steering does to texts that it is not meant for: distance, perplexity and repetition."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.next_tokens import kl_divergence, token_log_probs
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.batches import whole_text_ids
from lrc_tl.steering.steering import Steering
from lrc_tl.tuning.strength_batches import at_last_token, continuations, map_logits

NEUTRAL_TEXTS = (
    "The kettle had just begun to sing when somebody knocked on the door, and for a moment nobody in the kitchen "
    "moved. Then my aunt put down her cup and went to look.",
    "To repair a bicycle tyre, first take the wheel off the frame, press out what air is left, and lift one edge "
    "of the tyre over the rim with two levers.",
    "Most of the members agreed that the meeting should be moved to Thursday, because the room was free in the "
    "evening and nobody had to hurry home.",
    "A good soup needs time more than anything else: onions that are cooked slowly, a few bones, some carrots, "
    "and a pot that is large enough for all of it.",
)
"""Four short texts of this project's own, about nothing in particular."""


@dataclass(frozen=True, kw_only=True)
class NeutralEffects:
    """Means over the neutral texts at one strength."""

    kl: float
    perplexity_ratio: float
    repetition: float | None


def repeated_share(tokens: Sequence[int], *, n: int = 3) -> float:
    """Share of the n-grams of `tokens` that occurred before among them; 0 with fewer than `n` tokens."""
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def neutral_effects(
    model: HookedModel,
    steerings: Sequence[Steering],
    texts: Sequence[str],
    *,
    strengths: Sequence[float],
    new_tokens: int | None = 16,
) -> tuple[NeutralEffects, ...]:
    """Side effects at each strength, as means over the texts; text k takes steering k, and so on in turn.

    The first half of a text's tokens is the prompt and the second stands for what is generated, so `where` means
    what it means in `generate`; the last subject token becomes the last token of the first half. Over the tokens
    of the second half:

    - `kl`: mean of KL(steered || unsteered) of the next token's distribution, in nats per token;
    - `perplexity_ratio`: perplexity of the text under the steered model over that under the unsteered one,
      `exp(mean(log p_unsteered - log p_steered))`, all texts' tokens alike;
    - `repetition`: share of repeated 3-grams in the greedy steered continuation of the first half, `new_tokens`
      long; None where `new_tokens` is.

    Raises:
        ValueError: no steerings or texts, or a text of fewer than four tokens.
    """
    if not steerings or not texts:
        raise ValueError("side effects need at least one steering and one neutral text")
    kl: list[Tensor] = []
    surprise: list[Tensor] = []
    repetition: list[list[float]] = []
    for number, text in enumerate(texts):
        ids = whole_text_ids(model, text)
        if len(ids) < 4:
            raise ValueError(f"the neutral text {text!r} has {len(ids)} tokens; give texts of four or more")
        n_prompt = len(ids) // 2
        steering = at_last_token(steerings[number % len(steerings)])
        nexts = torch.tensor(ids[n_prompt:], device=HOST)
        # What the last token predicts is not in the text, so it is not run.
        run_ids = ids[:-1]
        unsteered: list[Tensor] = []

        def keep(log_probs: Tensor, unsteered: list[Tensor] = unsteered) -> Tensor:
            unsteered.append(log_probs[0])
            return log_probs[:, :, 0]

        def compare(log_probs: Tensor, unsteered: list[Tensor] = unsteered, nexts: Tensor = nexts) -> Tensor:
            (clean,) = unsteered
            divergence = kl_divergence(log_probs, clean.expand_as(log_probs))
            surprise_added = token_log_probs(clean, nexts) - token_log_probs(log_probs, nexts)
            return torch.stack([divergence, surprise_added], dim=-1)

        map_logits(model, steering, run_ids, n_prompt=n_prompt, strengths=[0.0], reduce=keep)
        both = map_logits(model, steering, run_ids, n_prompt=n_prompt, strengths=strengths, reduce=compare)
        kl.append(both[..., 0].double())
        surprise.append(both[..., 1].double())
        if new_tokens is not None:
            new_ids = continuations(model, steering, ids[:n_prompt], strengths=strengths, n_new=new_tokens)
            repetition.append([repeated_share(row) for row in new_ids])
    mean_kl, mean_surprise = torch.cat(kl, 1).mean(1), torch.cat(surprise, 1).mean(1)
    return tuple(
        NeutralEffects(
            kl=float(mean_kl[row]),
            perplexity_ratio=float(mean_surprise[row].exp()),
            repetition=sum(of_text[row] for of_text in repetition) / len(repetition) if repetition else None,
        )
        for row in range(len(strengths))
    )
