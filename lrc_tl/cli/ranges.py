"""Ranges and lists of numbers as the command line writes them: `4:12`, `4,6,8`, `0:3,8`."""

import math
from typing import TypeVar

Number = TypeVar("Number", int, float)
MOST_NUMBERS = 10_000
"""In one option; far beyond the layers, ranks or seeds of any run."""


def parse_integers(text: str) -> tuple[int, ...]:
    """Whole numbers in the order given; `a:b` stands for a, a + 1, ... and leaves out b.

    Raises:
        ValueError: something that is no whole number, a range without members, a number that comes twice, or more
            than 10,000 numbers, which are counted before they are spelled out.
    """
    numbers: list[int] = []
    for part in _parts(text):
        first, colon, stop = part.partition(":")
        try:
            start = int(first)
            end = int(stop) if colon else start + 1
        except ValueError as error:
            raise ValueError(f"{part!r} in {text!r} is not a whole number or a range such as 4:12") from error
        if start >= end:
            raise ValueError(
                f"the range {part!r} is empty; a:b starts at a and ends before b, so b must be above a"
            )
        if len(numbers) + end - start > MOST_NUMBERS:
            raise ValueError(f"{text!r} stands for more than {MOST_NUMBERS:,} numbers; is {part!r} a slip?")
        numbers.extend(range(start, end))
    return _distinct(numbers, text)


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers in the order given, separated by commas.

    Raises:
        ValueError: something that is no finite number, or a number that comes twice.
    """
    numbers: list[float] = []
    for part in _parts(text):
        try:
            number = float(part)
        except ValueError as error:
            raise ValueError(f"{part!r} in {text!r} is not a number") from error
        if not math.isfinite(number):
            raise ValueError(f"{part!r} in {text!r} is not a finite number")
        numbers.append(number)
    return _distinct(numbers, text)


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{text!r} has an empty entry; write numbers with single commas between, such as 4,6,8")
    return parts


def _distinct(numbers: list[Number], text: str) -> tuple[Number, ...]:
    seen: set[Number] = set()
    for number in numbers:
        if number in seen:
            raise ValueError(f"{number} comes twice in {text!r}")
        seen.add(number)
    return tuple(numbers)
