"""Finished pieces of a long run on disk, so that a killed run loses nothing and goes on where it was."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lrc_tl.arguments.plain_numbers import as_python
from lrc_tl.errors import FingerprintMismatch, ResultFileError, ResumeError
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.storage.json_results import read_sealed_result, write_result

SCHEMA_VERSION = 2
"""Pieces of version 1 had no checksum; they are refused, since nothing tells whether they are whole."""
_MOST_NAME_BYTES = 80
"""File systems allow names of 255 bytes; a digest, an ending and a prefix while it is written come on top."""


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """A piece as it was read from its file: whole, and of the right schema."""

    path: Path
    name: str
    content: str
    """Digest of what the piece was made from."""
    record: dict[str, Any]
    settings: dict[str, Any]
    model: dict[str, Any]
    """The fingerprint's plain values."""
    library: str
    """Version of lrc_tl."""


@dataclass(frozen=True, kw_only=True)
class ResultParts:
    """A folder with a JSON file for each finished piece of one run; each appears whole or not at all."""

    folder: Path
    kind: str
    """Name of the schema without `lrc_tl.`, e.g. `"benchmark_part"`."""
    settings: Mapping[str, Any]
    """JSON values that every piece depends on."""
    fingerprint: ModelFingerprint
    require_record: Callable[[Any], None]
    """Raises ValueError for what is no record of this kind."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Makes the folder, and keeps other runs out of it inside the block; a killed run keeps out nobody.

        Raises:
            RuntimeError: another run is writing to the folder.
            OSError: the folder cannot be made or written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RuntimeError(f"another run is writing to {self.folder}; wait for it or give another") from error
        try:
            for abandoned in self.folder.glob(".*.partial"):
                abandoned.unlink()
            yield
        finally:
            lock.release()

    def path(self, name: str) -> Path:
        """Where the piece of this name is kept; different names have different files."""
        return part_path(self.folder, name)

    def write(self, name: str, record: Mapping[str, Any], *, content: Any, seconds: float) -> None:
        """Store a piece; `content` holds JSON values that this piece depends on, such as a relation's facts."""
        write_result(
            self.path(name),
            kind=self.kind,
            results={"name": name, "content": _digest(content), "record": record},
            settings=self.settings,
            model=self.fingerprint.to_dict(),
            seconds=seconds,
            schema_version=SCHEMA_VERSION,
            sealed=True,
        )

    def read(self, name: str, *, content: Any) -> dict[str, Any] | None:
        """The piece that `write` stored under this name, or None where there is none yet.

        Warns where it was made on the same model, run differently (another device, another version of torch).

        Raises:
            ResumeError: it is damaged, or of another schema, version of this library, model, settings or content.
        """
        path = self.path(name)
        if not os.path.lexists(path):
            return None
        part = read_part(path, kind=self.kind, require_record=self.require_record)
        if difference := self._difference(part, name, content):
            raise ResumeError(
                f"{path} cannot be resumed from: {difference}; run with what it was made with, or without "
                "resuming into another folder"
            )
        return part.record

    def _difference(self, part: StoredPart, name: str, content: Any) -> str | None:
        if part.library != version("lrc-tl"):
            return f"it was made by lrc_tl {part.library}, not {version('lrc-tl')}"
        if model := model_difference(part.model, self.fingerprint.to_dict()):
            return f"it was made on another model ({model})"
        if listed := settings_difference(part.settings, self.settings):
            return f"it was made with other settings ({listed})"
        if part.name != name or part.content != _digest(content):
            return "what it was made from has changed (the relation's facts or templates)"
        return None


def part_path(folder: Path, name: str) -> Path:
    """Where a folder keeps the piece of this name: a readable beginning, bounded in bytes, and a digest."""
    readable = re.sub(r"[^\w.-]+", "_", name).lstrip(".").encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
    return folder / f"{readable}-{_digest(name)[:8]}.json"


def part_files(folder: Path) -> list[Path]:
    """The files of a folder that have the name of a piece, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"(?!\.).*-[0-9a-f]{8}\.json", path.name))


def read_part(path: Path, *, kind: str, require_record: Callable[[Any], None]) -> StoredPart:
    """One stored piece, checked against its checksum and its schema.

    Raises:
        ResumeError: it cannot be read, is damaged, of another schema, or no piece of a run.
    """
    try:
        data = read_sealed_result(path, kind=kind, schema_version=SCHEMA_VERSION)
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
        require_record(data.get("record"))
    except ValueError as error:
        raise ResumeError(f"{path} is no stored result: {error}; delete it to have it made anew") from error
    return StoredPart(
        path=path,
        name=data["name"],
        content=data["content"],
        record=data["record"],
        settings=data["settings"],
        model=data["model"],
        library=data["lrc_tl"],
    )


def require_no_parts(folder: Path, *, kind: str, require_record: Callable[[Any], None]) -> None:
    """Refuse a folder that holds pieces of an earlier run, which a run that does not resume would write over.

    Raises:
        ResumeError: there are some; the text says which, what they were made with, and how to go on.
    """
    found = part_files(folder)
    if not found:
        return
    shown = ", ".join(path.name for path in found[:3]) + (" ..." if len(found) > 3 else "")
    try:
        part = read_part(found[0], kind=kind, require_record=require_record)
        settings = "; ".join(f"{key} {_short(value)}" for key, value in part.settings.items() if value is not None)
        made = f", made on {_short(part.model.get('name'))} with {settings}"
    except ResumeError:
        made = ", of which the first cannot be read"
    raise ResumeError(
        f"{folder} holds {len(found)} finished results of an earlier run ({shown}){made}. To go on from them add "
        "--resume (resume=True in Python); else give another folder, or delete them"
    )


def settings_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that differ, with both values; empty where none does."""
    new = _plain(new)
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in differing)


def require_one_run(parts: Sequence[StoredPart]) -> None:
    """Check that pieces belong to one run: the same version of this library, settings, model and precision.

    Raises:
        ResumeError: two do not; the text names both files and what differs.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.library != first.library:
            difference = f"lrc_tl {first.library} against {part.library}"
        elif listed := settings_difference(first.settings, part.settings):
            difference = f"settings: {listed}"
        else:
            difference = model_difference(first.model, part.model)
        if difference:
            raise ResumeError(f"{first.path} and {part.path} belong to different runs ({difference})")


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


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
