"""Files that a command reads and writes, compared before it runs: no result may take another file's place."""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path


def require_distinct_files(
    outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | Iterable[Path] | None]
) -> None:
    """Check that no output is an input or another output, however their paths are written.

    Symbolic and hard links are followed. Outputs that differ by case or Unicode form alone are one file on some
    systems and refused on all. Of an input that is a folder, every file in it counts. Inputs
    that do not exist, such as a name that is not a path, are skipped.

    Args:
        outputs: files and folders to be written, by the option that names them.
        inputs: files and folders to be read, by the option that names them.

    Raises:
        ValueError: two are the same; the text names both options.
    """
    written = {option: path for option, path in outputs.items() if path is not None}
    for option, path in written.items():
        for other, sources in inputs.items():
            for source in [sources] if isinstance(sources, Path) else sources or ():
                if source.exists() and _takes_the_place_of(path, source):
                    raise ValueError(
                        f"{option} {path} would overwrite {source}, which {other} reads; give another file"
                    )
    for (option, path), (other, second) in combinations(written.items(), 2):
        if _folded(path) == _folded(second) or _is_same(path, second):
            raise ValueError(f"{option} {path} and {other} {second} are the same file; give two")


def _takes_the_place_of(path: Path, source: Path) -> bool:
    if os.path.realpath(path) == os.path.realpath(source) or _is_same(path, source):
        return True
    if not source.is_dir() or not path.is_file():
        return False
    if Path(os.path.realpath(source)) in Path(os.path.realpath(path)).parents:
        return True
    # A hard link from elsewhere to a file of the folder; most files have one name, and need no search.
    return path.stat().st_nlink > 1 and any(
        _is_same(path, Path(folder) / name) for folder, _, names in os.walk(source) for name in names
    )


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and os.path.samefile(path, other)


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()
