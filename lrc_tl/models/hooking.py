"""What a block puts on a model, taken off again whole, in any order of leaving and whenever an interrupt comes.

TransformerLens takes its hooks off by nesting level, so blocks that are left in another order lose each other's,
and its hooks act in every thread. Here each block has a session that owns what it put on. A function of a session
acts in passes of the context (`contextvars`) that entered the block, and so in its own thread; elsewhere, on a
copy of the model, or once the session is over, it does nothing.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ContextDecorator
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar
from weakref import ref

import torch

from lrc_tl.models.hooked_model import (
    HookedModel,
    block_hook,
    is_bridge,
    require_evaluation_mode,
    require_hook,
)
from lrc_tl.turns import turn

Result = TypeVar("Result")
Kept = TypeVar("Kept")
Hooks = Sequence[tuple[str, Callable[..., Any]]]

_open: ContextVar[tuple["Session", ...]] = ContextVar("lrc_tl_open_sessions", default=())


class Session:
    """The functions that one block put on modules, and what else is to be undone after it."""

    def __init__(self) -> None:
        self.is_open = False
        self._modules: list[Any] = []
        self._copies: list[ref[Any]] = []
        self._undo: list[Callable[[], None]] = []

    def open(self) -> None:
        """From now on the functions act in this context."""
        self.is_open = True
        _open.set((*_open.get(), self))

    def acts(self) -> bool:
        """Whether this is a context in which the block is open."""
        return self.is_open and self in _open.get()

    def add_hooks(self, model: HookedModel, fwd_hooks: Hooks) -> None:
        """Put each `function(activation, hook=...)` on its hook point, behind the hooks that are there.

        Raises:
            LookupError: the model has no such hook point.
        """
        from transformer_lens.hook_points import LensHandle

        points = model.hook_dict
        for name, function in fwd_hooks:
            if name not in points:
                require_hook(model, name)
            point = points[name]
            _require_used(model, point, name, function)
            hook = _OnPoint(self, point, function)
            self._modules.append(point)  # before it is there: an interrupt may come in between
            handle = point.register_forward_hook(hook)
            # Permanent, so that `model.reset_hooks()` inside the block takes off the caller's own hooks alone.
            point.fwd_hooks.append(LensHandle(handle, is_permanent=True, user_hook=hook))

    def watch(self, module: Any, function: Callable[..., None]) -> None:
        """Call `function(module, args, kwargs)` before each forward of a module."""
        self._modules.append(module)
        module.register_forward_pre_hook(_BeforeModule(self, module, function), with_kwargs=True)

    def watch_output(self, module: Any, function: Callable[..., None]) -> None:
        """Call `function(module, args, output)` after each forward of a module, whether or not that failed."""
        self._modules.append(module)
        module.register_forward_hook(_AfterModule(self, module, function), always_call=True)

    def undo_at_close(self, undo: Callable[[], None]) -> None:
        """Remember what closing must do, before it is needed. It may be called more than once."""
        self._undo.append(undo)

    def close(self) -> None:
        """Take everything off. An interrupt meanwhile waits until that is done."""
        try:
            self._clean()
        except BaseException:
            self._clean()
            raise

    def _clean(self) -> None:
        self.is_open = False
        copies = [module for module in (reference() for reference in self._copies) if module is not None]
        for module in (*self._modules, *copies):
            _take_off(module, lambda function: function._session is self or function._session is None)
        for undo in reversed(self._undo):
            undo()
        if self in _open.get():
            _open.set(tuple(session for session in _open.get() if session is not self))
        self._modules, self._copies, self._undo = [], [], []


class _Function:
    """A function on one module. A copy of it, which comes with a copy of the model, does nothing and goes away."""

    def __init__(self, session: Session | None, module: Any, function: Callable[..., Any] | None) -> None:
        self._session = session
        self._module = module
        self._function = function

    def _acts_on(self, module: Any) -> bool:
        session = self._session
        if session in _open.get() and session.is_open and module is self._module:
            return True
        if session is None or not session.is_open or module is not self._module:
            _take_off(module, lambda function: function is self)
        return False

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Function":
        copied = memo.get(id(self._module))
        if copied is not None and self._session is not None:
            self._session._copies.append(ref(copied))
        return type(self)(None, None, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (None, None, None)


class _OnPoint(_Function):
    """A forward hook on a hook point, given what TransformerLens gives its hooks."""

    def __call__(self, module: Any, inputs: Any, output: Any) -> Any:
        if not self._acts_on(module):
            return None
        assert self._function is not None
        conversion = module.hook_conversion
        if conversion is None:
            return self._function(output, hook=module)
        changed = self._function(conversion.convert(output), hook=module)
        return None if changed is None else conversion.revert(changed)


class _BeforeModule(_Function):
    """A forward pre-hook."""

    # Another thread may be in the middle of a pass while this is put on or taken off: no keywords then.
    def __call__(self, module: Any, args: Any, kwargs: Any = None) -> None:
        if kwargs is not None and self._acts_on(module):
            assert self._function is not None
            self._function(module, args, kwargs)


class _AfterModule(_Function):
    """A forward hook that leaves the output as it is."""

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        if self._acts_on(module):
            assert self._function is not None
            self._function(module, args, output)


class _Replacement:
    """An attribute that a session hides by a value of its own, in its own context alone."""

    def __init__(self, session: Session, hidden: Callable[..., Any], value: Callable[..., Any]) -> None:
        self._session, self._hidden, self._value = session, hidden, value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self._value if self._session.acts() else self._hidden)(*args, **kwargs)


class Block(ContextDecorator, AbstractContextManager[None]):
    """A context manager of a session: `put_on` is called with it each time the block is entered."""

    def __init__(self, put_on: Callable[[Session], None]) -> None:
        self._put_on = put_on
        self._guards: list[Generator[Session, None, None]] = []

    def __enter__(self) -> None:
        guard = _guarded()
        try:
            self._guards.append(guard)
            session = next(guard)
            session.open()
            self._put_on(session)
            return
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exception: object) -> None:
        try:
            self._leave()
        except BaseException:
            self._leave()
            raise

    def close(self) -> None:
        """Leave it as often as it was entered and not left."""
        while self._guards:
            self._leave()

    def _leave(self) -> None:
        if self._guards:
            self._guards[-1].close()
            self._guards.pop()


def _guarded() -> Generator[Session, None, None]:
    """A session that closes with this generator, and so also when that is forgotten.

    An interrupt on the very way into a block's `__exit__` leaves that uncalled.
    """
    session = Session()
    try:
        try:
            yield session
        finally:
            session.close()
    finally:  # again, should an interrupt have come before it
        session.close()


def hooks_on(model: HookedModel, fwd_hooks: Hooks) -> Block:
    """A block in which these functions are on the model's hook points, in the order given.

    Raises:
        LookupError: the model has no such hook point.
    """

    return Block(lambda session: session.add_hooks(model, fwd_hooks))


def inside(block: Block, work: Callable[[], Result]) -> Result:
    """The result of `work` inside the block, which is left even if an interrupt comes on the way out."""
    try:
        with block:
            return work()
    finally:
        block.close()


def apart(work: Callable[[], Result]) -> Result:
    """The result of `work` in a context of its own, in which no block that is open outside acts."""

    def run() -> Result:
        _open.set(())
        return work()

    return copy_context().run(run)


def without_gradients(work: Callable[[], Result]) -> Result:
    """The result of `work` under `torch.no_grad()`, which ends even if an interrupt comes on the way out."""
    before = torch.is_grad_enabled()
    try:
        with torch.no_grad():
            return work()
    finally:
        if torch.is_grad_enabled() is not before:
            torch.set_grad_enabled(before)


class PassOver(BaseException):
    """Ends a pass of which nothing more is wanted.

    No Exception: where one leaves a module, torch goes through the module's hooks, and fails if another thread
    puts one on or takes one off meanwhile.
    """


def hooked_pass(
    model: HookedModel,
    ids: torch.Tensor,
    *,
    fwd_hooks: Hooks,
    stop_at_layer: int | None = None,
    gradients: bool = False,
    **arguments: Any,
) -> Any:
    """The model's output under these hooks, without gradients unless asked for.

    It has no meaning where the pass stops early.
    Passes and generations of one model take turns. HookedTransformer sets the tokenizer's padding side at the end
    of each pass to what it was at its beginning, and a TransformerBridge keeps the cache of the last pass, whoever
    made it, for the generation that is under way. A TransformerBridge also keeps the layer to stop at on its
    blocks, so there that pass is ended from a hook.

    Raises:
        ModelError: the model drops activations at random.
    """
    require_evaluation_mode(model)
    mode: Callable[[Callable[[], Any]], Any] = (lambda work: work()) if gradients else without_gradients
    with turn(model):
        if is_bridge(model):
            return _bridge_pass(model, partial(mode, partial(model, ids, **arguments)), fwd_hooks, stop_at_layer)
        work = partial(model, ids, stop_at_layer=stop_at_layer, **arguments)
        return inside(hooks_on(model, fwd_hooks), partial(mode, work))


def _bridge_pass(model: HookedModel, work: Callable[[], Any], fwd_hooks: Hooks, stop_at_layer: int | None) -> Any:
    if stop_at_layer is None:
        return inside(hooks_on(model, fwd_hooks), work)

    def stop(residual: torch.Tensor, hook: Any) -> None:
        raise PassOver

    last = (block_hook(stop_at_layer - 1), stop)
    try:
        inside(hooks_on(model, [*fwd_hooks, last]), work)
    except PassOver:
        module: Any = model
        for function in list(module._forward_hooks.values()):
            if isinstance(function, _AfterModule):  # torch calls none where no Exception leaves the model
                function(module, (), None)
        return None
    raise RuntimeError(f"the pass was to stop at {last[0]}, but did not go through it")


def keeping(kept: dict[str, Kept], names: Iterable[str], read: Callable[[str, torch.Tensor], Kept]) -> Hooks:
    """Hooks that put `read(name, activation)` of each hook point into `kept`, under the name that is given here.

    The Bridge calls some hook points by other names inside a hook.
    """

    def hook_on(name: str) -> Callable[..., None]:
        def keep(activation: torch.Tensor, hook: Any) -> None:
            kept[name] = read(name, activation)

        return keep

    return [(name, hook_on(name)) for name in names]


def replace_for(session: Session, owner: Any, name: str, value: Callable[..., Any]) -> None:
    """Hide `owner.name` by `value` until the session closes, for its own context alone."""
    had = name in owner.__dict__
    before = owner.__dict__.get(name)
    replacement = _Replacement(session, getattr(owner, name), value)

    def undo() -> None:
        if owner.__dict__.get(name) is not replacement:
            return
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    session.undo_at_close(undo)
    setattr(owner, name, replacement)


def ours(function: Any) -> bool:
    """Whether a function on a module is one of a session."""
    return isinstance(function, _Function)


def acting_hooks(module: Any) -> list[Any]:
    """Functions on a module that may act in a pass of this context: all but those of other contexts' sessions."""
    functions = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    acting = [
        function
        for function in functions
        if not isinstance(function, _Function) or (function._session is not None and function._session.acts())
    ]
    return [*acting, *module._backward_hooks.values()]


def _take_off(module: Any, ours: Callable[[_Function], bool]) -> None:
    for kind in ("_forward_hooks", "_forward_pre_hooks"):
        functions = getattr(module, kind)
        for number, function in list(functions.items()):
            if isinstance(function, _Function) and ours(function):
                getattr(module, f"{kind}_with_kwargs").pop(number, None)
                module._forward_hooks_always_called.pop(number, None)
                functions.pop(number, None)
    handles = module.__dict__.get("fwd_hooks", [])
    for handle in list(handles):
        if isinstance(handle.user_hook, _Function) and ours(handle.user_hook):
            handles.remove(handle)


def _require_used(model: Any, point: Any, name: str, function: Callable[..., Any]) -> None:
    """TransformerLens's own check that a hook point is used at all under the model's settings."""
    check = getattr(model, "check_hooks_to_add", None)
    if check is None:
        return
    if check.__code__.co_argcount == 2:  # the Bridge of 3.9 takes the hook point's own name alone
        check(point.name or name)
    else:
        check(point, name, function)
