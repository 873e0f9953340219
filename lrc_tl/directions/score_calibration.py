"""The calibration of one direction: what turns its score into yes or no, and into a probability."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.typechecking import checked

Knots: TypeAlias = tuple[tuple[float, float], ...]
"""(score, probability) pairs of increasing scores; linear between them, constant outside."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class ScoreCalibration:
    """A threshold for the score of one direction, and how its probability follows from the score.

    The probability is `sigmoid(slope * score + intercept)` (Platt 1999), or linear between the knots of isotonic
    regression, or not known where neither is given.

    Raises:
        ValueError: a number is not finite, only one of slope and intercept is given, or they and knots; scores of
            knots that do not grow, or probabilities outside 0 to 1.
    """

    threshold: float
    """Score above which the answer is yes; in residual-stream units."""
    slope: float | None = None
    intercept: float | None = None
    knots: Knots | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "slope", "intercept"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"the {name} is {value}; it must be a finite number")
        if (self.slope is None) != (self.intercept is None):
            raise ValueError("a calibration needs both slope and intercept, or neither")
        if self.knots is not None:
            _check_knots(self.knots)
            if self.slope is not None:
                raise ValueError("a calibration is either slope and intercept, or knots; both are given")

    @property
    def has_probability(self) -> bool:
        """Whether there is more than a threshold."""
        return self.slope is not None or self.knots is not None

    @checked
    def fires(self, scores: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Whether each score lies above the threshold."""
        return scores > self.threshold

    @checked
    def probability(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The probability of each score, in the dtype of the scores.

        Raises:
            ValueError: there is a threshold only.
        """
        if self.knots is not None:
            return _interpolated(scores, self.knots)
        if self.slope is None or self.intercept is None:
            raise ValueError("the calibration has a threshold only, and neither slope and intercept nor knots")
        return torch.sigmoid(self.slope * scores + self.intercept)


def _interpolated(scores: Tensor, knots: Knots) -> Tensor:
    probabilities = np.interp(scores.detach().double().cpu().numpy(), *np.array(knots).T)
    return torch.as_tensor(probabilities, device=scores.device).to(scores)


def _check_knots(knots: Knots) -> None:
    scores, probabilities = [score for score, _ in knots], [share for _, share in knots]
    grow = all(low < high for low, high in pairwise(scores))
    if not knots or not grow or not all(map(math.isfinite, scores)) or not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(
            "the knots of a calibration must be pairs of growing, finite scores and probabilities from 0 to 1; "
            f"given are {knots[:3]}..."
        )
