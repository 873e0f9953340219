"""Tensors and numbers without a model: low rank, sketches, errors of directions, statistics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
