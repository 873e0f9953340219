"""Samples of a relation's facts that can be split."""

import pytest

import lrc_tl as lrc
from lrc_tl.relations.sampling import splittable_sample


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
