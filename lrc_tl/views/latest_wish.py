"""One thread that does the latest of some wishes: a newer one replaces what waits, and ends what is under way."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Wish = TypeVar("Wish")


class Superseded(BaseException):
    """Ends work for which nobody waits any more.

    No Exception, so that what handles errors on the way lets it through; and where one leaves a module, torch goes
    through the module's hooks, and fails if another thread puts one on or takes one off meanwhile.
    """


class LatestWish(Generic[Wish]):
    """Calls `work(wish, check)` in a thread of its own, for one wish after the other.

    `work` calls `check` as often as it can: it raises `Superseded` once another wish waits, or `stop` was called.
    There is a thread only while there is something to do.
    """

    def __init__(self, work: Callable[[Wish, Callable[[], None]], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[Wish] = []  # one at most
        self._stopping = False
        self._thread: threading.Thread | None = None

    def ask(self, wish: Wish) -> None:
        """Do this next, in place of what waits and of what is under way."""
        with self._lock:
            self._waiting = [wish]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lrc_tl explorer", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Do nothing more until the next `ask`."""
        with self._lock:
            self._waiting = []
            self._stopping = self._thread is not None

    @property
    def is_replaced(self) -> bool:
        """Whether another wish waits."""
        return bool(self._waiting)

    def wait(self, seconds: float) -> bool:
        """Whether all is done within this time."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _check(self) -> None:
        if self._waiting or self._stopping:
            raise Superseded

    def _run(self) -> None:
        try:
            while (wish := self._next()) is not None:
                try:
                    self._work(wish[0], self._check)
                except Superseded:
                    continue
        finally:  # also if `work` raised, so that the next wish gets a thread
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _next(self) -> tuple[Wish] | None:
        with self._lock:
            self._stopping = False
            if self._waiting:
                return (self._waiting.pop(),)
            self._thread = None  # within the lock: a wish that comes now starts another thread
            return None
