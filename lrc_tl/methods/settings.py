"""`FitSettings`: what fits of every method have in common. Needs no torch."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.lre.fit_settings import FitDtype, Solver, require_fit_dtype, require_solver

if TYPE_CHECKING:  # imports torch
    from lrc_tl.lre.subject_statistics import SubjectStatistics


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How directions are fitted, whatever their method. Every default is written here, for the command line too.

    Raises:
        ValueError: `max_lre_prompts` below 1, no such solver or `fit_dtype`, or a noise that is not above 0.
    """

    max_lre_prompts: int = 20
    """Most known prompts that an LRE is fitted on, balanced over objects. Methods with an LRE for each object take
    at least one prompt of each; baselines take all known prompts."""
    solver: Solver = "exact"
    """How LREs are fitted. A `LowRank` without a rank is made for that of the method, and in a sweep for the
    largest. Methods with a ridge need `"exact"`; baselines have no LRE."""
    fit_dtype: FitDtype = "model"
    """`"float32"`: LREs of a bfloat16 or float16 model are fitted in float32 with its weights, which takes 4
    bytes more for each that the fit goes through (`LinearRelationalEmbedding.fit`)."""
    noise: float | None = None
    """Of dual directions (`lrc-map`; others have none): the noise of objects as a share of their mean variance.
    None: chosen on the training prompts by leaving each out."""
    background: "SubjectStatistics | None" = field(default=None, hash=False)
    """How subjects vary, for dual directions. It must not hold subjects that the directions are tested on:
    `SubjectStatistics.fit(model).without(subjects)`. None: the subjects of the built-in relations, without those
    of the prompts' own relation that are not among the prompts."""

    def __post_init__(self) -> None:
        if self.max_lre_prompts < 1:
            raise ValueError(f"max_lre_prompts is {self.max_lre_prompts}; it must be 1 or more")
        require_solver(self.solver)
        require_fit_dtype(self.fit_dtype)
        require_noise_or_none(self.noise)


def require_noise_or_none(noise: float | None) -> None:
    """Raise ValueError for a noise that is not above 0."""
    if noise is not None and not (math.isfinite(noise) and noise > 0):
        raise ValueError(f"noise is {noise}; it must be above 0, or None to have it chosen")
