"""`FitSettings`: what fits of every method have in common. Needs no torch."""

from dataclasses import dataclass

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.lre.fit_settings import Solver, require_solver


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How directions are fitted, whatever their method. Every default is written here, for the command line too.

    Raises:
        ValueError: `max_lre_prompts` below 1, or no such solver.
    """

    max_lre_prompts: int = 20
    """Most known prompts that an LRE is fitted on, balanced over objects. Methods with an LRE for each object take
    at least one prompt of each; baselines take all known prompts."""
    solver: Solver = "exact"
    """How LREs are fitted. A `LowRank` without a rank is made for that of the method, and in a sweep for the
    largest. Methods with a ridge need `"exact"`; baselines have no LRE."""

    def __post_init__(self) -> None:
        if self.max_lre_prompts < 1:
            raise ValueError(f"max_lre_prompts is {self.max_lre_prompts}; it must be 1 or more")
        require_solver(self.solver)
