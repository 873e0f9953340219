"""Truncated SVD, numerical rank and low-rank solves. Tensors only."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.typechecking import checked
from lrc_tl.numerics.precision import wide_of


@numbers_checked
@checked
def numerical_rank(singular_values: Float[Tensor, " rank"], shape: tuple[int, ...]) -> int:
    """Number of singular values above `max(shape) * eps * largest`, the rule of NumPy's `matrix_rank`."""
    if singular_values.numel() == 0:
        return 0
    cutoff = max(shape) * torch.finfo(singular_values.dtype).eps * singular_values.max()
    return int((singular_values > cutoff).sum())


@numbers_checked
@checked
def solve_low_rank(
    weight: Float[Tensor, "d_object d_subject"],
    target: Float[Tensor, "*batch d_object"],
    *,
    rank: int,
) -> Float[Tensor, "*batch d_subject"]:
    """Smallest subject vectors that the best rank-`rank` part of `weight` sends to `target`.

    With `weight = U diag(s) V^T` this is `V_r diag(1 / s_r) U_r^T target` for each row of `target`. Subtract the
    LRE bias from `target` first: this function knows of no bias. Computed in float32 or wider and returned in the
    dtype of `target`. Chanin et al. 2024 (arXiv:2311.08968), the low-rank inverse of section 3.

    >>> weight, target = torch.diag(torch.tensor([4.0, 2.0, 0.5])), torch.tensor([4.0, 4.0, 4.0])
    >>> solve_low_rank(weight, target, rank=2)  # the third would be 8
    tensor([1., 2., 0.])

    Raises:
        ValueError: `rank` is below 1 or above the numerical rank of `weight`, where `1 / s` would amplify noise.
    """
    return Factors.of(weight).solve(target, rank=rank)


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """Singular value decomposition `weight = U diag(s) V^T`, in float32 or wider."""

    u: Float[Tensor, "d_object rank"]
    s: Float[Tensor, " rank"]
    """Largest first."""
    vh: Float[Tensor, "rank d_subject"]

    @classmethod
    @checked
    def of(cls, weight: Float[Tensor, "d_object d_subject"]) -> "Factors":
        """The factors of a weight.

        Raises:
            ValueError: the weight is not finite.
        """
        if not torch.isfinite(weight).all():
            raise ValueError("the weight is not finite; fit it again from finite activations")
        u, s, vh = torch.linalg.svd(wide_of(weight), full_matrices=False)
        return cls(u=u, s=s, vh=vh)

    def leading(self, rank: int) -> "Factors":
        """Those of the `rank` largest singular values.

        Raises:
            ValueError: `rank` is below 1 or above the numerical rank.
        """
        self._require_rank(rank)
        return Factors(u=self.u[:, :rank], s=self.s[:rank], vh=self.vh[:rank])

    @property
    def numerical_rank(self) -> int:
        """The largest rank that `solve` accepts."""
        return numerical_rank(self.s, (self.u.shape[0], self.vh.shape[1]))

    @checked
    def solve(
        self, target: Float[Tensor, "*batch d_object"], *, rank: int, ridge: float = 0.0
    ) -> Float[Tensor, "*batch d_subject"]:
        """`V_r diag(s_r / (s_r^2 + l^2)) U_r^T target` for each row with `l = ridge s_1`; see `solve_low_rank`.

        With all of the rank it is the x that makes `|W x - target|^2 + l^2 |x|^2` smallest (Tikhonov); without a
        ridge the low-rank pseudo-inverse.
        """
        if not (math.isfinite(ridge) and ridge >= 0):
            raise ValueError(f"ridge is {ridge}; it must be 0 or more, a share of the largest singular value")
        self._require_rank(rank)
        s = self.s[:rank]
        inverse = s / (s**2 + (ridge * s[0]) ** 2) if ridge else 1 / s
        coefficients = target.to(s.dtype) @ self.u[:, :rank] * inverse
        solution: Tensor = (coefficients @ self.vh[:rank]).to(target.dtype)
        return solution

    def _require_rank(self, rank: int) -> None:
        if self.numerical_rank == 0:
            raise ValueError(
                "the weight is zero: at these layers the object does not depend on the subject; take an object "
                "layer above the subject layer"
            )
        if not 1 <= rank <= self.numerical_rank:
            raise ValueError(
                f"rank {rank} is not allowed; the numerical rank of this weight is {self.numerical_rank}, so give "
                f"1 to {self.numerical_rank}"
            )
