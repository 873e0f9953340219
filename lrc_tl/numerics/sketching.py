"""Leading singular triplets of a matrix that is known only by its products with some vectors. Tensors only."""

from collections.abc import Callable
from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.numerics.low_rank import Factors

Product = Callable[[Tensor], Tensor]
"""Rows in, the product of each out."""


@checked
def added_basis(basis: Float[Tensor, "d known"], new: Float[Tensor, "d added"]) -> Float[Tensor, "d added"]:
    """Orthonormal columns, orthogonal to the orthonormal columns of `basis`; with them they span `new`.

    Where `new` adds fewer directions than it has columns, the others are arbitrary.
    """
    added = new
    for _ in range(2):  # the second time takes away what the first has left of `basis`
        added = torch.linalg.qr(added - basis @ (basis.T @ added)).Q
    defect = (basis.T @ added).abs().max() if basis.numel() and added.numel() else 0
    if defect > 100 * torch.finfo(new.dtype).eps:  # `new` lies in the span of `basis`, but for rounding
        added = torch.linalg.qr(torch.cat([basis, new], dim=1)).Q[:, basis.shape[1] :]
    return added


class BlockKrylov:
    """Golub-Kahan bidiagonalisation by blocks: `weight` on an ever larger space of outputs.

    Each round takes `width` products with the matrix and as many with its transpose, and keeps everything that
    earlier rounds have found, so a round is worth more than a power iteration of the same cost (Musco and Musco
    2015, arXiv:1504.05477, algorithm 2). Products go by rows: `forward` maps rows `d_subject` to rows
    `d_object` (`W v`), `reverse` the other way (`W^T u`). Bases are orthonormal to the precision of the dtype.
    """

    def __init__(
        self,
        forward: Product,
        reverse: Product,
        start: Float[Tensor, "d_subject width"],
    ) -> None:
        self._forward, self._reverse = forward, reverse
        self.right: Float[Tensor, "d_subject known"] = torch.linalg.qr(start).Q
        """Orthonormal: the input directions of the rounds so far and of the next one."""
        self._next = self.right
        self.left: Float[Tensor, "d_object rank"]
        """Orthonormal; the weight is approximated by `left left^T W`."""
        self.image: Float[Tensor, "d_subject rank"]
        """`W^T left`, exact."""
        self.width = start.shape[1]
        self.n_rounds = 0
        self.n_products = 0
        self.first_residual = 0.0
        """Squared Frobenius norm of what the first round has not found of the weight, estimated."""
        self.first_energy = 0.0
        """Squared Frobenius norm of what it has found."""

    @property
    def rank(self) -> int:
        """Dimensions found so far."""
        return self.left.shape[1] if self.n_rounds else 0

    def grow(self) -> None:
        """One more round: `width` products each way, fewer where the space is full."""
        seen = self._forward(self._next.T).T
        self.n_products += self._next.shape[1]
        known = self.left if self.n_rounds else seen[:, :0]
        new = added_basis(known, seen[:, : seen.shape[0] - known.shape[1]])
        pulled = self._reverse(new.T).T
        self.n_products += new.shape[1]
        if self.n_rounds:
            self.left, self.image = torch.cat([self.left, new], 1), torch.cat([self.image, pulled], 1)
        else:
            self.left, self.image = new, pulled
            self.first_residual = left_out_energy(seen, n_rows=self.right.shape[0])
            self.first_energy = float(pulled.cpu().double().pow(2).sum())
        self.n_rounds += 1
        room = self.right.shape[0] - self.right.shape[1]
        self._next = added_basis(self.right, pulled[:, :room])
        self.right = torch.cat([self.right, self._next], 1)

    def without_products(self) -> "BlockKrylov":
        """What has been found so far, without the matrix that the products are with; it cannot grow."""
        found = copy(self)
        found._forward = found._reverse = _no_more
        return found

    def complete(self) -> Float[Tensor, "d_object d_subject"]:
        """The whole weight, from `d_object - rank` more products with the transpose."""
        rest = torch.linalg.qr(self.left, mode="complete").Q[:, self.rank :]
        self.n_products += rest.shape[1]
        whole: Tensor = self.weight + rest @ self._reverse(rest.T)
        return whole

    @property
    def weight(self) -> Float[Tensor, "d_object d_subject"]:
        """The best approximation so far, of rank `rank`."""
        approximation: Tensor = self.left @ self.image.T
        return approximation

    @property
    def factors(self) -> Factors:
        """Its singular value decomposition."""
        return factors_of(self.left, self.image)


def _no_more(rows: Tensor) -> Tensor:
    raise RuntimeError("this sketch was taken without its matrix and cannot grow")


@checked
def factors_of(left: Float[Tensor, "d_object rank"], image: Float[Tensor, "d_subject rank"]) -> Factors:
    """Singular value decomposition of `left image^T` for orthonormal `left`."""
    v, s, uh = torch.linalg.svd(image, full_matrices=False)
    return Factors(u=left @ uh.T, s=s, vh=v.T)


@checked
def left_out_energy(products: Float[Tensor, "d_object width"], *, n_rows: int) -> float:
    """Squared Frobenius norm of `W - Q Q^T W`, where Q spans the products of W with random orthonormal vectors.

    Each product in turn is left out, and its distance from the others tells what they have missed (the
    leave-one-out estimate of Epperly and Tropp 2024, arXiv:2207.06342, for orthonormal vectors in `n_rows`
    dimensions). It belongs to one vector fewer than there are, so it is a little large.
    """
    wide = products.cpu().double()  # some devices know no float64
    width = wide.shape[1]
    triangle = torch.linalg.qr(wide, mode="r").R
    diagonal = triangle.diagonal().abs()
    if width < 2 or width >= n_rows or wide.shape[0] <= width or diagonal.min() <= 1e-12 * diagonal.max():
        return 0.0
    identity = torch.eye(width, dtype=triangle.dtype, device=triangle.device)
    inverse = torch.linalg.solve_triangular(triangle, identity, upper=True)
    distances = 1 / inverse.pow(2).sum(1)
    return float((n_rows - width) * distances.mean())
