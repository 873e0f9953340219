"""Relation files that hide something: repeated and unknown keys, pipes, folders that cannot be listed."""

import json
import os
import unicodedata
import warnings
from pathlib import Path

import pytest
from test_relations import DATASET, write

import lrc_tl as lrc


def test_a_key_that_comes_twice_is_refused_wherever_it_stands(tmp_path):
    path = tmp_path / "r.json"
    sample = '{"subject": "dog", "object": "woof"}'
    for key, text in (
        ("samples", f'{{"name": "r", "prompt_templates": ["{{}} is"], "samples": [{sample}], "samples": []}}'),
        (
            "object",
            '{"name": "r", "prompt_templates": ["{} is"], "samples": [{"object": "b", "object": 0}]}',
        ),
    ):
        path.write_text(text)
        with pytest.raises(lrc.errors.RelationError, match=rf"r\.json: the key '{key}' stands more than once"):
            lrc.load_relation(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_template_zs": ["{} says"]}, r"'prompt_template_zs' \(did you mean 'prompt_templates_zs'\?\)"),
        ({"Kind": "bias"}, r"'Kind' \(did you mean 'kind'\?\)"),
        ({"zzz": 1}, "unknown keys: 'zzz'; they are ignored"),
        ({"properties": {"relation_typ": "bias"}}, r"'relation_typ' \(did you mean 'relation_type'\?\)"),
        (
            {"samples": [{"subject": "a", "object": "b", "objects": ["c"]}, {"subject": "c", "object": "d"}]},
            r"'objects' \(did you mean 'object'\?\)",
        ),
    ],
)  # fmt: skip
def test_a_key_that_nothing_reads_is_warned_of_with_the_near_key_and_is_an_error_when_strict(
    tmp_path, changes, message
):
    path = write(tmp_path, **changes)
    with pytest.warns(UserWarning, match=rf"r\.json: .*{message}") as caught:
        lrc.load_relation(path)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match=message):
        relations, errors = lrc.load_relations(tmp_path)
    assert set(relations) == {"pet sound"}
    assert not errors
    with pytest.raises(
        lrc.errors.RelationError, match=message.replace("; they are ignored", "; rename or remove them")
    ):
        lrc.load_relation(path, strict=True)


def test_a_mistyped_needed_key_is_named_beside_the_missing_one(tmp_path):
    with pytest.raises(lrc.errors.RelationError, match=r"field 'samples' is missing; is it 'sample'\?"):
        lrc.load_relation(write(tmp_path, samples=None, sample=[]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": []}, r"kind is \[\]; allowed are"),
        ({"kind": ""}, "kind is ''; allowed are"),
        ({"kind": 0}, "kind is 0; allowed are"),
        ({"properties": ["bias"]}, "properties must be an object, not list"),
    ],
)
def test_an_odd_kind_is_not_taken_for_factual(tmp_path, changes, message):
    with pytest.raises(lrc.errors.RelationError, match=message):
        lrc.load_relation(write(tmp_path, **changes))


def test_a_pipe_a_long_number_and_a_folder_that_cannot_be_listed_are_errors_and_hide_no_other(
    tmp_path, monkeypatch
):
    good = write(tmp_path, "a.json")
    pipe = tmp_path / "b.json"
    os.mkfifo(pipe)
    number = tmp_path / "c.json"
    number.write_text(good.read_text().replace('"dog"', "1" * 5000))
    closed = tmp_path / "closed"
    closed.mkdir()
    write(closed, "d.json", name="hidden")
    listed = os.scandir

    def scandir(path):
        if Path(path) == closed:  # root may list every folder, so it is only said to be closed
            raise PermissionError(13, "Permission denied", str(closed))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    relations, errors = lrc.load_relations(tmp_path)
    assert set(relations) == {"pet sound"}
    assert set(errors) == {pipe, number, closed}
    assert "is a named pipe or a device; give an ordinary file" in errors[pipe]
    assert "holds a number that is too long" in errors[number]
    assert "Permission denied" in errors[closed]
    with pytest.raises(lrc.errors.RelationError, match="is a named pipe or a device"):
        lrc.load_relation(pipe)


def test_a_name_is_found_in_either_unicode_form(tmp_path):
    for number, form in enumerate(("NFC", "NFD")):
        folder = tmp_path / form
        folder.mkdir()
        write(folder, unicodedata.normalize(form, f"stadt_größe_{number}.json"), name=f"relation {number}")
        relations, errors = lrc.load_relations(folder)
        assert not errors
        for asked in ("NFC", "NFD"):
            name = unicodedata.normalize(asked, f"Stadt Größe {number}")
            assert lrc.find_relation(relations, name).name == f"relation {number}"


def test_terminal_escapes_in_the_name_of_a_file_are_spelled_out(tmp_path):
    bad = write(tmp_path, "a\x1b[31m.json", prompt_templates=[])
    also = tmp_path / os.fsdecode(b"b\xff.json")
    also.write_bytes(bad.read_bytes())
    _, errors = lrc.load_relations(tmp_path)
    assert set(errors) == {bad, also}
    assert all(text.isprintable() for text in errors.values())
    assert "a\\x1b[31m.json" in errors[bad]


@pytest.mark.parametrize("name", lrc.built_in_relations())
def test_a_built_in_relation_has_nothing_to_warn_of_or_to_report(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relation = lrc.load_relation(name, strict=True)
    assert relation.report() == repr(relation)


@pytest.mark.skipif(not DATASET.is_dir(), reason=f"no LRE dataset at {DATASET}; set LRC_TL_LRE_DATA to its folder")
def test_relations_of_the_lre_dataset_are_warned_of_only_where_a_subject_has_two_objects():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        relations, errors = lrc.load_relations(DATASET)
    assert not errors
    ambiguous = {relation.name for relation in relations.values() if relation.ambiguous}
    assert len(caught) == len(ambiguous) > 0
    for warning in caught:
        assert sum(repr(name) in str(warning.message) for name in ambiguous) == 1
    for relation in relations.values():
        for fact in (*relation.facts, *relation.ambiguous):
            assert "\\" not in fact.subject + fact.object
    if "country capital city" in relations:
        capitals = relations["country capital city"]
        assert {"Bogotá", "Brasília"} <= set(capitals.objects)
        assert ("Bogot\\u00e1", "Bogotá") in capitals.rewritten
    assert json.loads(json.dumps(sorted(relations))) == sorted(relations)
