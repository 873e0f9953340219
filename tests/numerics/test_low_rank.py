"""Low-rank solves against torch's pseudo-inverse."""

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.numerics.low_rank import Factors


@pytest.fixture
def weight():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_full_rank_solve_is_the_pseudo_inverse(weight):
    target = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = target @ torch.linalg.pinv(weight).T
    torch.testing.assert_close(lrc.numerics.solve_low_rank(weight, target, rank=5), expected)


def test_a_low_rank_solve_is_the_pseudo_inverse_of_the_truncated_weight(weight):
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    truncated = (u[:, :2] * s[:2]) @ vh[:2]
    target = torch.randn(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.linalg.pinv(truncated, rtol=1e-10) @ target
    torch.testing.assert_close(lrc.numerics.solve_low_rank(weight, target, rank=2), expected)


def test_a_ridge_is_the_regularised_least_squares_solution(weight):
    target = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    length = 0.3 * torch.linalg.matrix_norm(weight, ord=2)
    normal = weight.T @ weight + length**2 * torch.eye(5, dtype=torch.float64)
    expected = torch.linalg.solve(normal, weight.T @ target.T).T
    factors = Factors.of(weight)
    torch.testing.assert_close(factors.solve(target, rank=5, ridge=0.3), expected)
    torch.testing.assert_close(factors.solve(target, rank=5, ridge=1e-9), factors.solve(target, rank=5))
    wide = factors.solve(target, rank=5, ridge=1e6)
    turned = target @ weight  # the transpose, but for its length
    torch.testing.assert_close(wide / wide.norm(), turned / turned.norm())


@pytest.mark.parametrize("ridge", [-0.1, float("nan"), float("inf")])
def test_a_ridge_that_is_no_share_is_refused(weight, ridge):
    with pytest.raises(ValueError, match=r"ridge is .*; it must be 0 or more, a share of the largest"):
        Factors.of(weight).solve(torch.ones(7, dtype=torch.float64), rank=5, ridge=ridge)


@pytest.mark.parametrize("rank", [0, 3, 6])
def test_a_rank_outside_the_numerical_rank_is_refused(weight, rank):
    rank_two = weight[:, :2] @ weight[:2]
    with pytest.raises(ValueError, match=f"rank {rank} is not allowed; .* give 1 to 2"):
        lrc.numerics.solve_low_rank(rank_two, torch.ones(7, dtype=torch.float64), rank=rank)
