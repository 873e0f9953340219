"""A pass of a model inside a pass of it, which no hook sees, neither a block's nor others'."""

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import torch

from lrc_tl.models.hooked_model import HookedModel, block_hook, hook_layer, require_evaluation_mode
from lrc_tl.models.hooking import Hooks, PassOver, apart, hooks_on, inside, ours, without_gradients
from lrc_tl.turns import turn

_hushed: ContextVar[bool] = ContextVar("lrc_tl_hushed", default=False)


class _Hushed:
    """Stands in for another's function on a hook point, and does nothing in a clean pass of its own context."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None if _hushed.get() else self.function(*args, **kwargs)


def clean_pass(model: HookedModel, run: Callable[[], object], *, reads: Hooks) -> None:
    """`run`, a pass of the model, under these hooks and no others, without gradients, up to the last of them.

    Blocks that are open, and hooks that others have at the model's hook points, do nothing and see nothing in it,
    whether they change the residual stream or only read it. Hooks that torch holds at other modules stay.

    Raises:
        ModelError: the model drops activations at random.
    """
    require_evaluation_mode(model)

    def stop(residual: torch.Tensor, hook: Any) -> None:
        raise PassOver

    last = (block_hook(max(hook_layer(name) for name, _ in reads)), stop)

    def read() -> None:
        _hushed.set(True)
        with suppress(PassOver, *_stops_early()):
            inside(hooks_on(model, [*reads, last]), lambda: without_gradients(run))

    with turn(model):
        points = {id(point): point for point in model.hook_dict.values()}.values()
        held = [functions for point in points if (functions := point._forward_hooks)]
        try:
            for functions in held:
                _hush(functions)
            apart(read)
        finally:
            for functions in held:
                _unhush(functions)


def _hush(functions: dict[int, Any]) -> None:
    for number, function in list(functions.items()):
        if not ours(function) and not isinstance(function, _Hushed):
            functions[number] = _Hushed(function)


def _unhush(functions: dict[int, Any]) -> None:
    for number, function in list(functions.items()):
        if isinstance(function, _Hushed) and number in functions:
            functions[number] = function.function


def _stops_early() -> tuple[type[Exception], ...]:
    """What a Bridge raises where its caller asked it to stop: the clean pass stops there too."""
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    return (StopAtLayerException,)
