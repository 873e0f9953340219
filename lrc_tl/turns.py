"""Whose turn it is with a model: what TransformerLens keeps on it and its tokenizer serves one thread only."""

import threading
from functools import partial
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, ref

_locks: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()


class Turn:
    """A block in which one thread has a model to itself; inside of it the same thread may have further ones.

    An interrupt may come between any two instructions of Python, so also where a lock is taken and the block has
    not begun. Then nothing refers to this object any more, and its lock is given back as it goes. Taking the lock
    and noting it are one call into C, and so are looking it up and giving it back, which works once. A `__del__`
    would swallow the interrupts that come in it, and what a weak reference calls is no Python.
    """

    __slots__ = ("__weakref__", "_at_end", "_lock", "_release", "_taken")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._taken: list[bool] = []
        # `__exit__` of a lock releases it, whatever it is given.
        self._release = map(lock.__exit__, self._taken)
        # Called with the reference, which `next` takes for its default.
        self._at_end = ref(self, partial(next, self._release))

    def __enter__(self) -> None:
        self._taken.extend(map(self._lock.acquire, (True,)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        next(self._release, None)


def turn(model: Any) -> Turn:
    """The model's turn, which a thread has while it generates, replaces methods, or makes tokens.

    The tokenizer's padding side is set meanwhile, and a Bridge has its cache on itself.
    """
    # One call into C, which no other thread comes between. A lock of all models around it could stay taken after
    # an interrupt at the end of its block, and then no model would ever have its turn again.
    return Turn(_locks.setdefault(model, threading.RLock()))
