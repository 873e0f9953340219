"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968).

`__init__.pyi` lists the public names. They are loaded when they are first used, so importing the package, or
asking the command line for help, needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
