"""What counts as a number: Python's and NumPy's numbers, but not booleans, though Python counts True as 1."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, TypeGuard


def is_whole_number(value: object) -> TypeGuard[int]:
    """Whether this is an `int` of Python or NumPy; neither a boolean nor 4.0 is one."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real_number(value: object) -> TypeGuard[float]:
    """Whether this is a `float` or an `int` of Python or NumPy; a boolean is not one."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole_number(value: Any, name: str) -> int:
    """The number as Python's `int`, which can be written to JSON; `name` is the argument's, for the error.

    Raises:
        TypeError: it is not a whole number.
    """
    if not is_whole_number(value):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; give a whole number")
    return int(value)


def real_number(value: Any, name: str) -> float:
    """The number as Python's `float`, which can be written to JSON; `name` is the argument's, for the error.

    Raises:
        TypeError: it is not a number.
        ValueError: it is a whole number above 1e308.
    """
    if not is_real_number(value):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; give a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} is a whole number too large for floating point; give a smaller one") from error


def real_numbers(values: Iterable[Any], name: str) -> tuple[float, ...]:
    """The numbers as Python's; also those in arrays and tensors without axes.

    Raises:
        TypeError: an item is not a number.
    """
    plain = (value.item() if getattr(value, "shape", None) == () else value for value in values)
    return tuple(real_number(value, f"{name}[{place}]") for place, value in enumerate(plain))


def as_python(value: object) -> int | float:
    """A number of NumPy as Python's own: the `default` of `json.dumps`.

    Raises:
        TypeError: it is not a number.
    """
    if is_whole_number(value):
        return int(value)
    if is_real_number(value):
        return float(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
