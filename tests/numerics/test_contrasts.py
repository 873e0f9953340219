"""Agreement and held-out sides against loops, and what they are where there is nothing to find."""

import pytest
import torch

from lrc_tl.numerics.contrasts import held_out_separation, pair_agreement, principal_difference
from lrc_tl.numerics.statistics import beats_chance, share_interval


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agreement_is_the_cosine_with_the_mean_of_the_others():
    differences = drawn(7, 5) + 1
    for number, cosine in enumerate(pair_agreement(differences)):
        others = torch.cat([differences[:number], differences[number + 1 :]]).mean(0)
        expected = others @ differences[number] / others.norm() / differences[number].norm()
        torch.testing.assert_close(cosine, expected)


def test_equal_differences_agree_and_random_ones_do_not():
    torch.testing.assert_close(pair_agreement(drawn(1, 9).expand(4, 9)), torch.ones(4, dtype=torch.float64))
    assert abs(float(pair_agreement(drawn(400, 600)).mean())) < 0.01  # with itself inside it were 0.05
    with pytest.raises(ValueError, match="1 differences; agreement needs two or more"):
        pair_agreement(drawn(1, 3))


@pytest.mark.parametrize("paired", [False, True])
def test_sides_are_those_of_directions_made_without_the_vector(paired):
    acts, inside = drawn(14, 6), torch.arange(14) % 2 == 0
    acts[inside] += 0.8
    scores = {True: [], False: []}
    for number in range(14):
        out = {number, number ^ 1} if paired else {number}
        kept = [other for other in range(14) if other not in out]
        first = acts[[other for other in kept if inside[other]]].mean(0)
        second = acts[[other for other in kept if not inside[other]]].mean(0)
        towards = (first - second) / (first - second).norm()
        scores[bool(inside[number])].append(float((acts[number] - (first + second) / 2) @ towards))
    found = held_out_separation(acts, inside, paired=paired)
    assert found.n == 14
    assert found.n_right == sum(s > 0 for s in scores[True]) + sum(s < 0 for s in scores[False])
    one, other = torch.tensor(scores[True]), torch.tensor(scores[False])
    expected = (one.mean() - other.mean()) / ((one.var() + other.var()) / 2).sqrt()
    assert found.discriminability == pytest.approx(float(expected), rel=1e-6)


def test_random_vectors_of_many_dimensions_are_not_separated_when_held_out():
    found = held_out_separation(drawn(40, 640), torch.arange(40) < 20)
    assert not beats_chance(found.n_right, found.n)
    assert found.discriminability < 0.5


def test_bad_groups_are_refused():
    with pytest.raises(ValueError, match="groups of 1 and 3; each needs two or more"):
        held_out_separation(drawn(4, 3), torch.arange(4) < 1)
    with pytest.raises(ValueError, match="pairs as many in both"):
        held_out_separation(drawn(5, 3), torch.arange(5) < 2, paired=True)
    same = held_out_separation(torch.ones(4, 3), torch.arange(4) < 2)
    assert (same.n_right, same.discriminability) == (0, 0.0)


def test_chance_and_intervals_are_those_of_the_binomial():
    assert beats_chance(5, 5)
    assert not beats_chance(4, 4)
    assert not beats_chance(12, 20)
    assert beats_chance(15, 20)
    z, n, count = 1.959964, 16, 13
    middle = (count / n + z * z / 2 / n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (count / n * (1 - count / n) / n + z * z / 4 / n / n) ** 0.5
    assert share_interval(count, n) == pytest.approx((middle - half, middle + half), abs=1e-6)
    for function in (share_interval, beats_chance):
        with pytest.raises(ValueError, match="5 of 4 is no share"):
            function(5, 4)
    with pytest.raises(ValueError, match="confidence is 1; it must lie strictly between"):
        share_interval(1, 2, confidence=1)


def test_the_principal_difference_is_the_longest_axis_of_the_differences_or_of_their_spread(rng_matrix):
    differences = rng_matrix
    for centred in (False, True):
        axis = principal_difference(differences, centred=centred)
        rows = differences - differences.mean(0) if centred else differences
        lengths, axes = torch.linalg.eigh(rows.T @ rows)
        assert abs(float(axis @ axes[:, -1])) == pytest.approx(1.0)
        assert float((rows @ axis).pow(2).sum()) == pytest.approx(float(lengths[-1]))
        assert float(axis @ differences.mean(0)) >= 0
        torch.testing.assert_close(principal_difference(-differences, centred=centred), -axis)
    shared = torch.ones(4, 3) * torch.tensor([3.0, 0.0, 0.0])
    torch.testing.assert_close(
        principal_difference(shared, centred=False), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="nothing is left of them once their mean is taken out"):
        principal_difference(shared, centred=True)
    with pytest.raises(ValueError, match="all zero"):
        principal_difference(torch.zeros(2, 3), centred=False)
    with pytest.raises(ValueError, match="1 differences; a principal component needs two or more"):
        principal_difference(torch.ones(1, 3), centred=False)


@pytest.fixture
def rng_matrix():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 1
