"""`checked`: the arguments and the result of a function against its annotations, tensor shapes included.

It asks beartype and jaxtyping, and differs from their decorators in four ways. Nothing is drawn from Python's
global random numbers. Every item of a sequence or mapping is looked at, where beartype looks at one. Whole numbers
and NumPy's numbers count as numbers, and booleans do not. An error is a few lines that describe the argument.

It is for functions that take or return tensors. `numbers_checked` is for single numbers: it also turns those of
NumPy and torch into Python's, and costs less, since it looks at no other argument.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import wraps
from inspect import Parameter, isgeneratorfunction, signature
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin

from beartype import BeartypeConf, FrozenDict
from beartype.door import is_bearable
from beartype.vale import Is
from jaxtyping import jaxtyped

_P = ParamSpec("_P")
_R = TypeVar("_R")
_SHOWN = 80
"""Characters of a value that an error shows."""
_NO_BOOLEAN = Is[lambda value: not isinstance(value, bool)]
_CONFIGURATION = BeartypeConf(
    is_random=False,
    hint_overrides=FrozenDict({int: Annotated[Integral, _NO_BOOLEAN], float: Annotated[Real, _NO_BOOLEAN]}),
)


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function with every argument and its result checked, in some ten microseconds a call.

    Axes of one name have one size over all arguments and the result. What a generator yields is not checked, nor
    what is annotated with the name of a class in quotes.

    Raises:
        TypeError: when it is called with an argument that does not fit its annotation.
    """
    call = signature(function)
    hints = {name: parameter.annotation for name, parameter in call.parameters.items()}
    hints = {name: hint for name, hint in hints.items() if _can_be_judged(hint)}
    result_hint = call.return_annotation
    judges_result = _can_be_judged(result_hint) and not isgeneratorfunction(function)

    @wraps(function)
    def checking(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        __tracebackhide__ = True
        given = call.bind(*args, **kwargs).arguments
        with jaxtyped("context"):
            for name, value in given.items():
                if name in hints and (wrong := _wrong(value, hints[name], f"`{name}`")):
                    raise TypeError(f"{function.__qualname__}: {wrong}{_shapes(given, hints, name)}")
            result = function(*args, **kwargs)
            if judges_result and (wrong := _wrong(result, result_hint, "the result")):
                raise TypeError(f"{function.__qualname__}: {wrong}{_shapes(given, hints)}")
            return result

    return checking


def _can_be_judged(hint: Any) -> bool:
    return hint is not Parameter.empty and hint is not Any and not isinstance(hint, str)


def _wrong(value: Any, hint: Any, name: str) -> str | None:
    """What is wrong with the value or the first of its items that does not fit; None: nothing."""
    alternatives = tuple(_alternatives(hint))
    containers = [each for each in alternatives if _holds_items(each) and isinstance(value, get_origin(each))]
    if isinstance(value, str):  # whose items are texts again
        containers = []
    faults = (_wrong_item(value, container, name) for container in containers)
    if not is_bearable(value, hint, conf=_CONFIGURATION):
        # The first item may be the one that does not fit; it says more than its container.
        return next(filter(None, faults), None) or f"{name} is {_described(value)}; it must be {_annotation(hint)}"
    if not containers:
        return None
    # What fits an alternative that is judged whole need not fit the others: a pair, `tuple[int, int] | list[str]`.
    others = (each for each in alternatives if each not in containers)
    if any(is_bearable(value, each, conf=_CONFIGURATION) for each in others):
        return None
    wrong_items = list(faults)
    return wrong_items[0] if all(wrong_items) else None


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _alternatives(member)
    else:
        yield hint


def _holds_items(alternative: Any) -> bool:
    """Whether it is a sequence or mapping of any length, of whose items beartype looks at one."""
    origin = get_origin(alternative)
    return (
        isinstance(origin, type)
        and issubclass(origin, (Sequence, Mapping))
        and (origin is not tuple or get_args(alternative)[-1] is Ellipsis)
    )


def _wrong_item(value: Any, hint: Any, name: str) -> str | None:
    inner = get_args(hint)
    items: Iterable[tuple[str, Any, Any]]
    if isinstance(value, Mapping):
        items = [(f"a key of {name}", key, inner[0]) for key in value]
        items += [(f"entry {key!r} of {name}", entry, inner[1]) for key, entry in value.items()]
    else:
        items = ((f"item {place} of {name}", item, inner[0]) for place, item in enumerate(value))
    is_nested = any(_holds_items(each) for argument in inner for each in _alternatives(argument))
    for where, item, its_hint in items:
        if is_nested:
            wrong = _wrong(item, its_hint, where)
        elif is_bearable(item, its_hint, conf=_CONFIGURATION):
            wrong = None
        else:
            wrong = f"{where} is {_described(item)}; it must be {_annotation(its_hint)}"
        if wrong:
            return wrong
    return None


def _shapes(given: Mapping[str, Any], hints: Mapping[str, Any], wrong: str | None = None) -> str:
    """A line with the other tensors, whose axes may be what a tensor does not fit."""
    from torch import Tensor

    if wrong is not None and not isinstance(given[wrong], Tensor):
        return ""
    others = [
        f"`{name}` is {_described(value)} for {_annotation(hints[name])}"
        for name, value in given.items()
        if name != wrong and name in hints and isinstance(value, Tensor)
    ]
    return f"\naxes of one name have one size: {'; '.join(others)}" if others else ""


def _described(value: Any) -> str:
    from torch import Tensor

    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    kind = type(value).__name__
    if value is None or isinstance(value, (bool, Real, str)):
        return f"{_cut(repr(value))} ({kind})"
    return f"a {kind} of {len(value)}" if isinstance(value, Sized) else f"a {kind}"


def _annotation(hint: Any) -> str:
    written = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
    for module in ("collections.abc.", "jaxtyping.", "typing."):
        written = written.replace(module, "")
    return written


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
