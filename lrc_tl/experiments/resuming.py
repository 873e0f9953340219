"""Finished records of a long run on disk, so that a killed run loses nothing and goes on where it was."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from lrc_tl.arguments.plain_numbers import as_python
from lrc_tl.errors import FingerprintMismatch, ResultFileError, ResumeError
from lrc_tl.experiments.record import Record, record_from_dict
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.storage.json_results import read_sealed_result, write_result
from lrc_tl.storage.own_version import own_version

KIND = "benchmark_part"
"""Name of the schema without `lrc_tl.`."""
SCHEMA_VERSION = 2
"""Files of version 1 had no checksum; they are refused, since nothing tells whether they are whole."""
_MOST_NAME_BYTES = 80
"""File systems allow names of 255 bytes; a digest, an ending and a prefix while it is written come on top."""


@dataclass(frozen=True, kw_only=True)
class StoredRecord:
    """A record as it was read from its file: whole, and of the right schema."""

    path: Path
    name: str
    content: str
    """Digest of what the record was made from."""
    record: Record
    settings: dict[str, Any]
    model: dict[str, Any]
    """The fingerprint's plain values."""
    library: str
    """Version of lrc_tl."""


@dataclass(frozen=True, kw_only=True)
class StoredRecords:
    """A folder with a JSON file for each finished record of one run; each appears whole or not at all."""

    folder: Path
    settings: Mapping[str, Any]
    """JSON values that every record depends on."""
    fingerprint: ModelFingerprint

    @contextmanager
    def open(self) -> Iterator[None]:
        """Makes the folder, and keeps other runs out of it inside the block; a killed run keeps out nobody.

        Raises:
            RuntimeError: another run is writing to the folder.
            OSError: the folder cannot be made or written to.
        """
        with locked_folder(self.folder):
            yield

    def path(self, name: str) -> Path:
        """Where the record of this name is kept; different names have different files."""
        return record_path(self.folder, name)

    def write(self, name: str, record: Record, *, content: Any, seconds: float) -> None:
        """Store a record; `content` holds JSON values that it depends on, such as a relation's facts."""
        write_result(
            self.path(name),
            kind=KIND,
            results={"name": name, "content": digest(content), "record": record.to_dict()},
            settings=self.settings,
            model=self.fingerprint.to_dict(),
            seconds=seconds,
            schema_version=SCHEMA_VERSION,
            sealed=True,
        )

    def read(self, name: str, *, content: Any) -> Record | None:
        """The record that `write` stored under this name, or None where there is none yet.

        Warns where it was made on the same model, run differently (another device, another version of torch).

        Raises:
            ResumeError: it is damaged, or of another schema, version of this library, model, settings or content.
        """
        path = self.path(name)
        if not os.path.lexists(path):
            return None
        stored = read_record(path)
        if difference := self._difference(stored, name, content):
            raise ResumeError(
                f"{path} cannot be resumed from: {difference}; run with what it was made with, or without "
                "resuming into another folder"
            )
        return stored.record

    def _difference(self, stored: StoredRecord, name: str, content: Any) -> str | None:
        if stored.library != own_version():
            return f"it was made by lrc_tl {stored.library}, not {own_version()}"
        if model := model_difference(stored.model, self.fingerprint.to_dict()):
            return f"it was made on another model ({model})"
        if listed := settings_difference(stored.settings, self.settings):
            return f"it was made with other settings ({listed})"
        if stored.name != name or stored.content != digest(content):
            return "what it was made from has changed (the relation's facts or templates)"
        return None


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other runs out of it inside the block; a killed run keeps out nobody.

    Files that a killed run left unfinished are removed, those of the folders inside too.

    Raises:
        RuntimeError: another run is writing to the folder.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(f"another run is writing to {folder}; wait for it or give another") from error
    try:
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            for abandoned in place.glob(".*.partial"):
                abandoned.unlink()
        yield
    finally:
        lock.release()


