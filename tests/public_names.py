"""What is public: the names at the top, and those of the wings. Constants and type aliases count too."""

import inspect

import lrc_tl as lrc

WINGS = tuple(name for name in lrc.__all__ if inspect.ismodule(getattr(lrc, name)))
TOP = tuple(name for name in lrc.__all__ if name not in WINGS)


def public_objects():
    """Everything public by its own name, whichever door it stands at."""
    found = {name: getattr(lrc, name) for name in TOP}
    for wing in (getattr(lrc, name) for name in WINGS):
        names = getattr(wing, "__all__", None) or [name for name in vars(wing) if name[0].isupper()]
        found |= {name: getattr(wing, name) for name in names}
    return found
