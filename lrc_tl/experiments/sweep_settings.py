"""The settings of a sweep: its axes, and what all of its cells share. Needs no torch, for the command line."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.plain_numbers import is_real_number, real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.beta import DEFAULT_BETA
from lrc_tl.experiments.settings import (
    DEFAULT_SEEDS,
    Converted,
    ExperimentSettings,
    require_distinct,
    whole_numbers,
)
from lrc_tl.experiments.sweep_metrics import DEFAULT_METRICS, METRICS
from lrc_tl.lre.fit_settings import SolverName, solver_named
from lrc_tl.markup.printable import printable
from lrc_tl.methods.method import METHODS, require_exact_fit, require_methods
from lrc_tl.methods.settings import require_noise_or_none

PLACES = {
    "all": "every layer, as in the paper",
    "from": "the subject layer and all above it",
    "subject": "the subject layer alone",
}
"""Where edits act, by name."""


def _numbers(given: float | Sequence[float], name: str) -> tuple[float, ...]:
    is_one = is_real_number(given) or getattr(given, "shape", None) == ()
    numbers = real_numbers([given] if is_one else as_tuple(given, name), name)  # type: ignore[arg-type]
    if numbers:
        require_distinct(numbers, name)
    for number in numbers:
        if not abs(number) < float("inf"):
            raise ValueError(f"{name}: {number} was given; give finite numbers")
    return numbers


def _names(given: str | Sequence[str], name: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else as_tuple(given, name, str)
    if names:
        require_distinct(names, name)
    return names


_Whole: TypeAlias = Converted[int | Sequence[int], tuple[int, ...]]
_Real: TypeAlias = Converted[float | Sequence[float], tuple[float, ...]]
_Named: TypeAlias = Converted[str | Sequence[str], tuple[str, ...]]

AXES = (
    "methods",
    "subject_layers",
    "object_layers",
    "ranks",
    "ridges",
    "noises",
    "max_lre_prompts",
    "shots",
    "seeds",
)
"""What may grow from one run in a folder to the next: what is there already is not run again."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Axes of a sweep, each given as one value or several and kept as a tuple, and what all cells share.

    A cell is a method at one subject layer, object layer, rank, ridge, noise, number of LRE prompts and number of
    examples, as far as the method has them; each is measured for every relation and seed, and edits for every beta
    and place. Make variants with `dataclasses.replace`.

    Raises:
        TypeError: something that is no number where a number is meant.
        ValueError: an empty axis, a value that comes twice or lies outside what is allowed, or an unknown name.
    """

    # Each field has its own descriptor, by which dataclasses set and read it.
    methods: _Named = _Named(_names, ("lrc",))  # noqa: RUF009
    """Names of `lrc_tl.methods.METHODS`."""
    subject_layers: _Whole = _Whole(whole_numbers, ())  # noqa: RUF009
    """Where directions are read; negative layers count from the end."""
    object_layers: _Whole = _Whole(whole_numbers, ())  # noqa: RUF009
    """For the methods that have one; pairs whose object layer is not above the subject layer are left out."""
    ranks: _Whole = _Whole(whole_numbers, ())  # noqa: RUF009
    """Of the inverse, for the methods that have one."""
    ridges: _Real = _Real(_numbers, ())  # noqa: RUF009
    """Of the inverse, as a share of the largest singular value, for methods with one; none: the method's own."""
    noises: _Real = _Real(_numbers, ())  # noqa: RUF009
    """Of dual directions; none: chosen on each relation's training facts, left out one by one. `lrc-fisher` and
    `lrc-map-combined` keep their own, since in another metric the same number says something else."""
    betas: _Real = _Real(_numbers, (DEFAULT_BETA,))  # noqa: RUF009
    """Factors of eq. 7."""
    places: _Named = _Named(_names, ("all",))  # noqa: RUF009
    """Layers that edits act in: `"all"`, `"from"` the subject layer on, or the `"subject"` layer alone."""
    seeds: _Whole = _Whole(whole_numbers, DEFAULT_SEEDS)  # noqa: RUF009
    max_lre_prompts: _Whole = _Whole(whole_numbers, (ExperimentSettings.max_lre_prompts,))  # noqa: RUF009
    """Prompts for each LRE, balanced over objects; baselines use all known training prompts."""
    shots: _Whole = _Whole(whole_numbers, (ExperimentSettings.shots,))  # noqa: RUF009
    """Examples in training prompts."""
    metrics: _Named = _Named(_names, DEFAULT_METRICS)  # noqa: RUF009
    """Names of `lrc_tl.experiments.sweep_metrics.METRICS`."""
    max_facts: int | None = ExperimentSettings.max_facts
    """Facts used of each relation, as in `ExperimentSettings`."""
    validation: float = 0.25
    """Share of the training facts that no direction is made from: cells are chosen on them. 0: none, so that the
    numbers are those of the protocol, and nothing can be chosen."""
    max_edits: int | None = None
    """Edits for each relation and seed, drawn with the seed; None: all of the protocol's, five per object."""
    validation_edits: int = 0
    """Edits of validation facts, to choose cells by causality."""
    n_side_effects: int = ExperimentSettings.n_side_effects
    """(edit, statement) pairs for the KL of each kind."""
    solver: SolverName = ExperimentSettings.solver
    """As in `ExperimentSettings`."""
    split_seed: int | None = ExperimentSettings.split_seed
    """As in `ExperimentSettings`."""

    def __post_init__(self) -> None:
        for name in ("methods", "betas", "places", "seeds", "max_lre_prompts", "shots", "metrics"):
            if not getattr(self, name):
                raise ValueError(f"{name}: none were given; give at least one")
        require_methods(self.methods)
        for name, allowed in (("places", PLACES), ("metrics", METRICS)):
            for value in getattr(self, name):
                if value not in allowed:
                    raise ValueError(f"{name}: there is no {value!r}; {did_you_mean(value, allowed)}")
        for name, least in (("ranks", 1), ("max_lre_prompts", 1), ("shots", 0)):
            for value in getattr(self, name):
                if value < least:
                    raise ValueError(f"{name}: {value} was given; it must be {least} or more")
        for ridge in self.ridges:
            if not ridge > 0:
                raise ValueError(f"ridges: {ridge} was given; it must be above 0")
        for noise in self.noises:
            require_noise_or_none(noise)
        for name, at_least in (("max_facts", 2), ("max_edits", 1), ("validation_edits", 0), ("n_side_effects", 0)):
            value = getattr(self, name)
            if value is not None and value < at_least:
                raise ValueError(f"{name} is {value}; it must be {at_least} or more")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}; it is a share, from 0 to below 1")
        if self.validation_edits and not self.validation:
            raise ValueError("validation_edits needs validation facts; give validation=0.25, say, or no edits")
        solver_named(self.solver)
        require_exact_fit(self.methods, self.solver)
        if missing := self._missing():
            raise ValueError(f"{', '.join(missing)}: none were given; give at least one")

    def _missing(self) -> list[str]:
        methods = [METHODS[name] for name in self.methods]
        needed = {
            "subject_layers": True,
            "object_layers": any(method.takes_object_layer for method in methods),
            "ranks": any(method.needs_rank for method in methods),
        }
        return [name for name, is_needed in needed.items() if is_needed and not getattr(self, name)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SweepSettings":
        """The settings that `to_dict` gave.

        Raises:
            ValueError: a field is unknown or wrong.
        """
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(printable(f"settings of a sweep have no {', '.join(unknown)}"))
        return cls(**values)

    def shared(self) -> dict[str, Any]:
        """What all cells share and no later run in the same folder may change.

        The low-rank solver fits all layers at once, for the largest rank, so there these are among it.
        """
        grown = {*AXES}
        if self.solver != "exact":
            grown -= {"methods", "subject_layers", "object_layers", "ranks"}
        return {name: value for name, value in self.to_dict().items() if name not in grown}

    @numbers_checked
    def of_shots(self, shots: int) -> ExperimentSettings:
        """What the steps that a sweep has in common with the protocol go by."""
        return ExperimentSettings(
            shots=shots, max_facts=self.max_facts, split_seed=self.split_seed, solver=self.solver
        )
