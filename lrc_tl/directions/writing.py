"""The vector that a direction writes with: the one that it reads with, or another, its dual above all."""

import math
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.steering.along_vector import check_vector, require_aligned
from lrc_tl.steering.operations import Amount, Swap

WriteRule: TypeAlias = Literal["vector", "covariance", "given"]
"""`"vector"`: a direction writes with the vector that it reads with. `"covariance"`: it writes with `Sigma v`, the
dual of v under the covariance of subjects, so that every u with `u.Sigma.v = 0` keeps its `u.h`. `"given"`: it
writes with another vector, for which that does not hold."""

OWN_VECTOR: Final = "vector"
"""The rule of a direction without another writing vector."""


class Writes(Protocol):
    """A direction: what it reads and what it writes with."""

    @property
    def vector(self) -> Float[Tensor, " d_model"]:
        """The unit vector that reads."""

    @property
    def write_vector(self) -> Float[Tensor, " d_model"] | None:
        """The unit vector that writes; never None once a direction is made."""


def settled_writing(
    vector: Tensor, write_vector: Tensor | None, rule: WriteRule | None, *, norm: float | None, of: str
) -> tuple[Tensor, WriteRule]:
    """The vector that the direction of `of` writes with, and the rule, from what it was given.

    Raises:
        ValueError: the vector and the rule do not fit each other, the writing vector is not like the reading one
            or has a cosine below 1e-3 with it, or there is no length for the score to keep.
    """
    if write_vector is None or write_vector is vector:
        if rule not in (None, OWN_VECTOR):
            raise ValueError(f"write_rule is {rule!r}, but the direction of {of} has no write_vector")
        return vector, OWN_VECTOR
    if rule == OWN_VECTOR:
        raise ValueError(
            f"the direction of {of} writes with its own vector, and another is given beside; give "
            "write_vector=None and write_rule=None to keep that, or write_rule='given' for another vector"
        )
    if rule not in (None, "covariance", "given"):
        raise ValueError(f"write_rule is {rule!r}; allowed are 'vector', 'covariance' and 'given'")
    if write_vector.dtype != vector.dtype or write_vector.device != vector.device:
        raise ValueError(
            f"the writing vector of {of} is {write_vector.dtype} on {write_vector.device}, the reading one "
            f"{vector.dtype} on {vector.device}; they must be alike"
        )
    check_vector(write_vector, f"the writing vector of {of}")
    require_aligned(vector, write_vector, of=of)
    if norm is None or not norm > 0:
        raise ValueError(
            f"the norm of {of} is {norm}; with another writing vector the score keeps its length, so give one "
            "above 0 (1.0 for the plain projection)"
        )
    return write_vector, rule or "given"


def writing_vector(direction: Writes) -> Float[Tensor, " d_model"]:
    """The unit vector that operations with a direction add along."""
    assert direction.write_vector is not None  # filled in when it was made
    return direction.write_vector


def swap_of(remove: Writes, add: Writes, *, beta: Amount) -> Swap:
    """Eq. 7's operation along the writing vectors: one direction out, another in (arXiv:2311.08968)."""
    return Swap(remove=writing_vector(remove), add=writing_vector(add), beta=beta, reads=add.vector)


Vector: TypeAlias = Float[Tensor, " d_model"] | npt.NDArray[Any]
"""A vector as torch or NumPy holds it."""


def scaled_to_unit(vector: Vector, what: str) -> tuple[Float[Tensor, " d_model"], float]:
    """The vector at unit length, and its length, in float32 or wider.

    Raises:
        TypeError: it is neither a tensor nor an array.
        ValueError: it is zero or not finite.
    """
    if not isinstance(vector, Tensor | np.ndarray):
        raise TypeError(f"{what} is a {type(vector).__name__}; give a tensor or a NumPy array")
    wide = wide_of(vector if isinstance(vector, Tensor) else torch.tensor(vector, device=HOST))
    norm = float(wide.norm())
    if not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"{what} has norm {norm}; it must be finite and not zero")
    return wide / wide.norm(), norm
