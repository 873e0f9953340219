"""The tidy rows of a sweep, and the Parquet files that hold them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lrc_tl.errors import ResumeError
from lrc_tl.experiments.record import AskedEdit
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS
from lrc_tl.experiments.sweep_metrics import TOP_K, validation_name
from lrc_tl.experiments.sweep_record import CellRecord, EditScores, ShotsRecord, SweepRecord
from lrc_tl.storage.whole_file import whole_file

SCHEMA_NAME, SCHEMA_VERSION = "lrc_tl.sweep_rows", 1
EDIT_COLUMNS = ("beta", "place")
KEY = ("relation", "seed", *CELL_COLUMNS, *EDIT_COLUMNS, "reading", "metric")
"""Columns that no two rows have in common; null where one does not apply."""
COLUMNS = (*KEY, "value", "count", "n", "n_facts")
_TEXTS = ("relation", "method", "place", "reading", "metric")
_NUMBERS = ("ridge", "noise", "beta", "value")
INTEGERS = tuple(name for name in COLUMNS if name not in (*_TEXTS, *_NUMBERS))
SCHEMA = pa.schema(
    [
        (name, pa.string() if name in _TEXTS else pa.float64() if name in _NUMBERS else pa.int64())
        for name in COLUMNS
    ],
    metadata={"lrc_tl.schema": SCHEMA_NAME, "lrc_tl.schema_version": str(SCHEMA_VERSION)},
)
"""Of every file of rows, with the version of these columns in its metadata."""


def record_rows(record: SweepRecord) -> Iterator[dict[str, Any]]:
    """The rows of a record; none for what is left out."""
    for cell in record.cells:
        if cell.left_out is None:
            head = {"relation": record.relation, "seed": record.seed, **cell.cell.to_dict()}
            for row in _cell_rows(record, cell):
                yield {**head, **row}


def _cell_rows(record: SweepRecord, cell: CellRecord) -> Iterator[dict[str, Any]]:
    readings = [("", cell.places), ("validation", cell.validation_places)]
    for kind, places_by_reading in readings:
        for reading, places in places_by_reading.items():
            for metric, most in (("accuracy", 1), (f"top{TOP_K}", TOP_K)):
                name = validation_name(metric) if kind else metric
                right = [1 <= place <= most for place in places]
                yield from _share(name, right, len(right), reading=reading)
    if cell.control_places is not None:
        n = len(cell.control_places)
        selectivity = (cell.places["plain"].count(1) - cell.control_places.count(1)) / n
        yield {"metric": "selectivity", "reading": "plain", "value": selectivity, "n": n, "n_facts": n}
    if cell.faithful is not None:
        yield from _share("faithfulness", cell.faithful, len(cell.faithful))
    if cell.chosen_noise is not None:
        yield {"metric": "chosen_noise", "value": cell.chosen_noise}
    shared = record.with_shots(cell.cell.shots)
    for scores in cell.edits:
        yield from _edit_rows(scores, shared)
    for scores in cell.validation_edits:
        yield from _success_rows(scores, shared.validation_edits, named=validation_name)
        if scores.kl_elsewhere is not None:
            n, n_facts = shared.n_validation_elsewhere
            where = {"beta": scores.beta, "place": scores.place}
            metric = validation_name("kl_elsewhere")
            yield {"metric": metric, "value": scores.kl_elsewhere, "n": n, "n_facts": n_facts} | where


def _edit_rows(scores: EditScores, shared: ShotsRecord) -> Iterator[dict[str, Any]]:
    yield from _success_rows(scores, shared.edits)
    where = {"beta": scores.beta, "place": scores.place}
    n_facts = _n_facts(shared.edits)
    yield {"metric": "edit_share", "value": scores.edit_share, "n": len(shared.edits), "n_facts": n_facts} | where
    for metric, kl, (n, n_facts) in (
        ("kl_elsewhere", scores.kl_elsewhere, shared.n_elsewhere),
        ("kl_same_subject", scores.kl_same_subject, shared.n_same_subject),
    ):
        if kl is not None:
            yield {"metric": metric, "value": kl, "n": n, "n_facts": n_facts} | where


def _success_rows(
    scores: EditScores, edits: Sequence[AskedEdit], named: Any = lambda metric: metric
) -> Iterator[dict[str, Any]]:
    for metric, outcomes in (("causality", scores.success), ("hard_causality", scores.hard_success)):
        if outcomes is not None:
            yield from _share(named(metric), outcomes, _n_facts(edits), beta=scores.beta, place=scores.place)


def _share(metric: str, outcomes: Sequence[bool], n_facts: int, **where: Any) -> Iterator[dict[str, Any]]:
    if outcomes:
        count, n = sum(outcomes), len(outcomes)
        yield {"metric": metric, "value": count / n, "count": count, "n": n, "n_facts": n_facts} | where


def _n_facts(edits: Sequence[AskedEdit]) -> int:
    return len({(edit.subject, edit.object) for edit in edits})


def rows_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table of `SCHEMA`."""
    return pa.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows], schema=SCHEMA)


def write_rows(path: Path, record: SweepRecord) -> None:
    """Write a record's rows to a Parquet file, which appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    table = rows_table(record_rows(record))
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_rows(paths: Iterable[Path]) -> pd.DataFrame:
    """The rows of several files as one frame; layers and counts are `Int64`, with `pd.NA` where there is none.

    Raises:
        ResumeError: a file is damaged, or of other columns than this version's.
    """
    tables = []
    for path in paths:
        try:
            table = pq.ParquetFile(path, read_dictionary=list(_TEXTS)).read(use_threads=False)
            table.validate(full=True)
        # KeyError: a text column is missing. UnicodeDecodeError: its name is no text.
        except (KeyError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise ResumeError(
                f"{path} is damaged or no file of rows ({error}); delete it to have it made anew"
            ) from error
        metadata = table.schema.metadata or {}
        version = metadata.get(b"lrc_tl.schema_version", b"none").decode(errors="replace")
        if version != str(SCHEMA_VERSION) or table.schema.names != list(COLUMNS) or not _has_types(table.schema):
            raise ResumeError(
                f"{path} has rows of version {version}, and this lrc_tl reads {SCHEMA_VERSION}; delete it to have "
                "it made anew"
            )
        tables.append(table)
    columns = {name: [table.column(name) for table in tables] for name in COLUMNS}
    tables.clear()
    return _frame(columns)


def _has_types(schema: pa.Schema) -> bool:
    """Whether the columns have the types of `SCHEMA`; texts may be dictionaries of theirs."""
    kinds = ((field.type.value_type if pa.types.is_dictionary(field.type) else field.type) for field in schema)
    return all(kind == field.type for kind, field in zip(kinds, SCHEMA, strict=True))


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A table of `SCHEMA` as a frame."""
    return _frame({name: [table.column(name)] for name in COLUMNS})


def _frame(columns: dict[str, list[pa.ChunkedArray]]) -> pd.DataFrame:
    """The columns, each given in pieces, as a frame; each piece is let go before the next column is made."""
    kinds = {pa.int64(): pd.Int64Dtype()}
    series = {}
    for field in SCHEMA:
        pieces = columns.pop(field.name)
        chunks = [chunk.cast(field.type) for piece in pieces for chunk in piece.chunks]
        del pieces
        whole = pa.chunked_array(chunks, type=field.type)
        chunks.clear()
        series[field.name] = whole.to_pandas(types_mapper=kinds.get)
    return pd.DataFrame(series, copy=False)
