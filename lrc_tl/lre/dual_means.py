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
from lrc_tl.directions.combining import combine_concepts
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.lre.subject_statistics import LayerStatistics
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.numerics.covariance import Covariance

MEANS = "class-means"
"""What stands as the method in directions of class means."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class MeansShare:
    """How much class means count beside LREs. Chosen on training facts (`benchmarks/verdict.md`).

    Raises:
        ValueError: a share below 0, or a shrinkage outside 0 to 1.
    """

    reading: float = 0.15
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


def mean_dual(
    subject_acts: Float[Tensor, "subject d_subject"],
    objects: Sequence[str],
    prior: LayerStatistics,
    *,
    shrinkage: float,
    write_acts: Float[Tensor, "subject d_subject"] | None = None,
    hook_name: str,
    relation: str,
    fingerprint: ModelFingerprint,
) -> ConceptSet:
    """A direction for each object that reads `S^-1 d_o` and writes `d_o`, its mean less the mean of all means.

    `S` is the prior's covariance at this shrinkage: these are Fisher's discriminants, with the covariance of many
    other subjects in the place of that of a few. Computed in float64, returned in the dtype of the subjects.

    Args:
        subject_acts: subjects as they will be read, with the object of each row.
        write_acts: the same facts' subjects in another prompt, whose means are written in the place of these.

    Raises:
        ValueError: one object only, or objects with the same mean.
    """
    names = list(dict.fromkeys(objects))
    if len(names) < 2:
        raise ValueError(f"class means need two or more objects; given is {names[0] if names else 'none'!r} alone")
    rows = {name: [row for row, other in enumerate(objects) if other == name] for name in names}
    differences, writing = (
        _differences(acts, [rows[name] for name in names])
        for acts in (subject_acts, subject_acts if write_acts is None else write_acts)
    )
    covariance = Covariance.of_samples(prior.samples, shrinkage=shrinkage).dense()
    reading = torch.cholesky_solve(differences.T.to(covariance), torch.linalg.cholesky(covariance)).T
    offsets = reading @ subject_acts.to(reading).mean(0)
    dtype = subject_acts.dtype
    directions = {
        name: ConceptDirection.from_unscaled(
            reading[row].to(dtype),
            write_vector=writing[row].to(dtype),
            write_rule="given",
            offset=float(offsets[row]),
            relation=relation,
            object_name=name,
            hook_name=hook_name,
            method=MEANS,
            fingerprint=fingerprint,
        )
        for row, name in enumerate(names)
    }
    settings = {"method": MEANS, "shrinkage": shrinkage, "n_subjects": len(subject_acts)}
    return ConceptSet(directions, settings=settings)


def _differences(acts: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """The mean of each group of rows, less the mean of all groups, in float64."""
    means = torch.stack([acts[list(of)].double().mean(0) for of in rows])
    return means - means.mean(0)


def joined_with_means(
    duals: Sequence[ConceptSet],
    subject_acts: Float[Tensor, "subject d_subject"],
    objects: Sequence[str],
    prior: LayerStatistics,
    *,
    write_acts: Float[Tensor, "subject d_subject"] | None = None,
    share: MeansShare,
    method: str,
) -> ConceptSet:
    """Dual directions of several LREs and of class means as one set, the means with a `share`.

    Scores of each set are divided by their spread among the prior's subjects, `sqrt(r . Sigma r)` on average over
    objects, so that what counts is how well each tells subjects apart and not how long its vectors are.

    Args:
        duals: sets at the prior's layer, with the same objects.
        subject_acts: subjects of the training facts as they will be read (zero-shot), with the object of each row.
        write_acts: the same subjects in few-shot prompts, where their means write better.

    Raises:
        ValueError: what `combine_concepts` or `mean_dual` refuses.
    """
    joined = combine_concepts(duals, weights=[_share_of_spread(dual, prior) for dual in duals], method=method)
    if not share.reading and not share.writing:
        return joined
    first = next(iter(joined.values()))
    assert first.fingerprint is not None
    means = mean_dual(
        subject_acts,
        objects,
        prior,
        shrinkage=share.shrinkage,
        write_acts=write_acts,
        hook_name=first.hook_name,
        relation=first.relation,
        fingerprint=first.fingerprint,
    )
    return combine_concepts(
        [joined, means],
        weights=[_share_of_spread(joined, prior), share.reading * _share_of_spread(means, prior)],
        write_weights=[1.0, share.writing],
        method=method,
    )


def _share_of_spread(concepts: ConceptSet, prior: LayerStatistics) -> float:
    """The weight with which `combine_concepts`, which divides by mean lengths, divides by the scores' spread."""
    lengths = torch.tensor([direction.scale for direction in concepts.values()], dtype=torch.float64)
    reading = concepts.vectors.double().cpu() * lengths[:, None]
    reading = reading - reading.mean(0)
    spread = (reading * prior.covariance.times(reading)).sum(1).clamp_min(0).sqrt().mean()
    return float(lengths.mean() / spread)
