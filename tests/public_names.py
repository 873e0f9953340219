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


def taking_a_model():
    """Public functions and methods of the package with a parameter `model`, by name."""
    found = set()
    for name, value in public_objects().items():
        members = {name: value}
        if inspect.isclass(value):
            own = (own for cls in value.__mro__ if cls.__module__.startswith("lrc_tl") for own in vars(cls))
            members = {f"{name}.{one}": inspect.getattr_static(value, one) for one in own if one[0] != "_"}
        for path, function in members.items():
            plain = getattr(function, "__func__", function)  # of a class method
            if inspect.isfunction(plain) and "model" in inspect.signature(plain).parameters:
                found.add(path)
    return found


def public_function(path):
    """The function or method that `taking_a_model` calls so."""
    owner, _, method = path.partition(".")
    value = public_objects()[owner]
    return getattr(value, method) if method else value
