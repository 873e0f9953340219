"""What some directions span: an orthonormal basis, and projections on it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.numerics.low_rank import Factors
from lrc_tl.numerics.precision import wide_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Subspace:
    """The span of some directions at one hook point.

    Raises:
        ValueError: the rows of `basis` are not orthonormal to 1e-4, or there are none.
    """

    basis: Float[Tensor, "rank d_model"]
    """Orthonormal rows, the direction in which the vectors agree most first; float32 or wider."""
    hook_name: str
    singular_values: Float[Tensor, " rank"] | None = None
    """Of the vectors that it was made from; None: made from a basis."""
    fingerprint: ModelFingerprint | None = None
    """The model that the vectors were made on; None: not recorded."""

    def __post_init__(self) -> None:
        rank = self.basis.shape[0]
        gram = self.basis @ self.basis.T
        if rank == 0 or not bool(((gram - torch.eye(rank, device=gram.device)).abs() < 1e-4).all()):
            raise ValueError(
                f"the {rank} rows of the basis are not orthonormal; use orthonormal_basis, or subspace() of a set"
            )

    @classmethod
    @checked
    def of(
        cls,
        vectors: Float[Tensor, "concept d_model"],
        *,
        hook_name: str,
        fingerprint: ModelFingerprint | None = None,
    ) -> "Subspace":
        """What the rows of `vectors` span, with their singular values; see `orthonormal_basis`.

        Raises:
            ValueError: no vectors, vectors that are not finite, or only zeros.
        """
        basis, singular_values = _basis(vectors)
        return cls(basis=basis, hook_name=hook_name, singular_values=singular_values, fingerprint=fingerprint)

    @property
    def rank(self) -> int:
        """Its dimension."""
        return self.basis.shape[0]

    @checked
    def project(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """`Q^T Q h`: the part of each activation inside the subspace.

        Computed in float32 or wider, returned in the dtype of `acts`.

        Raises:
            ValueError: the activations are of another width.
        """
        return self._inside(acts).to(acts.dtype)

    @checked
    def remove(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """`h - Q^T Q h`: each activation without its part in the subspace, in the dtype of `acts`.

        Raises:
            ValueError: the activations are of another width.
        """
        return (wide_of(acts) - self._inside(acts)).to(acts.dtype)

    def _inside(self, acts: Tensor) -> Tensor:
        if acts.shape[-1] != self.basis.shape[1]:
            raise ValueError(
                f"the activations have width {acts.shape[-1]}, the subspace {self.basis.shape[1]}; they must be "
                "equal"
            )
        wide = wide_of(acts)
        # In float64 the rounding of a basis that is kept in float32 would show.
        basis = torch.linalg.qr(self.basis.to(wide).T).Q
        return (wide @ basis) @ basis.T


@checked
def orthonormal_basis(vectors: Float[Tensor, "concept d_model"]) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows that span the rows of `vectors`: their right singular vectors up to the numerical rank.

    A singular value counts where it lies above `max(concept, d_model) * eps * largest`, NumPy's rule. Computed and
    returned in float32 or wider.

    Raises:
        ValueError: no vectors, vectors that are not finite, or only zeros.
    """
    basis, _ = _basis(vectors)
    return basis


def _basis(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The right singular vectors up to the numerical rank, and their singular values."""
    if vectors.shape[0] == 0:
        raise ValueError("there are no vectors; give at least one")
    if not bool(torch.isfinite(vectors).all()):
        raise ValueError("the vectors are not finite, so they span nothing")
    factors = Factors.of(vectors)
    rank = factors.numerical_rank
    if rank == 0:
        raise ValueError("all vectors are zero, so they span nothing")
    return factors.vh[:rank], factors.s[:rank]
