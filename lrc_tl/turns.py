"""Whose turn it is with a model: what TransformerLens keeps on it and its tokenizer serves one thread only."""

import threading
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

_locks: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
_lock = threading.Lock()


def turn(model: Any) -> AbstractContextManager[Any]:
    """The model's lock, which a thread holds while it generates, replaces methods, or makes tokens.

    The tokenizer's padding side is set meanwhile, and a Bridge has its cache on itself.
    """
    with _lock:
        lock: AbstractContextManager[Any] = _locks.setdefault(model, threading.RLock())
    return lock
