"""The comparison of two checkouts: what counts as equal, and what does not."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "before_after.py"


@pytest.fixture(scope="module")
def before_after():
    spec = importlib.util.spec_from_file_location("before_after", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wrong(before_after):
    """Where two results differ by more than what is allowed."""
    return lambda old, new: [
        where
        for where, by in before_after.differences(old, new)
        if isinstance(by, str) or not by <= before_after.TOLERANCE
    ]


OLD = {
    "seconds_train": 1.5,
    "n": 3,
    "text": "Japan",
    "outcomes": [True, False],
    "relations_left_out": {"a": "too few"},
    "kl": 0.25,
    "nothing": None,
    "acts": np.array([1.0, -4.0, np.nan], dtype=np.float32),
}


def test_times_and_places_are_no_differences_and_numbers_may_differ_in_the_last_bits(wrong):
    assert wrong(OLD, dict(OLD)) == []
    nearly = {**OLD, "seconds_train": 9.0, "kl": 0.25 * (1 + 1e-8), "acts": OLD["acts"] * np.float32(1 + 2e-7)}
    assert wrong({**OLD, "out": "x", "checksum": "y"}, {**nearly, "out": "z", "checksum": "w"}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 4),
        ("text", "japan"),
        ("outcomes", [True, True]),
        ("outcomes", [True]),
        ("relations_left_out", {"a": "too many"}),
        ("relations_left_out", {}),
        ("kl", 0.25001),
        ("kl", float("nan")),
        ("kl", None),
        ("nothing", 0.0),
        ("acts", np.array([1.0, -4.0, 2.0], dtype=np.float32)),
        ("acts", np.array([1.0, -4.0001, np.nan], dtype=np.float32)),
        ("acts", np.array([1.0, -4.0, np.nan])),
        ("acts", np.array([1.0, -4.0], dtype=np.float32)),
    ],
)
def test_any_other_change_is_a_difference(wrong, name, value):
    (where,) = wrong(OLD, {**OLD, name: value})
    assert where.startswith(name)


def test_a_value_on_one_side_alone_is_a_difference(wrong):
    assert wrong(OLD, {**OLD, "more": 1}) == ["more"]
    assert wrong({**OLD, "more": 1}, OLD) == ["more"]


def test_the_difference_of_arrays_is_relative_to_their_largest_value(before_after):
    rows = list(before_after.differences({"acts": np.array([8.0, 0.001])}, {"acts": np.array([8.0, 0.002])}))
    assert rows == [("acts", pytest.approx(0.001 / 8))]
