"""Refuse what is no number where a number is meant, before anything runs.

True and False above all: Python counts them as 1 and 0, so a slip would go unseen. Then what some of Python's
calls take for a number and others do not: "3" and None as seeds, 1.0 as a layer. A whole number of NumPy or torch
becomes Python's, since it is written into prompts' seeds, names of hook points and files.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import isclass, signature
from numbers import Real
from operator import index
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

_Checked = TypeVar("_Checked", bound=Callable[..., Any])


def no_booleans(function: _Checked) -> _Checked:
    """The function or class, which refuses booleans in every argument that its annotation says is a number.

    Lists of numbers are looked through. An argument that may be a boolean too is left alone. An argument that is
    to be one number (or one or None) must be one: a whole one where it is an `int`, passed on as Python's.

    Raises:
        TypeError: when it is called with a boolean, or another thing that is no number, where a number is meant.
    """
    checked: Any = function
    called: Any = checked.__init__ if isclass(function) else checked
    parameters = list(signature(called).parameters.values())
    numbers = {parameter.name for parameter in parameters if means_a_number(parameter.annotation)}
    single = {parameter.name: kinds for parameter in parameters if (kinds := _single(parameter.annotation))}
    places = [(place, parameter.name) for place, parameter in enumerate(parameters) if parameter.name in numbers]

    def number(value: Any, name: str) -> Any:
        _require_no_boolean(value, name)
        return _as_number(value, name, single[name]) if name in single else value

    @wraps(called)
    def checking(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        positional = list(args)
        for place, name in places:
            if place < len(args):
                positional[place] = number(args[place], name)
        for name, value in kwargs.items():
            if name in numbers:
                kwargs[name] = number(value, name)
        return called(*positional, **kwargs)

    if isclass(function):
        checked.__init__ = checking
        return function
    return cast(_Checked, checking)


def means_a_number(annotation: Any) -> bool:
    """Whether an argument of this annotation is a number or holds numbers, and may be no boolean."""
    kinds = list(_kinds(annotation))
    return any(kind in (int, float) for kind in kinds) and bool not in kinds


def _single(annotation: Any) -> frozenset[Any]:
    """The kinds of an argument that is one number, or one or None; empty for every other argument."""
    kinds = frozenset(get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,))
    return kinds if kinds & {int, float} and kinds <= {int, float, type(None)} else frozenset()


def _as_number(value: Any, name: str, kinds: frozenset[Any]) -> Any:
    if value is None and type(None) in kinds:
        return value
    if float in kinds:
        if isinstance(value, Real):
            return value
        if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of an array or a tensor
            return value.item()
        wanted = "a number"
    else:
        try:
            return index(value)
        except TypeError:
            wanted = "a whole number"
    allowed = f"{wanted} or None" if type(None) in kinds else wanted
    raise TypeError(f"{name} is {value!r:.60} ({type(value).__name__}); give {allowed}")


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
