"""Dual vectors against their definition, the posterior mean, and both limits of the noise."""

import numpy as np
import pytest
import torch
from reference.wiener import dual_vectors, posterior_mean

from lrc_tl.numerics.covariance import Covariance
from lrc_tl.numerics.dual import DualMap
from lrc_tl.numerics.low_rank import Factors

NOISES = [0.01, 1.0, 30.0]


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def covariance():
    scales = torch.linspace(0.2, 2.0, 8, dtype=torch.float64)
    return Covariance.of_samples(draw(60, 8, seed=0) * scales, shrinkage=0.1)


@pytest.fixture
def identity():
    return Covariance(factors=torch.zeros(0, 8, dtype=torch.float64), diagonal=1.0)


@pytest.fixture
def weight():
    return draw(6, 8, seed=1)


@pytest.fixture
def targets():
    return draw(3, 6, seed=2)


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("noise", NOISES)
def test_both_vectors_are_those_of_the_definition(weight, covariance, targets, noise):
    dual = DualMap.of(weight, covariance)
    reading = dual.reading(targets, noise=noise)
    expected_reading, expected_writing = dual_vectors(
        weight.numpy(), covariance.dense().numpy(), targets.numpy(), noise
    )
    np.testing.assert_allclose(reading.numpy(), expected_reading, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dual.writing(reading).numpy(), expected_writing, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("noise", NOISES)
def test_the_writing_vector_is_the_mean_of_the_subjects_that_have_the_object(weight, covariance, targets, noise):
    dual = DualMap.of(weight, covariance)
    written = dual.writing(dual.reading(targets[0], noise=noise))
    expected = posterior_mean(
        weight.numpy(), covariance.dense().numpy(), noise * dual.mean_variance, targets[0].numpy()
    )
    np.testing.assert_allclose(written.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("noise", [1e-9, *NOISES])
def test_the_basis_of_singular_vectors_gives_the_same_vectors(weight, covariance, targets, noise):
    as_it_stands = DualMap.of(weight, covariance).reading(targets, noise=noise)
    rotated = DualMap.of(weight, covariance, factors=Factors.of(weight)).reading(targets, noise=noise)
    torch.testing.assert_close(rotated, as_it_stands, rtol=1e-7 if noise < 1e-6 else 1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [3, 6])
def test_without_noise_and_with_equal_variances_both_tend_to_the_pseudo_inverse(weight, identity, targets, rank):
    factors = Factors.of(weight).leading(rank)
    part = (factors.u * factors.s) @ factors.vh
    expected = targets @ torch.linalg.pinv(part, rtol=1e-10).T
    dual = DualMap.of(part, identity, factors=factors)
    reading = dual.reading(targets, noise=1e-13)
    torch.testing.assert_close(reading, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dual.writing(reading), expected, rtol=1e-10, atol=1e-10)


def test_without_noise_the_map_gives_back_the_object_whatever_the_covariance(weight, covariance, targets):
    dual = DualMap.of(weight, covariance, factors=Factors.of(weight))
    written = dual.writing(dual.reading(targets, noise=1e-13))
    torch.testing.assert_close(written @ weight.T, targets, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [None, 3])
def test_with_much_noise_both_tend_to_the_transpose(weight, covariance, targets, rank):
    factors = None if rank is None else Factors.of(weight).leading(rank)
    part = weight if factors is None else (factors.u * factors.s) @ factors.vh
    dual = DualMap.of(part, covariance, factors=factors)
    reading = dual.reading(targets, noise=1e13)
    torch.testing.assert_close(unit(reading), unit(targets @ part), rtol=0, atol=1e-10)
    written = covariance.times(targets @ part)
    torch.testing.assert_close(unit(dual.writing(reading)), unit(written), rtol=0, atol=1e-10)


@pytest.mark.parametrize("noise", NOISES)
def test_vectors_do_not_depend_on_the_units_of_the_objects(weight, covariance, targets, noise):
    reading = DualMap.of(weight, covariance).reading(targets, noise=noise)
    rescaled = DualMap.of(100 * weight, covariance).reading(100 * targets, noise=noise)
    torch.testing.assert_close(rescaled, reading, rtol=1e-10, atol=1e-12)


@pytest.fixture
def metric():
    root = draw(6, 9, seed=3)
    return root @ root.T


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rank", [None, 3])
def test_noise_that_is_even_in_a_metric_is_plain_noise_in_its_coordinates(
    weight, covariance, targets, metric, noise, rank
):
    root = torch.linalg.cholesky(metric * 6 / metric.trace())
    part, factors = weight, None
    if rank is not None:
        factors = Factors.of(weight).leading(rank)
        part, targets = (factors.u * factors.s) @ factors.vh, targets @ factors.u @ factors.u.T
    found = DualMap.of(part, covariance, factors=factors, metric=metric)
    if rank is None:
        plain = DualMap.of(root.T @ weight, covariance)
        assert found.mean_variance == pytest.approx(plain.mean_variance)
        torch.testing.assert_close(
            found.reading(targets, noise=noise), plain.reading(targets @ root, noise=noise), rtol=1e-9, atol=1e-12
        )
    # The posterior mean given what the singular vectors see of the object, by the textbook formula.
    basis = torch.eye(6, dtype=torch.float64) if factors is None else factors.u
    seen = basis.T @ part
    error = noise * found.mean_variance * basis.T @ torch.linalg.inv(metric * 6 / metric.trace()) @ basis
    gain = covariance.dense() @ seen.T @ torch.linalg.inv(seen @ covariance.dense() @ seen.T + error)
    written = found.writing(found.reading(targets, noise=noise))
    torch.testing.assert_close(written, targets @ basis @ gain.T, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("noise", NOISES)
def test_the_identity_is_no_metric_and_the_scale_of_one_does_not_matter(
    weight, covariance, targets, metric, noise
):
    plain = DualMap.of(weight, covariance)
    even = DualMap.of(weight, covariance, metric=7 * torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(even.reading(targets, noise=noise), plain.reading(targets, noise=noise))
    once, again = (DualMap.of(weight, covariance, metric=size * metric) for size in (1.0, 1e-5))
    torch.testing.assert_close(once.reading(targets, noise=noise), again.reading(targets, noise=noise))
    assert not torch.allclose(once.reading(targets, noise=noise), plain.reading(targets, noise=noise), rtol=0.05)


def test_a_metric_that_is_none_is_refused(weight, covariance):
    with pytest.raises(ValueError, match="the metric of the noise is not positive definite"):
        DualMap.of(weight, covariance, metric=torch.diag(torch.tensor([1.0, 1, 1, 1, 1, -2]).double()))


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_a_noise_that_is_not_above_zero_is_refused(weight, covariance, targets, noise):
    with pytest.raises(ValueError, match=r"noise is .*; it must be above 0"):
        DualMap.of(weight, covariance).reading(targets, noise=noise)


def test_a_zero_weight_one_that_is_not_finite_and_another_width_are_refused(weight, covariance):
    with pytest.raises(ValueError, match="the weight is zero: at these layers"):
        DualMap.of(torch.zeros_like(weight), covariance)
    with pytest.raises(ValueError, match="the weight is not finite"):
        DualMap.of(weight / 0, covariance)
    with pytest.raises(ValueError, match="takes subjects of width 7, and the covariance has width 8"):
        DualMap.of(weight[:, :7], covariance)
