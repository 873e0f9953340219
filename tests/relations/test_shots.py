"""Few-shot examples: never the tested subject, the same draw as ever up to 1,000 facts, and linear time beyond."""

import hashlib
import json
import random
import time
from collections import Counter

import pytest

import lrc_tl as lrc
from lrc_tl.relations.shots import SHUFFLED_WHOLE, ShotPool


def hash_of(prompts):
    rows = [[prompt.text, prompt.subject, prompt.object, prompt.subject_start] for prompt in prompts]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def big_relation(n, *, object_of=lambda i: i * i % 37):
    pairs = [(f"place {i} {'x' * (i % 7)}", f"land {object_of(i)}") for i in range(n)]
    templates = ["{} is in", "The place {} is in"]
    return lrc.Relation.from_pairs("big", pairs, templates=templates, zero_shot_templates=["{} lies in"])


def test_the_prompts_that_committed_results_rest_on_are_still_drawn():
    """The hashes were taken before few-shot examples of large relations were drawn in another way."""
    cities = lrc.load_relation("city_in_country")
    train, test = cities.split(seed=1)
    assert hash_of(cities.prompts(shots=4, seed=0)) == "f9a8f7ec79055f9c"
    assert hash_of(test.prompts(shots=4, seed=3)) == "a5425ef447e4338b"
    assert hash_of(train.prompts(shots=2, seed=1, templates="all")) == "eb23127051fdd3b2"
    assert hash_of(cities.prompts(seed=5)) == "fc2ae90671e02302"
    assert SHUFFLED_WHOLE == 1000
    assert hash_of(big_relation(1000).prompts(shots=4, seed=0)) == "d3bfece227806364"


def test_few_shot_prompts_take_time_in_proportion_to_the_facts():
    def seconds(relation):
        started = time.process_time()
        relation.prompts(shots=4)
        return time.process_time() - started

    small, large = big_relation(2_000), big_relation(20_000)
    assert seconds(large) < 30 * max(seconds(small), 0.02)


@pytest.mark.parametrize("n_objects", [3, 700, 100_000])
def test_shots_of_a_large_relation_are_distinct_seeded_and_name_neither_subject_nor_the_same_object_twice(
    n_objects,
):
    relation = big_relation(SHUFFLED_WHOLE + 500, object_of=lambda i: i % n_objects)
    prompts = relation.prompts(shots=3, seed=1)
    assert prompts == relation.prompts(shots=3, seed=1) != relation.prompts(shots=3, seed=2)
    facts = {(fact.subject, fact.object) for fact in relation.facts}
    for prompt in prompts:
        *lines, last = prompt.text.split("\n")
        head, tail = last.split(prompt.subject)
        shown = [tuple(line.removeprefix(head).split(f"{tail} ")) for line in lines]
        assert set(shown) <= facts - {(prompt.subject, prompt.object)}
        assert len({object_ for _, object_ in shown}) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11])
def test_a_lazy_draw_is_balanced_and_as_likely_to_show_each_fact_as_a_whole_shuffle(count):
    """Two objects of two facts, one of eight; one fact of the eight names the subject."""
    facts = [lrc.relations.Fact(f"s{i}", "abcc"[min(i // 2, 3)]) for i in range(12)]
    hidden = lrc.relations.Fact("red Tested", "c")
    counts = {}
    for whole in (0, 100):
        pool = ShotPool([*facts, hidden], shuffled_whole=whole)
        drawn = [pool.draw("tested", count, random.Random(seed)) for seed in range(3000)]
        assert all(len(set(shots)) == len(shots) == count and hidden not in shots for shots in drawn)
        for shots in drawn[:50]:
            per_object = Counter(fact.object for fact in shots)
            for object_, available in (("a", 2), ("b", 2), ("c", 8)):
                assert per_object[object_] == available or per_object[object_] >= max(per_object.values()) - 1
        counts[whole] = Counter(shot for shots in drawn for shot in shots)
    for fact in facts:
        assert abs(counts[0][fact] - counts[100][fact]) < 6 * max(counts[100][fact], 100) ** 0.5


def test_too_few_facts_of_a_large_relation_are_counted():
    facts = [lrc.relations.Fact(f"tested {i}", "x") for i in range(2000)] + [
        lrc.relations.Fact("a", "x"),
        lrc.relations.Fact("b", "y"),
    ]
    assert len(ShotPool(facts).draw("tested", 5, random.Random(0))) == 2
    pairs = [("tested", "z"), *((fact.subject, fact.object) for fact in facts)]
    with pytest.raises(
        ValueError, match=r"5 shots were asked for, but relation 'r' has only 2 .* subject 'tested'"
    ):
        lrc.Relation.from_pairs("r", pairs, templates=["{} is"]).prompts(shots=5)


def test_a_shot_never_names_the_tested_subject_as_its_object_or_within_a_longer_name():
    pairs = [("hot", "cold"), ("cold", "HOT"), ("red hot", "icy"), ("hotel", "tent"), ("big", "small")]
    relation = lrc.Relation.from_pairs("antonym", pairs, templates=["{} is not"])
    for seed in range(20):
        prompt = relation.prompts(shots=2, seed=seed)[0]
        assert sorted(prompt.text.split("\n")[:-1]) == ["big is not small", "hotel is not tent"]


def test_a_shot_never_names_the_tested_subject_in_another_spelling_of_its_accents():
    pairs = [("São Paulo", "x"), ("b", "Sa\u0303o Paulo"), ("SA\u0303O PAULO city", "y"), ("c", "z")]
    relation = lrc.Relation.from_pairs("r", pairs, templates=["{} is"])
    for seed in range(10):
        assert relation.prompts(shots=1, seed=seed)[0].text == "c is z\nSão Paulo is"
    with pytest.raises(ValueError, match="has only 1 facts to show that do not name the subject 'São Paulo'"):
        relation.prompts(shots=2)


def test_more_shots_than_other_facts_is_an_error():
    relation = lrc.Relation.from_pairs("r", [("a", "x"), ("b", "x")], templates=["{} is"])
    with pytest.raises(ValueError, match=r"2 shots were asked for, but relation 'r' has only 1 .* subject 'a'"):
        relation.prompts(shots=2)
