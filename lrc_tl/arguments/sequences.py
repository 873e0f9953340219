"""Arguments that are lists: iterated more than once, always in the same order. Needs no torch."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Item = TypeVar("Item")


def as_tuple(given: Iterable[Item], name: str, of: type | tuple[type, ...] = object) -> tuple[Item, ...]:
    """The items of the argument `name`, each of the class `of`, as a tuple.

    A list, an array, a generator: anything with items in an order. Otherwise a generator would be empty when it is
    read again, and a string would be taken for the list of its characters.

    Raises:
        TypeError: one string or another single thing, a mapping or a set, or an item of another class.
    """
    kind = type(given).__name__
    if isinstance(given, str | bytes):
        raise TypeError(f"{name} is one string, {given[:40]!r}; give a list, as in [{given[:40]!r}]")
    if isinstance(of, type) and isinstance(given, of) and of is not object:
        raise TypeError(f"{name} is one {kind}; give a list, if only of this one")
    if isinstance(given, Mapping | set | frozenset):
        raise TypeError(f"{name} is a {kind}, whose items have no order; give a list")
    if not hasattr(given, "__iter__"):
        inside = ".prompts()" if callable(getattr(given, "prompts", None)) else ".prompts"
        advice = f"give its {inside}" if hasattr(given, "prompts") else "give a list, if only of this one"
        raise TypeError(f"{name} is of the type {kind}, which holds no items; {advice}")
    tolist: Any = getattr(given, "tolist", None)  # of an array, which would give scalars of its own
    items = tuple(given if tolist is None else tolist())
    for number, item in enumerate(items):
        if not isinstance(item, of):
            wanted = " or ".join(allowed.__name__ for allowed in (of if isinstance(of, tuple) else (of,)))
            raise TypeError(f"{name}[{number}] is {item!r:.60} ({type(item).__name__}); each must be a {wanted}")
    return items
