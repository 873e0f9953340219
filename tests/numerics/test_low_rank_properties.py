"""Low-rank solves, ridges and duals on random spectra, against an oracle in float64 that knows the spectrum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lrc_tl.numerics.covariance import Covariance
from lrc_tl.numerics.dual import DualMap
from lrc_tl.numerics.low_rank import Factors, numerical_rank, solve_low_rank

SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from([torch.float32, torch.float64])
EXPONENTS = st.lists(st.floats(-14, 3), min_size=1, max_size=10)
"""Powers of ten: singular values from near zero to a thousand."""


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


class Spectrum:
    """A weight with these singular values, whose factors are known without decomposing it."""

    def __init__(self, exponents, seed, extra):
        rng = np.random.default_rng(seed)
        self.s = np.sort(10.0 ** np.array(exponents))[::-1].copy()
        rank = len(self.s)
        self.u, self.v = orthonormal(rng, rank + extra[0], rank), orthonormal(rng, rank + extra[1], rank)
        self.weight = (self.u * self.s) @ self.v.T
        self.target = rng.standard_normal((3, rank + extra[0]))

    def solution(self, rank, ridge=0.0):
        s = self.s[:rank]
        inverse = s / (s**2 + (ridge * s[0]) ** 2)
        return (self.target @ self.u[:, :rank] * inverse) @ self.v[:, :rank].T


spectra = st.builds(Spectrum, EXPONENTS, SEEDS, st.tuples(st.integers(0, 4), st.integers(0, 4)))


def gap(spectrum, rank):
    """How far the part that is kept stands out from the rest: what its subspace is sensitive to."""
    following = spectrum.s[rank] if rank < len(spectrum.s) else 0.0
    return (spectrum.s[rank - 1] - following) / spectrum.s[0]


@given(spectrum=spectra, dtype=DTYPES, share=st.floats(0, 1))
def test_a_solve_is_the_oracles_to_the_rounding_that_its_spectrum_allows(spectrum, dtype, share):
    weight = torch.from_numpy(spectrum.weight).to(dtype)
    factors = Factors.of(weight)
    n = factors.numerical_rank
    assume(n > 0)
    rank = max(1, math.ceil(share * n))
    eps = torch.finfo(dtype).eps
    condition = spectrum.s[0] / spectrum.s[rank - 1]
    sensitivity = (
        40 * sum(weight.shape) * eps * condition / gap(spectrum, rank) if gap(spectrum, rank) else math.inf
    )
    assume(sensitivity < 0.1)
    solution = solve_low_rank(weight, torch.from_numpy(spectrum.target).to(dtype), rank=rank)
    expected = spectrum.solution(rank)
    error = np.linalg.norm(solution.double().numpy() - expected)
    largest = np.linalg.norm(spectrum.target) / spectrum.s[rank - 1]
    assert error <= sensitivity * largest


@given(spectrum=spectra, dtype=DTYPES, ridge=st.floats(0.01, 2))
def test_a_ridge_needs_no_gap_and_shortens_every_solution(spectrum, dtype, ridge):
    weight = torch.from_numpy(spectrum.weight).to(dtype)
    target = torch.from_numpy(spectrum.target).to(dtype)
    factors = Factors.of(weight)
    assume(factors.numerical_rank > 0)
    solution = factors.solve(target, rank=factors.numerical_rank, ridge=ridge)
    expected = spectrum.solution(len(spectrum.s), ridge)
    # What lies below the numerical rank has a share of at most s / l^2, so leaving it out changes next to nothing.
    tolerance = 40 * sum(weight.shape) * torch.finfo(dtype).eps / ridge**2 / (ridge * spectrum.s[0])
    assert np.abs(solution.double().numpy() - expected).max() <= tolerance * np.linalg.norm(spectrum.target)
    assert solution.norm() <= factors.solve(target, rank=factors.numerical_rank, ridge=ridge / 2).norm() * (
        1 + 1e-5
    )


@given(spectrum=spectra, dtype=DTYPES)
def test_the_numerical_rank_counts_what_stands_above_rounding_and_no_solve_goes_beyond(spectrum, dtype):
    weight = torch.from_numpy(spectrum.weight).to(dtype)
    factors, eps = Factors.of(weight), torch.finfo(dtype).eps
    noise = max(weight.shape) * eps * spectrum.s[0]
    n = factors.numerical_rank
    assert n == numerical_rank(factors.s, tuple(weight.shape))
    # Certain on both sides of a margin of ten around the limit; what lies in it may count or not.
    assert (spectrum.s > 10 * noise).sum() <= n <= (spectrum.s > noise / 10).sum()
    with pytest.raises(ValueError, match=rf"the numerical rank of this weight is {n}"):
        factors.solve(torch.zeros(weight.shape[0], dtype=dtype), rank=n + 1)
    # However small what is kept, the solution is finite.
    assert bool(factors.solve(torch.from_numpy(spectrum.target).to(dtype), rank=n).isfinite().all())


@given(spectrum=spectra, seed=SEEDS, n_samples=st.integers(3, 40), noise=st.floats(1e-4, 10))
def test_dual_vectors_are_those_of_a_dense_wiener_filter(spectrum, seed, n_samples, noise):
    rng = np.random.default_rng(seed)
    width = spectrum.weight.shape[1]
    samples = rng.standard_normal((n_samples, width)) * 10.0 ** rng.uniform(-2, 2, width)
    covariance = Covariance.of_samples(torch.from_numpy(samples), shrinkage=0.1)
    deviations = samples - samples.mean(0)
    sample_covariance = deviations.T @ deviations / n_samples
    dense = 0.9 * sample_covariance + 0.1 * np.trace(sample_covariance) / width * np.eye(width)
    np.testing.assert_allclose(covariance.dense().numpy(), dense, rtol=1e-9, atol=1e-12 * np.abs(dense).max())
    of_objects = spectrum.weight @ dense @ spectrum.weight.T
    variance = np.trace(of_objects) / len(of_objects)
    system = of_objects + noise * variance * np.eye(len(of_objects))
    expected = np.linalg.solve(system, spectrum.target.T).T @ spectrum.weight
    dual = DualMap.of(torch.from_numpy(spectrum.weight), covariance)
    reading = dual.reading(torch.from_numpy(spectrum.target), noise=noise)
    size = np.abs(expected).max()
    np.testing.assert_allclose(reading.numpy(), expected, rtol=0, atol=1e-7 / noise * size)
    writing = dual.writing(reading).numpy()
    np.testing.assert_allclose(writing, reading.numpy() @ dense, rtol=0, atol=1e-9 * np.abs(writing).max())
