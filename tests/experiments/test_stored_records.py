"""Stored records of a run: their names, and that damage of any kind is refused or changes nothing."""

import json
import random
from dataclasses import replace

import pytest
from tiny_benchmark import METHODS, SETTINGS

import lrc_tl as lrc
from lrc_tl.experiments.record import record_from_dict
from lrc_tl.experiments.resuming import locked_folder, read_record, record_files, record_path
from lrc_tl.experiments.run import run_protocol


@pytest.mark.parametrize(
    "name",
    [
        "国" * 78 + " seed 42",
        "x" * 500,
        "é" * 200,
        "../../etc/passwd",
        "a/b\\c:*?\0",
        "\ud83d half",
        "\x1b[2J",
        "😀" * 60,
    ],
)
def test_names_of_stored_records_are_bounded_in_bytes_and_stay_in_the_folder(tmp_path, name):
    path = record_path(tmp_path, name)
    assert len(path.name.encode()) <= 120
    assert path.parent == tmp_path
    path.write_text("fits")
    assert record_files(tmp_path) == [path]


def test_different_names_have_different_files_in_which_a_reader_sees_the_name(tmp_path):
    names = ["r seed 1", "r_seed 1", "R seed 1", "国" * 78, "国" * 79, "r seed 11"]
    assert len({record_path(tmp_path, name).name.casefold() for name in names}) == len(names)
    assert record_path(tmp_path, "city in country seed 42").name.startswith("city_in_country_seed_42-")


def test_a_relation_with_a_long_name_is_run_stored_and_resumed(one_word_model, tmp_path):
    name = "国" * 78
    pairs = [(f"w{n}", f"w{30 + n % 3}") for n in range(30)]
    relation = lrc.Relation.from_pairs(name, pairs, templates=["{} w1"])
    left_out = "could be evaluated|known"
    with pytest.raises(ValueError, match=left_out):
        run_protocol(one_word_model, [relation], methods=METHODS, out=tmp_path, settings=SETTINGS)
    (path,) = record_files(tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["record"]["relation"] == name


@pytest.fixture(scope="module")
def stored(one_word_model, tmp_path_factory):
    """A stored record, as bytes, and what it holds."""
    from spoken import spoken_relations

    folder = tmp_path_factory.mktemp("fuzzed")
    run_protocol(
        one_word_model,
        spoken_relations(one_word_model, 1),
        methods=("lrc", "mean"),
        settings=replace(SETTINGS, betas=0.3),
        out=folder,
    )
    (path,) = record_files(folder)
    return path.read_bytes(), read_record(path)


def flipped(data, generator):
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 8])):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def cut(data, generator):
    start, stop = sorted(generator.sample(range(len(data) + 1), 2))
    return data[:start] + data[stop:]


def edited(data, generator):
    """One value somewhere in the JSON is replaced by another, taken away, or named otherwise."""
    document = json.loads(data)
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = generator.choice(keys)
        value = place[key]
        if not isinstance(value, (dict, list)) or not value or generator.random() < 0.2:
            break
        place = value
    kind = generator.randrange(3)
    if kind == 0:
        place[key] = generator.choice([None, True, -1, 0.5, 1e400, "", "x", [], {}, [[]], 10**400, "\ud800"])
    elif kind == 1:
        del place[key]
    elif isinstance(place, dict):
        place[generator.choice(["x", *keys])] = place.pop(key)
    else:
        place.insert(0, value)
    return json.dumps(document).encode()


@pytest.mark.parametrize("damage", [flipped, cut, edited])
def test_a_damaged_stored_record_is_refused_or_is_exactly_what_was_stored(stored, tmp_path, damage):
    data, whole = stored
    generator = random.Random(20)
    path = tmp_path / "part-00000000.json"
    refused = 0
    for _ in range(1500):
        path.write_bytes(damage(data, generator))
        try:
            part = read_record(path)
        except lrc.errors.ResumeError as error:
            refused += 1
            message = str(error)
            assert str(path) in message
            assert message.isprintable()
        else:
            assert (part.record, part.name, part.content) == (whole.record, whole.name, whole.content)
            assert (part.settings, part.model, part.library) == (whole.settings, whole.model, whole.library)
    assert refused > 1300


def test_a_record_with_any_field_missing_or_of_another_type_is_refused(stored):
    """Also where somebody has made a checksum that fits."""
    record = stored[1].record.to_dict()
    assert record_from_dict(record) == stored[1].record
    for key in record:
        for wrong in (object(), [object()]):
            with pytest.raises(ValueError, match="record"):
                record_from_dict(record | {key: wrong})
        with pytest.raises(ValueError, match=f"record has no field '{key}'"):
            record_from_dict({name: value for name, value in record.items() if name != key})
    outcome = record["methods"]["lrc"]
    for key in outcome:
        with pytest.raises(ValueError, match=rf"record\['methods'\]\['lrc'\]\['{key}'\] cannot be"):
            record_from_dict(record | {"methods": {"lrc": {**outcome, key: object()}}})
    point = outcome["curve"][0]
    for key in point:
        with pytest.raises(
            ValueError, match=rf"record\['methods'\]\['lrc'\]\['curve'\]\[0\]\['{key}'\] cannot be"
        ):
            record_from_dict(record | {"methods": {"lrc": {**outcome, "curve": [{**point, key: object()}]}}})


def test_a_folder_of_relations_that_are_all_left_out_is_loaded_with_the_methods_asked_for(
    one_word_model, tmp_path
):
    relation = lrc.Relation.from_pairs(
        "none", [(f"w{n}", f"w{30 + n % 3}") for n in range(30)], templates=["{} w1"]
    )
    with pytest.raises(ValueError, match=r"could be evaluated|known"):
        run_protocol(one_word_model, [relation], methods=METHODS, out=tmp_path, settings=SETTINGS)
    result = lrc.ProtocolResult.load(tmp_path)
    assert result.methods == METHODS
    assert [record.relation for record in result.records] == ["none"]
    (path,) = record_files(tmp_path)
    copied = path.with_name("none-00000000.json")
    copied.write_bytes(path.read_bytes())
    with pytest.raises(lrc.errors.ResumeError, match=r"holds 'none', seed .*, twice; delete one"):
        lrc.ProtocolResult.load(tmp_path)
    copied.write_text("{", encoding="utf-8")
    with pytest.raises(lrc.errors.ResumeError, match=r"2 finished results .* of which the first cannot be read"):
        run_protocol(one_word_model, [relation], methods=METHODS, out=tmp_path, settings=SETTINGS)


def test_what_a_killed_run_left_unfinished_is_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / "a.json", tmp_path / "records" / "b.json", tmp_path / "c.partial"]
    left = [tmp_path / ".a.json.partial", tmp_path / "records" / ".b.partial"]
    (tmp_path / "records").mkdir()
    for path in (*kept, *left):
        path.touch()
    with locked_folder(tmp_path):
        assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in kept)
