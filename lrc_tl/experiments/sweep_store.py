"""A sweep's folder: a record and a file of rows for each finished unit, and what was asked for."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrc_tl.errors import ResultFileError, ResumeError
from lrc_tl.experiments.resuming import (
    digest,
    locked_folder,
    model_difference,
    record_files,
    record_path,
    settings_difference,
)
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_record import SweepRecord
from lrc_tl.experiments.sweep_rows import write_rows
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.storage.json_results import read_sealed_result, write_result

KIND, SCHEMA_VERSION = "sweep_record", 1
RECORDS, ROWS, HEAD = "records", "rows", "sweep.json"


@dataclass(frozen=True, kw_only=True)
class StoredUnit:
    """A unit's record as it was read from its file: whole, and of the right schema."""

    path: Path
    content: str
    """Digest of the facts and templates that it was made from."""
    record: SweepRecord
    settings: dict[str, Any]
    """What all cells of the sweep share."""
    model: dict[str, Any]
    """The fingerprint's plain values."""
    library: str
    """Version of lrc_tl."""

    @property
    def rows(self) -> Path:
        """Where its rows are."""
        return self.path.parent.parent / ROWS / f"{self.path.stem}.parquet"


@dataclass(frozen=True, kw_only=True)
class SweepStore:
    """The folder of one sweep, for one model and the settings that all of its cells share."""

    folder: Path
    settings: SweepSettings
    model: Mapping[str, Any]
    """The fingerprint's plain values."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Makes the folder, and keeps other runs out of it inside the block.

        Raises:
            RuntimeError: another run is writing to the folder.
            OSError: the folder cannot be made or written to.
        """
        with clear_when_full(self.folder), locked_folder(self.folder):
            for name in (RECORDS, ROWS):
                (self.folder / name).mkdir(exist_ok=True)
            finished = {path.stem for path in record_files(self.folder / RECORDS)}
            for rows in (self.folder / ROWS).glob("*.parquet"):
                if rows.stem not in finished:  # its record was deleted, to have it made anew
                    rows.unlink()
            yield

    def units(self, contents: Mapping[str, str]) -> list[StoredUnit]:
        """The finished units, all of this sweep; rows that a killed run did not get to are written.

        `contents` are the digests of the relations' contents by name; a relation that is not among them is not
        compared.

        Raises:
            ResumeError: a record is damaged, or of another version of this library, model, settings or content.
        """
        units = stored_units(self.folder)
        for unit in units:
            difference = self._difference(unit, contents)
            if difference:
                raise ResumeError(
                    f"{unit.path} cannot be gone on from: {difference}; run with what it was made with, or give "
                    "another folder"
                )
        write_missing_rows(units)
        return units

    def _difference(self, unit: StoredUnit, contents: Mapping[str, str]) -> str | None:
        if unit.library != version("lrc-tl"):
            return f"it was made by lrc_tl {unit.library}, not {version('lrc-tl')}"
        if model := model_difference(unit.model, self.model):
            return f"it was made on another model ({model})"
        if listed := settings_difference(unit.settings, self.settings.shared()):
            return f"it was made with other settings ({listed})"
        if unit.content != contents.get(unit.record.relation, unit.content):
            return "what it was made from has changed (the relation's facts or templates, or those of the others)"
        return None

    def write(self, record: SweepRecord, *, content: str, seconds: float) -> None:
        """Store a unit: its record, with which it counts as finished, then its rows.

        Raises:
            OSError: it cannot be written; where no space is left, the text says what to do.
        """
        path = unit_path(self.folder, record)
        with clear_when_full(self.folder):
            write_result(
                path,
                kind=KIND,
                results={"content": content, "record": record.to_dict()},
                settings=self.settings.shared(),
                model=self.model,
                seconds=seconds,
                schema_version=SCHEMA_VERSION,
                sealed=True,
            )
            write_rows(self.folder / ROWS / f"{path.stem}.parquet", record)

    def write_head(self, relations: Sequence[str], *, asked: Mapping[str, Any]) -> None:
        """Say in `sweep.json` what was asked for: the settings with all axes, the relations, and how."""
        with clear_when_full(self.folder):
            write_result(
                self.folder / HEAD,
                kind="sweep",
                results={"relations": list(relations), "asked": dict(asked)},
                settings=self.settings.to_dict(),
                model=self.model,
                seconds=0.0,
            )


def unit_path(folder: Path, record: SweepRecord) -> Path:
    """Where the record of these cells is kept; other cells on the same relation and seed have another file."""
    cells = digest([cell.cell.to_dict() for cell in record.cells])
    return record_path(folder / RECORDS, f"{record.relation} seed {record.seed} {cells[:8]}")


def stored_units(folder: Path) -> list[StoredUnit]:
    """Every unit in a folder, in the order of its relation and seed.

    Raises:
        ResumeError: a record is damaged, or of another schema.
    """
    units = [read_unit(path) for path in record_files(folder / RECORDS)]
    return sorted(units, key=lambda unit: (unit.record.relation, unit.record.seed, unit.path.name))


def read_unit(path: Path) -> StoredUnit:
    """One stored unit, checked against its checksum and its schema.

    Raises:
        ResumeError: it cannot be read, is damaged, or of another schema.
    """
    data = read_unit_data(path)
    try:
        return StoredUnit(
            path=path,
            content=data["content"],
            record=SweepRecord.from_dict(data["record"]),
            settings=data["settings"],
            model=data["model"],
            library=data["lrc_tl"],
        )
    except (KeyError, ValueError) as error:
        raise ResumeError(f"{path} is no stored unit: {error}; delete it to have it made anew") from error


def read_unit_data(path: Path) -> dict[str, Any]:
    """The plain values of a unit's file, checked against its checksum and its schema.

    Raises:
        ResumeError: it cannot be read, is damaged, or of another schema.
    """
    try:
        return read_sealed_result(path, kind=KIND, schema_version=SCHEMA_VERSION)
    except ResultFileError as error:
        raise ResumeError(f"{error}; delete it to have it made anew, or give another folder") from error


def write_missing_rows(units: Sequence[StoredUnit]) -> None:
    """Write the rows of units whose run was killed between the record and its rows."""
    for unit in units:
        if not unit.rows.exists():
            unit.rows.parent.mkdir(exist_ok=True)
            write_rows(unit.rows, unit.record)


def cells_of(units: Sequence[StoredUnit]) -> dict[tuple[str, int], set[SweepCell]]:
    """The cells that are there, by relation and seed.

    Raises:
        ResumeError: a cell is there twice.
    """
    cells: dict[tuple[str, int], set[SweepCell]] = {}
    for unit in units:
        there = cells.setdefault((unit.record.relation, unit.record.seed), set())
        for cell in unit.record.cells:
            if cell.cell in there:
                raise ResumeError(f"{unit.path} holds {cell.cell.name}, which another record has too; delete one")
            there.add(cell.cell)
    return cells


@contextmanager
def clear_when_full(folder: Path) -> Iterator[None]:
    """Says in one line what to do where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"no space is left for {folder}; finished units are kept: make space and run the same again to resume",
        ) from error
