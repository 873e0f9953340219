"""float32 or wider: the precision in which residuals, weights and lengths are computed."""

import torch
from torch import Tensor

HOST = torch.device("cpu")
"""Where numbers of Python, random draws and small sums in float64 live: some devices know no float64."""


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or `dtype` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def wide_of(tensor: Tensor) -> Tensor:
    """The tensor in float32 or wider; itself where it is that already."""
    return tensor.to(wide_dtype(tensor.dtype))


def unit_of(vector: Tensor, like: Tensor) -> Tensor:
    """The vector in the dtype and on the device of `like`, scaled to unit length there; several, row by row."""
    # A unit vector that was stored in float32 is one only to 1e-7; in float64 that would show.
    moved = vector.to(like)
    return moved / moved.norm(dim=-1, keepdim=True)
