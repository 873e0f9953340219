"""The linear relational embedding: Jacobians between two layers, their mean and its inverse."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
