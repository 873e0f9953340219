"""Curves read at a KL: by hand, and as laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrc_tl.experiments.at_kl import value_at_kl


def test_between_two_sizes_the_value_is_linear_over_the_kl():
    at = value_at_kl([0.1, 0.3, 0.7], [0.0, 0.5, 1.0], at=0.6)
    assert at.value == pytest.approx(0.3 + 0.2 * 0.4)
    assert at.weights == pytest.approx((0, 0.8, 0.2))
    assert at.reached
    assert at.mixed([0.0, 10.0, 20.0]) == pytest.approx(12.0)


def test_a_kl_that_a_size_has_exactly_gives_its_value():
    assert value_at_kl([0.2, 0.4, 0.1], [0.1, 0.7, 0.9], at=0.7).weights == (0.0, 1.0, 0.0)


def test_of_several_crossings_the_largest_value_counts():
    values, kls = [0.0, 0.4, 0.9, 0.2], [0.1, 1.0, 0.5, 1.1]
    assert value_at_kl(values, kls, at=0.7).value == pytest.approx(0.4 + 0.5 * 0.6)


def test_a_curve_that_stays_below_is_taken_at_its_best_size():
    at = value_at_kl([0.2, 0.5, 0.3], [0.1, 0.2, 0.3], at=0.7)
    assert (at.value, at.weights, at.reached) == (0.5, (0.0, 1.0, 0.0), False)


@pytest.mark.parametrize(
    ("values", "kls", "at", "message"),
    [
        ([], [], 0.7, "0 values and 0 KLs"),
        ([0.1], [0.1, 0.2], 0.7, "1 values and 2 KLs"),
        ([0.1], [0.1], 0.0, "at is 0"),
        ([float("nan")], [0.1], 0.7, "not finite"),
        ([0.1, 0.2], [0.8, 0.9], 0.7, "run smaller sizes too"),
    ],
)
def test_what_cannot_be_read_is_refused(values, kls, at, message):
    with pytest.raises(ValueError, match=message):
        value_at_kl(values, kls, at=at)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 3)), min_size=1, max_size=8),
    st.floats(0.1, 2),
)
def test_weights_add_up_to_one_and_give_the_value_and_the_kl(points, at):
    values, kls = zip((0.0, 0.0), *points, strict=True)
    read = value_at_kl(values, kls, at=at)
    assert sum(read.weights) == pytest.approx(1)
    assert read.mixed(values) == pytest.approx(read.value)
    if read.reached:
        assert read.mixed(kls) == pytest.approx(at)
    else:
        assert max(kls) < at
