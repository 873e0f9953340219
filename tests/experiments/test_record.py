"""Records as values: what is written is read again, to the letter, and what does not fit is refused."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest
from spoken import spoken_relation, spoken_relations
from test_protocol_result import RECORDS
from tiny_benchmark import SETTINGS

from lrc_tl.experiments.method_outcome import CurvePoint, MethodOutcome
from lrc_tl.experiments.record import LeftOutRelation, RelationRecord, record_from_dict
from lrc_tl.experiments.run import run_protocol


@pytest.fixture(scope="module")
def record(one_word_model):
    """With everything that may be asked for."""
    (relation,) = spoken_relations(one_word_model, 1)
    beside = spoken_relation(one_word_model, name="beside", tail="w43")
    settings = replace(SETTINGS, betas=(0.3, 0.8), single_layer=True, random_model=True)
    methods = ("lrc", "mean")
    (record,) = run_protocol(
        one_word_model, [relation], methods=methods, others=[beside], settings=settings
    ).records
    return record


def test_what_is_written_is_read_again_to_the_letter(record):
    text = json.dumps(record.to_dict())
    again = record_from_dict(json.loads(text))
    assert again == record
    assert json.dumps(again.to_dict()) == text
    left_out = RECORDS[3]
    assert record_from_dict(left_out.to_dict()) == left_out
    assert list(left_out.to_dict()) == ["relation", "seed", "left_out"]


def test_the_fields_in_a_file_and_their_order_stay(record):
    """Result files are compared byte for byte, so a field that moves or is renamed is seen here."""
    head = ["relation", "seed", "left_out", "n_facts", "n_known_train", "n_lre_prompts", "n_test", "n_prompts"]
    counts = ["n_edits", "n_unrelated", "n_same_subject", "n_objects", "chance", "subject_layer", "object_layer"]
    tail = ["rank", "betas", "selected", "test_prompts", "object_tokens", "edits", "methods", "seconds"]
    assert list(record.to_dict()) == head + counts + tail
    place = ["subject_layer", "object_layer", "rank"]
    plain = ["correct", "predicted", "accuracy", "mean_reciprocal_rank", "top3"]
    centred = ["correct_centred", "accuracy_centred", "correct_calibrated", "accuracy_calibrated"]
    controls = ["control_shuffled", "control_random", "seconds_train", "seconds_evaluate", "control_random_model"]
    outcome = record.methods["lrc"].to_dict()
    assert list(outcome) == [*place, *plain, *centred, *controls, "curve", "curve_single_layer"]
    edits = ["beta", "success", "causality", "hard_success", "hard_causality", "edit_share"]
    edits += ["mean_log_odds_change", "wrong_way"]
    effects = [
        f"{of}_{name}" for of in ("unrelated", "same_subject") for name in ("kl", "kept", "log_prob_change")
    ]
    assert list(outcome["curve"][0]) == edits + effects
    assert list(outcome["curve_single_layer"][0]) == edits + effects


def test_what_was_not_asked_for_is_not_written():
    outcome = RECORDS[0].methods["lrc"].to_dict()
    assert {"control_random_model", "curve_single_layer"}.isdisjoint(outcome)
    assert not any(name.startswith(("unrelated", "same_subject")) for name in outcome["curve"][0])
    asked = replace(RECORDS[0].methods["lrc"], asked_of_random_model=True).to_dict()
    assert asked["control_random_model"] is None
    assert MethodOutcome.from_dict(asked).asked_of_random_model


def test_fields_that_are_not_known_are_kept_at_every_level(record):
    data = record.to_dict()
    data["note"] = "by hand"
    data["methods"]["lrc"]["seconds_wall"] = 3.5
    data["methods"]["lrc"]["curve"][0]["entropy"] = [1, 2]
    again = RelationRecord.from_dict(data)
    assert again.to_dict() == data
    assert again.extra == {"note": "by hand"}
    assert again.methods["lrc"].curve[0].extra == {"entropy": [1, 2]}
    left_out = {"relation": "r", "seed": 1, "left_out": "too few", "n_asked": 3}
    assert LeftOutRelation.from_dict(left_out).to_dict() == left_out


def test_records_do_not_change():
    for thing, name in ((RECORDS[0], "seed"), (RECORDS[0].methods["lrc"], "accuracy"), (RECORDS[3], "left_out")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, 0)


def test_side_effects_in_part_are_refused():
    point = RECORDS[0].methods["lrc"].curve[0].to_dict() | {"unrelated_kl": 0.1}
    with pytest.raises(ValueError, match="point has no field 'unrelated_kept'"):
        CurvePoint.from_dict(point)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_prompts": 5}, r"record\['test_prompts'\] has 4 entries; it must have 5"),
        ({"object_tokens": (1, 1)}, r"record\['object_tokens'\] has 2 entries; it must have 4"),
        ({"n_edits": 3}, r"record\['edits'\] has 4 entries; it must have 3"),
        ({"methods": {}}, "record has no method or no prompt, but is not left out"),
        ({"betas": (0.1,)}, r"\['lrc'\]\['curve'\] has 2 entries; it must have 1"),
        ({"betas": (0.1, 0.3)}, r"\['curve'\]\[1\]\['beta'\] is 0.2, and the record's is 0.3"),
    ],
)
def test_parts_of_a_record_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RECORDS[0], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curve": ()}, r"\['curve'\] is empty, but there are 4 edits"),
        ({"predicted": ("x",)}, r"\['predicted'\] has 1 entries; it must have 4"),
        ({"accuracy_centred": 0.7}, r"\['accuracy_centred'\] is 0.7, but the share of its outcomes is 0.25"),
    ],
)
def test_an_outcome_that_does_not_fit_its_record_is_refused(change, message):
    one = RECORDS[0]
    methods = {**one.methods, "lrc": replace(one.methods["lrc"], **change)}
    with pytest.raises(ValueError, match=rf"record\['methods'\]\['lrc'\]{message}"):
        replace(one, methods=methods)
