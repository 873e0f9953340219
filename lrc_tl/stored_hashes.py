"""Hashes that are kept beside stored files, and whether the files still have them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lrc_tl.whole_file import whole_file

_CHUNK = 1 << 24


def blocks(paths: Iterable[Path]) -> Iterator[bytes]:
    """What files hold, one after another, in blocks of 16 MiB."""
    for path in paths:
        with path.open("rb") as source:
            while block := source.read(_CHUNK):
                yield block


def sha256_of(*paths: Path) -> str:
    """SHA-256 of what the files hold together."""
    digest = hashlib.sha256()
    for block in blocks(paths):
        digest.update(block)
    return digest.hexdigest()


def write_hashes(record: Path, paths: Iterable[Path]) -> None:
    """Keep the hashes of files that lie beside `record`; the record appears whole or not at all."""
    with whole_file(record) as partial:
        partial.write_text(json.dumps({"sha256": _hashes(paths)}, indent=1), encoding="utf-8")


def damage(record: Path, *, belongs: Callable[[str], bool]) -> str | None:
    """What is wrong with the files beside `record` whose names `belongs` knows, in a few words; None: nothing."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        if not isinstance(kept, Mapping):
            raise TypeError
    except FileNotFoundError:
        return "it has no hashes"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{record.name} cannot be read"
    there = {path.name for path in record.parent.iterdir() if belongs(path.name)}
    if different := sorted(there ^ set(kept)):
        return f"{different[0]} is missing, or should not be there"
    try:
        found = _hashes(record.parent / name for name in kept)
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read"
    changed = [name for name in kept if found[name] != kept[name]]
    return f"{changed[0]} is not what was written" if changed else None


def _hashes(paths: Iterable[Path]) -> dict[str, str]:
    files = sorted(paths)
    # Hashing lets other threads run meanwhile; the largest file decides how long it takes.
    with ThreadPoolExecutor(2) as pool:
        return dict(zip((path.name for path in files), pool.map(sha256_of, files), strict=True))
