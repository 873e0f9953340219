"""Where a model is in `generate`: which pass ran the prompt, and how many tokens may follow.

The method is replaced on the class that defines it, while a block of any model of that class needs it: a model
itself holds nothing, so that its copies hold nothing of it either. The replacement does what the method does.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import Session
from lrc_tl.turns import turn

_GENERATORS = ("generate", "generate_stream", "hf_generate")
_ORIGINAL = "_lrc_tl_original"

Generation: TypeAlias = dict[str, int | None]
"""`"width"`: positions of the prompt with its padding, None until it is run; `"new"`: the most tokens after it."""


class _Running(threading.local):
    """Generations of this thread by the identity of their model."""

    def __init__(self) -> None:
        self.by_model: dict[int, Generation | None] = {}


_running = _Running()
_followers: dict[tuple[type, str], set[Session]] = {}
_lock = threading.RLock()
_LONGEST = 1.0
"""Seconds for which the lock may be held. That takes microseconds, unless an interrupt kept its holder from giving
it back: then there is a new one, or no other thread would ever follow again."""


def generation_of(model: HookedModel) -> Generation | None:
    """The generation that this thread is in, of this model."""
    return _running.by_model.get(id(model))


def follow_generation(model: HookedModel, session: Session) -> None:
    """Until the session closes, `generation_of` knows of every generation of the model."""
    for name in _GENERATORS:
        owner = next((cls for cls in type(model).__mro__ if name in vars(cls)), None)
        if owner is None:
            continue
        session.undo_at_close(partial(_unfollow, owner, name, session))
        with _brief_lock():
            _followers.setdefault((owner, name), set()).add(session)
            method = vars(owner)[name]
            if not hasattr(method, _ORIGINAL):
                setattr(owner, name, _followed(method))


def _unfollow(owner: type, name: str, session: Session) -> None:
    with _brief_lock():
        sessions = _followers.get((owner, name), set())
        sessions.discard(session)
        original = getattr(vars(owner)[name], _ORIGINAL, None)
        if not sessions and original is not None:
            setattr(owner, name, original)


def _brief_lock() -> Any:
    """The lock, free or of this thread; a new one where it was held for too long."""
    global _lock
    if _lock.acquire(timeout=_LONGEST):
        _lock.release()
    else:
        _lock = threading.RLock()
    return _lock


def _followed(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    # Arguments go through untouched: this stands in for the model's own method.
    @functools.wraps(original)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        generation = generation_of(self) or {"width": None, "new": bound.arguments.get("max_new_tokens")}
        result = _within(self, generation, lambda: original(self, *args, **kwargs))
        return _stream(self, result, generation) if inspect.isgenerator(result) else result

    setattr(generate, _ORIGINAL, original)
    return generate


def _within(model: Any, generation: Generation, work: Callable[[], Any]) -> Any:
    """`work` in this thread's turn: TransformerLens keeps caches and padding sides on model and tokenizer."""
    outer = generation_of(model)
    try:
        with turn(model):
            _running.by_model[id(model)] = generation
            return work()
    finally:
        _restore(model, outer)


def _restore(model: Any, outer: Generation | None) -> None:
    if outer is None:
        _running.by_model.pop(id(model), None)
    else:
        _running.by_model[id(model)] = outer


def _stream(model: Any, stream: Iterator[Any], generation: Generation) -> Iterator[Any]:
    done = object()
    while (item := _within(model, generation, lambda: next(stream, done))) is not done:
        yield item
