"""Distributions of the next token, against one row at a time in float64 NumPy."""

import pytest
import torch
from reference import next_tokens as reference

from lrc_tl.numerics.next_tokens import kl_divergence, least_token_log_prob, token_log_probs

SHAPE = (2, 3, 50)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request):
    return request.param


def logits(seed, dtype, spread=4.0):
    return spread * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def test_the_divergence_of_each_row_is_that_of_the_definition(dtype):
    steered, plain = logits(0, dtype), logits(1, dtype)
    apart = kl_divergence(steered.log_softmax(-1), plain.log_softmax(-1))
    assert apart.dtype == dtype
    for row in range(2):
        for place in range(3):
            expected = reference.kl_divergence(steered[row, place], plain[row, place])
            assert float(apart[row, place]) == pytest.approx(expected, rel=TOLERANCE[dtype])


def test_the_divergence_has_a_direction_and_is_zero_for_equal_distributions(dtype):
    one, other = (logits(seed, dtype).log_softmax(-1) for seed in (0, 1))
    assert ((kl_divergence(one, other) - kl_divergence(other, one)).abs() > 0.1).all()
    assert (kl_divergence(one, other) > 0).all()
    assert torch.equal(kl_divergence(one, one), torch.zeros(2, 3, dtype=dtype))


def test_rounding_leaves_no_divergence_below_zero(dtype):
    one = logits(0, dtype).log_softmax(-1)
    other = one.nextafter(torch.zeros((), dtype=dtype))  # as probable as rounding can tell, and a little more so
    assert ((one.exp() * (one - other)).sum(-1) < 0).all()
    assert torch.equal(kl_divergence(one, other), torch.zeros(2, 3, dtype=dtype))


def test_each_token_is_read_at_its_own_position_and_the_least_one_stands_for_all(dtype):
    given = logits(2, dtype)
    tokens = torch.tensor([7, 0, 49])
    each = token_log_probs(given.log_softmax(-1), tokens)
    least = least_token_log_prob(given.log_softmax(-1), tokens)
    for row in range(2):
        alone = [float(reference.log_softmax(given[row, pos])[token]) for pos, token in enumerate(tokens)]
        assert each[row].tolist() == pytest.approx(alone, rel=TOLERANCE[dtype])
        expected = reference.least_token_log_prob(given[row], tokens)
        assert float(least[row]) == pytest.approx(expected, rel=TOLERANCE[dtype])
    assert float(least_token_log_prob(given[0].log_softmax(-1), tokens)) == float(least[0])


def test_a_number_that_is_not_one_stays_one():
    broken = logits(3, torch.float64).log_softmax(-1)
    broken[0, 1, 4] = float("nan")
    apart = kl_divergence(broken, logits(4, torch.float64).log_softmax(-1))
    assert apart.isnan().nonzero().tolist() == [[0, 1]]
    least = least_token_log_prob(broken, torch.tensor([4, 4, 4]))
    assert least.isnan().tolist() == [True, False]


def test_as_many_tokens_as_positions_are_asked_for():
    with pytest.raises(TypeError, match=r"`token_ids` is a tensor of int64 and shape \(2,\)"):
        token_log_probs(logits(5, torch.float64), torch.tensor([1, 2]))
    with pytest.raises(TypeError, match=r"`reference` is a tensor of float64 and shape \(3, 50\)"):
        kl_divergence(logits(5, torch.float64), logits(6, torch.float64)[0])
