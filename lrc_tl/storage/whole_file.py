"""Writing files: links are followed, only ordinary files are written, and each appears whole or not at all."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrc_tl.errors import ArtifactError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_SHOWN = 40
"""How many characters of a name are kept in the unfinished file's name, which the system limits in length."""
_LONGEST = 255
"""How many bytes common file systems allow in a file's name."""


def written_file(path: str | Path) -> Path:
    """The file that writing to `path` would write: where its links lead to, whether it exists or not.

    Raises:
        ArtifactError: it is a folder, a pipe, a socket, a device, a link that leads back to itself, or a name
            that no file can have.
    """
    if "\0" in str(path):
        raise ArtifactError(f"{path!r} holds a null character, which no file's name may; take it out")
    target = Path(os.path.realpath(path))
    if len(os.fsencode(target.name)) > _LONGEST:
        raise ArtifactError(
            f"{path}: the name takes {len(os.fsencode(target.name))} bytes, and file systems allow {_LONGEST}; "
            "give a shorter one"
        )
    if target.is_symlink():
        raise ArtifactError(f"{path} is a link that leads back to itself; give the name of a file to write")
    if target.exists():
        mode = target.stat().st_mode
        for is_kind, kind in _KINDS:
            if is_kind(mode):
                raise ArtifactError(f"{path} is {kind}; give the name of a file to write")
    return target


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends, and vanishes if the block fails.

    A link stays, and the file that it leads to is replaced. A file that is replaced keeps its permissions.

    Raises:
        ArtifactError: the folder is missing, or `path` is not an ordinary file.
    """
    target = written_file(path)
    if not target.parent.is_dir():
        raise ArtifactError(f"{path}: there is no folder {target.parent}; make it first")
    partial = target.with_name(f".{target.name[:_SHOWN]}.{secrets.token_hex(8)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
