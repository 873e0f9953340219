"""Operations that a `Steering` holds: what is added to a residual stream.

Adding a vector during generation follows Turner et al. 2023 (arXiv:2308.10248); `Swap` is eq. 7 of
Chanin et al. 2024 (arXiv:2311.08968). They are given residuals in float32 or wider.
"""

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.numerics.precision import unit_of, wide_of

Unit = Literal["share", "absolute"]
Amount: TypeAlias = float | int | Float[Tensor, "*#batch"]
"""One number, or one for each row of the batch."""


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


class _AlongVector:
    """An operation that moves each residual along one unit vector, by a length that it works out."""

    vector: Float[Tensor, " d_model"]

    def shift(self, h: Tensor) -> Tensor:
        """What is added to residuals of shape `batch pos d_model`."""
        # The one vector has two parts: `read` measures the residual, and the change is added along `write`.
        read = write = unit_of(self.vector, h)
        shift: Tensor = self._length(h, read) * write
        return shift if shift.shape == h.shape else shift.expand_as(h)

    def _length(self, h: Tensor, read: Tensor) -> Any:
        """How far each residual moves: of shape `batch pos 1`, or what may stand for it by broadcasting."""
        raise NotImplementedError


def _score(h: Tensor, read: Tensor) -> Tensor:
    return (h * read).sum(-1, keepdim=True)


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Add(_AlongVector):
    """`h + strength |h| v`, or `h + strength v` with `unit="absolute"`, which moves the score by `strength`.

    Raises:
        TypeError: `strength` is neither a number nor a tensor.
        ValueError: `strength` is not finite, or `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Add"
    has_strength: ClassVar[bool] = True
    vector: Float[Tensor, " d_model"]
    strength: Amount
    """A share of `|h|` at each position, or residual-stream units with `unit="absolute"`; one, or one per row."""
    unit: Unit = "share"

    def __post_init__(self) -> None:
        check_vector(self.vector, "vector")
        _check_amount(self.strength, "strength")
        if self.unit not in ("share", "absolute"):
            raise ValueError(f"unit is {self.unit!r}; allowed are 'share' and 'absolute'")

    @property
    def amount(self) -> Amount:
        """Its strength."""
        return self.strength

    @numbers_checked
    def with_amount(self, amount: Amount) -> "Add":
        """The same with another strength."""
        return replace(self, strength=amount)

    def _length(self, h: Tensor, read: Tensor) -> Any:
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
    add: Float[Tensor, " d_model"]
    beta: Amount
    """A share of `|h|` at each position; one, or one per row."""

    def __post_init__(self) -> None:
        check_vector(self.remove, "remove")
        check_vector(self.add, "add")
        if self.add.shape != self.remove.shape:
            raise ValueError(
                f"add has width {self.add.shape[0]}, remove {self.remove.shape[0]}; they must be equal"
            )
        _check_amount(self.beta, "beta")

    @property
    def vector(self) -> Tensor:
        """The direction that comes in."""
        return self.add

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
    """`h + (value - v.h) v`: the nearest residual whose score is `value`; `value=0.0` is ablation.

    Raises:
        TypeError: `value` is neither a number nor a tensor.
        ValueError: `value` is not finite, or `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Clamp"
    has_strength: ClassVar[bool] = False
    unit: ClassVar[Unit] = "absolute"
    vector: Float[Tensor, " d_model"]
    value: Amount
    """The score that comes out, in residual-stream units; one, or one per row."""

    def __post_init__(self) -> None:
        check_vector(self.vector, "vector")
        _check_amount(self.value, "value")

    @property
    def amount(self) -> Amount:
        """Its value."""
        return self.value

    @numbers_checked
    def with_amount(self, amount: Amount) -> "Clamp":
        """The same with another value."""
        return replace(self, value=amount)

    def _length(self, h: Tensor, read: Tensor) -> Any:
        return _column(_rows(self.value, h), h) - _score(h, read)


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
    """`h - 2 (v.h) v`: the score changes its sign, the norm stays.

    Raises:
        ValueError: `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Reflect"
    vector: Float[Tensor, " d_model"]

    def __post_init__(self) -> None:
        check_vector(self.vector, "vector")

    def _length(self, h: Tensor, read: Tensor) -> Any:
        return 2 * (0.0 - _score(h, read))


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
- `vector`: the unit vector along which it writes and its score is read.
- `amount`, `with_amount(...)`: how much, in `unit`, and the same operation with another; None where it has none.
- `has_strength`: whether its shift grows in proportion to its amount, so that strengths can be tried in its place.
- `kind`: its name in results and messages.
"""


def _rows(amount: Amount, h: Tensor) -> Amount:
    """One number per row, spread over the positions of `h`."""
    if not isinstance(amount, Tensor) or amount.ndim == 0:
        return float(amount)
    if amount.shape[0] != h.shape[0]:
        raise ValueError(
            f"the strength has {amount.shape[0]} rows, but the batch has {h.shape[0]}; give one number, or one "
            "for each row"
        )
    return amount[:, None]
