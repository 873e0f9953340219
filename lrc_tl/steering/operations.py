"""Operations that a `Steering` holds: what is added to a residual stream.

Adding a vector during generation follows Turner et al. 2023 (arXiv:2308.10248); `Swap` is eq. 7 of
Chanin et al. 2024 (arXiv:2311.08968). They are given residuals in float32 or wider.
"""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.numerics.precision import unit_of, wide_of

Unit = Literal["share", "absolute", "score"]
Amount: TypeAlias = float | int | Float[Tensor, "*#batch"]
"""One number, or one for each row of the batch."""
LEAST_COSINE = 1e-3
"""Between the vector that reads and the one that writes."""


def _column(amount: Amount, like: Tensor) -> Tensor | float:
    return amount.to(like).unsqueeze(-1) if isinstance(amount, Tensor) else amount


def _length(h: Tensor, amount: Amount, unit: Unit) -> Any:
    """The amount in residual-stream units: a share of `|h|` at each position, or the amount itself."""
    scale: Any = h.norm(dim=-1, keepdim=True) if unit == "share" else 1.0
    return _column(amount, h) * scale


def shift_along(h: Tensor, vector: Tensor, amount: Amount, unit: Unit = "share") -> Tensor:
    """`amount |h| v`, or `amount v` with `unit="absolute"`, for vectors of any length.

    With a difference of two unit vectors it is eq. 7 of Chanin et al. 2024 (arXiv:2311.08968).
    """
    shift: Tensor = _length(h, amount, unit) * vector
    return shift


def rescaled(edited: Tensor, h: Tensor) -> Tensor:
    """`edited |h| / |edited|`: the direction of `edited` with the length of `h`; a zero vector stays zero."""
    wide = wide_of(edited)
    length = wide.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny)
    kept: Tensor = (wide / length) * wide_of(h).norm(dim=-1, keepdim=True)
    return kept.to(h.dtype)


def _check_amount(amount: Amount, name: str) -> None:
    if not isinstance(amount, Tensor | Real) or (isinstance(amount, Tensor) and amount.dtype == torch.bool):
        raise TypeError(f"{name} is {amount!r}; give one number, or a tensor with one for each row of the batch")
    if not bool(torch.isfinite(torch.as_tensor(amount)).all()):
        raise ValueError(f"{name} is {amount}; it must be a finite number, or one for each row of the batch")
    if isinstance(amount, Tensor) and amount.ndim > 1:
        raise ValueError(
            f"{name} has shape {tuple(amount.shape)}; give one number, or one for each row of the batch"
        )


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

    def __post_init__(self) -> None:
        check_vector(self.write, "the writing vector")
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset)):
            raise ValueError(
                f"scale {self.scale} and offset {self.offset} of a score; they must be finite, the scale above 0"
            )


