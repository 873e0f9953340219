"""Ranges and lists of numbers."""

import time

import pytest

from lrc_tl.cli.ranges import parse_integers, parse_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("4:8", (4, 5, 6, 7)), ("4,6,8", (4, 6, 8)), ("0:2, 8", (0, 1, 8)), ("-3:-1,-1", (-3, -2, -1)), ("7", (7,))],
)
def test_a_range_includes_its_start_and_excludes_its_stop(text, numbers):
    assert parse_integers(text) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8:4", "the range '8:4' is empty; a:b starts at a and ends before b"),
        ("4:4", "the range '4:4' is empty"),
        ("a", "'a' in 'a' is not a whole number or a range such as 4:12"),
        ("1:2:3", "'1:2:3' in '1:2:3' is not a whole number"),
        ("1.5", "'1.5' in '1.5' is not a whole number"),
        ("4:", "'4:' in '4:' is not a whole number"),
        ("1,,2", "'1,,2' has an empty entry"),
        ("", "'' has an empty entry"),
        ("0:4,2", "2 comes twice in '0:4,2'"),
        ("0:1000000000", "'0:1000000000' stands for more than 10,000 numbers; is '0:1000000000' a slip"),
        ("-9000000000000000000000:5", "more than 10,000 numbers"),
        ("0:6000,6000:12001", "'0:6000,6000:12001' stands for more than 10,000 numbers; is '6000:12001' a slip"),
    ],
)
def test_what_is_no_range_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_integers(text)


def test_a_long_range_takes_no_time_to_check():
    started = time.process_time()
    assert len(parse_integers("0:9999,20000")) == 10_000
    assert time.process_time() - started < 1


def test_numbers_keep_their_order():
    assert parse_numbers("0.1, 0.05,1") == (0.1, 0.05, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "'x' in 'x' is not a number"),
        ("nan", "not a finite number"),
        ("1,1.0", "1.0 comes twice"),
        (",", "empty"),
    ],
)
def test_what_is_no_number_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_numbers(text)
