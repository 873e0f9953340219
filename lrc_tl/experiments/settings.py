"""The settings of an experiment, which all of its relations and seeds share; each default stands here alone.

Needs no torch, so that the command line can show the defaults.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict, dataclass
from operator import index
from typing import Any, Generic, TypeAlias, TypeVar

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.plain_numbers import is_real_number, real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.lre.fit_settings import SolverName, solver_named
from lrc_tl.methods.method import METHODS, MethodVariant, method_variants
from lrc_tl.methods.settings import require_noise_or_none

TABLE_METHODS = ("lrc", "lrc-final", "svm", "logistic", "mean")
"""The methods of the paper's table 5, with logistic regression beside them."""
DEFAULT_SEEDS = (42,)
_MOST_VALUES = 10_000
"""Of layers, ranks or seeds in one run; more are a slip in a range."""

Given = TypeVar("Given", contravariant=True)
Kept = TypeVar("Kept", covariant=True)


class Converted(Generic[Given, Kept]):
    """A field of a dataclass that is given in several forms and kept in one."""

    def __init__(self, convert: Callable[[Given, str], Kept], default: Kept) -> None:
        self._convert, self._default = convert, default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, settings: object, owner: type) -> Kept:
        # Of the class itself dataclasses ask for the field's default.
        kept: Kept = self._default if settings is None else getattr(settings, f"_{self._name}")
        return kept

    def __set__(self, settings: object, given: Given) -> None:
        # The dataclass itself refuses assignments once it is made.
        object.__setattr__(settings, f"_{self._name}", self._convert(given, self._name))


def spelled_out(values: Sequence[int], name: str) -> tuple[int, ...]:
    """The values, counted first: a slip in a range would take all memory.

    Raises:
        TypeError: it is no list of whole numbers.
        ValueError: there are more than 10,000.
    """
    if isinstance(values, Sized) and len(values) > _MOST_VALUES:
        raise ValueError(f"{name}: {len(values):,} values were given, and at most {_MOST_VALUES:,} are allowed")
    return tuple(_whole(value, f"{name}[{place}]") for place, value in enumerate(as_tuple(values, name)))


def require_distinct(values: Sequence[Any], name: str) -> None:
    """Raise ValueError unless there is at least one value and none comes twice."""
    if not values:
        raise ValueError(f"{name}: none were given; give at least one")
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{name}: {value!r} was given {count} times; give each once")


def _whole(value: Any, name: str) -> int:
    try:
        return index(value)
    except TypeError as error:
        raise TypeError(f"{name} is {value!r:.60} ({type(value).__name__}); give a whole number") from error


def whole_numbers(given: int | Sequence[int], name: str) -> tuple[int, ...]:
    """One whole number or several, each once, as a tuple.

    Raises:
        TypeError: something that is no whole number.
        ValueError: one that comes twice.
    """
    is_one = isinstance(given, int) or (not isinstance(given, Sequence) and hasattr(given, "__index__"))
    if is_one and getattr(given, "shape", ()) == ():
        return (_whole(given, name),)
    values = spelled_out(given, name)  # type: ignore[arg-type]  # one number was told apart above
    if values:
        require_distinct(values, name)
    return values


def _betas(given: float | Sequence[float] | None, name: str) -> tuple[float, ...] | None:
    if given is None:
        return None
    if is_real_number(given) or getattr(given, "shape", None) == ():
        betas = real_numbers([given], name)
    else:
        betas = real_numbers(as_tuple(given, name), name)  # type: ignore[arg-type]  # one was told apart above
    require_distinct(betas, name)
    for beta in betas:
        if not abs(beta) < float("inf"):
            raise ValueError(f"beta is {beta}; it must be a finite number")
    return betas


