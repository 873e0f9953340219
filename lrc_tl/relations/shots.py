"""Few-shot examples: drawn evenly over objects, and none names the tested subject. Needs no torch."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from lrc_tl.relations.facts import Fact
from lrc_tl.relations.prompts import spread_over_objects
from lrc_tl.relations.words import caseless, find_word

SHUFFLED_WHOLE = 1_000
"""Up to this many facts are shuffled whole for each prompt; from more, only as many are drawn as are needed.

Both draws are balanced and equally random, but they give different examples for the same seed. The first is kept
because stored results rest on it; its time grows with the square of the number of facts.
"""

Item = TypeVar("Item")


class ShotPool:
    """The facts that may be shown before a tested one."""

    def __init__(self, facts: Iterable[Fact], *, shuffled_whole: int = SHUFFLED_WHOLE) -> None:
        self._folded = [(fact, caseless(fact.subject), caseless(fact.object)) for fact in facts]
        self._is_shuffled_whole = len(self._folded) <= shuffled_whole
        by_object: dict[str, list[tuple[Fact, str, str]]] = defaultdict(list)
        for entry in self._folded:
            by_object[entry[0].object].append(entry)
        self._groups = list(by_object.values())

    def draw(self, tested: str, count: int, generator: random.Random) -> list[Fact]:
        """`count` facts in random order, each object as often as every other as far as its facts go.

        No fact names the subject `tested` as its subject, as its object or as a word of either; case and the
        spelling of accents are ignored. There are fewer than `count` facts where no more are left.
        """
        tested = caseless(tested)
        if self._is_shuffled_whole:
            allowed = [fact for fact, *texts in self._folded if not any(_mentions(text, tested) for text in texts)]
            return spread_over_objects(allowed, count, generator)
        chosen: list[Fact] = []
        groups: Iterable[Iterator[Fact]] = (
            _facts_without(tested, group, generator) for group in _in_random_order(self._groups, generator)
        )
        while True:
            unfinished: list[Iterator[Fact]] = []
            for facts in groups:
                if len(chosen) == count:
                    return chosen
                fact = next(facts, None)
                if fact is not None:
                    chosen.append(fact)
                    unfinished.append(facts)
            if not unfinished:
                return chosen
            generator.shuffle(unfinished)
            groups = unfinished


def _facts_without(
    tested: str, group: Sequence[tuple[Fact, str, str]], generator: random.Random
) -> Iterator[Fact]:
    if not _mentions(group[0][2], tested):
        for fact, subject, _ in _in_random_order(group, generator):
            if not _mentions(subject, tested):
                yield fact


def _in_random_order(items: Sequence[Item], generator: random.Random) -> Iterator[Item]:
    """A lazy Fisher-Yates shuffle: each item taken costs one step."""
    moved: dict[int, int] = {}
    for last in range(len(items) - 1, -1, -1):
        chosen = int(generator.random() * (last + 1))
        yield items[moved.get(chosen, chosen)]
        moved[chosen] = moved.get(last, last)


def _mentions(text: str, subject: str) -> bool:
    return subject in text and find_word(text, subject) is not None
