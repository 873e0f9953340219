"""A `__repr__` of a few lines for objects that hold many things."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

_LONGEST = 90
_MOST = 4


def brief(value: Any) -> str:
    """`repr`, but tensors by shape and dtype, long collections by their beginning and length."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"<{type(value).__name__} of shape {tuple(shape)}, {str(dtype).removeprefix('torch.')}>"
    if shape is not None:  # a frame
        return f"<{type(value).__name__} of shape {tuple(shape)}>"
    if isinstance(value, Mapping):
        entries = [f"{key!r}: {brief(entry)}" for key, entry in list(value.items())[:_MOST]]
        return f"{{{', '.join(entries)}{_more(len(value))}}}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | range):
        opening, closing = "[]" if isinstance(value, list) else "()"
        inner = ", ".join(map(brief, value[:_MOST]))
        return f"{opening}{inner}{',' * (closing == ')' and len(value) == 1)}{_more(len(value))}{closing}"
    text = repr(value)
    if is_dataclass(value) or len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}…"


def brief_fields(self: Any) -> str:
    """`__repr__` of a dataclass: its name and every field in short."""
    inner = ", ".join(f"{field.name}={brief(getattr(self, field.name))}" for field in fields(self) if field.repr)
    return f"{type(self).__name__}({inner})"


def some_of(names: Sequence[str], most: int = 8) -> str:
    """Names joined with commas; of more than `most` the first ones, and how many more there are."""
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")


def _more(count: int) -> str:
    return f", … {count - _MOST} more" if count > _MOST else ""
