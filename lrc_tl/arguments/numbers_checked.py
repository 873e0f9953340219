"""`numbers_checked`: every argument that is a number, or holds numbers, is one before anything runs.

Two things are refused. Booleans, which Python counts as 1 and 0, so that a slip would go unseen. And what some of
Python's calls take for a number and others do not: "3" and None as seeds, 1.0 as a layer. A whole number of NumPy
or torch becomes Python's, since it is written into prompts' seeds, names of hook points and files.

`checked` compares whole annotations, tensor shapes too, and passes on what it was given. The two go together where
a function takes both: `numbers_checked` above, so that `checked` sees Python's numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import isclass, signature
from numbers import Real
from operator import index
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

_Function = TypeVar("_Function", bound=Callable[..., Any])


def numbers_checked(function: _Function) -> _Function:
    """The function or class, which checks each argument that its annotation says is a number or holds numbers.

    An argument that is one number (or one or None) must be one, a whole one for `int`, and is passed on as
    Python's. One that holds numbers is looked through for booleans only, one level deep. One that may be a boolean
    too is left alone. It is for public functions that take a number; where they also take tensors whose shapes
    should fit, add `checked` below. Hooks and inner loops get neither.

    Raises:
        TypeError: when it is called with a boolean, or another thing that is no number, where a number is meant.
    """
    decorated: Any = function
    called: Any = decorated.__init__ if isclass(function) else decorated
    parameters = list(signature(called).parameters.values())
    numbers = {parameter.name for parameter in parameters if means_a_number(parameter.annotation)}
    single = {parameter.name: kinds for parameter in parameters if (kinds := _kinds_of_one(parameter.annotation))}
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
        decorated.__init__ = checking
        return function
    return cast(_Function, checking)


def means_a_number(annotation: Any) -> bool:
    """Whether an argument of this annotation is a number or holds numbers, and may be no boolean."""
    kinds = list(_kinds_inside(annotation))
    return any(kind in (int, float) for kind in kinds) and bool not in kinds


def _kinds_of_one(annotation: Any) -> frozenset[Any]:
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


def _kinds_inside(annotation: Any) -> Iterator[Any]:
    """Every type that the annotation names, those inside unions and containers too."""
    origin: Any = get_origin(annotation)
    holds = origin in (Union, UnionType, Annotated) or (isinstance(origin, type) and origin is not Callable)
    if not holds:
        yield annotation
        return
    for inner in get_args(annotation):
        yield from _kinds_inside(inner)


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
