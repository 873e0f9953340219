"""How thresholds and probabilities are fitted to scores, and the calibration of a whole set.

Every set of directions imports this module, so scikit-learn and SciPy, which take longest to import, come in where
something is fitted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.probe_metrics import ProbeReport
from lrc_tl.directions.score_calibration import Knots
from lrc_tl.markup.brief import brief_fields

Criterion = Literal["balanced_accuracy", "f1", "false_positive_rate"]
ProbabilityKind = Literal["platt", "isotonic"]
MulticlassKind = Literal["temperature", "standardised", "multinomial"]
Missing = Literal["error", "skip"]
MIN_ISOTONIC_SAMPLES = 200
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Probabilities over the concepts of a set, `softmax(weight @ scores + bias)`, and how they were fitted.

    Raises:
        ValueError: only one of weight and bias is given, or one is not finite.
    """

    weight: Float[Tensor, "concept concept"] | None
    """Float64; None: a set of one concept, which has nothing to choose from."""
    bias: Float[Tensor, " concept"] | None
    by: Criterion
    rate: float | None
    probabilities: ProbabilityKind
    multiclass: MulticlassKind
    report: ProbeReport
    """On the samples that calibrated the set, so its probabilities look a little better than they are; make
    another with `ConceptSet.report` on other samples."""

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        if (self.weight is None) != (self.bias is None):
            raise ValueError("a calibration needs both weight and bias, or neither")
        for name, tensor in (("weight", self.weight), ("bias", self.bias)):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the {name} of the calibration is not finite; calibrate again")


@checked
def best_threshold(
    scores: Float[Tensor, " sample"],
    positive: Bool[Tensor, " sample"],
    *,
    by: Criterion = "balanced_accuracy",
    rate: float | None = None,
) -> float:
    """The best threshold for `score > threshold` on these samples, by balanced accuracy, F1, or at a fixed rate.

    With `by="false_positive_rate"` it is the one that finds most positives while at most the share `rate` of the
    negatives lies above it. Candidates are the midpoints between neighbouring distinct scores, and for a fixed
    rate also a threshold as far above the highest score as the first midpoint lies below it; of equally good ones
    the highest is taken. In residual-stream units. Choose it on held-out samples, not on those that made the
    direction.

    Raises:
        ValueError: there are no positive or no negative samples, all scores are equal, one is not finite, or
            `rate` is missing, given for another criterion, or not in [0, 1).
    """
    if (by == "false_positive_rate") != (rate is not None) or (rate is not None and not 0 <= rate < 1):
        raise ValueError(
            f"rate is {rate} for by={by!r}; by='false_positive_rate' needs one from 0 to below 1, others none"
        )
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
    if rate is not None:
        allowed = misses / n_negative <= rate
        if not bool((allowed & (hits > 0)).any()):
            # Not the highest score itself: rounded otherwise, the same sample may score a little more.
            return float(ordered[0] + (ordered[0] - ordered[int(distinct[0]) + 1]) / 2)
        quality = torch.where(allowed, hits, -1.0)
    elif by == "f1":
        quality = 2 * hits / (hits + misses + n_positive)
    else:
        quality = hits / n_positive + 1 - misses / n_negative
    best = int(distinct[int(quality.argmax())])
    return float((ordered[best] + ordered[best + 1]) / 2)


def fit_platt(scores: _Array, positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of `sigmoid(slope * score + intercept)`, by maximum likelihood with Platt's targets.

    Positives count as `(n+ + 1) / (n+ + 2)` and negatives as `1 / (n- + 2)`, so separable samples keep a finite
    slope (Platt 1999). Both kinds must occur, and the scores must not all be equal.
    """
    from sklearn.linear_model import LogisticRegression

    n_positive = int(positive.sum())
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (len(positive) - n_positive + 2))
    middle, spread = float(scores.mean()), float(scores.std())
    scaled = ((scores - middle) / spread)[:, None]
    # A soft target is a sample of each kind with that weight. C is so large that nothing is pulled towards zero.
    fitted = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(
        np.concatenate([scaled, scaled]),
        np.repeat([True, False], len(scores)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope = float(fitted.coef_[0, 0]) / spread
    return slope, float(fitted.intercept_[0]) - slope * middle


def fit_isotonic(scores: _Array, positive: npt.NDArray[np.bool_]) -> Knots:
    """Knots of the non-decreasing map from scores to probabilities with the least squared error.

    Raises:
        ValueError: fewer than 200 samples, on which it would learn the noise.
    """
    if len(scores) < MIN_ISOTONIC_SAMPLES:
        raise ValueError(
            f"isotonic regression needs {MIN_ISOTONIC_SAMPLES} samples or more, and {len(scores)} are given; use "
            "probabilities='platt'"
        )
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, positive)
    return tuple(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))


def fit_multiclass(
    scores: _Array, labels: Sequence[int], *, kind: MulticlassKind
) -> tuple[Float[Tensor, "concept concept"], Float[Tensor, " concept"]]:
    """Weight and bias for `softmax(weight @ scores + bias)` from scores of shape `sample concept`.

    `"temperature"` divides all scores by one number, which keeps their order: the one with the least log-loss,
    each sample's own concept counting as `(n + 1) / (n + 2)` so that it stays above zero on separable samples.
    `"standardised"` is a temperature on scores that are standardised concept by concept, which takes away what
    all samples have in common and may change which concept is first. `"multinomial"` is scikit-learn's logistic
    regression on the standardised scores (C = 1); it may mix them too, and every concept must occur.

    Raises:
        ValueError: no samples, or for `"multinomial"` a concept without any.
    """
    concept_of = np.asarray(labels)
    n, k = scores.shape
    if n == 0:
        raise ValueError("no sample has an object of the set; give samples of its concepts")
    middle, scale = scores.mean(0), scores.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    if kind == "multinomial":
        if absent := sorted(set(range(k)) - set(concept_of.tolist())):
            raise ValueError(
                f"multiclass='multinomial' needs samples of every concept, and {len(absent)} of {k} have none; "
                "use 'temperature' or 'standardised'"
            )
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=1.0, max_iter=5000).fit((scores - middle) / scale, concept_of)
        weight, bias = fitted.coef_ / scale, fitted.intercept_
        if k == 2:  # scikit-learn gives the second class against the first
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        return torch.from_numpy(weight), torch.from_numpy(bias - weight @ middle)
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    target = np.full((n, k), 1 / (n + 2) / (k - 1))
    target[np.arange(n), concept_of] = (n + 1) / (n + 2)
    if kind == "temperature":
        middle, scale = np.zeros(k), np.ones(k)
    standard = (scores - middle) / scale
    spread = float((standard - standard.mean(1, keepdims=True)).std()) or 1.0
    scaled = (standard - standard.mean(1, keepdims=True)) / spread

    def loss(log_inverse: float) -> float:
        logits = math.exp(log_inverse) * scaled
        return float(-(target * (logits - logsumexp(logits, axis=1, keepdims=True))).sum() / n)

    minimum = minimize_scalar(loss, bounds=(-12.0, 12.0), method="bounded", options={"xatol": 1e-9})
    inverse = math.exp(float(minimum.x)) / spread / scale
    return torch.diag(torch.from_numpy(inverse)).double(), torch.from_numpy(-inverse * middle).double()


def multiclass_probabilities(scores: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`softmax(weight @ scores + bias)` along the last axis, in float64."""
    logits = scores.double() @ weight.to(scores.device).T + bias.to(scores.device)
    return logits.softmax(-1)