_Several: TypeAlias = Converted[int | Sequence[int], tuple[int, ...]]
_Betas: TypeAlias = Converted[float | Sequence[float] | None, tuple[float, ...] | None]


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class ExperimentSettings:
    """What the result of one relation and seed depends on, beside the model and the methods.

    Layers, ranks and betas are given as one value or as several, and are kept as tuples. Several layers or ranks
    make a sweep: every method runs at each, as `method@subject=9`, and all of them share prompts, activations,
    Jacobians and edits. Make variants with `dataclasses.replace`.

    Raises:
        TypeError: something that is no number where a number is meant.
        ValueError: a number outside what is allowed, or one that comes twice.
    """

    # Each field has its own descriptor, by which dataclasses set and read it.
    subject_layers: _Several = _Several(whole_numbers, ())  # noqa: RUF009
    """Where directions are read; negative layers count from the end."""
    object_layers: _Several = _Several(whole_numbers, ())  # noqa: RUF009
    """For the methods that have one."""
    ranks: _Several = _Several(whole_numbers, ())  # noqa: RUF009
    """Of the inverse, for the methods that have one."""
    betas: _Betas = _Betas(_betas, None)  # noqa: RUF009
    """Factors of eq. 7; several give a causality curve, headed by the first. None: with `select` the one that it
    chooses, else `lrc_tl.directions.beta.DEFAULT_BETA`. The paper's is 0.1, which its presets have."""
    max_lre_prompts: int = 20
    """Prompts for each LRE, balanced over objects; baselines use all known training prompts."""
    max_facts: int | None = None
    """Facts used of each relation, drawn with the seed: two of each object as far as they go, then evenly."""
    shots: int = 4
    """Examples in training prompts."""
    select: bool = False
    """Choose layers, rank and beta by `select_settings` on each relation's training facts; a layer or rank that is
    given is kept. Where all LREs are those of `lrc-map`, layers are chosen for it, else for `lrc`."""
    single_layer: bool = False
    """Make the edits at the subject layer alone too."""
    random_model: bool = False
    """Also make every method in the model with random weights of the same scale and read the same prompts with it,
    a control; about doubles the time of the fits."""
    n_side_effects: int = 16
    """(edit, statement) pairs for the side effects of each kind: on statements of other relations, and on other
    known facts about the edited subject."""
    solver: SolverName = "exact"
    """How LREs are fitted: `"exact"`, or `"low_rank"` in less time, for the largest of the ranks, with its fast
    setting (`LinearRelationalEmbedding.fit`; a sweep over layers is `fit_layer_grid`)."""
    split_seed: int | None = None
    """Split each relation by this seed for all seeds of the run, which then draw facts, prompts and edits from the
    same two halves: methods that were chosen on the training half are judged on other facts. None: each seed draws
    facts and splits them."""
    noise: float | None = None
    """Of dual directions (`lrc-map`); None: chosen on each relation's training facts, left out one by one."""
    keep_test_subjects: bool = False
    """Count the test subjects in the covariance of subjects that dual directions rest on. For measuring what their
    removal changes, and for nothing else: a probe must not have seen what it is tested on."""

    def __post_init__(self) -> None:
        for name, least in (("max_lre_prompts", 1), ("max_facts", 2), ("shots", 0), ("n_side_effects", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")
        for rank in self.ranks:
            if rank < 1:
                raise ValueError(f"rank is {rank}; it must be 1 or more")
        solver_named(self.solver)
        require_noise_or_none(self.noise)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; files call the solver `fit_method`, as they did before it had that name.

        What only dual directions have stands there where it is given, so that runs without go on as before.
        """
        values = asdict(self)
        for name in ("noise", "keep_test_subjects"):
            del values[name]
        plain = {("fit_method" if name == "solver" else name): value for name, value in values.items()}
        return plain | self.of_dual_directions()

    def of_dual_directions(self) -> dict[str, Any]:
        """The settings that only dual directions have, where they are given."""
        given = {"noise": self.noise, "keep_test_subjects": self.keep_test_subjects or None}
        return {name: value for name, value in given.items() if value is not None}

    def missing_for(self, methods: Sequence[str]) -> tuple[str, ...]:
        """The names of the layers and ranks that these methods need and that have no value yet."""
        needs = {
            "subject_layers": True,
            "object_layers": any(METHODS[method].takes_object_layer for method in methods),
            "ranks": any(METHODS[method].needs_rank for method in methods),
        }
        return tuple(name for name, needed in needs.items() if needed and not getattr(self, name))

    @property
    def swept(self) -> tuple[str, ...]:
        """The names of layers and ranks that have several values."""
        axes = {"subject_layers": self.subject_layers, "object_layers": self.object_layers, "ranks": self.ranks}
        return tuple(name for name, values in axes.items() if len(values) > 1)

    @numbers_checked
    def variants(self, methods: Sequence[str], n_layers: int) -> tuple[MethodVariant, ...]:
        """Every method at every layer and rank."""
        return method_variants(
            methods,
            n_layers=n_layers,
            subject_layers=self.subject_layers,
            object_layers=self.object_layers,
            ranks=self.ranks,
        )
