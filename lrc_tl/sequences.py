"""Arguments that are lists: gone through more than once, in one order. Needs no torch."""

from collections.abc import Sequence
from typing import Any


def require_sequence(given: Any, name: str, of: type | tuple[type, ...] = object) -> None:
    """Fail unless `given` is a list, a tuple or another sequence, with every item of the class `of`.

    A generator is empty when it is read for the second time, and the items of a string are its characters, so
    either would give a result that looks right.

    Raises:
        TypeError: one string, a single item, a generator, a set, an array or anything else that is no sequence, or
            a sequence with an item of another class.
    """
    kind = type(given).__name__
    if isinstance(given, str | bytes):
        raise TypeError(f"{name} is one string, {given[:40]!r}; give a list, as in [{given[:40]!r}]")
    if not isinstance(given, Sequence):
        if hasattr(given, "prompts"):  # a relation, or the prompts that filter_known has kept
            advice = f"give its prompts: {'.prompts()' if callable(given.prompts) else '.prompts'} of it"
        elif hasattr(given, "__iter__"):
            advice = "make a list of it first, with list(...)"
        else:
            advice = "give a list, if only of this one"
        raise TypeError(f"{name} is a {kind}, and a list or tuple is needed; {advice}")
    for number, item in enumerate(given):
        if not isinstance(item, of):
            wanted = " or ".join(one.__name__ for one in (of if isinstance(of, tuple) else (of,)))
            raise TypeError(
                f"{name}[{number}] is a {type(item).__name__}, and each must be a {wanted}: {item!r:.60}"
            )
