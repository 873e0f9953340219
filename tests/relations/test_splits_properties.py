"""Splits of random relations: no fact is lost, no subject on both sides, and what the shares say."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lrc_tl as lrc
from lrc_tl.errors import RelationError

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=6).filter(
    lambda name: name.strip() and len(name.strip().splitlines()) == 1
)
OBJECTS = st.lists(NAMES, min_size=1, max_size=5, unique_by=str.strip)
PAIRS = st.tuples(st.lists(NAMES, min_size=1, max_size=40), OBJECTS, st.randoms(use_true_random=False)).map(
    lambda drawn: [(subject, drawn[2].choice(drawn[1])) for subject in drawn[0]]
)
SEEDS = st.integers(0, 2**32)
SHARES = st.floats(0.01, 0.99)


def relation_of(pairs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrc_tl.relations.relation.warn_caller", lambda message: None)
        return lrc.Relation.from_pairs("r", pairs, templates=["{} is"])


def parts(relation, **options):
    """None: no object has two facts."""
    try:
        return relation.split(**options)
    except RelationError:
        assert max(Counter(fact.object for fact in relation.facts).values()) == 1
        return None


@given(pairs=PAIRS, seed=SEEDS, share=SHARES)
def test_a_split_keeps_every_fact_on_one_side_and_the_share_within_each_object(pairs, seed, share):
    try:
        relation = relation_of(pairs)
    except RelationError:  # every subject has two objects
        objects = Counter(subject.strip() for subject, _ in set(pairs))
        assert min(objects.values()) > 1
        return
    sides = parts(relation, seed=seed, train_share=share)
    if sides is None:
        return
    train, test = sides
    assert sorted([*train.facts, *test.facts]) == sorted(relation.facts)
    assert {fact.subject for fact in train.facts}.isdisjoint(fact.subject for fact in test.facts)
    assert test.shot_facts == train.facts
    of_all, of_train = (Counter(fact.object for fact in facts) for facts in (relation.facts, train.facts))
    for name, n in of_all.items():
        # Rounded half up, but neither side of an object with two facts or more is empty.
        assert of_train[name] == min(max(1, int(n * share + 0.5)), max(1, n - 1))


@given(pairs=PAIRS, seed=SEEDS, order=st.randoms(use_true_random=False))
def test_a_split_depends_on_the_facts_and_the_seed_and_on_no_order(pairs, seed, order):
    try:
        relation = relation_of(pairs)
    except RelationError:
        return
    shuffled = list(pairs)
    order.shuffle(shuffled)
    sides, others = parts(relation, seed=seed), parts(relation_of(shuffled), seed=seed)
    if sides is not None:
        assert [set(side.facts) for side in sides] == [set(side.facts) for side in others]


@given(pairs=PAIRS, seed=SEEDS, n=st.integers(1, 50))
def test_a_sample_is_balanced_over_objects_as_far_as_they_allow(pairs, seed, n):
    try:
        relation = relation_of(pairs)
    except RelationError:
        return
    n = min(n, len(relation.facts))
    sample = relation.sample(n, seed=seed)
    assert len(set(sample.facts)) == len(sample.facts) == n
    assert set(sample.facts) <= set(relation.facts)
    taken, there = (Counter(fact.object for fact in facts) for facts in (sample.facts, relation.facts))
    # An object gives one fewer than another only where it has no more.
    assert all(taken[name] == there[name] or taken[name] >= max(taken.values()) - 1 for name in there)
