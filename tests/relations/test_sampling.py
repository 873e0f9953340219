"""Samples of a relation's facts that can be split, and permuted objects."""

import random

import pytest

import lrc_tl as lrc
from lrc_tl.relations.sampling import permuted_objects, splittable_sample


@pytest.mark.parametrize("n", [2, 7, 20, 60])
def test_a_sample_has_two_facts_of_as_many_objects_as_it_can(n):
    pairs = [(f"s{o}.{n}", f"o{o}") for o in range(12) for n in range(1 + o % 4)]
    relation = lrc.Relation.from_pairs("r", pairs, templates=["{} is"])
    sample = splittable_sample(relation, n, seed=3)
    assert len(sample.facts) == min(n, len(relation.facts))
    assert set(sample.facts) <= set(relation.facts)
    assert sample == splittable_sample(relation, n, seed=3)
    counts = [sum(fact.object == name for fact in sample.facts) for name in relation.objects]
    assert sum(count > 1 for count in counts) >= min(n // 2, 9)
    if n < len(relation.facts):
        assert sample != splittable_sample(relation, n, seed=4)
    else:
        assert sample == relation


def test_permuted_objects_are_those_given_in_an_order_that_the_seed_decides():
    objects = ("a", "a", "b", "c", "d", "e")
    permuted = permuted_objects(objects, seed=3)
    assert sorted(permuted) == sorted(objects)
    assert permuted == permuted_objects(list(objects), seed=3)
    assert len({tuple(permuted_objects(objects, seed=seed)) for seed in range(20)}) > 10
    state = random.getstate()
    permuted_objects(objects, seed=3)
    assert random.getstate() == state
    assert objects == ("a", "a", "b", "c", "d", "e")


def test_the_order_of_permuted_objects_is_that_of_results_so_far():
    assert permuted_objects(["a", "b", "c", "d", "e"], seed=0) == ["c", "b", "a", "e", "d"]
