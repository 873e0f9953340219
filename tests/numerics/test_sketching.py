"""Sketches of a known matrix: laws of the bases, bounds by the exact decomposition, the estimate of the error."""

import pytest
import torch

from lrc_tl.numerics.direction_error import angles, direction_errors, fitted_spectrum, simulated
from lrc_tl.numerics.low_rank import Factors
from lrc_tl.numerics.sketching import BlockKrylov, added_basis, factors_of, left_out_energy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def matrix_of(values, n_rows=None, seed=0):
    """A matrix with these singular values and random singular vectors."""
    n_rows = n_rows or len(values)
    u = torch.linalg.qr(random(n_rows, len(values), seed=seed)).Q
    v = torch.linalg.qr(random(len(values), len(values), seed=seed + 1)).Q
    return (u * values) @ v.T


def falling(number, length):
    return torch.exp(-torch.arange(number, dtype=torch.float64) / length)


def sketch_of(weight, width, n_rounds, seed=5):
    sketch = BlockKrylov(
        lambda rows: rows @ weight.T, lambda rows: rows @ weight, random(weight.shape[1], width, seed=seed)
    )
    for _ in range(n_rounds):
        sketch.grow()
    return sketch


def identity_defect(basis):
    return float((basis.T @ basis - torch.eye(basis.shape[1])).abs().max())


def test_an_added_basis_is_orthonormal_and_spans_what_was_added():
    basis = torch.linalg.qr(random(20, 6)).Q
    new = random(20, 4, seed=1)
    added = added_basis(basis, new)
    both = torch.cat([basis, added], 1)
    assert identity_defect(both) < 1e-12
    torch.testing.assert_close(both @ (both.T @ new), new)


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_an_added_basis_is_orthonormal_where_nothing_new_is_added(size):
    basis = torch.linalg.qr(random(20, 6)).Q
    both = torch.cat([basis, added_basis(basis, size * basis[:, :4])], 1)
    assert identity_defect(both) < 1e-12


@pytest.mark.parametrize("n_rows", [60, 45])
def test_a_sketch_has_orthonormal_bases_exact_images_and_counts_its_products(n_rows):
    weight = matrix_of(falling(40, 5.0), n_rows)
    counted = []

    def forward(rows):
        counted.append(len(rows))
        return rows @ weight.T

    def reverse(rows):
        counted.append(len(rows))
        return rows @ weight

    sketch = BlockKrylov(forward, reverse, random(40, 6))
    assert sketch.rank == 0
    for n_rounds in range(1, 5):
        sketch.grow()
        assert (sketch.rank, sketch.n_rounds) == (6 * n_rounds, n_rounds)
        assert sketch.n_products == sum(counted) == 12 * n_rounds
        assert max(identity_defect(sketch.left), identity_defect(sketch.right)) < 1e-12
        torch.testing.assert_close(sketch.image, weight.T @ sketch.left)
        torch.testing.assert_close(sketch.weight, sketch.left @ (sketch.left.T @ weight))
        factors = sketch.factors
        torch.testing.assert_close((factors.u * factors.s) @ factors.vh, sketch.weight)


def test_singular_values_of_a_sketch_rise_towards_the_exact_ones_and_never_pass_them():
    values = falling(60, 8.0)
    weight = matrix_of(values)
    earlier = torch.zeros(0, dtype=torch.float64)
    for n_rounds in (1, 2, 4, 8):
        found = sketch_of(weight, 5, n_rounds).factors.s
        assert (found <= values[: len(found)] + 1e-12).all()
        assert (found[: len(earlier)] >= earlier - 1e-12).all()
        earlier = found
    torch.testing.assert_close(earlier[:10], values[:10], rtol=1e-6, atol=0)


