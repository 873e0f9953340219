"""What the benchmark measured for one relation and seed: frozen records, stored as JSON and read again."""

import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeAlias

from lrc_tl.experiments.method_outcome import CurvePoint, MethodOutcome
from lrc_tl.experiments.stored_fields import (
    Count,
    CountOrNone,
    Counts,
    Extra,
    JsonForm,
    Numbers,
    Share,
    Text,
    Whole,
    is_number,
    is_text,
    list_of,
    mapping_of,
    or_none,
    other_fields,
    read_fields,
    require_field,
    require_mapping,
    written_fields,
    written_rows,
)
from lrc_tl.markup.brief import brief_fields


class AskedPrompt(NamedTuple):
    """A zero-shot prompt about a test fact that the model knows."""

    text: str
    subject: str
    object: str


class AskedEdit(NamedTuple):
    """An edit of a test fact's subject, from its object to another."""

    subject: str
    object: str
    target: str


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_text, value))


def _read_methods(methods: Any, place: str) -> dict[str, MethodOutcome]:
    return {
        name: MethodOutcome.from_dict(outcome, place=f"{place}[{name!r}]") for name, outcome in methods.items()
    }


@dataclass(frozen=True, kw_only=True)
class RelationRecord:
    """What was measured for one relation and seed: every method on the same prompts and edits.

    Raises:
        ValueError: a list has another length than there are prompts, edits or betas, or an accuracy is not the
            share of its outcomes.
    """

    relation: Text
    seed: Whole
    n_facts: Count
    n_known_train: Count
    """Training prompts that the model answers."""
    n_lre_prompts: Count
    n_test: Count
    """Test facts, known or not."""
    n_prompts: Count
    """Test facts that the model knows, each with one prompt."""
    n_edits: Count
    n_unrelated: Count
    """(edit, statement) pairs of statements of other relations."""
    n_same_subject: Count
    """(edit, statement) pairs of other facts about the edited subject."""
    n_objects: Count
    """Objects with a direction."""
    chance: Share
    subject_layer: Count
    object_layer: CountOrNone
    rank: CountOrNone
    betas: Numbers
    selected: Annotated[Mapping[str, Any] | None, JsonForm(or_none(mapping_of(lambda _: True)))]
    """What `select_settings` chose, as plain values; None: layers, rank and beta were given."""
    test_prompts: Annotated[
        tuple[AskedPrompt, ...],
        JsonForm(list_of(_is_triple), lambda rows, _: tuple(AskedPrompt(*row) for row in rows), written_rows),
    ]
    object_tokens: Counts
    """For each test prompt: how many tokens its object has."""
    edits: Annotated[
        tuple[AskedEdit, ...],
        JsonForm(list_of(_is_triple), lambda rows, _: tuple(AskedEdit(*row) for row in rows), written_rows),
    ]
    methods: Annotated[
        Mapping[str, MethodOutcome],
        JsonForm(
            mapping_of(lambda outcome: isinstance(outcome, dict)),
            _read_methods,
            lambda methods: {name: outcome.to_dict() for name, outcome in methods.items()},
        ),
    ]
    """By name: with its setting behind an `@`, where several were run."""
    seconds: Annotated[Mapping[str, float], JsonForm(mapping_of(is_number))]
    """By stage."""
    extra: Extra = field(default_factory=dict)

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        _require_length(self.test_prompts, self.n_prompts, "record['test_prompts']")
        _require_length(self.object_tokens, self.n_prompts, "record['object_tokens']")
        _require_length(self.edits, self.n_edits, "record['edits']")
        if not self.methods or not self.n_prompts:
            raise ValueError("record has no method or no prompt, but is not left out")
        for name, outcome in self.methods.items():
            place = f"record['methods'][{name!r}]"
            _require_length(outcome.predicted, self.n_prompts, f"{place}['predicted']")
            for ending in ("", "_centred", "_calibrated"):
                correct, accuracy = f"correct{ending}", f"accuracy{ending}"
                _require_length(getattr(outcome, correct), self.n_prompts, f"{place}[{correct!r}]")
                _require_share(getattr(outcome, accuracy), getattr(outcome, correct), f"{place}[{accuracy!r}]")
            if self.n_edits and not outcome.curve:
                raise ValueError(f"{place}['curve'] is empty, but there are {self.n_edits} edits")
            self._require_curve(outcome.curve, f"{place}['curve']")
            self._require_curve(outcome.curve_single_layer or (), f"{place}['curve_single_layer']")

    def _require_curve(self, points: Sequence[CurvePoint], place: str) -> None:
        if points:
            _require_length(points, len(self.betas), place)
        for number, (point, beta) in enumerate(zip(points, self.betas, strict=False)):
            if point.beta != beta:
                raise ValueError(f"{place}[{number}]['beta'] is {point.beta}, and the record's is {beta}")
            _require_length(point.success, self.n_edits, f"{place}[{number}]['success']")
            _require_length(point.hard_success, self.n_edits, f"{place}[{number}]['hard_success']")

    @classmethod
    def from_dict(cls, value: Any) -> "RelationRecord":
        """The record that `to_dict` gave; `record_from_dict` also reads relations that were left out.

        Raises:
            ValueError: a field is missing or wrong, or two do not fit each other; the text names the place.
        """
        require_mapping(value, "record")
        require_field(value, "left_out", lambda reason: reason is None, "record")
        fields = read_fields(cls, value, "record")
        return cls(**fields, extra=other_fields(value, {*fields, "left_out"}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        head = {"relation": self.relation, "seed": self.seed, "left_out": None}
        return head | written_fields(self) | dict(self.extra)


@dataclass(frozen=True, kw_only=True)
class LeftOutRelation:
    """A relation and seed that could not be evaluated."""

    relation: Text
    seed: Whole
    left_out: Text
    """The reason."""
    extra: Extra = field(default_factory=dict)

    @classmethod
    def from_dict(cls, value: Any) -> "LeftOutRelation":
        """What `to_dict` gave.

        Raises:
            ValueError: a field is missing or of another type; the text names it.
        """
        fields = read_fields(cls, value, "record")
        return cls(**fields, extra=other_fields(value, {*fields}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return written_fields(self) | dict(self.extra)


Record: TypeAlias = RelationRecord | LeftOutRelation


def record_from_dict(value: Any) -> Record:
    """A record from its plain values: of a relation that was evaluated, or of one that was left out.

    Raises:
        ValueError: a field is missing or wrong, or two do not fit each other; the text names the place.
    """
    require_mapping(value, "record")
    evaluated = "left_out" in value and value["left_out"] is None
    return RelationRecord.from_dict(value) if evaluated else LeftOutRelation.from_dict(value)


def _require_length(values: Sized, wanted: int, place: str) -> None:
    if len(values) != wanted:
        raise ValueError(f"{place} has {len(values)} entries; it must have {wanted}")


def _require_share(share: float, outcomes: Sequence[bool], place: str) -> None:
    measured = sum(outcomes) / len(outcomes)
    if not math.isclose(share, measured, abs_tol=1e-6):
        raise ValueError(f"{place} is {share}, but the share of its outcomes is {measured}")
