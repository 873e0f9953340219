"""Calibration of a set: each concept against the rest, all of them together, and a report on both."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from lrc_tl.directions.calibration import (
    Calibration,
    Criterion,
    Missing,
    MulticlassKind,
    ProbabilityKind,
    best_threshold,
    fit_isotonic,
    fit_multiclass,
    fit_platt,
    multiclass_probabilities,
)
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.probe_metrics import ProbeReport, probe_report
from lrc_tl.numerics.precision import HOST

_OPTIONS = {
    "by": Criterion,
    "probabilities": ProbabilityKind,
    "multiclass": MulticlassKind,
    "missing": Missing,
}


def require_options(**given: str) -> None:
    """Raise ValueError unless each option of `ConceptSet.calibrate` is one of its allowed words."""
    for option, value in given.items():
        if value not in get_args(_OPTIONS[option]):
            raise ValueError(f"{option} is {value!r}; allowed are {', '.join(get_args(_OPTIONS[option]))}")


def calibrated_set(
    directions: Mapping[str, ConceptDirection],
    scores: Tensor,
    objects: Sequence[str],
    *,
    by: Criterion,
    rate: float | None,
    probabilities: ProbabilityKind,
    multiclass: MulticlassKind,
    missing: Missing,
    n_bins: int,
) -> tuple[dict[str, ConceptDirection], Calibration]:
    """The directions with thresholds and probabilities, and the calibration of all together.

    `scores` has a row for each sample and a column for each direction; see `ConceptSet.calibrate`.

    Raises:
        ValueError: a concept without samples of both kinds, no concept with both, a rate without its criterion, or
            too few samples for isotonic regression or for `multiclass`.
    """
    numbers = scores.double().cpu().numpy()
    calibrated: dict[str, ConceptDirection] = {}
    for column, (name, direction) in enumerate(directions.items()):
        positive = torch.tensor([other == name for other in objects], device=HOST)
        if missing == "skip" and not bool(positive.any()):
            calibrated[name] = replace(direction, calibration=None)
            continue
        own_scores = numbers[:, column]
        try:
            threshold = best_threshold(scores[:, column].cpu(), positive, by=by, rate=rate)
            if probabilities == "isotonic":
                knots = fit_isotonic(own_scores, positive.numpy())
                calibrated[name] = direction.calibrated(threshold=threshold, knots=knots)
            else:
                slope, intercept = fit_platt(own_scores, positive.numpy())
                calibrated[name] = direction.calibrated(threshold=threshold, slope=slope, intercept=intercept)
        except ValueError as error:
            raise ValueError(f"concept {name!r}: {error}") from error
    weight, bias, shares = None, None, None
    if len(directions) > 1:
        names = list(directions)
        inside = [row for row, name in enumerate(objects) if name in calibrated]
        labels = [names.index(objects[row]) for row in inside]
        weight, bias = fit_multiclass(numbers[inside], labels, kind=multiclass)
        shares = multiclass_probabilities(scores, weight, bias)
    calibration = Calibration(
        weight=weight,
        bias=bias,
        by=by,
        rate=rate,
        probabilities=probabilities,
        multiclass=multiclass,
        report=set_report(calibrated, scores, objects, shares, n_bins),
    )
    return calibrated, calibration


def set_report(
    directions: Mapping[str, ConceptDirection],
    scores: Tensor,
    objects: Sequence[str],
    shares: Tensor | None,
    n_bins: int,
) -> ProbeReport:
    """How well scores, and probabilities where there are any, tell the objects apart.

    `shares` are the probabilities over all concepts; None: the set has none.

    Raises:
        ValueError: no concept with samples of both kinds.
    """

    def probabilities_of(column: int, direction: ConceptDirection) -> Any:
        calibration = direction.calibration
        if calibration is None or not calibration.has_probability:
            return None
        return calibration.probability(scores[:, column].double()).cpu().numpy()

    return probe_report(
        scores.double().cpu().numpy(),
        objects,
        list(directions),
        probabilities=[probabilities_of(*place) for place in enumerate(directions.values())],
        multiclass=None if shares is None else shares.cpu().numpy(),
        n_bins=n_bins,
    )
