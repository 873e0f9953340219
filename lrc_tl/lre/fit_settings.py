"""How an LRE is fitted: exactly, or at a low rank with checked settings. Needs no torch."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

from lrc_tl.arguments.numbers_checked import numbers_checked

SolverName = Literal["exact", "low_rank"]
FitDtype = Literal["model", "float32"]
"""In what a 16-bit model is run and differentiated for a fit: its own dtype, or float32 with the same weights."""
_LEAST_WIDTH = 8


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class LowRank:
    """A solver that computes only the leading part of the mean Jacobian, from its products with a few vectors.

    The bias is exact. The fast setting is the default: 2 (rank + oversample) products for each prompt instead of
    d_model. The safe one, `min_cosine=0.99`, goes on until every object's direction is estimated to have that
    cosine to the exact one, or computes the whole Jacobian where that is cheaper.

    Raises:
        ValueError: a rank below 1, negative `oversample` or `power_iterations`, or `min_cosine` outside 0 to 1.
    """

    rank: int | None = None
    """Largest rank that the LRE will be asked for. None: that of the method, where `fit_concepts` has one; an LRE
    that is fitted directly needs a number."""
    oversample: int | None = None
    """Dimensions of the sketch beyond `rank`. None: 1.25 times the rank for one pair of layers, and twice the rank
    for a grid of several."""
    power_iterations: int = 3
    """The sketch is made in this many rounds and one, each with forward and reverse products, each starting from
    what the one before found, with at least eight dimensions in a round. More rounds take the same number of
    products in more passes, and find more. A grid of several pairs has no such rounds."""
    min_cosine: float | None = None
    """The safe setting: the size of the sketch is then found, and `oversample` only says how wide its rounds are.
    For one pair of layers; a grid of several has no estimate of its error."""
    seed: int = 0
    """Of the random vectors that the fit starts from."""

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank {self.rank} is not allowed; give 1 or more, at most the model's width")
        for name in ("oversample", "power_iterations"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; give 0 or more")
        if self.min_cosine is not None and not 0 < self.min_cosine < 1:
            raise ValueError(f"min_cosine is {self.min_cosine}; give a number between 0 and 1, or None")

    @numbers_checked
    def for_rank(self, rank: int) -> "LowRank":
        """The same for an LRE that will be asked for `rank`, which is filled in where none is given.

        Raises:
            ValueError: its own rank is lower.
        """
        if self.rank is not None and self.rank < rank:
            raise ValueError(
                f"the solver is LowRank(rank={self.rank}), but rank {rank} is asked for; give it rank={rank} or "
                "more, or leave its rank out"
            )
        return replace(self, rank=rank) if self.rank is None else self


Solver: TypeAlias = Literal["exact"] | LowRank


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """The size of a low-rank fit in a model of known width; `sketch_for` checks and fills in."""

    rank: int
    oversample: int
    power_iterations: int
    min_cosine: float | None
    seed: int

    @property
    def size(self) -> int:
        """Dimensions of the sketch."""
        return self.rank + self.oversample

    @property
    def least_size(self) -> int:
        """Dimensions before the first look at the errors."""
        return self.size if self.min_cosine is None else math.ceil(1.25 * self.rank)

    @property
    def width(self) -> int:
        """Dimensions of one round."""
        return max(math.ceil(self.size / (self.power_iterations + 1)), min(_LEAST_WIDTH, self.size))


def sketch_for(solver: Solver, d_model: int, *, grid: bool = False) -> Sketch | None:
    """The sketch of a low-rank fit of one pair of layers, or of a grid of several; None for an exact fit.

    Raises:
        ValueError: neither `"exact"` nor a `LowRank`, no rank or one above d_model, an `oversample` that does not
            fit beside it, or for a grid what only one pair has.
    """
    require_solver(solver)
    if not isinstance(solver, LowRank):
        return None
    if solver.rank is None:
        raise ValueError(
            "LowRank needs a rank here: LowRank(rank=...), the largest that you will make concepts with"
        )
    if solver.rank > d_model:
        raise ValueError(
            f"rank {solver.rank} is not allowed; the model's width is {d_model}, so give 1 to {d_model}"
        )
    if grid and (solver.min_cosine is not None or solver.power_iterations != LowRank.power_iterations):
        raise ValueError(
            f"{solver} was given for a grid of several pairs of layers, which has no min_cosine and no "
            "power_iterations; leave these out, or fit each pair with LinearRelationalEmbedding.fit"
        )
    room = d_model - solver.rank
    oversample = solver.oversample
    if oversample is None:
        oversample = min(math.ceil((2 if grid else 1.25) * solver.rank), room)
    if oversample > room:
        raise ValueError(
            f"oversample {oversample} is not allowed; with rank {solver.rank} and width {d_model} give 0 to {room}"
        )
    return Sketch(
        rank=solver.rank,
        oversample=oversample,
        power_iterations=solver.power_iterations,
        min_cosine=solver.min_cosine,
        seed=solver.seed,
    )


def require_solver(solver: object) -> None:
    """Raise ValueError unless this is a `Solver`."""
    if solver != "exact" and not isinstance(solver, LowRank):
        raise ValueError(f"solver is {solver!r}; allowed are 'exact' and LowRank(rank=...)")


def require_fit_dtype(fit_dtype: object) -> None:
    """Raise ValueError unless this is a `FitDtype`."""
    if fit_dtype not in get_args(FitDtype):
        allowed = " and ".join(map(repr, get_args(FitDtype)))
        raise ValueError(f"fit_dtype is {fit_dtype!r}; allowed are {allowed}")


def fit_dtype_named(name: str, *, argument: str = "fit_dtype") -> FitDtype:
    """The `FitDtype` of this name; `argument` is what the error calls it.

    Raises:
        ValueError: there is no such one.
    """
    for known in get_args(FitDtype):
        if name == known:
            return cast(FitDtype, known)
    raise ValueError(f"{argument} is {name!r}; allowed are {' and '.join(map(repr, get_args(FitDtype)))}")


def solver_name(solver: Solver) -> SolverName:
    """What results and files call a solver."""
    return "low_rank" if isinstance(solver, LowRank) else "exact"


def solver_named(name: str, *, argument: str = "solver") -> Solver:
    """The solver of this name, with its defaults; `argument` is what the error calls it.

    Raises:
        ValueError: there is no such solver.
    """
    if name not in get_args(SolverName):
        allowed = " or ".join(map(repr, get_args(SolverName)))
        raise ValueError(f"{argument} is {name!r}; allowed are {allowed}")
    return LowRank() if name == "low_rank" else "exact"
