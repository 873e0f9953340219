"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968).

`__init__.pyi` lists the public names. They are loaded when they are first used, so importing the package, or
asking the command line for help, needs no torch.
"""

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A public name, or `__version__`, both when they are first asked for."""
    if name == "__version__":
        from lrc_tl.storage.own_version import own_version

        return own_version()
    return _public(name)
