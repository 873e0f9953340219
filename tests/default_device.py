"""`torch.set_default_device("meta")` for the lines of one package: what it makes without a device has no data."""

import sys
from contextlib import contextmanager
from pathlib import Path

from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

import lrc_tl

_ROOT = str(Path(lrc_tl.__file__).parent)


class _MetaInPackage(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.lines = set()
        """Where a tensor was made on the default device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _device_constructors() and kwargs.get("device") is None:
            caller = sys._getframe(1)
            if caller.f_code.co_filename.startswith(_ROOT):
                self.lines.add(f"{Path(caller.f_code.co_filename).relative_to(_ROOT)}:{caller.f_lineno}")
                kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)


@contextmanager
def meta_in_package():
    """Inside the block, what `lrc_tl` makes without a device is on "meta", which fails on first use.

    TransformerLens and transformers make tensors on the default device themselves (a mask, a position), and so do
    the tests, so the default of the whole process cannot be changed. The lines come back.
    """
    with _MetaInPackage() as mode:
        yield mode.lines
