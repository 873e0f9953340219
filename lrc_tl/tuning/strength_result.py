"""What choosing a strength found: the whole curve, the choice, and why."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.tuning.displays import strength_html


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most that side effects on neutral texts may be, as `neutral_effects` defines them; None: no limit.

    Raises:
        ValueError: a limit is NaN or below what no steering at all has.
    """

    kl: float | None = 0.5
    """Nats per token, KL(steered || unsteered)."""
    perplexity_ratio: float | None = 1.5
    repetition: float | None = 0.2
    """How much larger the share of repeated 3-grams may be than without steering. None: not measured either, which
    saves generating."""

    def __post_init__(self) -> None:
        for name, least in (("kl", 0.0), ("perplexity_ratio", 1.0), ("repetition", 0.0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"the limit on {name} is {value}; it must be {least:g} or more, or None for none")


@dataclass(frozen=True, kw_only=True)
class StrengthPoint:
    """What one strength does."""

    strength: float
    success_rate: float
    """Share of edits with a margin above 0."""
    wrong_way: float
    """Share of edits with a margin below that without steering."""
    mean_margin: float
    kl: float
    perplexity_ratio: float
    repetition: float | None
    reached: bool
    """Whether the success rate is the wanted one or more."""
    broken: tuple[str, ...]
    """Limits that are exceeded. Infinity exceeds any, and NaN also where there is none; `"not_finite"` where that
    is above 0."""
    not_finite: int = 0
    """Edits with a margin of NaN or infinity, by a strength that breaks the model. They are no success, and no
    part of `wrong_way` and `mean_margin`."""

    @property
    def feasible(self) -> bool:
        """Success reached, no limit exceeded."""
        return self.reached and not self.broken


@dataclass(frozen=True, kw_only=True, repr=False)
class StrengthCalibration:
    """The chosen strength, or None where none is feasible, with everything that was tried."""

    strength: float | None
    points: tuple[StrengthPoint, ...]
    """By strength; the grid and the refinement."""
    unsteered: StrengthPoint
    """Strength 0."""
    wanted: float
    limits: Limits
    operation: str
    unit: str
    """`"share"` (of |h|; also beta of a swap) or `"absolute"` (residual-stream units), or `"score"`."""
    hook_name: str
    success: str
    """Name of the success callable."""
    n_edits: int
    n_neutral_texts: int
    grid: tuple[float, ...]
    refinements: int
    seed: int
    fingerprint: ModelFingerprint

    @property
    def chosen(self) -> StrengthPoint | None:
        """The point of the chosen strength."""
        return next((point for point in self.points if point.strength == self.strength), None)

    @property
    def reached_at(self) -> float | None:
        """Smallest strength tried that reaches the wanted success rate, limits aside."""
        return next((point.strength for point in self.points if point.reached), None)

    @property
    def first_broken(self) -> tuple[str, float] | None:
        """Limit exceeded at the smallest strength, and that strength; of several there, the first listed."""
        return next(((point.broken[0], point.strength) for point in self.points if point.broken), None)

    @property
    def reason(self) -> str:
        """Why this strength, or why none, in a sentence."""
        chosen, broken = self.chosen, self.first_broken
        if chosen is not None:
            least = " (the smallest tried)" if chosen == self.points[0] else ""
            rate = f"success rate {chosen.success_rate:.2f}"
            return f"strength {chosen.strength:.4g}{least}: {rate}, within limits"
        best = max(self.points, key=lambda point: point.success_rate)
        if self.reached_at is None:
            first = f"success rate at most {best.success_rate:.2f} (at strength {best.strength:.4g})"
        else:
            first = f"success is reached from strength {self.reached_at:.4g}"
        limit = "no limit is exceeded"
        if broken is not None:
            limit = f"the limit on {broken[0]} is the first exceeded, at strength {broken[1]:.4g}"
        return f"none feasible: {first}; {limit}"

    def to_frame(self) -> pd.DataFrame:
        """One row for each strength, 0 first: the fields of `StrengthPoint`, and `feasible`."""
        rows = [{**asdict(point), "feasible": point.feasible} for point in (self.unsteered, *self.points)]
        return pd.DataFrame([{**row, "broken": ", ".join(row["broken"])} for row in rows])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        fields = {key: value for key, value in asdict(self).items() if key != "fingerprint"}
        broken = self.first_broken
        return {
            **fields,
            "reason": self.reason,
            "first_broken": None if broken is None else {"limit": broken[0], "strength": broken[1]},
            "reached_at": self.reached_at,
            "fingerprint": self.fingerprint.to_dict(),
        }

    _repr_html_ = strength_html

    def __repr__(self) -> str:
        return (
            f"StrengthCalibration of {self.operation} at {self.hook_name}: {self.reason}\n"
            f"wanted {self.success} >= {self.wanted:g} over {self.n_edits} edits; {self.limits} over "
            f"{self.n_neutral_texts} neutral texts; seed {self.seed}"
        )

    def __str__(self) -> str:
        """With the whole curve, as `print` shows it."""
        return f"{self!r}\n{self.to_frame().to_string(index=False, float_format=lambda value: f'{value:.4g}')}"
