"""Thresholds that turn scores into yes or no."""

from typing import Literal

import torch
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped
from torch import Tensor

Criterion = Literal["balanced_accuracy", "f1"]


@jaxtyped(typechecker=beartype)
def best_threshold(
    scores: Float[Tensor, " sample"], positive: Bool[Tensor, " sample"], *, by: Criterion = "balanced_accuracy"
) -> float:
    """The threshold for `score > threshold` with the best balanced accuracy or F1 on these samples.

    Candidates are the midpoints between neighbouring distinct scores; of equally good ones the highest is taken.
    In residual-stream units. Choose it on held-out samples, not on those that made the direction.

    Raises:
        ValueError: there are no positive or no negative samples, all scores are equal, or one is not finite.
    """
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is not finite; load the model in float32")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        raise ValueError(
            f"a threshold needs samples of both kinds; given are {n_positive} positive and {n_negative} negative"
        )
    ordered, order = scores.double().sort(descending=True)
    hits = positive[order].long().cumsum(0)  # positives among the k highest scores
    misses = torch.arange(1, len(ordered) + 1, device=hits.device) - hits
    distinct = (ordered[:-1] > ordered[1:]).nonzero()[:, 0]
    if distinct.numel() == 0:
        raise ValueError(f"all {len(ordered)} scores are equal, so no threshold tells samples apart")
    hits, misses = hits[distinct].double(), misses[distinct].double()
    if by == "f1":
        quality = 2 * hits / (hits + misses + n_positive)
    else:
        quality = hits / n_positive + 1 - misses / n_negative
    best = int(distinct[int(quality.argmax())])
    return float((ordered[best] + ordered[best + 1]) / 2)
