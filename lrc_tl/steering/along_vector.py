"""Operations that move each residual along one vector: what they read, and along what they write."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.markup.brief import brief_fields
from lrc_tl.numerics.precision import unit_of

LEAST_COSINE = 1e-3
"""Between the vector that reads and the one that writes."""


def check_vector(vector: Tensor, name: str) -> None:
    """Raise ValueError unless `vector` is one finite unit vector."""
    length = float(vector.norm())
    if vector.ndim != 1 or not abs(length - 1) < 1e-4:
        raise ValueError(
            f"{name} has shape {tuple(vector.shape)} and norm {length}; it must be one finite unit vector"
        )


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Dual:
    """What an operation writes along, where it is not the vector that it reads with, and the score that it reads.

    The score of a residual is `scale v.h - offset`.

    Raises:
        ValueError: `write` is not a unit vector, `scale` is not above 0, or `offset` is not finite.
    """

    write: Float[Tensor, " d_model"]
    scale: float = 1.0
    offset: float = 0.0

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        check_vector(self.write, "the writing vector")
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset)):
            raise ValueError(
                f"scale {self.scale} and offset {self.offset} of a score; they must be finite, the scale above 0"
            )


class AlongVector:
    """An operation that moves each residual along one unit vector, by a length that it works out."""

    vector: Float[Tensor, " d_model"]
    dual: Dual | None

    def shift(self, h: Tensor) -> Tensor:
        """What is added to residuals of shape `batch pos d_model`."""
        read, write = self._read_and_write(h)
        shift: Tensor = self._length(h, read, write) * write
        return shift if shift.shape == h.shape else shift.expand_as(h)

    def score(self, h: Tensor) -> Tensor:
        """What it reads in residuals of shape `batch pos d_model`, shape `batch pos`."""
        return self._score(h, unit_of(self.vector, h))[..., 0]

    def _read_and_write(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The unit vectors that it reads and writes with, in the dtype and on the device of `h`."""
        read = unit_of(self.vector, h)
        return read, read if self.dual is None else unit_of(self.dual.write, h)

    def _length(self, h: Tensor, read: Tensor, write: Tensor) -> Any:
        """How far each residual moves: of shape `batch pos 1`, or what may stand for it by broadcasting."""
        raise NotImplementedError

    def _score(self, h: Tensor, read: Tensor) -> Tensor:
        projection = (h * read).sum(-1, keepdim=True)
        return projection if self.dual is None else self.dual.scale * projection - self.dual.offset

    def _length_for(self, change: Any, read: Tensor, write: Tensor) -> Any:
        """How far a residual must move for its score to change by that much."""
        return change if self.dual is None else change / (self.dual.scale * (read @ write))


def check_vectors(vector: Tensor, dual: Dual | None) -> None:
    """Raise ValueError unless `vector` is one finite unit vector whose score moves by writing as `dual` does."""
    check_vector(vector, "vector")
    if dual is not None:
        require_aligned(vector, dual.write)


def require_aligned(read: Tensor, write: Tensor, *, of: str = "an operation") -> None:
    """Raise ValueError where writing along `write` would hardly move the score that `read` reads, or lower it."""
    if read.shape != write.shape:
        raise ValueError(
            f"the writing vector of {of} has width {write.shape[0]}, the reading one {read.shape[0]}; they must "
            "be equal"
        )
    cosine = float(read.double() @ write.double())
    if not cosine >= LEAST_COSINE:
        raise ValueError(
            f"the reading and the writing vector of {of} have the cosine {cosine:.3g}; it must be {LEAST_COSINE} "
            "or more, or writing would hardly move the score, or lower it"
        )
