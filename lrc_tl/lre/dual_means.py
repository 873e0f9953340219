"""The dual of class means, and dual directions joined with it: what subjects say beside what the LRE says.

An LRE lets one expect the subjects of an object at `mu + Sigma r_o` (`lrc_tl.lre.dual`); the training subjects say
where they were. Means of a few subjects are noisy, so they count for a small share: class means that are shrunk
towards the model's posterior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import writing_vector
from lrc_tl.lre.subject_statistics import LayerStatistics
from lrc_tl.numerics.covariance import Covariance
from lrc_tl.numerics.precision import HOST

_LEAST_COSINE = 0.01
"""Of a writing with its reading vector; below it an edit would hardly move the score."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class MeansShare:
    """How much class means count beside LREs. Chosen on training facts (`benchmarks/verdict.md`).

    Raises:
        ValueError: a share below 0, or a shrinkage outside 0 to 1.
    """

    reading: float = 0.1
    """Of the reading vector, against 1 for all LREs together, each counted in the spread of its scores."""
    writing: float = 1.0
    """Of the writing vector, against 1 for all LREs together, both of unit length."""
    shrinkage: float = 0.6
    """Of the covariance that class means are read with: strong, since they are of few subjects."""

    def __post_init__(self) -> None:
        for name in ("reading", "writing"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a share of 0 or more")
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage is {self.shrinkage}; it must be above 0 and at most 1")


def weights_by_lead(leads: Sequence[float | None]) -> tuple[float, ...]:
    """How much each of several duals counts, by `DualFit.left_out_lead`; together 1.

    Scores in units of their spread are like measurements of equal noise. The sum that tells objects apart best
    weighs each by what it measures (Fisher's discriminant of independent measurements). One that puts facts below
    other objects does not count. Where no fact could be left out, or nothing leads, all count alike.
    """
    known = [0.0 if lead is None else max(0.0, lead) for lead in leads]
    if None in leads or not sum(known) > 0:
        return (1 / len(leads),) * len(leads)
    return tuple(lead / sum(known) for lead in known)


def mean_dual(
    subject_acts: Float[Tensor, "subject d_subject"],
    objects: Sequence[str],
    prior: LayerStatistics,
    *,
    shrinkage: float,
) -> Float[Tensor, "object d_subject"]:
    """For each object the vector `S^-1 d_o` that reads it, with `d_o` its mean less the mean of all means.

    `S` is the prior's covariance at this shrinkage: these are Fisher's discriminants, with the covariance of many
    other subjects in the place of that of a few. In float64, objects in the order in which they first come.
    """
    covariance = Covariance.of_samples(prior.samples, shrinkage=shrinkage).dense()
    differences = class_differences(subject_acts, objects).to(covariance)
    return torch.cholesky_solve(differences.T, torch.linalg.cholesky(covariance)).T


def class_differences(
    acts: Float[Tensor, "subject d_subject"], objects: Sequence[str]
) -> Float[Tensor, "object d_subject"]:
    """The mean of each object's rows less the mean of all means, in float64."""
    names = list(dict.fromkeys(objects))
    rows = [[row for row, other in enumerate(objects) if other == name] for name in names]
    means = torch.stack([acts[of].double().mean(0) for of in rows])
    return means - means.mean(0)


@numbers_checked
def joined_with_means(
    duals: Sequence[ConceptSet],
    subject_acts: Float[Tensor, "subject d_subject"],
    objects: Sequence[str],
    prior: LayerStatistics,
    *,
    write_acts: Float[Tensor, "subject d_subject"] | None = None,
    share: MeansShare,
    method: str,
    weights: Sequence[float] | None = None,
) -> ConceptSet:
    """Dual directions of several LREs and of class means as one set, the means with a `share`.

    Scores of each set are divided by their spread among the prior's subjects, `sqrt(r . Sigma r)` on average over
    objects: what counts is how well each tells subjects apart, not how long its vectors are. The joined scores of
    each object are in units of their own spread there, and the mean of `subject_acts` scores 0: a score of 3 lies
    three standard deviations of the prior's subjects above the relation's mean.

    Where the joined writing vector has a cosine of less than 0.01 with the reading one, as may be with few
    subjects, `Sigma r` is written; the settings name these objects under `"written_by_dual"`.

    Args:
        duals: sets at the prior's layer, with the same objects.
        subject_acts: subjects of the training facts as they will be read (zero-shot), with the object of each row.
        write_acts: the same subjects in few-shot prompts, where their means write better.
        weights: how much each of the sets counts in reading (`weights_by_lead`); None: all alike.

    Raises:
        ValueError: no sets, sets of other objects, rows of another number, or weights that are not one for each
            set, 0 or more and not all 0.
    """
    duals = as_tuple(duals, "duals", ConceptSet)
    weights = (1.0,) * len(duals) if weights is None else as_tuple(weights, "weights")
    if len(weights) != len(duals) or not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"weights are {list(weights)} for {len(duals)} sets; give a number of 0 or more for each")
    names = list(dict.fromkeys(objects))
    if not duals:
        raise ValueError("no sets to join; give at least one")
    if not sum(weights) > 0:
        raise ValueError("all weights are 0, so that no set counts; give one above 0")
    for dual in duals:
        if set(dual) != set(names):
            raise ValueError(f"a set has the objects {sorted(dual)}, and the subjects {sorted(names)}")
    written = subject_acts if write_acts is None else write_acts
    if not len(subject_acts) == len(written) == len(objects):
        raise ValueError(
            f"{len(subject_acts)} subjects to read, {len(written)} to write and {len(objects)} objects were "
            "given; give one of each for every fact"
        )

    def spreads_of(rows: Tensor) -> Tensor:
        variances = (rows * prior.covariance.times(rows)).sum(1)
        return variances.clamp_min(0).sqrt().clamp_min(torch.finfo(rows.dtype).tiny)

    def in_spreads(rows: Tensor) -> Tensor:
        rows = rows - rows.mean(0)
        return rows / spreads_of(rows).mean()

    parts = [w * in_spreads(_reading_rows(dual, names)) for w, dual in zip(weights, duals, strict=True)]
    reading = in_spreads(torch.stack(parts).sum(0))
    reading = reading + share.reading * in_spreads(
        mean_dual(subject_acts, objects, prior, shrinkage=share.shrinkage).to(reading)
    )
    reading = reading / spreads_of(reading)[:, None]
    writing = torch.stack([_unit_less_mean(_writing_rows(dual, names)) for dual in duals]).sum(0)
    differences = class_differences(written, objects).to(writing)
    writing = _unit(writing) + share.writing * _unit_or_zero(differences)
    by_dual = prior.covariance.times(reading)
    aligned = (_unit(reading) * _unit(writing)).sum(1) >= _LEAST_COSINE
    writing = torch.where(aligned[:, None], writing, by_dual)
    offsets = reading @ subject_acts.to(reading).mean(0)
    first, like = duals[0][names[0]], duals[0].vectors
    directions = {
        name: ConceptDirection.from_unscaled(
            reading[row].to(like),
            write_vector=writing[row].to(like),
            write_rule="given",
            offset=float(offsets[row]),
            relation=first.relation,
            object_name=name,
            hook_name=first.hook_name,
            method=method,
            fingerprint=first.fingerprint,
        )
        for row, name in enumerate(names)
    }
    settings = {
        "method": method,
        "combined": [dual.settings for dual in duals],
        "weights": [weight / sum(weights) for weight in weights],
        "class_means": {**vars(share), "n_subjects": len(subject_acts)},
        "written_by_dual": [
            name for name, is_aligned in zip(names, aligned.tolist(), strict=True) if not is_aligned
        ],
    }
    return ConceptSet(directions, settings=settings)


def _reading_rows(concepts: ConceptSet, names: Sequence[str]) -> Tensor:
    """Reading vectors of these objects with their lengths, in float64 on the CPU."""
    return torch.stack([concepts[name].vector.double().to(HOST) * concepts[name].scale for name in names])


def _writing_rows(concepts: ConceptSet, names: Sequence[str]) -> Tensor:
    return torch.stack([writing_vector(concepts[name]).double().to(HOST) for name in names])


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def _unit_or_zero(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def _unit_less_mean(rows: Tensor) -> Tensor:
    """Unit rows less their mean."""
    return _unit(rows) - _unit(rows).mean(0)
