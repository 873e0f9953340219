"""Operations that a `Steering` holds: what is added to a residual stream.

Adding a vector during generation follows Turner et al. 2023 (arXiv:2308.10248); `Swap` is eq. 7 of
Chanin et al. 2024 (arXiv:2311.08968). They are given residuals in float32 or wider.
"""

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.numerics.precision import HOST, unit_of, wide_of
from lrc_tl.steering.along_vector import AlongVector, Dual, check_vector, check_vectors

Unit = Literal["share", "absolute", "score"]
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
    if not bool(torch.isfinite(torch.as_tensor(amount, device=HOST)).all()):
        raise ValueError(f"{name} is {amount}; it must be a finite number, or one for each row of the batch")
    if isinstance(amount, Tensor) and amount.ndim > 1:
        raise ValueError(
            f"{name} has shape {tuple(amount.shape)}; give one number, or one for each row of the batch"
        )


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Add(AlongVector):
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
        check_vectors(self.vector, self.dual)
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
class Clamp(AlongVector):
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
        check_vectors(self.vector, self.dual)
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
class Reflect(AlongVector, _WithoutAmount):
    """`h - 2 score w / (scale v.w)`: the score changes its sign.

    Without a `dual` it is `h - 2 (v.h) v`, and the norm stays.

    Raises:
        ValueError: `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "Reflect"
    vector: Float[Tensor, " d_model"]
    dual: Dual | None = None

    def __post_init__(self) -> None:
        check_vectors(self.vector, self.dual)

    def _length(self, h: Tensor, read: Tensor, write: Tensor) -> Any:
        return self._length_for(2 * (0.0 - self._score(h, read)), read, write)


@dataclass(frozen=True, kw_only=True, eq=False)
class FromClean(AlongVector, _WithoutAmount):
    """`Reflect`, `Clamp` and ablation by the clean score c, which no steering of the run has changed.

    `does="reflect"` sets the score to -c, and `"clamp"` to c; `"ablate"` lowers it by c. So what acts at one layer
    is not undone at the next. A prompt token has at each layer the clean score of one pass without any edit; a
    generated token has at all layers the score that it had before the first of them was steered.

    Raises:
        ValueError: `does` is another word, or `vector` is not a unit vector.
    """

    kind: ClassVar[str] = "FromClean"
    does: Literal["reflect", "clamp", "ablate"]
    vector: Float[Tensor, " d_model"]
    dual: Dual | None = None

    def __post_init__(self) -> None:
        check_vectors(self.vector, self.dual)
        if self.does not in ("reflect", "clamp", "ablate"):
            raise ValueError(f"does is {self.does!r}; allowed are 'reflect', 'clamp' and 'ablate'")

    def shift(self, h: Tensor, *, clean: Tensor | None = None) -> Tensor:
        """What is added to residuals of shape `batch pos d_model` whose clean scores, `batch pos`, are `clean`.

        None: they are those of the clean run themselves.
        """
        read, write = self._read_and_write(h)
        score = self._score(h, read)
        clean_score = score if clean is None else clean.to(h)[..., None]
        wanted = {"reflect": -clean_score, "clamp": clean_score, "ablate": score - clean_score}[self.does]
        shift: Tensor = self._length_for(wanted - score, read, write) * write
        return shift


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
        if not bool(
            ((product - torch.eye(rank, device=product.device)).abs() < 1e-4).all() & self.mean.isfinite().all()
        ):
            raise ValueError("right @ left is not the identity, or the mean is not finite: that is no projection")

    @property
    def vector(self) -> Tensor:
        """The unit vector that reads most of what is erased: afterwards its score is that of the mean."""
        return unit_of(self.right[0], self.right[0])

    def shift(self, h: Tensor) -> Tensor:
        """What is added to residuals of shape `batch pos d_model`."""
        return -((h - self.mean.to(h)) @ self.right.to(h).T) @ self.left.to(h).T


Operation: TypeAlias = Add | Swap | Clamp | Reflect | FromClean | Erase
"""Each has, beside its own fields:

- `shift(h)`: what is added to residuals of shape `batch pos d_model`, in their dtype. Where that lies along one
  vector, `AlongVector` gives it, and the operation says how far each residual moves. That of `FromClean` may be
  given scores of another run.
- `vector`: the unit vector that reads its score; it writes along it too, where `dual` names no other.
- `amount`, `with_amount(...)`: how much, and the same operation with another; None where it has none.
- `unit`: that of the amount; None where there is no amount, or it is a plain factor.
- `has_strength`: whether its shift grows in proportion to its amount, so that strengths can be tried in its place.
- `kind`: its name in results and messages.

Copy `Clamp`, or `Reflect` where nothing is to be chosen: how far a residual moves (`_length`) is all that differs.
With a `dual` an operation speaks of the score, offset included; without one, of the plain projection, and a method
of a direction that names a score (`clamp`) adds the direction's offset itself.
"""


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
