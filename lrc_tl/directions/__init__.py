"""What users hold: concept directions and sets of them, as probes, files and exports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
