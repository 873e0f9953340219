"""Pairs of vectors for an affine map between Gaussian variables: one reads the object, its dual writes it.

With subjects `s ~ N(mu, Sigma)` and objects `o = W s + b + e`, `e ~ N(0, noise tau I)`, the subject that an object
lets one expect lies at `mu + Sigma r` with `r = W^T (W Sigma W^T + noise tau I)^-1 (o - E[o])`: a Wiener filter.
`r` reads, `Sigma r` writes. Noise need not be even in all directions: with a metric `M` it has the covariance
`M^-1` in the place of `I`. Tensors only.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.numerics.covariance import Covariance
from lrc_tl.numerics.low_rank import Factors

LEAST_UNROTATED_NOISE = 1e-6
"""Below it take `factors`, the basis of singular vectors, where the solution stays accurate to rounding. Above it
the condition number, about `d_object / noise`, lets float64 solve the system as it stands, which is faster."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DualMap:
    """What the reading vectors of all objects and all sizes of the noise share, in float64; made by `of`."""

    weight: Float[Tensor, "equation d_subject"]
    """W, or its rows in the basis of its leading left singular vectors."""
    basis: Float[Tensor, "d_object equation"] | None
    """Those singular vectors; None: the weight stands as it is."""
    covariance: Covariance
    object_covariance: Float[Tensor, "equation equation"]
    """`W Sigma W^T` in that basis."""
    noise_covariance: Float[Tensor, "equation equation"] | None
    """`M^-1` in that basis; None: the identity."""
    mean_variance: float
    """`tau = trace(M W Sigma W^T) / d_object`, the unit of the noise."""

    @classmethod
    @checked
    def of(
        cls,
        weight: Float[Tensor, "d_object d_subject"],
        covariance: Covariance,
        *,
        factors: Factors | None = None,
        metric: Float[Tensor, "d_object d_object"] | None = None,
    ) -> "DualMap":
        """The shared part for a weight, or for the leading part of it that `factors` hold.

        Args:
            metric: M, symmetric and positive definite; noise is even in its units. Its scale does not matter: it
                is divided by its mean eigenvalue. None: the identity.

        Raises:
            ValueError: the weight is zero or not finite, or of another width than the covariance; or the metric is
                not positive definite.
        """
        if weight.shape[1] != covariance.width:
            raise ValueError(
                f"the weight takes subjects of width {weight.shape[1]}, and the covariance has width "
                f"{covariance.width}; take both from one model"
            )
        if not bool(torch.isfinite(weight).all()):
            raise ValueError("the weight is not finite; fit it again from finite activations")
        moved = covariance.to(weight.device)
        basis, rows = None, weight.double()
        if factors is not None:
            basis, rows = factors.u.double(), factors.s.double()[:, None] * factors.vh.double()
        object_covariance = moved.seen_through(rows)
        noise_covariance = None
        if metric is None:
            mean_variance = float(object_covariance.trace()) / weight.shape[0]
        else:
            metric = metric.double().to(weight.device)
            metric = metric * (len(metric) / metric.trace())
            in_basis = metric if basis is None else basis.T @ metric @ basis
            mean_variance = float((in_basis * object_covariance).sum()) / weight.shape[0]
            noise_covariance = _inverse(metric)
            if basis is not None:
                noise_covariance = basis.T @ noise_covariance @ basis
        if not mean_variance > 0:
            raise ValueError(
                "the weight is zero: at these layers the object does not depend on the subject; take an object "
                "layer above the subject layer"
            )
        return cls(
            weight=rows,
            basis=basis,
            covariance=moved,
            object_covariance=object_covariance,
            noise_covariance=noise_covariance,
            mean_variance=mean_variance,
        )

    @checked
    def reading(
        self, targets: Float[Tensor, "*batch d_object"], *, noise: float
    ) -> Float[Tensor, "*batch d_subject"]:
        """`W^T (W Sigma W^T + noise tau M^-1)^-1 t` for each row t, an object activation less their mean.

        In float64.

        Raises:
            ValueError: `noise` is not above 0.
        """
        require_noise(noise)
        in_basis = targets.double() if self.basis is None else targets.double() @ self.basis
        size = noise * self.mean_variance
        if self.noise_covariance is None:
            system = self.object_covariance.clone()
            system.diagonal().add_(size)
        else:
            system = self.object_covariance + size * self.noise_covariance
        solved = torch.cholesky_solve(in_basis.reshape(-1, system.shape[0]).T, torch.linalg.cholesky(system)).T
        return (solved @ self.weight).reshape(*targets.shape[:-1], self.weight.shape[1])

    def writing(self, reading: Float[Tensor, "*batch d_subject"]) -> Float[Tensor, "*batch d_subject"]:
        """`Sigma r` for each reading vector: what the subjects that score high on it have more of. In float64."""
        return self.covariance.times(reading)


def require_noise(noise: float) -> None:
    """Raise ValueError unless this is the noise of a dual: a finite number above 0."""
    if not (math.isfinite(noise) and noise > 0):
        raise ValueError(f"noise is {noise}; it must be above 0, a share of the objects' mean variance")


@checked
def with_identity(
    metric: Float[Tensor, "width also_width"], d_object: int, *, share: float
) -> Float[Tensor, "d_object d_object"]:
    """The metric over its mean eigenvalue, mixed with a share of the identity; in float64.

    Raises:
        ValueError: it is of another width, or its mean eigenvalue is not above 0.
    """
    if metric.shape != (d_object, d_object):
        raise ValueError(f"the metric has shape {tuple(metric.shape)}; the LRE's objects have width {d_object}")
    wide = metric.double()
    mean_eigenvalue = float(wide.trace()) / d_object
    if not 0 < mean_eigenvalue < float("inf"):
        raise ValueError(f"the metric's mean eigenvalue is {mean_eigenvalue}; it must be above 0 and finite")
    mixed = wide * ((1 - share) / mean_eigenvalue)
    mixed.diagonal().add_(share)
    return mixed


def _inverse(metric: Tensor) -> Tensor:
    """Of a positive definite matrix."""
    root, failed = torch.linalg.cholesky_ex(metric)
    if bool(failed) or not bool(torch.isfinite(root).all()):
        raise ValueError(
            "the metric of the noise is not positive definite; give a symmetric one with eigenvalues above 0"
        )
    return torch.cholesky_inverse(root)
