"""Finished pieces of a long run on disk, so that a killed run loses nothing and goes on where it was."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lrc_tl.errors import FingerprintMismatch
from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.json_results import write_result
from lrc_tl.plain_numbers import as_python

SCHEMA_VERSION = 1


class ResumeError(ValueError):
    """A stored piece belongs to another run; the text says what differs."""


@dataclass(frozen=True, kw_only=True)
class ResultParts:
    """A folder with a JSON file for each finished piece of one run; each appears whole or not at all."""

    folder: Path
    kind: str
    """Name of the schema without `lrc_tl.`, e.g. `"benchmark_part"`."""
    settings: Mapping[str, Any]
    """JSON values that every piece depends on."""
    fingerprint: ModelFingerprint

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
        readable = re.sub(r"[^\w.-]+", "_", name)[:80]
        return self.folder / f"{readable}-{_digest(name)[:8]}.json"

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
        )

    def read(self, name: str, *, content: Any) -> dict[str, Any] | None:
        """The piece that `write` stored under this name, or None where there is none yet.

        Raises:
            ResumeError: it is damaged, or of another schema, version of this library, model, settings or content.
        """
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            schema, library = data["schema"], data["lrc_tl"]
            stored = {key: data[key] for key in ("model", "settings", "name", "content", "record")}
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ResumeError(f"{path} is damaged or no stored result; delete it to have it made anew") from error
        if difference := self._difference(schema, library, stored, name, content):
            raise ResumeError(
                f"{path} cannot be resumed from: {difference}; run with what it was made with, or without "
                "resuming, or give another folder"
            )
        record = stored["record"]
        assert isinstance(record, dict)
        return record

    def _difference(
        self, schema: Any, library: Any, stored: Mapping[str, Any], name: str, content: Any
    ) -> str | None:
        wanted = {"name": f"lrc_tl.{self.kind}", "version": SCHEMA_VERSION}
        if schema != wanted:
            return f"its schema is {_short(schema)}, not {_short(wanted)}"
        if library != version("lrc-tl"):
            return f"it was made by lrc_tl {library}, not {version('lrc-tl')}"
        if model := self._model_difference(stored["model"]):
            return f"it was made on another model ({model})"
        old, new = stored["settings"], _plain(self.settings)
        if old != new:
            differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            listed = "; ".join(f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in differing)
            return f"it was made with other settings ({listed})"
        if stored["name"] != name or stored["content"] != _digest(content):
            return "what it was made from has changed (the relation's facts or templates)"
        return None

    def _model_difference(self, stored: Mapping[str, Any]) -> str | None:
        new = self.fingerprint.to_dict()
        differing = [key for key in new if key != "behaviour" and stored.get(key) != new[key]]
        if differing:
            return "; ".join(f"{key} {_short(stored.get(key))}, now {_short(new[key])}" for key in differing)
        try:
            ModelFingerprint.from_dict(dict(stored)).require_match(self.fingerprint)
        except FingerprintMismatch as error:
            return str(error)
        return None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=as_python))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
