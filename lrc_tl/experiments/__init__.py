"""Many relations and seeds: the paper's protocol, its settings and its results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
