"""A covariance as factors and a diagonal: no square matrix where the samples are fewer. Tensors only."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked


@dataclass(frozen=True, kw_only=True, eq=False)
class Covariance:
    """`Sigma = F^T F + d I`, in float64.

    Raises:
        ValueError: the factors are not finite, or the diagonal is negative or not finite.
    """

    factors: Float[Tensor, "factor width"]
    diagonal: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.diagonal) and self.diagonal >= 0):
            raise ValueError(f"the diagonal of a covariance is {self.diagonal}; it must be a number of 0 or more")
        if not bool(torch.isfinite(self.factors).all()):
            raise ValueError("the factors of a covariance are not finite; fit it from finite samples")

    @classmethod
    @checked
    def of_samples(cls, samples: Float[Tensor, "sample width"], *, shrinkage: float) -> "Covariance":
        """`(1 - a) S + a trace(S) / width I` with `S = mean((x - mean)(x - mean)^T)` and `a = shrinkage`.

        There are at most as many factors as the samples are wide.

        Raises:
            ValueError: `shrinkage` is not in 0 to 1.
        """
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage is {shrinkage}; it must be from 0 to 1")
        deviations = samples.double() - samples.double().mean(0)
        n_samples, width = deviations.shape
        mean_variance = float(deviations.square().sum()) / n_samples / width
        if n_samples > width:  # R^T R is what the deviations' product is
            deviations = torch.linalg.qr(deviations, mode="r").R
        return cls(factors=deviations * math.sqrt((1 - shrinkage) / n_samples), diagonal=shrinkage * mean_variance)

    @property
    def width(self) -> int:
        """Dimensions of the space."""
        return self.factors.shape[1]

    @property
    def trace(self) -> float:
        """Sum of the variances."""
        return float(self.factors.square().sum()) + self.width * self.diagonal

    def times(self, rows: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """`Sigma x` for each row, in float64."""
        wide = rows.double()
        return (wide @ self.factors.T) @ self.factors + self.diagonal * wide

    def seen_through(self, weight: Float[Tensor, "out width"]) -> Float[Tensor, "out out"]:
        """`W Sigma W^T`, the covariance of what an affine map makes of the samples, in float64."""
        wide = weight.double()
        image = self.factors @ wide.T
        # In place, since at widths of thousands each such matrix takes hundreds of megabytes.
        return (wide @ wide.T).mul_(self.diagonal).add_(image.T @ image)

    def dense(self) -> Float[Tensor, "width width"]:
        """The matrix itself, in float64."""
        matrix = self.factors.T @ self.factors
        matrix.diagonal().add_(self.diagonal)
        return matrix

    def to(self, device: torch.device) -> "Covariance":
        """The same on another device."""
        return Covariance(factors=self.factors.to(device), diagonal=self.diagonal)


@checked
def shrinkage_of(samples: Float[Tensor, "sample width"]) -> float:
    """Ledoit and Wolf's shrinkage (2004), between 0 and 1: the share of a multiple of the identity that makes the
    expected squared error of the covariance smallest.

    It takes the samples for independent, so samples that come in groups are shrunk a little less than they should
    be. Computed by scikit-learn.
    """
    # Takes long to import, and every LRE imports this module.
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(samples.double().cpu().numpy()))
