"""Relations: built-in data, the file format with its errors, and splits."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import lrc_tl as lrc

DATASET = Path(os.environ.get("LRC_TL_LRE_DATA") or Path(__file__).parents[3] / "shared" / "data" / "lre")


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


def test_first_letters_are_those_of_the_word():
    for fact in lrc.load_relation("word_first_letter").facts:
        assert fact.subject[0].casefold() == fact.object.casefold()


def test_spaces_underscores_and_case_are_interchangeable_in_a_name():
    assert lrc.load_relation("City in Country") == lrc.load_relation("city_in_country")


@pytest.mark.parametrize("name", lrc.built_in_relations())
def test_a_built_in_relation_is_found_by_its_name_field_and_by_its_file(name):
    relation = lrc.load_relation(name)
    assert lrc.load_relation(relation.name) == relation
    assert relation.source == f"{name}.json"


def test_a_relation_is_found_by_name_or_file_stem_and_the_name_goes_first(tmp_path):
    write(tmp_path, "animal_noise.json")
    write(tmp_path, "pet_sound.json", name="Other Thing")
    (tmp_path / "more").mkdir()
    write(tmp_path / "more", "animal_noise.json", name="third")
    relations, errors = lrc.load_relations(tmp_path)
    assert not errors
    for name in ("pet sound", "PET_SOUND", " Pet  sound "):
        assert lrc.find_relation(relations, name).name == "pet sound"
    assert lrc.find_relation(relations.values(), "OTHER_thing").name == "Other Thing"
    with pytest.raises(LookupError, match=r"2 relations are called 'animal noise': .*third.*give one by its name"):
        lrc.find_relation(relations, "animal noise")
    with pytest.raises(LookupError, match="no relation 'pet sond'; did you mean pet_sound"):
        lrc.find_relation(relations, "pet sond")
    with pytest.raises(LookupError, match=r"no relation 'zzz'; there are .*pet_sound"):
        lrc.find_relation(relations, "zzz")


def test_a_folder_is_refused_with_the_function_for_folders(tmp_path):
    with pytest.raises(IsADirectoryError, match="load all its relations with load_relations"):
        lrc.load_relation(tmp_path)
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        lrc.load_relations(tmp_path / "nowhere")


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
        ({"name": 3}, "name must be a non-empty string"),
        ({"samples": {"dog": "woof"}}, "samples must be a list, not dict"),
        (
            {"samples": [{"subject": "dog", "object": 3}]},
            r"samples\[0\]\.object must be a non-empty string, not 3",
        ),
        ({"samples": [{"subject": "d\no", "object": "x"}]}, r"samples\[0\]\.subject must be one line of text"),
        ({"prompt_templates_zs": []}, "prompt_templates_zs is empty"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_field(tmp_path, changes, message):
    with pytest.raises(lrc.errors.RelationError, match=rf"r\.json.*{message}"):
        lrc.load_relation(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{nope", "r.json: not JSON .line 1"),
        (b"", "not JSON"),
        (b'{"name": "\xff"}', "not UTF-8 .byte 10"),
        (b"[]", "one JSON object, not list"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_json_object_says_so(tmp_path, raw, message):
    (tmp_path / "r.json").write_bytes(raw)
    with pytest.raises(lrc.errors.RelationError, match=message):
        lrc.load_relation(tmp_path / "r.json")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = write(tmp_path)
    plain = lrc.load_relation(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert lrc.load_relation(path) == plain


def test_repeated_facts_are_kept_once_and_a_subject_with_two_objects_is_dropped(tmp_path):
    pairs = [("dog", "woof"), ("dog", "woof"), ("fox", "yip"), ("fox", "ring"), ("cat", "meow")]
    path = write(tmp_path, samples=[{"subject": s, "object": o} for s, o in pairs])
    with pytest.warns(UserWarning, match="relation 'pet sound': 2 facts are left out.*'fox' -> 'yip'") as caught:
        relation = lrc.load_relation(path)
    assert [warning.filename for warning in caught] == [__file__]
    assert relation.facts == (lrc.relations.Fact("dog", "woof"), lrc.relations.Fact("cat", "meow"))
    assert relation.duplicates == (lrc.relations.Fact("dog", "woof"),)
    assert relation.ambiguous == (lrc.relations.Fact("fox", "yip"), lrc.relations.Fact("fox", "ring"))
    with pytest.raises(
        lrc.errors.RelationError, match="1 repeated facts and 2 facts of subjects with two objects"
    ):
        lrc.load_relation(path, strict=True)


def test_a_frame_gives_the_same_relation_as_its_pairs():
    pairs = [("dog", "woof"), ("dog", "woof"), ("cat ", "meow"), ("fox", "yip"), ("fox", "ring")]
    frame = pd.DataFrame(pairs, columns=["animal", "sound"], index=[7, 7, 8, 9, 10])
    options = {"templates": ["The {} says"], "zero_shot_templates": ["{} says"], "kind": "commonsense"}
    with pytest.warns(UserWarning, match="2 facts are left out") as caught:
        relation = lrc.Relation.from_frame(frame, name="pet sound", subject="animal", object="sound", **options)
    with pytest.warns(UserWarning, match="2 facts are left out") as caught_too:
        assert relation == lrc.Relation.from_pairs("pet sound", pairs, **options)
    assert [warning.filename for warning in (*caught, *caught_too)] == [__file__, __file__]
    assert relation.facts == (lrc.relations.Fact("dog", "woof"), lrc.relations.Fact("cat", "meow"))
    with pytest.raises(lrc.errors.RelationError, match="1 repeated facts"):
        lrc.Relation.from_frame(frame, name="r", subject="animal", object="sound", strict=True, **options)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pd.DataFrame({"subject": ["a"], "Object": ["x"]}),
            "0 columns named 'object'; its columns are 'subject', 'Ob",
        ),
        (pd.DataFrame([["a", "b", "x"]], columns=["subject", "subject", "object"]), "2 columns named 'subject'"),
        (pd.DataFrame({"subject": [], "object": []}), "the frame has no rows"),
        (pd.DataFrame({"subject": ["a", "b"], "object": ["x", None]}), "row 1 has no 'object'; fill it in"),
        (pd.DataFrame({"subject": ["a", float("nan")], "object": ["x", "y"]}), "row 1 has no 'subject'"),
        (
            pd.DataFrame({"subject": ["a"], "object": [1961]}),
            r"row 0 has 'object' = 1961 \(.*int.*\), which is not text",
        ),
        (
            pd.DataFrame({"subject": ["a", " "], "object": ["x", "y"]}),
            "pair 1: subject must be a non-empty string",
        ),
    ],
)
def test_a_frame_that_does_not_hold_facts_is_refused(frame, message):
    with pytest.raises(lrc.errors.RelationError, match=f"relation 'r'.*{message}"):
        lrc.Relation.from_frame(frame, name="r", templates=["{} is"])


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="relation 'r': list is not a pandas DataFrame; for pairs use from_pairs"):
        lrc.Relation.from_frame([("a", "x")], name="r", templates=["{} is"])


def test_white_space_around_pairs_is_dropped_and_a_line_break_inside_is_refused():
    assert lrc.Relation.from_pairs("r", [(" a\n", "x ")], templates=["{} is"]).facts == (
        lrc.relations.Fact("a", "x"),
    )
    with pytest.raises(lrc.errors.RelationError, match=r"pair 0: subject must be one line of text, not 'a\\nb'"):
        lrc.Relation.from_pairs("r", [("a\nb", "x")], templates=["{} is"])


def test_a_mapping_gives_the_relation_of_its_items():
    capitals = {"France": "Paris", "CU": "Havana"}
    relation = lrc.Relation.from_pairs("r", capitals, templates=["{} is"])
    assert relation == lrc.Relation.from_pairs("r", capitals.items(), templates=["{} is"])
    assert relation.facts == (lrc.relations.Fact("France", "Paris"), lrc.relations.Fact("CU", "Havana"))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("CU", r"pair 1: 'CU' is no \(subject, object\) pair; give a tuple of two strings"),
        (b"CU", "is no .subject, object. pair"),
        ({"x", "y"}, "is no .subject, object. pair"),
        ({"subject": "x", "object": "y"}, "is no .subject, object. pair"),
        (None, "None is no .subject, object. pair"),
        (("x", "y", "z"), r"pair 1: \('x', 'y', 'z'\) has 3 items; give \(subject, object\)"),
        (("x",), "has 1 items"),
        (("x", 3), "pair 1: object must be a non-empty string, not 3"),
    ],
)
def test_what_is_no_pair_is_refused(pair, message):
    with pytest.raises(lrc.errors.RelationError, match=message):
        lrc.Relation.from_pairs("r", [("a", "b"), pair], templates=["{} is"])


def test_one_string_is_no_list_of_pairs_and_is_one_template():
    with pytest.raises(TypeError, match="pairs is one string, 'CU'"):
        lrc.Relation.from_pairs("r", "CU", templates=["{} is"])
    one = lrc.Relation.from_pairs("r", [("a", "b")], templates="{} is", zero_shot_templates="a {} is")
    assert (one.templates, one.zero_shot_templates) == (("{} is",), ("a {} is",))
    with pytest.raises(TypeError, match="templates is of the type int"):
        lrc.Relation.from_pairs("r", [("a", "b")], templates=3)
    relation = lrc.Relation.from_pairs("r", [("a", "b")], templates=(text for text in ["{} is", "a {} is"]))
    assert relation.templates == relation.zero_shot_templates == ("{} is", "a {} is")


def test_a_sample_is_seeded_and_balanced_over_objects():
    relation = lrc.load_relation("animal_class")
    sample = relation.sample(9, seed=1)
    assert len(set(sample.facts)) == 9
    assert set(sample.facts) <= set(relation.facts)
    counts = Counter(fact.object for fact in sample.facts)
    assert set(counts) == set(relation.objects)
    assert max(counts.values()) - min(counts.values()) == 1
    assert relation.sample(9, seed=1) == sample != relation.sample(9, seed=2)
    for n in (0, len(relation.facts) + 1):
        with pytest.raises(ValueError, match=f"n is {n}; relation 'animal class' has {len(relation.facts)} facts"):
            relation.sample(n, seed=0)


def test_a_relation_shows_itself_in_one_short_line():
    relation = lrc.Relation.from_pairs("pet sound", [("dog", "woof"), ("pup", "woof")], templates=["The {} says"])
    assert repr(relation) == "<Relation 'pet sound' (factual): 2 facts, 1 object, 1 template>"
    pairs = [("dog", "woof"), ("dog", "woof"), ("pup ", "woof"), ("fox", "yip"), ("fox", "ring"), ("cat", "meow")]
    with pytest.warns(UserWarning, match="2 facts are left out"):
        relation = lrc.Relation.from_pairs("pet sound", pairs, templates=["The {} says"])
    assert repr(relation) == (
        "<Relation 'pet sound' (factual): 3 facts, 2 objects, 1 template; 1 repeated; "
        "2 left out, with two objects for a subject; 1 rewritten>"
    )


def test_one_bad_file_is_named_and_does_not_hide_the_others(tmp_path):
    good = write(tmp_path, "a.json")
    bad = write(tmp_path, "b.json", name="other", prompt_templates=[])
    again = write(tmp_path, "c.json", name="Pet_Sound")
    gone = tmp_path / "d.json"
    gone.symlink_to(tmp_path / "nowhere.json")
    (tmp_path / "folder.json").mkdir()
    relations, errors = lrc.load_relations(tmp_path)
    assert set(relations) == {"pet sound"}
    assert relations["pet sound"] == lrc.load_relation(good)
    assert set(errors) == {bad, again, gone}
    assert "No such file" in errors[gone]
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
    with pytest.raises(lrc.errors.RelationError, match="one fact for each of its 2 objects"):
        lrc.Relation.from_pairs("r", [("a", "x"), ("b", "y")], templates=["{} is"]).split(seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_outside_the_open_interval_is_refused(share):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        lrc.load_relation("animal_class").split(seed=0, train_share=share)


@pytest.mark.skipif(not DATASET.is_dir(), reason=f"no LRE dataset at {DATASET}; set LRC_TL_LRE_DATA to its folder")
def test_every_file_of_the_lre_dataset_loads_and_its_flaws_are_reported():
    with pytest.warns(UserWarning, match="facts are left out"):
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
        assert len(relation.prompts(templates="all")) == len(relation.facts) * len(relation.zero_shot_templates)
        stem = Path(relation.source).stem
        assert lrc.find_relation(relations, stem.upper().replace("_", " ")) is relation