class _AlongVector:
    """An operation that moves each residual along one unit vector, by a length that it works out."""

    vector: Float[Tensor, " d_model"]
    dual: Dual | None

    def shift(self, h: Tensor) -> Tensor:
        """What is added to residuals of shape `batch pos d_model`."""
        read = unit_of(self.vector, h)
        write = read if self.dual is None else unit_of(self.dual.write, h)
        shift: Tensor = self._length(h, read, write) * write
        return shift if shift.shape == h.shape else shift.expand_as(h)

    def score(self, h: Tensor) -> Tensor:
        """What it reads in residuals of shape `batch pos d_model`, shape `batch pos`."""
        return self._score(h, unit_of(self.vector, h))[..., 0]

    def _length(self, h: Tensor, read: Tensor, write: Tensor) -> Any:
        """How far each residual moves: of shape `batch pos 1`, or what may stand for it by broadcasting."""
        raise NotImplementedError

    def _score(self, h: Tensor, read: Tensor) -> Tensor:
        projection = (h * read).sum(-1, keepdim=True)
        return projection if self.dual is None else self.dual.scale * projection - self.dual.offset

    def _length_for(self, change: Any, read: Tensor, write: Tensor) -> Any:
        """How far a residual must move for its score to change by that much."""
        return change if self.dual is None else change / (self.dual.scale * (read @ write))


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Add(_AlongVector):
    """`h + strength |h| w`, or `h + strength w` with `unit="absolute"`; w is v, or the writing vector of `dual`.

    With `unit="score"` it moves the score by exactly `strength`. Without a `dual` that is `"absolute"`.

    Raises:
        TypeError: `strength` is neither a number nor a tensor.
        ValueError: `strength` is not finite, or `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Add"
    has_strength: ClassVar[bool] = True
    vector: Float[Tensor, " d_model"]
    strength: Amount
    """A share of `|h|` at each position, residual-stream units with `unit="absolute"`, or units of the score with
    `unit="score"`; one, or one per row."""
    unit: Unit = "share"
    dual: Dual | None = None

    def __post_init__(self) -> None:
        _check_vectors(self.vector, self.dual)
        _check_amount(self.strength, "strength")
        if self.unit not in get_args(Unit):
            raise ValueError(f"unit is {self.unit!r}; allowed are 'share', 'absolute' and 'score'")

    @property
    def amount(self) -> Amount:
        """Its strength."""
        return self.strength

    @numbers_checked
    def with_amount(self, amount: Amount) -> "Add":
        """The same with another strength."""
        return replace(self, strength=amount)

    def _length(self, h: Tensor, read: Tensor, write: Tensor) -> Any:
        if self.unit == "score":
            return self._length_for(_column(_rows(self.strength, h), h), read, write)
        return _length(h, _rows(self.strength, h), self.unit)


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Swap:
    """`h + beta |h| (add - remove)`: one concept for another (arXiv:2311.08968, eq. 7).

    Raises:
        TypeError: `beta` is neither a number nor a tensor.
        ValueError: `beta` is not finite, or a vector is not a unit vector.
    """

    kind: ClassVar[str] = "Swap"
    has_strength: ClassVar[bool] = True
    unit: ClassVar[Unit] = "share"
    remove: Float[Tensor, " d_model"]
    """Unit writing vector of the concept that goes."""
    add: Float[Tensor, " d_model"]
    """Unit writing vector of the concept that comes in."""
    beta: Amount
    """A share of `|h|` at each position; one, or one per row."""
    reads: Float[Tensor, " d_model"] | None = None
    """Unit vector that reads the concept that comes in; None: `add`."""

    def __post_init__(self) -> None:
        check_vector(self.remove, "remove")
        check_vector(self.add, "add")
        if self.reads is not None:
            check_vector(self.reads, "reads")
        if self.add.shape != self.remove.shape:
            raise ValueError(
                f"add has width {self.add.shape[0]}, remove {self.remove.shape[0]}; they must be equal"
            )
        _check_amount(self.beta, "beta")

    @property
    def vector(self) -> Tensor:
        """The vector that reads the concept that comes in."""
        return self.add if self.reads is None else self.reads

    @property
    def amount(self) -> Amount:
        """Its beta."""
        return self.beta

    @numbers_checked
    def with_amount(self, amount: Amount) -> "Swap":
        """The same with another beta."""
        return replace(self, beta=amount)

    def shift(self, h: Tensor) -> Tensor:
        """What is added to residuals of shape `batch pos d_model`."""
        return shift_along(h, self.add.to(h) - self.remove.to(h), _rows(self.beta, h))


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Clamp(_AlongVector):
    """`h + (value - score) w / (scale v.w)`, after which the score is `value`; `value=0.0` is ablation.

    Without a `dual` the score is `v.h` and w is v: the nearest residual whose score is `value`.

    Raises:
        TypeError: `value` is neither a number nor a tensor.
        ValueError: `value` is not finite, or `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Clamp"
    has_strength: ClassVar[bool] = False
    unit: ClassVar[Unit] = "absolute"
    vector: Float[Tensor, " d_model"]
    value: Amount
    """The score that comes out, in residual-stream units without a `dual`; one, or one per row."""
    dual: Dual | None = None

    def __post_init__(self) -> None:
        _check_vectors(self.vector, self.dual)
        _check_amount(self.value, "value")

    @property
    def amount(self) -> Amount:
        """Its value."""
        return self.value

    @numbers_checked
    def with_amount(self, amount: Amount) -> "Clamp":
        """The same with another value."""
        return replace(self, value=amount)

    def _length(self, h: Tensor, read: Tensor, write: Tensor) -> Any:
        return self._length_for(_column(_rows(self.value, h), h) - self._score(h, read), read, write)


class _WithoutAmount:
    """An operation that has nothing to choose."""

    kind: ClassVar[str]
    has_strength: ClassVar[bool] = False
    unit: ClassVar[None] = None
    amount: ClassVar[None] = None

    @numbers_checked
    def with_amount(self, amount: Amount) -> NoReturn:
        """Always refused.

        Raises:
            ValueError: it has no amount.
        """
        raise ValueError(f"{self.kind} has no amount, and was given {amount}; give it none")


@dataclass(frozen=True, kw_only=True, eq=False)
class Reflect(_AlongVector, _WithoutAmount):
    """`h - 2 score w / (scale v.w)`: the score changes its sign.

    Without a `dual` it is `h - 2 (v.h) v`, and the norm stays.

    Raises:
        ValueError: `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Reflect"
    vector: Float[Tensor, " d_model"]
    dual: Dual | None = None

    def __post_init__(self) -> None:
        _check_vectors(self.vector, self.dual)

    def _length(self, h: Tensor, read: Tensor, write: Tensor) -> Any:
        return self._length_for(2 * (0.0 - self._score(h, read)), read, write)