def record_path(folder: Path, name: str) -> Path:
    """Where a folder keeps the record of this name: a readable beginning, bounded in bytes, and a digest."""
    readable = re.sub(r"[^\w.-]+", "_", name).lstrip(".").encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
    return folder / f"{readable}-{digest(name)[:8]}.json"


def record_files(folder: Path) -> list[Path]:
    """The files of a folder that have the name of a record's, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"(?!\.).*-[0-9a-f]{8}\.json", path.name))


def read_record(path: Path) -> StoredRecord:
    """One stored record, checked against its checksum and its schema.

    Raises:
        ResumeError: it cannot be read, is damaged, of another schema, or no record of a run.
    """
    try:
        data = read_sealed_result(path, kind=KIND, schema_version=SCHEMA_VERSION)
    except ResultFileError as error:
        raise ResumeError(f"{error}; delete it to have it made anew, or give another folder") from error
    try:
        for name, wanted in (
            ("model", dict),
            ("settings", dict),
            ("name", str),
            ("content", str),
            ("lrc_tl", str),
        ):
            if not isinstance(data.get(name), wanted):
                raise ValueError(f"{name} cannot be {_short(data.get(name))}")
        record = record_from_dict(data.get("record"))
    except ValueError as error:
        raise ResumeError(f"{path} is no stored result: {error}; delete it to have it made anew") from error
    return StoredRecord(
        path=path,
        name=data["name"],
        content=data["content"],
        record=record,
        settings=data["settings"],
        model=data["model"],
        library=data["lrc_tl"],
    )


def require_no_records(folder: Path) -> None:
    """Refuse a folder that holds records of an earlier run, which a run that does not resume would write over.

    Raises:
        ResumeError: there are some; the text says which, what they were made with, and how to go on.
    """
    files = record_files(folder)
    if not files:
        return
    names = ", ".join(path.name for path in files[:3]) + (" ..." if len(files) > 3 else "")
    try:
        first = read_record(files[0])
        settings = "; ".join(
            f"{key} {_short(value)}" for key, value in first.settings.items() if value is not None
        )
        origin = f", made on {_short(first.model.get('name'))} with {settings}"
    except ResumeError:
        origin = ", of which the first cannot be read"
    raise ResumeError(
        f"{folder} holds {len(files)} finished results of an earlier run ({names}){origin}. To go on from them "
        "add --resume (resume=True in Python); else give another folder, or delete them"
    )


def settings_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that differ, with both values; empty where none does."""
    new = _plain(new)
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in differing)


def require_one_run(records: Sequence[StoredRecord]) -> None:
    """Check that records belong to one run: the same version of this library, settings, model and precision.

    Raises:
        ResumeError: two do not; the text names both files and what differs.
    """
    first = records[0]
    for other in records[1:]:
        if difference := run_difference(first, other):
            raise ResumeError(f"{first.path} and {other.path} belong to different runs ({difference})")


class _Stored(Protocol):
    """What a stored record says of the run that made it."""

    @property
    def library(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def model(self) -> Mapping[str, Any]: ...


def run_difference(first: _Stored, other: _Stored) -> str:
    """How the runs of two stored records differ in version, settings or model; empty where they are one run."""
    if first.library != other.library:
        return f"lrc_tl {first.library} against {other.library}"
    if listed := settings_difference(first.settings, other.settings):
        return f"settings: {listed}"
    return model_difference(first.model, other.model)


def model_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What keeps results on two models (plain values of their fingerprints) out of one table; empty where nothing.

    It is another model, or the same in another precision. What was only run differently, on another device, say,
    or with another version of torch, is warned about.
    """
    if old.get("dtype") != new.get("dtype"):
        return f"dtype {_short(old.get('dtype'))}, now {_short(new.get('dtype'))}"
    try:
        made_on, used_on = ModelFingerprint.from_dict(dict(old)), ModelFingerprint.from_dict(dict(new))
        made_on.require_match(used_on, what="stored results were made")
    except FingerprintMismatch as error:
        return str(error)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return f"what is stored is no fingerprint of a model: {error}"
    return ""


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=as_python))


def digest(value: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