def test_rounds_find_more_than_one_wide_round_with_as_many_products():
    weight = matrix_of(falling(120, 15.0))
    error = {
        rounds: float((weight - sketch_of(weight, 40 // rounds, rounds).weight).norm()) for rounds in (1, 2, 4, 8)
    }
    assert error[1] > error[2] > error[4]
    assert error[1] > 1.2 * error[8]


def test_a_sketch_grown_to_the_full_width_is_the_weight():
    weight = matrix_of(falling(23, 30.0), 30)
    sketch = sketch_of(weight, 6, 4)
    assert sketch.rank == 23
    torch.testing.assert_close(sketch.weight, weight)


@pytest.mark.parametrize("n_rounds", [1, 3])
def test_completing_a_sketch_gives_the_whole_weight(n_rounds):
    weight = matrix_of(falling(30, 30.0))
    sketch = sketch_of(weight, 4, n_rounds)
    torch.testing.assert_close(sketch.complete(), weight)
    assert sketch.n_products == 30 + 4 * n_rounds


def test_a_zero_weight_has_a_zero_sketch():
    sketch = sketch_of(torch.zeros(12, 12, dtype=torch.float64), 3, 2)
    assert identity_defect(sketch.left) < 1e-12
    assert float(sketch.weight.abs().max()) == 0
    assert sketch.factors.numerical_rank == 0
    assert torch.isfinite(direction_errors(sketch, random(2, 12), rank=2)).all()


def test_factors_of_an_orthonormal_and_an_image_are_those_of_their_product():
    left, image = torch.linalg.qr(random(9, 4)).Q, random(7, 4, seed=2)
    found, expected = factors_of(left, image), Factors.of(left @ image.T)
    torch.testing.assert_close(found.s, expected.s[:4])
    torch.testing.assert_close(found.solve(random(9), rank=3), expected.solve(random(9), rank=3))


@pytest.mark.parametrize("length", [3.0, 20.0, 200.0])
def test_the_energy_left_out_by_a_round_is_estimated_from_its_products_alone(length):
    weight = matrix_of(falling(80, length))
    estimates, truths = [], []
    for seed in range(40):
        start = torch.linalg.qr(random(80, 10, seed=seed)).Q
        products = weight @ start
        estimates.append(left_out_energy(products, n_rows=80))
        basis = torch.linalg.qr(products[:, :-1]).Q  # it is the error of one vector fewer
        truths.append(float((weight - basis @ (basis.T @ weight)).pow(2).sum()))
    assert sum(estimates) == pytest.approx(sum(truths), rel=0.1)


def test_angles_are_those_of_the_cosine_and_precise_where_they_are_tiny():
    one, other = random(6, 5), random(6, 5, seed=1)
    cosines = torch.cosine_similarity(one, other)
    torch.testing.assert_close(angles(one, other).cos(), cosines)
    tilted = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert float(angles(tilted, torch.tensor([1.0, 0.0], dtype=torch.float64))) == pytest.approx(1e-9)
    assert float(angles(one[0], -3 * one[0])) == pytest.approx(torch.pi)


def test_a_simulated_sketch_has_the_errors_of_a_real_one_with_those_singular_values():
    values = falling(60, 12.0)
    real = [sketch_of(matrix_of(values, seed=seed), 8, 2, seed=seed).factors.s for seed in range(0, 60, 3)]
    made = [simulated(values, 8, 2, seed=seed).factors.s for seed in range(20)]
    torch.testing.assert_close(torch.stack(real).mean(0), torch.stack(made).mean(0), rtol=0.1, atol=0)


@pytest.mark.parametrize("length", [10.0, 40.0])
def test_the_fitted_spectrum_is_nearer_to_the_exact_one_than_what_the_sketch_shows(length):
    values = falling(100, length)
    sketch = sketch_of(matrix_of(values), 24, 1)
    found, fitted = sketch.factors.s, fitted_spectrum(sketch)
    assert len(fitted) == 100
    assert (fitted[1:] <= fitted[:-1]).all()
    seen = (found / values[:24]).log().abs().mean()
    assert (fitted[:24] / values[:24]).log().abs().mean() < 0.5 * seen
    assert float(fitted[24:].norm()) == pytest.approx(float(values[24:].norm()), rel=0.35)


def test_the_bound_of_the_angle_holds_and_is_not_loose():
    ratios = []
    for number, (length, width, n_rounds) in enumerate(
        (length, width, n_rounds)
        for length in (6.0, 12.0, 30.0)
        for width, n_rounds in ((24, 1), (12, 2), (8, 3), (8, 4))
        for _ in range(2)
    ):
        weight = matrix_of(falling(100, length), seed=7 * number)
        sketch = sketch_of(weight, width, n_rounds, seed=number)
        targets = random(4, 100, seed=number)
        exact = Factors.of(weight).solve(targets, rank=12)
        true = angles(sketch.factors.solve(targets, rank=12), exact).max()
        ratios.append(float(direction_errors(sketch, targets, rank=12).max() / true))
    held = sum(ratio >= 1 for ratio in ratios)
    assert held >= 0.9 * len(ratios)
    assert sorted(ratios)[len(ratios) // 2] < 4


def test_a_sketch_of_the_whole_weight_has_no_error():
    sketch = sketch_of(matrix_of(falling(20, 5.0)), 5, 4)
    assert torch.equal(direction_errors(sketch, random(2, 20), rank=3), torch.zeros(2, dtype=torch.float64))