@dataclass(frozen=True, kw_only=True, eq=False)
class Erase(_WithoutAmount):
    """`h - (h - m) R^T L^T`: an affine projection along the columns of L, as LEACE makes; the mean `m` stays.

    With `R L = I` it is a projection, so doing it twice is doing it once. `lrc_tl.steering.erasure` fits it.

    Raises:
        ValueError: `left`, `right` and `mean` do not fit each other, are not finite, or `right @ left` is not the
            identity to 1e-4.
    """

    kind: ClassVar[str] = "Erase"
    left: Float[Tensor, "d_model rank"]
    right: Float[Tensor, "rank d_model"]
    mean: Float[Tensor, " d_model"]

    def __post_init__(self) -> None:
        width, rank = self.left.shape
        if self.right.shape != (rank, width) or self.mean.shape != (width,) or rank == 0:
            raise ValueError(
                f"left {tuple(self.left.shape)}, right {tuple(self.right.shape)} and mean "
                f"{tuple(self.mean.shape)} do not fit; they must be (d_model, rank), (rank, d_model), (d_model,)"
            )
        product = self.right @ self.left
        if not bool(((product - torch.eye(rank).to(product)).abs() < 1e-4).all() & self.mean.isfinite().all()):
            raise ValueError("right @ left is not the identity, or the mean is not finite: that is no projection")

    @property
    def vector(self) -> Tensor:
        """The unit vector that reads most of what is erased: afterwards its score is that of the mean."""
        return unit_of(self.right[0], self.right[0])

    def shift(self, h: Tensor) -> Tensor:
        """What is added to residuals of shape `batch pos d_model`."""
        return -((h - self.mean.to(h)) @ self.right.to(h).T) @ self.left.to(h).T


Operation: TypeAlias = Add | Swap | Clamp | Reflect | Erase
"""Each has, beside its own fields:

- `shift(h)`: what is added to residuals of shape `batch pos d_model`, in their dtype. Where that lies along one
  vector, `_AlongVector` gives it, and the operation says how far each residual moves.
- `vector`: the unit vector that reads its score; it writes along it too, where `dual` names no other.
- `amount`, `with_amount(...)`: how much, and the same operation with another; None where it has none.
- `unit`: that of the amount; None where there is no amount, or it is a plain factor.
- `has_strength`: whether its shift grows in proportion to its amount, so that strengths can be tried in its place.
- `kind`: its name in results and messages.

Copy `Clamp`, or `Reflect` where nothing is to be chosen: how far a residual moves (`_length`) is all that differs.
With a `dual` an operation speaks of the score, offset included; without one, of the plain projection, and a method
of a direction that names a score (`clamp`) adds the direction's offset itself.
"""


def relative_size(operation: Operation, h: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos"]:
    """`|shift| / |h|` at each position: how large an operation is for the residuals that it acts on."""
    wide = wide_of(h)
    return operation.shift(wide).norm(dim=-1) / wide.norm(dim=-1)


def _check_vectors(vector: Tensor, dual: Dual | None) -> None:
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


def _rows(amount: Amount, h: Tensor) -> Amount:
    """One number per row, spread over the positions of `h`."""
    if not isinstance(amount, Tensor) or amount.ndim == 0:
        return float(amount)
    if amount.shape[0] != h.shape[0]:
        raise ValueError(
            f"the amount has {amount.shape[0]} rows, but the batch has {h.shape[0]}; give one number, or one "
            "for each row"
        )
    return amount[:, None]
