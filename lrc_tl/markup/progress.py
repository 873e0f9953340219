"""The progress bar of everything that takes long: on the error stream, gone when it is done.

There is one at a time: a bar inside another one's block, which counts a part of the same job, is silent.
"""

import functools
import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import ParamSpec, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lrc_tl.markup.terminal import error_console

_Item = TypeVar("_Item")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_DEPTH: ContextVar[int] = ContextVar("depth", default=0)
"""Blocks of bars, shown or not wanted, that this one would be inside."""


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on the error stream while its block runs; silent unless that is a terminal or a notebook.

    It leaves nothing behind, so that the bars of a longer job do not pile up. The outermost bar decides for all
    inside its block: they are silent, whether it is shown or not wanted. So are bars of other threads and of child
    processes.
    """

    def __init__(self, what: str, *, total: int | None = None, progress: bool = True) -> None:
        errors = error_console()
        wanted = progress and _may_be_shown() and not errors.quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
            disable=not wanted or not (errors.is_terminal or errors.is_jupyter),
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> "ProgressBar":
        _DEPTH.set(_DEPTH.get() + 1)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        _DEPTH.set(_DEPTH.get() - 1)

    def advance(self, steps: int = 1) -> None:
        """Count this many more steps as done."""
        self._bar.advance(self._task, steps)

    def expect(self, total: int) -> None:
        """Say how many steps there are."""
        self._bar.update(self._task, total=total)

    def say(self, what: str) -> None:
        """Show another description."""
        self._bar.update(self._task, description=what)

    def restart(self, what: str, *, total: int | None) -> None:
        """Start the same bar again from 0, for the next pass of the job."""
        self._bar.reset(self._task, description=what, total=total)

    def over(self, items: Iterable[_Item], *, total: int | None = None) -> Iterator[_Item]:
        """The items, each a finished step when the next is asked for; `total`: how many there are, if known."""
        if total is not None:
            self.expect(total)
        for item in items:
            yield item
            self.advance()


def _may_be_shown() -> bool:
    return (
        not _DEPTH.get()
        and threading.current_thread() is threading.main_thread()
        and multiprocessing.parent_process() is None
    )


def shows_progress(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function with an argument `progress`: where that is False, nothing inside the call shows a bar."""

    @functools.wraps(function)
    def called(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if options.get("progress", True):
            return function(*arguments, **options)
        _DEPTH.set(_DEPTH.get() + 1)
        try:
            return function(*arguments, **options)
        finally:
            _DEPTH.set(_DEPTH.get() - 1)

    return called
