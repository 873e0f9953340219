"""Relations: built-in data, the file format with its errors, and splits."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import lrc_tl as lrc

DATASET = Path(__file__).parents[2] / "shared" / "data" / "lre"


def write(folder, file="r.json", **changes):
    data = {
        "name": "pet sound",
        "prompt_templates": ["The {} says"],
        "samples": [{"subject": "dog", "object": "woof"}, {"subject": "cat", "object": "meow"}],
    } | changes
    path = folder / file
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", lrc.built_in_relations())
def test_a_built_in_relation_is_balanced_and_free_of_duplicates(name):
    relation = lrc.load_relation(name, strict=True)
    facts_per_object = Counter(fact.object for fact in relation.facts)
    assert len(facts_per_object) >= 5
    assert sum(count >= 6 for count in facts_per_object.values()) >= 0.8 * len(facts_per_object)
    assert max(facts_per_object.values()) <= 2 * min(facts_per_object.values())
    for template in relation.templates + relation.zero_shot_templates:
        assert template == template.rstrip()
    for fact in relation.facts:
        assert not re.search(rf"\b{re.escape(fact.object)}\b", fact.subject, re.IGNORECASE)


def test_built_in_relations_cover_all_four_kinds():
    kinds = Counter(lrc.load_relation(name).kind for name in lrc.built_in_relations())
    assert set(kinds) == {"factual", "commonsense", "linguistic", "bias"}
    assert sum(kinds.values()) >= 12


def test_first_and_last_letters_are_those_of_the_word():
    for name, index in (("word_first_letter", 0), ("word_last_letter", -1)):
        for fact in lrc.load_relation(name).facts:
            assert fact.subject[index].casefold() == fact.object.casefold()


def test_spaces_underscores_and_case_are_interchangeable_in_a_name():
    assert lrc.load_relation("City in Country") == lrc.load_relation("city_in_country")


def test_a_mistyped_name_shows_near_names():
    with pytest.raises(LookupError, match="did you mean city_in_country"):
        lrc.load_relation("city_in_contry")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_templates": ["The dog says"]}, r"prompt_templates\[0\].*exactly once"),
        ({"prompt_templates": []}, "prompt_templates is empty"),
        ({"prompt_templates": "The {} says"}, "prompt_templates must be a list of strings, not str"),
        ({"prompt_templates": [3]}, r"prompt_templates\[0\] must be a string, not int"),
        ({"prompt_templates_zs": ["{} and {}"]}, r"prompt_templates_zs\[0\]"),
        ({"samples": []}, "has no facts"),
        ({"samples": None}, "field 'samples' is missing"),
        ({"samples": [{"subject": "dog"}]}, r"samples\[0\]\.object must be a non-empty string"),
        ({"samples": ["dog"]}, r"samples\[0\] must be an object, not str"),
        ({"kind": "odd"}, "kind is 'odd'; allowed are factual"),
        ({"name": ""}, "name must be a non-empty string"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_field(tmp_path, changes, message):
    with pytest.raises(lrc.RelationError, match=rf"r\.json.*{message}"):
        lrc.load_relation(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"{nope", "not JSON"), (b'{"name": "\xff"}', "not UTF-8"), (b"[]", "one JSON object")],
)
def test_a_file_that_is_no_json_object_says_so(tmp_path, raw, message):
    (tmp_path / "r.json").write_bytes(raw)
    with pytest.raises(lrc.RelationError, match=message):
        lrc.load_relation(tmp_path / "r.json")


def test_repeated_facts_are_kept_once_and_a_subject_with_two_objects_is_dropped(tmp_path):
    pairs = [("dog", "woof"), ("dog", "woof"), ("fox", "yip"), ("fox", "ring"), ("cat", "meow")]
    path = write(tmp_path, samples=[{"subject": s, "object": o} for s, o in pairs])
    relation = lrc.load_relation(path)
    assert relation.facts == (lrc.Fact("dog", "woof"), lrc.Fact("cat", "meow"))
    assert relation.duplicates == (lrc.Fact("dog", "woof"),)
    assert relation.ambiguous == (lrc.Fact("fox", "yip"), lrc.Fact("fox", "ring"))
    with pytest.raises(lrc.RelationError, match="1 repeated facts and 2 facts of subjects with two objects"):
        lrc.load_relation(path, strict=True)


def test_one_bad_file_is_named_and_does_not_hide_the_others(tmp_path):
    good = write(tmp_path, "a.json")
    bad = write(tmp_path, "b.json", name="other", prompt_templates=[])
    again = write(tmp_path, "c.json")
    relations, errors = lrc.load_relations(tmp_path)
    assert set(relations) == {"pet sound"}
    assert relations["pet sound"] == lrc.load_relation(good)
    assert set(errors) == {bad, again}
    assert "prompt_templates is empty" in errors[bad]
    assert "already loaded" in errors[again]


@pytest.mark.parametrize("seed", range(5))
def test_a_split_is_disjoint_complete_seeded_and_leaves_each_object_a_training_fact(seed):
    relation = lrc.load_relation("animal_class")
    train, test = relation.split(seed=seed)
    assert set(train.facts) | set(test.facts) == set(relation.facts)
    assert not set(train.facts) & set(test.facts)
    assert set(train.objects) == set(relation.objects)
    assert relation.split(seed=seed) == (train, test)
    assert relation.split(seed=seed + 1) != (train, test)
    for object_ in relation.objects:
        sizes = [sum(fact.object == object_ for fact in part.facts) for part in (train, test)]
        assert 0 <= sizes[0] - sizes[1] <= 1


def test_the_order_of_the_facts_does_not_change_the_split():
    pairs = [(f"s{i}", f"o{i % 3}") for i in range(20)]
    splits = [
        lrc.Relation.from_pairs("r", order, templates=["{} is"]).split(seed=1) for order in (pairs, pairs[::-1])
    ]
    assert set(splits[0][0].facts) == set(splits[1][0].facts)


def test_an_object_with_one_fact_goes_to_training():
    relation = lrc.Relation.from_pairs("r", [("a", "x"), ("b", "x"), ("c", "y")], templates=["{} is"])
    train, test = relation.split(seed=0)
    assert "y" in train.objects
    assert test.objects == ("x",)


def test_a_one_to_one_relation_cannot_be_split():
    with pytest.raises(lrc.RelationError, match="one fact for each of its 2 objects"):
        lrc.Relation.from_pairs("r", [("a", "x"), ("b", "y")], templates=["{} is"]).split(seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_outside_the_open_interval_is_refused(share):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        lrc.load_relation("animal_class").split(seed=0, train_share=share)


@pytest.mark.skipif(not DATASET.is_dir(), reason="the LRE dataset is not beside the checkout")
def test_every_file_of_the_lre_dataset_loads_and_its_flaws_are_reported():
    relations, errors = lrc.load_relations(DATASET)
    assert not errors
    assert len(relations) == len(list(DATASET.rglob("*.json")))
    products = next(r for r in relations.values() if "company" in r.name and "product" in r.name)
    assert products.duplicates
    assert products.ambiguous
    raw = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(DATASET.rglob("*.json"))]
    for data in raw:
        relation = relations[data["name"]]
        distinct = {(s["subject"].strip(), s["object"].strip()) for s in data["samples"]}
        assert len(relation.facts) + len(relation.ambiguous) == len(distinct)
