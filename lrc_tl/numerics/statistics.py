"""How sure a statistic is, and whether two methods differ: intervals, tests and a correction for several tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, bootstrap, norm


@dataclass(frozen=True, kw_only=True)
class TestOutcome:
    """The outcome of one two-sided test."""

    statistic: float
    p_value: float
    n: int
    """What the test counted: prompts, discordant prompts or relations without a tie."""


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); NaN where there is nothing, or one value, to take it from."""
    if not values:
        return math.nan, math.nan
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, n_resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean (`scipy.stats.bootstrap`).

    The values are drawn with replacement, so they must be independent: one for each relation. Equal values give an
    interval of length 0, one value or none gives NaN.

    Raises:
        ValueError: a value is not finite, or `confidence` is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1")
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite; leave out relations without a number")
    if len(array) < 2:
        return math.nan, math.nan
    if (array == array[0]).all():
        return float(array[0]), float(array[0])
    interval = bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=n_resamples,
        rng=np.random.default_rng(seed),
        method="BCa",
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_bootstrap(
    differences: Sequence[Sequence[Sequence[float]]],
    *,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean difference of two methods, facts drawn again within each relation.

    `differences[relation][fact]` holds the differences of one fact, of one test or more (seeds, edits); they stay
    together when the fact is drawn. The statistic of a draw is the mean over its tests in each relation, then over
    relations, which stay as they are: it says how sure a gain on these relations is, not how it would be on others
    (`bootstrap_interval` over relations says that). Relations without facts are left out; NaN without any.

    Raises:
        ValueError: a fact without a test, a difference that is not finite, or `confidence` is not strictly between
            0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1")
    if any(not fact or not all(map(math.isfinite, fact)) for relation in differences for fact in relation):
        raise ValueError("a fact has no difference, or one that is not finite; leave it out")
    generator = np.random.default_rng(seed)
    means = []
    for relation in differences:
        if not relation:
            continue
        totals = np.array([sum(fact) for fact in relation], dtype=np.float64)
        counts = np.array([len(fact) for fact in relation], dtype=np.float64)
        drawn = generator.integers(len(relation), size=(n_resamples, len(relation)))
        means.append(totals[drawn].sum(1) / counts[drawn].sum(1))
    if not means:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.mean(means, axis=0), [tail, 1 - tail])
    return float(low), float(high)


def two_proportion_z_test(correct_a: int, n_a: int, correct_b: int, n_b: int) -> TestOutcome:
    """Whether two shares differ, by the pooled z statistic (arXiv:2311.08968, tables 7 and 8).

    It takes the two samples for independent; two methods on the same prompts are compared more sharply by
    `mcnemar_test`. Shares that are both 0 or both 1 give z = 0 and p = 1.

    Raises:
        ValueError: a count is negative or above its total, or a total is 0.
    """
    for correct, n in ((correct_a, n_a), (correct_b, n_b)):
        if not (n > 0 and 0 <= correct <= n):
            raise ValueError(f"{correct} of {n} is no share; give 0 to n right answers of at least one")
    pooled = (correct_a + correct_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    z = 0.0 if variance == 0 else (correct_a / n_a - correct_b / n_b) / math.sqrt(variance)
    return TestOutcome(statistic=z, p_value=float(2 * norm.sf(abs(z))), n=n_a + n_b)


def mcnemar_test(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> TestOutcome:
    """Whether one method is right more often than another on the same prompts: McNemar's exact test.

    Only prompts count that one method gets right and the other wrong. The statistic is the share of these that the
    first gets right; without any of them p = 1.

    Raises:
        ValueError: the two have different lengths, or none.
    """
    if len(correct_a) != len(correct_b) or not correct_a:
        raise ValueError(
            f"{len(correct_a)} and {len(correct_b)} outcomes were given; give the outcomes of both methods on the "
            "same prompts, at least one"
        )
    first = sum(a and not b for a, b in zip(correct_a, correct_b, strict=True))
    second = sum(b and not a for a, b in zip(correct_a, correct_b, strict=True))
    return _binomial(first, first + second)


def sign_test(differences: Sequence[float]) -> TestOutcome:
    """Whether differences, one for each relation, lie on one side of 0; exact, ties left out.

    The statistic is the share of positive differences; without any but ties p = 1.

    Raises:
        ValueError: a difference is not finite.
    """
    if not all(math.isfinite(difference) for difference in differences):
        raise ValueError("a difference is not finite; leave out relations without a number")
    return _binomial(sum(d > 0 for d in differences), sum(d != 0 for d in differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down rule, in the order given.

    Raises:
        ValueError: a p-value is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1; given are {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _binomial(successes: int, n: int) -> TestOutcome:
    if n == 0:
        return TestOutcome(statistic=0.5, p_value=1.0, n=0)
    return TestOutcome(statistic=successes / n, p_value=float(binomtest(successes, n).pvalue), n=n)


def share_interval(count: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (1927) of the share behind `count` successes in `n` independent trials.

    Raises:
        ValueError: a count outside 0 to n, no trials, or `confidence` is not strictly between 0 and 1.
    """
    if not (n > 0 and 0 <= count <= n):
        raise ValueError(f"{count} of {n} is no share; give 0 to n successes of at least one trial")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1")
    interval = binomtest(count, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def beats_chance(count: int, n: int, *, chance: float = 0.5, level: float = 0.05) -> bool:
    """Whether `count` of `n` is more than `chance` gives, by an exact one-sided test at `level`.

    Raises:
        ValueError: a count outside 0 to n, or no trials.
    """
    if not (n > 0 and 0 <= count <= n):
        raise ValueError(f"{count} of {n} is no share; give 0 to n successes of at least one trial")
    return float(binomtest(count, n, chance, alternative="greater").pvalue) <= level
