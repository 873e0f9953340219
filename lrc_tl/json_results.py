"""Machine-readable results: one JSON object with the same head whatever was run, written whole or not at all."""

import json
import math
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrc_tl.whole_file import whole_file, written_file

HEAD = ("schema", "lrc_tl", "model", "settings", "seconds", "peak_rss_bytes")


def check_target(path: Path) -> None:
    """Make sure, before a long run, that its result can be written to `path`; missing folders are made.

    Raises:
        ArtifactError: `path` is no file, but a pipe or a device, say.
        OSError: `path` is a folder, its folder cannot be made, or that folder cannot be written to.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file to write")
    folder = written_file(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to; give another place for {path.name}")


def write_result(
    path: Path,
    *,
    kind: str,
    results: Mapping[str, Any],
    settings: Mapping[str, Any],
    model: Mapping[str, Any] | None,
    seconds: float,
    schema_version: int = 1,
) -> None:
    """Write `results` at the top level of a JSON file, beside what made them.

    The file holds `schema` (name `lrc_tl.<kind>` and version), `lrc_tl` (version), `model` (a fingerprint or
    null), `settings`, `seconds`, `peak_rss_bytes`, then the results. It appears under its name only when complete.
    Numbers that are not finite are written as null, since JSON has none.

    Raises:
        ValueError: a result has the name of a field of the head.
        TypeError: a value is not a number, text, path, list or mapping; the text names its place.
    """
    if taken := sorted(set(results) & set(HEAD)):
        raise ValueError(f"results may not be called {', '.join(taken)}: every result file has such a field")
    content = {
        "schema": {"name": f"lrc_tl.{kind}", "version": schema_version},
        "lrc_tl": version("lrc-tl"),
        "model": model,
        "settings": settings,
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        **results,
    }
    text = json.dumps(_plain(content, "the result"), indent=2, ensure_ascii=False, allow_nan=False)
    check_target(path)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def peak_rss_bytes() -> int | None:
    """The most memory that this process has held resident so far; None where the system does not tell."""
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
