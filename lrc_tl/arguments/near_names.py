"""Names that a mistyped one may have been meant to be, for errors. Needs no torch."""

from collections.abc import Iterable
from difflib import get_close_matches


def near_names(name: object, names: Iterable[str], *, n: int = 3) -> list[str]:
    """At most `n` of the names that are spelled much like `name`, the nearest first."""
    return get_close_matches(str(name), list(names), n=n)


def did_you_mean(name: object, names: Iterable[str], *, n: int = 3, otherwise: str = "there are") -> str:
    """`did you mean A or B?` with near names; where none is near, all of them: `there are A, B, C`."""
    known = list(names)
    near = near_names(name, known, n=n)
    return f"did you mean {' or '.join(near)}?" if near else f"{otherwise} {', '.join(known) or 'none'}"
