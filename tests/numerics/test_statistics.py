"""Intervals and tests against values computed by hand and scipy's own tests."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, chi2_contingency

from lrc_tl.numerics.statistics import (
    bootstrap_interval,
    holm,
    mcnemar_test,
    mean_and_std,
    paired_bootstrap,
    sign_test,
    two_proportion_z_test,
)


def test_mean_and_sample_standard_deviation_are_as_by_hand():
    assert mean_and_std([0.6, 0.7, 0.8]) == pytest.approx((0.7, 0.1))
    mean, std = mean_and_std([0.6])
    assert mean == 0.6
    assert math.isnan(std)
    assert all(math.isnan(value) for value in mean_and_std([]))


def test_the_bootstrap_interval_is_that_of_scipy_and_the_same_twice():
    values = list(np.random.default_rng(1).beta(4, 2, size=24))
    expected = bootstrap((values,), np.mean, rng=np.random.default_rng(5), method="BCa").confidence_interval
    found = bootstrap_interval(values, seed=5)
    assert found == pytest.approx((expected.low, expected.high))
    assert found == bootstrap_interval(values, seed=5)
    assert found[0] < np.mean(values) < found[1]
    wider = bootstrap_interval(values, confidence=0.99, seed=5)
    assert wider[0] < found[0] < found[1] < wider[1]


def test_the_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.normal(0.7, 0.1, size=15), n_resamples=499, seed=trial)
        covered += low <= 0.7 <= high
    assert 0.86 <= covered / 200 <= 0.99


def test_equal_values_have_an_interval_of_length_zero_and_one_value_has_none():
    assert bootstrap_interval([0.4, 0.4, 0.4]) == (0.4, 0.4)
    assert all(math.isnan(bound) for bound in bootstrap_interval([0.4]))
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval([0.4, math.nan])
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_interval([0.4, 0.5], confidence=95)


def test_the_z_test_is_as_by_hand_and_its_square_is_the_chi_squared_statistic():
    found = two_proportion_z_test(45, 60, 30, 60)
    # pooled 75/120 = .625; se = sqrt(.625 * .375 / 30) = .0883883; z = .25 / .0883883
    assert found.statistic == pytest.approx(2.8284271)
    assert found.p_value == pytest.approx(0.0046777, abs=1e-6)
    assert found.n == 120
    for a, n, b, m in [(45, 60, 30, 60), (7, 31, 20, 44), (1, 9, 0, 5)]:
        table = [[a, n - a], [b, m - b]]
        expected = chi2_contingency(table, correction=False)
        test = two_proportion_z_test(a, n, b, m)
        assert test.statistic**2 == pytest.approx(expected.statistic)
        assert test.p_value == pytest.approx(expected.pvalue)
        assert two_proportion_z_test(b, m, a, n).statistic == pytest.approx(-test.statistic)


def test_shares_that_are_both_all_or_nothing_do_not_differ():
    assert two_proportion_z_test(5, 5, 9, 9).p_value == 1
    assert two_proportion_z_test(0, 5, 0, 9).statistic == 0
    for counts in ((6, 5, 1, 2), (0, 0, 1, 2), (-1, 5, 1, 2)):
        with pytest.raises(ValueError, match="is no share"):
            two_proportion_z_test(*counts)


def test_mcnemar_counts_only_prompts_on_which_the_methods_disagree():
    # 6 to 1 of 7 discordant prompts: p = 2 (1 + 7) / 2^7
    first = [True] * 6 + [False] * 1 + [True] * 20 + [False] * 9
    second = [False] * 6 + [True] * 1 + [True] * 20 + [False] * 9
    found = mcnemar_test(first, second)
    assert (found.n, found.statistic) == (7, pytest.approx(6 / 7))
    assert found.p_value == pytest.approx(2 * 8 / 2**7)
    assert mcnemar_test(second, first).p_value == pytest.approx(found.p_value)
    assert mcnemar_test(first, first).p_value == 1
    with pytest.raises(ValueError, match="36 and 35 outcomes"):
        mcnemar_test(first, second[1:])


def test_the_sign_test_leaves_ties_out():
    found = sign_test([0.1, 0.2, 0.0, 0.3, 0.0, 0.1, 0.4])
    assert (found.n, found.statistic, found.p_value) == (5, 1, pytest.approx(2 / 2**5))
    assert sign_test([0.0, 0.0]).p_value == 1
    assert sign_test([]).n == 0
    with pytest.raises(ValueError, match="not finite"):
        sign_test([math.inf])


def test_holm_is_as_by_hand_and_never_less_than_the_p_value():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([]) == []
    p = list(np.random.default_rng(3).uniform(size=9))
    adjusted = holm(p)
    assert all(low <= high <= min(1, 9 * low) for low, high in zip(p, adjusted, strict=True))
    assert sorted(range(9), key=p.__getitem__) == sorted(range(9), key=lambda i: (adjusted[i], p[i]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


def test_a_gain_on_every_fact_is_certain_and_none_is_zero():
    assert paired_bootstrap([[[1.0], [1.0]], [[1.0]]]) == (1, 1)
    assert paired_bootstrap([[[0.0, 0.0]] * 9] * 3) == (0, 0)
    assert all(math.isnan(bound) for bound in paired_bootstrap([[], []]))


def test_the_paired_interval_is_the_binomials_quantiles_for_one_relation():
    from scipy.stats import binom

    # 8 of 20 facts gained: the mean of a draw is a binomial count over 20.
    low, high = paired_bootstrap([[[1.0]] * 8 + [[0.0]] * 12], n_resamples=40_000)
    assert (low, high) == tuple(binom.ppf([0.025, 0.975], 20, 0.4) / 20)


def test_relations_weigh_the_same_and_their_facts_vary_independently():
    many, few = [[1.0]] * 50 + [[0.0]] * 50, [[0.0]]
    low, high = paired_bootstrap([many, few, []], n_resamples=20_000)
    expected = 0.25 + np.array([-1, 1]) * 1.96 * 0.05 / 2
    assert [low, high] == pytest.approx(list(expected), abs=0.01)
    assert paired_bootstrap([many, few], seed=3) == paired_bootstrap([many, few], seed=3)


def test_the_tests_of_one_fact_are_drawn_together():
    """Five seeds of the same 200 facts are not 1,000 facts."""
    facts = [[1.0] * 5] * 100 + [[0.0] * 5] * 100
    apart = [[1.0]] * 500 + [[0.0]] * 500
    wide, narrow = (np.diff(paired_bootstrap([one]))[0] for one in (facts, apart))
    assert wide / narrow == pytest.approx(math.sqrt(5), rel=0.1)


def test_facts_without_a_difference_are_refused():
    with pytest.raises(ValueError, match="a fact has no difference, or one that is not finite"):
        paired_bootstrap([[[]]])
    with pytest.raises(ValueError, match="confidence is 1; it must lie strictly between"):
        paired_bootstrap([[[1.0]]], confidence=1)
