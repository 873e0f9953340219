"""Machine-readable results: one JSON object with the same head for every command, written whole or not at all."""

import errno
import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrc_tl.errors import ResultFileError
from lrc_tl.storage.own_version import own_version
from lrc_tl.storage.whole_file import whole_file, written_file

HEAD = ("schema", "lrc_tl", "model", "settings", "seconds", "peak_rss_bytes")


def check_target(path: Path) -> None:
    """Make sure, before a long run, that its result can be written to `path`; nothing is made yet.

    Raises:
        ArtifactError: `path` is not an ordinary file but, for example, a pipe or a device.
        OSError: `path` is a folder or read-only, or lies where no file can be made.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file to write")
    target = written_file(path)
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} is read-only; give another name, or make it writable")
    check_folder(target.parent, what=path.name)


def check_folder(folder: Path, *, what: str) -> None:
    """Make sure that files can be made in a folder, or that the folder itself can be made; nothing is made yet.

    Raises:
        OSError: they cannot; the text names `what` was to be written there.
    """
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise NotADirectoryError(f"Not a directory: {existing}; give another place for {what}")
    try:  # permissions alone do not tell: root has all of them, also on a read-only file system
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise PermissionError(
            f"the folder {existing} cannot be written to; give another place for {what}"
        ) from error


def write_result(
    path: Path,
    *,
    kind: str,
    results: Mapping[str, Any],
    settings: Mapping[str, Any],
    model: Mapping[str, Any] | None,
    seconds: float,
    schema_version: int = 1,
    sealed: bool = False,
) -> None:
    """Write `results` at the top level of a JSON file, beside what made them.

    The file holds `schema` (name `lrc_tl.<kind>` and version), `lrc_tl` (version), `model` (a fingerprint or
    null), `settings`, `seconds`, `peak_rss_bytes`, then the results. It appears under its name only when complete.
    Numbers that are not finite are written as null, since JSON has none. A sealed file also holds `checksum`, with
    which `read_sealed_result` sees that nothing was changed.

    Raises:
        ValueError: a result has the name of a field of the head.
        TypeError: a value is not a number, text, path, list or mapping; the text names its place.
    """
    if taken := sorted(set(results) & {*HEAD, "checksum"}):
        raise ValueError(f"results may not be called {', '.join(taken)}: every result file has such a field")
    content = {
        "schema": {"name": f"lrc_tl.{kind}", "version": schema_version},
        "lrc_tl": own_version(),
        "model": model,
        "settings": settings,
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        **results,
    }
    plain = _plain(content, "the result")
    if sealed:
        plain["checksum"] = _checksum(plain)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, as in a file name that is not UTF-8, has no UTF-8 either; JSON writes it as an escape.
    text = re.sub("[\ud800-\udfff]", lambda surrogate: f"\\u{ord(surrogate[0]):04x}", text)
    check_target(path)
    written_file(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_sealed_result(path: Path, *, kind: str, schema_version: int) -> dict[str, Any]:
    """The fields of a file that `write_result` sealed, unchanged since.

    Raises:
        ResultFileError: it cannot be read, is damaged, was changed, or is of another schema.
    """
    wanted = {"name": f"lrc_tl.{kind}", "version": schema_version}
    try:
        if not path.is_file():
            raise OSError("there is no such file" if not os.path.lexists(path) else "it is no ordinary file")
        data = json.loads(path.read_bytes().decode("utf-8"))
        if not isinstance(data, dict) or "schema" not in data:
            raise ValueError("it has no schema")
        schema = json.dumps(data["schema"])
        checksum = data.pop("checksum", None)
        whole = checksum == _checksum(data)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultFileError(f"{path} is damaged or no stored result ({_one_line(error)})") from error
    if data["schema"] != wanted:
        raise ResultFileError(f"{path} cannot be used: its schema is {schema[:100]}, not {json.dumps(wanted)}")
    if not whole:
        raise ResultFileError(
            f"{path} is damaged: its content does not match its checksum, so it was changed after it was written"
        )
    return data


def _checksum(plain: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, independent of the order of keys and the spacing in the file."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode("ascii")).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def peak_rss_bytes() -> int | None:
    """The most memory that this process has held resident so far; None: the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent process held before it started this one
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{place}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if getattr(value, "shape", None) == ():  # a number from NumPy or torch
        return _plain(value.item(), place)
    raise TypeError(f"{place} is a {type(value).__name__}, which a result file cannot hold")
