"""The folders of a sweep's shards as one sweep."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import ResumeError
from lrc_tl.experiments.resuming import record_files, run_difference
from lrc_tl.experiments.sweep_outcomes import head_of
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.experiments.sweep_settings import AXES, SweepSettings
from lrc_tl.experiments.sweep_store import (
    RECORDS,
    StoredUnit,
    SweepStore,
    cells_of,
    clear_when_full,
    stored_units,
    write_missing_rows,
)
from lrc_tl.storage.whole_file import whole_file


def merge_sweeps(folders: Sequence[str | Path], *, out: str | Path) -> SweepResult:
    """The parts of one sweep that several processes made (`shard=`), put together in a new folder.

    Every unit is there once; parts may have had other axes, relations or seeds, but must share all else.

    Raises:
        ResumeError: a folder holds no sweep, two parts are of different sweeps or hold the same cells, or `out`
            holds results already.
        OSError: `out` cannot be written to, or no space is left.
    """
    sources = [Path(folder) for folder in as_tuple(folders, "folders", (str, Path))]
    if not sources:
        raise ValueError("no folders were given to merge; give at least one")
    target = Path(out)
    if record_files(target / RECORDS):
        raise ResumeError(f"{target} holds results already; give a new folder")
    heads = [head_of(source) for source in sources]
    parts = [stored_units(source) for source in sources]
    for source, units in zip(sources, parts, strict=True):
        if not units:
            raise ResumeError(f"{source} holds no finished unit; leave it out, or finish it first")
    units = [unit for part in parts for unit in part]
    _require_one_sweep(units)
    cells_of(units)
    settings = _joined([SweepSettings.from_dict(head["settings"]) for head in heads])
    store = SweepStore(folder=target, settings=settings, model=units[0].model)
    with store.open():
        copies = []
        for unit in units:
            copy = target / RECORDS / unit.path.name
            with clear_when_full(target), whole_file(copy) as partial:
                shutil.copyfile(unit.path, partial)
            copies.append(replace(unit, path=copy))
        with clear_when_full(target):
            write_missing_rows(copies)
        relations = dict.fromkeys(name for head in heads for name in head["relations"])
        store.write_head(
            list(relations), asked={**_asked_of(heads), "merged": [str(source) for source in sources]}
        )
    return SweepResult.load(target)


def _require_one_sweep(units: Sequence[StoredUnit]) -> None:
    first = units[0]
    contents: dict[str, StoredUnit] = {}
    for unit in units:
        if difference := run_difference(first, unit):
            raise ResumeError(f"{first.path} and {unit.path} belong to different sweeps ({difference})")
        other = contents.setdefault(unit.record.relation, unit)
        if other.content != unit.content:
            raise ResumeError(f"{other.path} and {unit.path} were made from different facts or templates")


def _asked_of(heads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the whole sweep can be asked for; the model is named where every part names the same one."""
    asked = [head.get("asked", {}) for head in heads]
    names = {part.get("model") for part in asked}
    return {
        "model": names.pop() if len(names) == 1 else None,
        "built_in": all(part.get("built_in", False) for part in asked),
    }


def _joined(settings: Sequence[SweepSettings]) -> SweepSettings:
    """The settings with the axes of all."""
    axes: dict[str, Any] = {
        name: tuple(dict.fromkeys(value for s in settings for value in getattr(s, name))) for name in AXES
    }
    return replace(settings[0], **axes)
