"""JSON values checked by type hints, so that a file gives what was stored or says in one line what is wrong."""

import json
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lrc_tl.arguments.plain_numbers import as_python

_SHOWN = 60


def parsed(text: str) -> Any:
    """The JSON value that a text holds.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a name twice in one object, a number that is not
            finite or has too many digits, or half of a surrogate pair.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_without_doubles, parse_constant=_refused_constant, parse_float=_finite
        )
        as_text(value)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def as_text(value: Any, *, sort_keys: bool = False) -> str:
    """A value as JSON, as `parsed` reads it; numbers of NumPy as Python's own.

    Raises:
        TypeError: something in it is not JSON.
        ValueError: it is nested too deeply or in itself, or holds a number that is not finite, or half of a
            surrogate pair, which no file can hold.
    """
    try:
        json.dumps(value, ensure_ascii=False, default=as_python).encode("utf-8")
        return json.dumps(value, allow_nan=False, sort_keys=sort_keys, default=as_python)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {double!r} stands twice")
    return values


def _refused_constant(name: str) -> float:
    raise ValueError(f"it holds the number {name}, which is not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {digits[:_SHOWN]}, which is too large")
    return value


def checked_fields(
    values: Any, hints: Mapping[str, Any], *, what: str, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of a JSON object, each of the type that its hint says, in the order of the hints.

    A field may be missing where there is a default for it.

    Raises:
        ValueError: it is not an object, or a field is missing, unknown or of another type; `what` names it.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} is {_short(values)}; it must be an object")
    filled = {**(defaults or {}), **values}
    for problem, names in (
        ("missing from", [name for name in hints if name not in filled]),
        ("not known in", [name for name in filled if name not in hints]),
    ):
        if names:
            raise ValueError(f"{', '.join(map(repr, names))} {problem} {what}")
    for name, hint in hints.items():
        if not conforms(filled[name], hint):
            raise ValueError(f"{what} field {name!r} is {_short(filled[name])}; it must be a {_described(hint)}")
    return {name: filled[name] for name in hints}


def conforms(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits a type hint; lists stand for tuples, and whole numbers for floats."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(conforms(value, argument) for argument in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(conforms(entry, arguments[1]) for entry in value.values())
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is list or arguments[-1] is Ellipsis:
            return all(conforms(entry, arguments[0]) for entry in value)
        return len(value) == len(arguments) and all(map(conforms, value, arguments))
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        try:
            return math.isfinite(value)
        except OverflowError:  # a whole number that no float holds
            return False
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, NoneType if hint is None else hint)


def _described(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_described, get_args(hint)))
    if origin is Literal:
        return "word of " + ", ".join(map(repr, get_args(hint)))
    if origin in (list, tuple):
        return "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    return {str: "text", int: "whole number", float: "finite number", NoneType: "null"}.get(hint, str(hint))


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes out
        text = "a number of very many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
