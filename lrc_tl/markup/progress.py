"""The progress bar of everything that takes long: on the error stream, gone when it is done."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

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


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on the error stream while its block runs; silent unless that is a terminal or a notebook.

    It leaves nothing behind, so that the bars of a longer job do not pile up.
    """

    def __init__(self, what: str, *, total: int | None = None, progress: bool = True) -> None:
        errors = error_console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
            disable=not progress or errors.quiet or not (errors.is_terminal or errors.is_jupyter),
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """Count this many more steps as done."""
        self._bar.advance(self._task, steps)

    def say(self, what: str) -> None:
        """Show another description."""
        self._bar.update(self._task, description=what)

    def restart(self, what: str, *, total: int | None) -> None:
        """Start the same bar again from 0, for the next pass of the job."""
        self._bar.reset(self._task, description=what, total=total)

    def over(self, items: Iterable[_Item], *, total: int | None = None) -> Iterator[_Item]:
        """The items, each a finished step when the next is asked for; `total`: how many there are, if known."""
        if total is not None:
            self._bar.update(self._task, total=total)
        for item in items:
            yield item
            self.advance()
