"""Whose turn it is with a model: what TransformerLens keeps on it and its tokenizer serves one thread only."""

import threading
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

_locks: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()


def turn(model: Any) -> AbstractContextManager[Any]:
    """The model's lock, which a thread holds while it generates, replaces methods, or makes tokens.

    The tokenizer's padding side is set meanwhile, and a Bridge has its cache on itself.
    """
    # One call into C, which no other thread comes between. A lock of all models around it could stay taken after
    # an interrupt at the end of its block, and then no model would ever have its turn again.
    lock: AbstractContextManager[Any] = _locks.setdefault(model, threading.RLock())
    return lock
