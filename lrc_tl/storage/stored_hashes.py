"""Hashes that are kept beside stored files, to see whether the files have changed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lrc_tl.storage.whole_file import whole_file

_CHUNK = 1 << 24


def blocks(paths: Iterable[Path]) -> Iterator[bytes]:
    """The bytes of several files, one after another, in blocks of 16 MiB."""
    for path in paths:
        with path.open("rb") as source:
            while block := source.read(_CHUNK):
                yield block


def sha256_of(*paths: Path) -> str:
    """SHA-256 of the bytes of all files together."""
    digest = hashlib.sha256()
    for block in blocks(paths):
        digest.update(block)
    return digest.hexdigest()


def write_hashes(record: Path, *, belongs: Callable[[str], bool]) -> None:
    """Write to `record` the hashes of the files in its folder whose names `belongs` accepts; it appears whole."""
    with whole_file(record) as partial:
        partial.write_text(json.dumps({"sha256": _hashes(_files(record, belongs))}, indent=1), encoding="utf-8")


def damage(record: Path, *, belongs: Callable[[str], bool]) -> str | None:
    """What is wrong with the files in the folder of `record` whose names `belongs` accepts, in a few words.

    None: they are the files whose hashes `write_hashes` kept, unchanged.
    """
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        if not isinstance(kept, Mapping):
            raise TypeError
    except FileNotFoundError:
        return "it has no hashes"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{record.name} cannot be read"
    files = _files(record, belongs)
    if different := sorted(set(files) ^ set(kept)):
        return f"{different[0]} is missing, or should not be there"
    try:
        hashes = _hashes(files)
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read"
    changed = [name for name in files if hashes[name] != kept[name]]
    return f"{changed[0]} is not what was written" if changed else None


def _files(record: Path, belongs: Callable[[str], bool]) -> dict[str, Path]:
    folder = record.parent
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in names.items() if belongs(name)}


def _hashes(files: Mapping[str, Path]) -> dict[str, str]:
    # Hashing lets other threads run meanwhile; the largest file decides how long it takes.
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(files, pool.map(sha256_of, files.values()), strict=True))
