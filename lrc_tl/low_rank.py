"""Truncated SVD, numerical rank and low-rank solves. Tensors only."""

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor


def numerical_rank(singular_values: Float[Tensor, " rank"], shape: tuple[int, ...]) -> int:
    """Number of singular values above `max(shape) * eps * largest`, the rule of NumPy's `matrix_rank`."""
    if singular_values.numel() == 0:
        return 0
    cutoff = max(shape) * torch.finfo(singular_values.dtype).eps * singular_values.max()
    return int((singular_values > cutoff).sum())


@jaxtyped(typechecker=beartype)
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

    Raises:
        ValueError: `rank` is below 1 or above the numerical rank of `weight`, where `1 / s` would amplify noise.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    u, s, vh = torch.linalg.svd(weight.to(wide), full_matrices=False)
    limit = numerical_rank(s, tuple(weight.shape))
    if not 1 <= rank <= limit:
        raise ValueError(
            f"rank {rank} is not allowed; the numerical rank of this weight is {limit}, so give 1 to {limit}"
        )
    coefficients = target.to(wide) @ u[:, :rank] / s[:rank]
    solution: Tensor = (coefficients @ vh[:rank]).to(target.dtype)
    return solution
