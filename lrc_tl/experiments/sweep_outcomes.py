"""The outcomes of single facts and edits of a sweep, read from its records when they are asked for."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from lrc_tl.errors import ResumeError
from lrc_tl.experiments.resuming import record_files
from lrc_tl.experiments.sweep_metrics import TOP_K
from lrc_tl.experiments.sweep_record import numbers
from lrc_tl.experiments.sweep_store import HEAD, RECORDS, ROWS, read_unit_data

Trial: TypeAlias = tuple[str, int, str, str, str]
"""Relation, seed, subject, object, and the target of an edit, else nothing."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Records as plain values: those given, or those of a folder, which are read once, when first needed."""

    paths: tuple[Path, ...] = ()
    given: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, records: Iterable[dict[str, Any]]) -> "Outcomes":
        """Those of records in memory."""
        # As they come back from a file, so that both are read alike.
        return cls(given=tuple(json.loads(json.dumps(record)) for record in records))

    @classmethod
    def in_folder(cls, folder: Path) -> "Outcomes":
        """Those of a sweep's folder.

        Raises:
            ResumeError: it holds none.
        """
        paths = record_files(folder / RECORDS)
        if not paths:
            raise ResumeError(f"{folder} holds no results of a sweep; give the folder that it kept them in (out=)")
        return cls(paths=tuple(paths))

    @property
    def row_files(self) -> list[Path]:
        """Where the rows of each record are."""
        return [path.parent.parent / ROWS / f"{path.stem}.parquet" for path in self.paths]

    @cached_property
    def records(self) -> tuple[dict[str, Any], ...]:
        """All records, as JSON values.

        Raises:
            ResumeError: a file is damaged.
        """
        with _as_written():
            read = [read_unit_data(path)["record"] for path in self.paths]
            return (*self.given, *sorted(read, key=lambda record: (record["relation"], record["seed"])))

    def left_out(self) -> list[dict[str, Any]]:
        """What has no result: relation, seed, the cell's columns where it is that cell alone, and the reason.

        Raises:
            ResumeError: a record is not as it was written.
        """
        with _as_written():
            return list(self._left_out())

    def _left_out(self) -> Iterator[dict[str, Any]]:
        for record in self.records:
            head = {"relation": record["relation"], "seed": record["seed"]}
            if record["left_out"] is not None:
                yield {**head, "reason": record["left_out"]}
                continue
            for cell in record["cells"]:
                if cell["left_out"] is not None:
                    yield {**head, **cell["cell"], "reason": cell["left_out"]}

    def seconds(self) -> dict[str, float]:
        """Of all records, by stage.

        Raises:
            ResumeError: a record is not as it was written.
        """
        total: dict[str, float] = {}
        with _as_written():
            for record in self.records:
                for stage, seconds in record["seconds"].items():
                    total[stage] = total.get(stage, 0.0) + float(seconds)
        return total

    def of_cell(
        self, cell: Mapping[str, Any], *, metric: str, reading: str, beta: float | None, place: str | None
    ) -> dict[Trial, bool]:
        """Whether each test fact or edit of a cell came out right.

        Raises:
            ResumeError: a record is not as it was written.
        """
        with _as_written():
            return self._of_cell(cell, metric=metric, reading=reading, beta=beta, place=place)

    def _of_cell(
        self, cell: Mapping[str, Any], *, metric: str, reading: str, beta: float | None, place: str | None
    ) -> dict[Trial, bool]:
        outcomes: dict[Trial, bool] = {}
        for record in self.records:
            for measured in record["cells"]:
                if measured["cell"] != cell or measured["left_out"] is not None:
                    continue
                head = record["relation"], record["seed"]
                if metric in ("accuracy", f"top{TOP_K}"):
                    most = 1 if metric == "accuracy" else TOP_K
                    places = numbers(measured["places"][reading])
                    for (_, subject, name), at in zip(record["test_prompts"], places, strict=True):
                        outcomes[*head, subject, name, ""] = 1 <= at <= most
                    continue
                (shared,) = (by for by in record["by_shots"] if by["shots"] == cell["shots"])
                field = "success" if metric == "causality" else "hard_success"
                for scores in measured["edits"]:
                    if scores["beta"] == beta and scores["place"] == place and scores[field] is not None:
                        for edit, outcome in zip(shared["edits"], scores[field], strict=True):
                            outcomes[*head, *edit] = outcome == "1"
        return outcomes


@contextmanager
def _as_written() -> Iterator[None]:
    """Records are read as plain values, for speed; one that someone has edited is refused when it is used."""
    try:
        yield
    except ResumeError:
        raise
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ResumeError(
            f"a record of this sweep is not as it was written ({type(error).__name__}: {error}); delete it, and "
            "run the sweep again with resume to have it made anew"
        ) from error


def by_fact(values: Mapping[Trial, float]) -> list[list[list[float]]]:
    """The values of each fact, its seeds and edits together, by relation: as `paired_bootstrap` takes them."""
    facts: dict[str, dict[tuple[str, str], list[float]]] = {}
    for (relation, _, subject, name, _), value in values.items():
        facts.setdefault(relation, {}).setdefault((subject, name), []).append(float(value))
    return [list(of_relation.values()) for of_relation in facts.values()]


def head_of(folder: Path) -> dict[str, Any]:
    """What `sweep.json` says was asked for.

    Raises:
        ResumeError: there is none, or it cannot be read.
    """
    path = folder / HEAD
    try:
        head = json.loads(path.read_bytes())
        named = [
            name for name in ("settings", "model") if isinstance(head, dict) and isinstance(head.get(name), dict)
        ]
        if len(named) < 2:
            raise ValueError("it does not hold settings and model")
    except FileNotFoundError as error:
        raise ResumeError(
            f"{folder} holds no sweep (there is no {HEAD}); give the folder of run_sweep's out"
        ) from error
    except (OSError, ValueError) as error:
        raise ResumeError(
            f"{path} is damaged ({error}); run the sweep again with resume to have it made anew"
        ) from error
    return dict(head)
