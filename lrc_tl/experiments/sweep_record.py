"""What a sweep measured for one relation and seed: the outcome of every fact and edit in every cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.experiments.sweep_cells import SweepCell


@dataclass(frozen=True, kw_only=True)
class EditScores:
    """What edits of one beta, in one place, did; None where a metric was not asked for."""

    beta: float
    place: str
    success: tuple[bool, ...]
    """For each edit: whether the new object is likelier than the old one."""
    hard_success: tuple[bool, ...] | None
    """For each edit: whether the model itself says the new object."""
    edit_share: float
    """Mean of |edit| / |h|, in one layer."""
    kl_elsewhere: float | None = None
    """Mean over the pairs, nats; None where there are none, too."""
    kl_same_subject: float | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "EditScores":
        """What `to_dict` gave."""
        hard = value["hard_success"]
        outcomes = {"success": _bits(value["success"]), "hard_success": None if hard is None else _bits(hard)}
        return cls(**{**value, **outcomes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; outcomes as `"0110"`, since there are very many."""
        hard = None if self.hard_success is None else _text(self.hard_success)
        return {**vars(self), "success": _text(self.success), "hard_success": hard}


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One cell on one relation and seed."""

    cell: SweepCell
    left_out: str | None = None
    """Why it has no directions; all else is empty then."""
    n_lre_prompts: int | None = None
    """As many as there were."""
    places: Mapping[str, tuple[int, ...]]
    """By reading: for each test prompt the place of the right object, 1 for the best; 0: it has no direction."""
    validation_places: Mapping[str, tuple[int, ...]]
    control_places: tuple[int, ...] | None = None
    """Of directions made with shuffled labels, plain reading."""
    faithful: tuple[bool, ...] | None = None
    """For each test prompt: whether the LRE says the model's next token; None: not asked for, or no such LRE."""
    chosen_noise: float | None = None
    edits: tuple[EditScores, ...] = ()
    validation_edits: tuple[EditScores, ...] = ()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "CellRecord":
        """What `to_dict` gave."""
        faithful, control = value["faithful"], value["control_places"]
        return cls(
            cell=SweepCell(**value["cell"]),
            left_out=value["left_out"],
            n_lre_prompts=value["n_lre_prompts"],
            places={reading: numbers(places) for reading, places in value["places"].items()},
            validation_places={reading: numbers(p) for reading, p in value["validation_places"].items()},
            control_places=None if control is None else numbers(control),
            faithful=None if faithful is None else _bits(faithful),
            chosen_noise=value["chosen_noise"],
            edits=tuple(map(EditScores.from_dict, value["edits"])),
            validation_edits=tuple(map(EditScores.from_dict, value["validation_edits"])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; places as `"1 3 1"`, since there are very many."""
        control = self.control_places
        return {
            **vars(self),
            "cell": self.cell.to_dict(),
            "places": {reading: _words(places) for reading, places in self.places.items()},
            "validation_places": {reading: _words(p) for reading, p in self.validation_places.items()},
            "control_places": None if control is None else _words(control),
            "faithful": None if self.faithful is None else _text(self.faithful),
            "edits": [scores.to_dict() for scores in self.edits],
            "validation_edits": [scores.to_dict() for scores in self.validation_edits],
        }


@dataclass(frozen=True, kw_only=True)
class ShotsRecord:
    """What cells with the same number of examples share: the training prompts that are known, and the edits."""

    shots: int
    n_known_train: int
    edits: tuple[AskedEdit, ...]
    validation_edits: tuple[AskedEdit, ...]
    n_elsewhere: tuple[int, int] = (0, 0)
    """(edit, statement) pairs on statements of other relations, and edited facts among them."""
    n_same_subject: tuple[int, int] = (0, 0)
    """The same of other facts about the edited subjects."""
    n_validation_elsewhere: tuple[int, int] = (0, 0)
    """The same as `n_elsewhere` for the edits of validation facts."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ShotsRecord":
        """What `to_dict` gave."""
        given = dict(value)
        for name in ("edits", "validation_edits"):
            given[name] = tuple(AskedEdit(*edit) for edit in value[name])
        for name in ("n_elsewhere", "n_same_subject", "n_validation_elsewhere"):
            if name in value:  # records of earlier versions have no KL of validation edits
                given[name] = tuple(value[name])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """Some or all cells of a sweep on one relation and seed; or why the relation is left out."""

    relation: str
    seed: int
    left_out: str | None = None
    n_facts: int = 0
    test_prompts: tuple[AskedPrompt, ...] = ()
    """Zero-shot prompts of the test facts that the model knows, one per fact."""
    validation_prompts: tuple[AskedPrompt, ...] = ()
    """The same of the training facts that no direction was made from."""
    by_shots: tuple[ShotsRecord, ...] = ()
    cells: tuple[CellRecord, ...]
    """Of a relation that is left out, those that were asked for, each with the reason."""
    seconds: Mapping[str, float]
    """By stage."""

    @classmethod
    def from_dict(cls, value: Any) -> "SweepRecord":
        """The record that `to_dict` gave.

        Raises:
            ValueError: a field is missing or wrong.
        """
        try:
            given = dict(value)
            for name in ("test_prompts", "validation_prompts"):
                given[name] = tuple(AskedPrompt(*prompt) for prompt in value[name])
            given["by_shots"] = tuple(map(ShotsRecord.from_dict, value["by_shots"]))
            given["cells"] = tuple(map(CellRecord.from_dict, value["cells"]))
            return cls(**given)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"it is no record of a sweep: {type(error).__name__} {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **vars(self),
            "by_shots": [shots.to_dict() for shots in self.by_shots],
            "cells": [cell.to_dict() for cell in self.cells],
        }

    @numbers_checked
    def with_shots(self, shots: int) -> ShotsRecord:
        """What the cells with this number of examples share."""
        return next(record for record in self.by_shots if record.shots == shots)


def left_out_record(relation: str, seed: int, reason: str, cells: Sequence[SweepCell]) -> SweepRecord:
    """The record of a relation and seed that cannot be evaluated."""
    return SweepRecord(
        relation=relation,
        seed=seed,
        left_out=reason,
        cells=tuple(left_out_cell(cell, reason) for cell in cells),
        seconds={},
    )


def left_out_cell(cell: SweepCell, reason: str) -> CellRecord:
    """The record of a cell without directions."""
    return CellRecord(cell=cell, left_out=reason, places={}, validation_places={})


def numbers(text: str) -> tuple[int, ...]:
    """The places that a record's file holds as one text."""
    return tuple(map(int, text.split()))


def _words(places: Sequence[int]) -> str:
    return " ".join(map(str, places))


def _text(outcomes: Sequence[bool]) -> str:
    return "".join("1" if outcome else "0" for outcome in outcomes)


def _bits(text: str) -> tuple[bool, ...]:
    return tuple(outcome == "1" for outcome in text)
