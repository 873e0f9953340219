"""How good scores and probabilities of probes are: ranking, Brier score, log-loss and calibration error.

scikit-learn's metrics where it has them; the calibration error with equal-mass bins is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from lrc_tl.storage.json_fields import checked_fields

_REPORT = {
    "n_samples": int,
    "n_bins": int,
    "concepts": dict[str, dict[str, Any]],
    "multiclass": dict[str, Any] | None,
    "left_out": list[str],
}
_Array = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class BinaryMetrics:
    """One concept against all else. What needs probabilities is None where the direction has none."""

    n_positive: int
    n_negative: int
    auroc: float
    """Area under the receiver operating characteristic of the scores."""
    average_precision: float
    brier: float | None
    """Mean squared error of the probability, 0 to 1."""
    log_loss: float | None
    """In nats."""
    calibration_error: float | None
    """`calibration_error` of the probabilities."""


@dataclass(frozen=True, kw_only=True)
class MulticlassMetrics:
    """All concepts against each other, on the samples whose object is in the set."""

    n_samples: int
    accuracy: float
    """Of the most probable concept."""
    brier: float
    """Squared error summed over the concepts, 0 to 2."""
    log_loss: float
    """In nats."""
    calibration_error: float
    """`calibration_error` of the largest probability: is it right as often as it says?"""


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """How well a set of directions reads some samples."""

    n_samples: int
    n_bins: int
    """Equal-mass bins of the calibration errors."""
    concepts: Mapping[str, BinaryMetrics]
    """Of the concepts that have samples of both kinds."""
    multiclass: MulticlassMetrics | None
    """None: the set has no probabilities over its concepts, or no sample has an object of the set."""
    left_out: tuple[str, ...] = ()
    """Concepts without samples of both kinds."""

    def macro(self, metric: str) -> float | None:
        """Mean of one metric over the concepts, e.g. `macro("auroc")`; None where one has none.

        Raises:
            ValueError: there is no such metric.
        """
        if metric not in BinaryMetrics.__dataclass_fields__:
            raise ValueError(f"no metric {metric!r}; there are {', '.join(BinaryMetrics.__dataclass_fields__)}")
        values = [getattr(metrics, metric) for metrics in self.concepts.values()]
        return None if any(value is None for value in values) else float(np.mean(values))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, from which `from_dict` makes the report again."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ProbeReport":
        """The report that `to_dict` wrote.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        fields = checked_fields(data, _REPORT, what="report", defaults={"left_out": []})  # older files have none
        for name, values in fields["concepts"].items():
            checked_fields(values, get_type_hints(BinaryMetrics), what=f"report on {name!r}")
        multiclass = fields["multiclass"]
        if multiclass is not None:
            checked_fields(multiclass, get_type_hints(MulticlassMetrics), what="report on all concepts")
        return cls(
            n_samples=fields["n_samples"],
            n_bins=fields["n_bins"],
            concepts={name: BinaryMetrics(**values) for name, values in fields["concepts"].items()},
            multiclass=None if multiclass is None else MulticlassMetrics(**multiclass),
            left_out=tuple(fields["left_out"]),
        )


def calibration_error(probabilities: _Array, positive: _Labels, *, n_bins: int = 5) -> float:
    """Expected calibration error: over equal-mass bins, the mean of |mean probability - share of positives|.

    The bins lie between quantiles of the probabilities and weigh as their samples, so equal probabilities stay in
    one bin, and there may be fewer bins than asked for. 0 is best; bins of few samples bias it upwards.

    Raises:
        ValueError: no samples, or fewer than one bin.
    """
    if len(probabilities) == 0 or n_bins < 1:
        raise ValueError(f"{len(probabilities)} samples in {n_bins} bins; give at least one of each")
    inner = np.quantile(probabilities, np.linspace(0, 1, n_bins + 1))[1:-1]
    bins = np.searchsorted(inner, probabilities, side="left")
    gaps = [abs(float((probabilities[bins == place] - positive[bins == place]).sum())) for place in set(bins)]
    return sum(gaps) / len(probabilities)


def binary_metrics(
    scores: _Array, positive: _Labels, *, probabilities: _Array | None, n_bins: int
) -> BinaryMetrics:
    """Metrics of one concept's scores and, where it has them, probabilities; both kinds of sample must occur."""
    # Takes long to import, and every set of directions imports this module.
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    given = probabilities is not None
    return BinaryMetrics(
        n_positive=int(positive.sum()),
        n_negative=int((~positive).sum()),
        auroc=float(roc_auc_score(positive, scores)),
        average_precision=float(average_precision_score(positive, scores)),
        brier=float(brier_score_loss(positive, probabilities)) if given else None,
        log_loss=float(log_loss(positive, probabilities, labels=[False, True])) if given else None,
        calibration_error=(
            calibration_error(probabilities, positive, n_bins=n_bins) if probabilities is not None else None
        ),
    )


def multiclass_metrics(probabilities: _Array, labels: Sequence[int], *, n_bins: int) -> MulticlassMetrics:
    """Metrics of probabilities of shape `sample concept`, each row of which sums to 1."""
    from sklearn.metrics import log_loss

    concept_of = np.asarray(labels)
    right = probabilities.argmax(1) == concept_of
    target = np.eye(probabilities.shape[1])[concept_of]
    return MulticlassMetrics(
        n_samples=len(concept_of),
        accuracy=float(right.mean()),
        brier=float(((probabilities - target) ** 2).sum(1).mean()),
        log_loss=float(log_loss(concept_of, probabilities, labels=range(probabilities.shape[1]))),
        calibration_error=calibration_error(probabilities.max(1), right, n_bins=n_bins),
    )


def probe_report(
    scores: _Array,
    objects: Sequence[str],
    names: Sequence[str],
    *,
    probabilities: Sequence[_Array | None],
    multiclass: _Array | None,
    n_bins: int,
) -> ProbeReport:
    """The report on scores of shape `sample concept`: metrics of each column, and of multi-class probabilities.

    Raises:
        ValueError: no concept with samples of both kinds.
    """
    metrics, left_out = {}, []
    for column, name in enumerate(names):
        positive = np.array([other == name for other in objects])
        if positive.all() or not positive.any():
            left_out.append(name)
            continue
        metrics[name] = binary_metrics(
            scores[:, column], positive, probabilities=probabilities[column], n_bins=n_bins
        )
    if not metrics:
        raise ValueError(
            f"no concept has samples of both kinds: the {len(objects)} samples have the objects "
            f"{sorted(set(objects))}, the concepts are {list(names)}"
        )
    inside = [row for row, name in enumerate(objects) if name in names]
    labels = [list(names).index(objects[row]) for row in inside]
    return ProbeReport(
        n_samples=len(objects),
        n_bins=n_bins,
        concepts=metrics,
        multiclass=(
            multiclass_metrics(multiclass[inside], labels, n_bins=n_bins)
            if multiclass is not None and inside
            else None
        ),
        left_out=tuple(left_out),
    )
