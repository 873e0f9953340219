"""Refuse True and False where a number is meant: Python counts them as 1 and 0, so a slip would go unseen."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import isclass, signature
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

_Checked = TypeVar("_Checked", bound=Callable[..., Any])


def no_booleans(function: _Checked) -> _Checked:
    """The function or class, which refuses booleans in every argument that its annotation says is a number.

    Lists of numbers are looked through. An argument that may be a boolean too is left alone.

    Raises:
        TypeError: when it is called with a boolean where a number is meant.
    """
    checked: Any = function
    called: Any = checked.__init__ if isclass(function) else checked
    parameters = list(signature(called).parameters.values())
    numbers = {parameter.name for parameter in parameters if means_a_number(parameter.annotation)}
    places = [(place, parameter.name) for place, parameter in enumerate(parameters) if parameter.name in numbers]

    @wraps(called)
    def checking(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        for place, name in places:
            if place < len(args):
                _require_no_boolean(args[place], name)
        for name, value in kwargs.items():
            if name in numbers:
                _require_no_boolean(value, name)
        return called(*args, **kwargs)

    if isclass(function):
        checked.__init__ = checking
        return function
    return cast(_Checked, checking)


def means_a_number(annotation: Any) -> bool:
    """Whether an argument of this annotation is a number or holds numbers, and may be no boolean."""
    kinds = list(_kinds(annotation))
    return any(kind in (int, float) for kind in kinds) and bool not in kinds


def _kinds(annotation: Any) -> Iterator[Any]:
    origin: Any = get_origin(annotation)
    holds = origin in (Union, UnionType, Annotated) or (isinstance(origin, type) and origin is not Callable)
    if not holds:
        yield annotation
        return
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _require_no_boolean(value: Any, name: str) -> None:
    if value is None or (isinstance(value, (int, float, str)) and not isinstance(value, bool)):
        return
    items = [value]
    if isinstance(value, Mapping):
        items += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set)):
        items += value
    for item in items:
        if type(item).__name__ in ("bool", "bool_"):  # Python's, and NumPy's, which is a class of its own
            verb = "is" if item is value else "holds"
            raise TypeError(f"{name} {verb} {item!r}, but a boolean is no number; give a number")
