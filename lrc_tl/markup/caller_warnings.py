"""Warnings that point at the line of the user's own code. Needs no torch."""

import sys
import warnings

_PASSED_THROUGH = (__name__.split(".")[0], "contextlib")
"""This package, and the libraries behind its decorators."""


def warn_caller(message: str) -> None:
    """A `UserWarning` at the innermost line outside this package that led here."""
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _PASSED_THROUGH:
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)
