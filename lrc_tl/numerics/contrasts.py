"""Whether two groups of vectors differ in one direction: agreement of pairs, and sides of vectors held out.

A direction fits the vectors that made it, however wide they are and whatever they hold. So each vector is judged
by the direction that the others make.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.numerics.precision import HOST


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How directions made without each vector (or pair) place it."""

    n: int
    n_right: int
    """Vectors on the side of their own group, halfway between the groups' means."""
    discriminability: float
    """d': the distance of the two groups' mean scores in pooled standard deviations; infinite without spread."""


@checked
def pair_agreement(differences: Float[Tensor, "pair d_model"]) -> Float[Tensor, " pair"]:
    """Cosine of each difference with the sum of the others, in float64; around 0 where nothing is common.

    Raises:
        ValueError: fewer than two differences.
    """
    if len(differences) < 2:
        raise ValueError(f"{len(differences)} differences; agreement needs two or more")
    wide = differences.to(HOST, torch.float64)
    return torch.cosine_similarity(wide, wide.sum(0) - wide, dim=1)


@checked
def principal_difference(
    differences: Float[Tensor, "pair d_model"], *, centred: bool
) -> Float[Tensor, " d_model"]:
    """The unit vector along which the differences are longest: their first principal component, in float64.

    Not centred it is the first right singular vector of the differences, so what they share counts. `centred`
    takes their mean out first and finds where they differ from each other. It points along the mean difference.

    Raises:
        ValueError: fewer than two differences, or nothing is left of them: all zero, or all alike and `centred`.
    """
    if len(differences) < 2:
        raise ValueError(f"{len(differences)} differences; a principal component needs two or more")
    wide = differences.to(HOST, torch.float64)
    mean = wide.mean(0)
    spread = wide - mean if centred else wide
    _, lengths, axes = torch.linalg.svd(spread, full_matrices=False)
    if not bool(lengths[0] > max(wide.shape) * torch.finfo(torch.float64).eps * wide.norm()):
        raise ValueError(
            "the differences are all alike, and nothing is left of them once their mean is taken out"
            if centred
            else "the differences are all zero"
        )
    axis: Tensor = axes[0]
    return axis if float(axis @ mean) >= 0 else -axis


@checked
def held_out_separation(
    acts: Float[Tensor, "text d_model"], inside: Bool[Tensor, " text"], *, paired: bool = False
) -> Separation:
    """How difference-of-means directions, each made without one vector, place that vector.

    With `paired` the k-th vector inside and the k-th outside are a pair, and are held out together. In float64.

    Raises:
        ValueError: fewer than two vectors in a group, or with `paired` groups of two sizes.
    """
    groups = [acts[rows].to(HOST, torch.float64) for rows in (inside, ~inside)]
    sizes = [len(group) for group in groups]
    if min(sizes) < 2 or (paired and sizes[0] != sizes[1]):
        raise ValueError(f"groups of {sizes[0]} and {sizes[1]}; each needs two or more, and pairs as many in both")
    scores = []
    for number, group in enumerate(groups):
        other = groups[1 - number]
        own_mean = (group.sum(0) - group) / (len(group) - 1)
        other_mean = (other.sum(0) - other) / (len(other) - 1) if paired else other.mean(0).expand_as(group)
        towards = own_mean - other_mean if number == 0 else other_mean - own_mean
        unit = towards / towards.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        scores.append(((group - (own_mean + other_mean) / 2) * unit).sum(1))
    right = int((scores[0] > 0).sum() + (scores[1] < 0).sum())
    spread = float(((scores[0].var() + scores[1].var()) / 2).sqrt())
    apart = float(scores[0].mean() - scores[1].mean())
    discriminability = apart / spread if spread > 0 else (0.0 if apart == 0 else float("inf"))
    return Separation(n=sum(sizes), n_right=right, discriminability=discriminability)
