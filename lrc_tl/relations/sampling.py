"""Samples of a relation's facts, and objects drawn for other facts than their own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from lrc_tl.relations.prompts import spread_over_objects
from lrc_tl.relations.relation import Relation


def splittable_sample(relation: Relation, n: int, *, seed: int) -> Relation:
    """The relation with at most `n` of its facts: two of each object as far as possible, then evenly over objects.

    Two facts of an object are what a split needs to test it; a plain balanced sample of a relation with many
    objects would hold one of each.
    """
    if n >= len(relation.facts):
        return relation
    generator = Random(seed)
    counts = Counter(fact.object for fact in relation.facts)
    objects = sorted(name for name, count in counts.items() if count > 1)
    chosen = set(generator.sample(objects, min(len(objects), n // 2)))
    pool = [fact for fact in relation.facts if fact.object in chosen]
    facts = spread_over_objects(pool, min(2 * len(chosen), n), generator)
    taken = set(facts)
    rest = [fact for fact in relation.facts if fact not in taken]
    taken.update(spread_over_objects(rest, n - len(facts), generator))
    return replace(relation, facts=tuple(fact for fact in relation.facts if fact in taken))


def permuted_objects(objects: Sequence[str], *, seed: int) -> list[str]:
    """The objects permuted, each as often as before: the labels of a control task, with nothing to find."""
    permuted = list(objects)
    Random(seed).shuffle(permuted)
    return permuted
