"""What a terminal is shown: colours and progress, unless they are not wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
_COLOURLESS: ContextVar[bool] = ContextVar("colourless", default=False)


@contextmanager
def shown_as(*, quiet: bool = False, colours: bool = True) -> Iterator[None]:
    """Inside the block no progress and no notes are shown (`quiet`), and nothing in colour (`colours=False`).

    Otherwise the environment decides: `NO_COLOR` turns colours off.
    """
    quiet_before = _QUIET.set(_QUIET.get() or quiet)
    colourless_before = _COLOURLESS.set(_COLOURLESS.get() or not colours)
    try:
        yield
    finally:
        _QUIET.reset(quiet_before)
        _COLOURLESS.reset(colourless_before)


def is_quiet() -> bool:
    """Whether progress and notes are not wanted."""
    return _QUIET.get()


def console(*, width: int | None = None) -> Console:
    """The console of stdout, for results."""
    return Console(width=width, no_color=_COLOURLESS.get() or None)


def error_console() -> Console:
    """The console of the error stream, for progress and notes: it shows nothing where these are not wanted."""
    return Console(stderr=True, quiet=is_quiet(), no_color=_COLOURLESS.get() or None)
