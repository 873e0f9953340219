"""Covariances as factors and a diagonal, against dense matrices and a plain version of Ledoit and Wolf's."""

import numpy as np
import pytest
import torch
from reference.wiener import ledoit_wolf

from lrc_tl.numerics.covariance import Covariance, shrinkage_of


@pytest.fixture(params=[9, 40], ids=["fewer samples than dimensions", "more samples than dimensions"])
def samples(request):
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(0.1, 3.0, 12, dtype=torch.float64)
    return torch.randn(request.param, 12, generator=generator, dtype=torch.float64) * scales + 5.0


def test_shrinkage_and_covariance_are_those_of_ledoit_and_wolf(samples):
    expected, shrinkage = ledoit_wolf(samples.numpy())
    assert shrinkage_of(samples) == pytest.approx(shrinkage, rel=1e-10)
    covariance = Covariance.of_samples(samples, shrinkage=shrinkage)
    np.testing.assert_allclose(covariance.dense().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert covariance.factors.shape[0] <= min(samples.shape)


def test_products_are_those_of_the_dense_matrix(samples):
    covariance = Covariance.of_samples(samples, shrinkage=0.2)
    dense = covariance.dense()
    rows = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(covariance.times(rows), rows @ dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(covariance.seen_through(weight), weight @ dense @ weight.T, rtol=1e-12, atol=1e-12)
    assert covariance.trace == pytest.approx(float(dense.trace()), rel=1e-12)


def test_shrinkage_keeps_the_trace_and_at_one_leaves_a_multiple_of_the_identity(samples):
    whole = Covariance.of_samples(samples, shrinkage=0.0)
    nothing = Covariance.of_samples(samples, shrinkage=1.0)
    assert nothing.trace == pytest.approx(whole.trace, rel=1e-12)
    expected = torch.eye(12, dtype=torch.float64) * whole.trace / 12
    torch.testing.assert_close(nothing.dense(), expected, rtol=1e-12, atol=0)


def test_a_covariance_does_not_depend_on_where_the_samples_lie(samples):
    moved = Covariance.of_samples(samples + 1000.0, shrinkage=0.1).dense()
    torch.testing.assert_close(moved, Covariance.of_samples(samples, shrinkage=0.1).dense(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, float("nan")])
def test_a_shrinkage_that_is_no_share_is_refused(samples, shrinkage):
    with pytest.raises(ValueError, match=r"shrinkage is .*; it must be from 0 to 1"):
        Covariance.of_samples(samples, shrinkage=shrinkage)


@pytest.mark.parametrize("diagonal", [-1.0, float("inf")])
def test_a_diagonal_that_is_no_variance_is_refused(diagonal):
    with pytest.raises(ValueError, match="the diagonal of a covariance is"):
        Covariance(factors=torch.ones(2, 3, dtype=torch.float64), diagonal=diagonal)
