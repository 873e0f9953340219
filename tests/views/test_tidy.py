"""Tidy rows are checked, typed and narrowed; a benchmark's are those of its records."""

import pandas as pd
import pytest
from made_up_sweep import sweep_frame
from test_protocol_result import RESULT

from lrc_tl.experiments.record import LeftOutRelation
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.views.tidy import COLUMNS, KEY, in_order, measured, metric_of, rows_where, tidy_frame, varies

FRAME = sweep_frame(relations=("b", "a"), subject_layers=[4, 6])


def test_layers_stay_whole_numbers_and_words_keep_their_order():
    frame = tidy_frame(FRAME)
    assert tuple(frame) == COLUMNS
    assert {str(frame[name].dtype) for name in ("seed", "subject_layer", "object_layer", "rank")} == {"Int64"}
    assert in_order(frame["relation"]) == ["b", "a"]
    assert in_order(frame["rank"]) == [16, 64, 128]
    pd.testing.assert_series_equal(frame["value"], FRAME["value"])
    assert tidy_frame(frame) is frame


def test_frames_without_columns_without_rows_or_with_repeated_keys_are_refused():
    with pytest.raises(LookupError, match="no column beta, n_facts; a tidy frame has relation, seed"):
        tidy_frame(FRAME.drop(columns=["beta", "n_facts"]))
    with pytest.raises(ValueError, match="no rows"):
        tidy_frame(FRAME.head(0))
    with pytest.raises(TypeError, match="a dict has no rows to draw"):
        tidy_frame({})
    with pytest.raises(ValueError, match=r"2 rows repeat the key of another, such as \{'relation': 'b'"):
        tidy_frame(pd.concat([FRAME, FRAME.head(2)], ignore_index=True))


def test_keys_that_differ_in_one_column_alone_are_different():
    row = FRAME.head(1)
    changed = {"relation": "c", "method": "x", "place": "from", "reading": "x", "metric": "x"}
    for name in KEY:
        other = row.assign(**{name: changed.get(name, 99)})
        assert len(tidy_frame(pd.concat([row, other], ignore_index=True))) == 2, name


def test_a_benchmark_has_the_numbers_of_its_records():
    frame = tidy_frame(RESULT)
    table = RESULT.to_frame().set_index(["method", "relation", "seed"])
    for reading, column in (
        ("plain", "accuracy"),
        ("centred", "accuracy_centred"),
        ("calibrated", "accuracy_calibrated"),
    ):
        rows = measured(frame, "accuracy", reading)
        assert len(rows) == len(table)
        for _, row in rows.iterrows():
            assert row["value"] == table.loc[(row["method"], row["relation"], row["seed"]), column]
    curves = RESULT.curve_frame().set_index(["method", "relation", "seed", "beta"])
    edits = measured(frame, "causality")
    assert len(edits) == len(curves)
    for _, row in edits.iterrows():
        assert row["value"] == curves.loc[(row["method"], row["relation"], row["seed"], row["beta"]), "causality"]
        assert row["count"] == pytest.approx(row["value"] * row["n"])


def test_where_narrows_and_keeps_what_has_no_such_setting():
    frame = tidy_frame(FRAME)
    at_rank = rows_where(frame, {"rank": 64, "relation": ["a"]})
    assert in_order(at_rank["relation"]) == ["a"]
    assert in_order(at_rank["rank"]) == [64]
    assert in_order(at_rank["method"]) == ["lrc", "lrc-map", "svm"]
    with pytest.raises(LookupError, match="where='value' is no column of the key"):
        rows_where(frame, {"value": 1})


def test_an_axis_varies_only_within_a_relation_and_seed():
    frame = tidy_frame(FRAME)
    assert (varies(frame, "subject_layer"), varies(frame, "rank"), varies(frame, "shots")) == (2, 3, 1)
    selected = FRAME[(FRAME["relation"] == "a") == (FRAME["subject_layer"] == 4)]
    assert varies(tidy_frame(selected), "subject_layer") == 1


def test_metrics_that_are_not_known_are_plain_numbers():
    assert metric_of("validation_accuracy").label == "accuracy, validation facts"
    assert metric_of("my_score") == ("my score", False, False, False)
    assert metric_of("kl_elsewhere").smaller_is_better


def test_repeated_keys_are_found_however_many_different_values_the_columns_have():
    rows = pd.concat([FRAME.head(1)] * 60, ignore_index=True)
    for name in KEY:
        words = rows[name].dtype == object and name not in (
            "rank",
            "ridge",
            "noise",
            "n_lre_prompts",
            "shots",
            "beta",
        )
        rows[name] = [f"{name}{number}" if words else number for number in range(60)]
    assert 60 ** len(KEY) > 2**62
    assert len(tidy_frame(rows)) == 60
    for changed in KEY[:3]:  # each alone tells rows apart
        other = rows.assign(**{changed: rows[changed].tolist()[1:] + rows[changed].tolist()[:1]})
        assert len(tidy_frame(pd.concat([rows, other], ignore_index=True))) == 120
    with pytest.raises(ValueError, match="1 rows repeat the key of another"):
        tidy_frame(pd.concat([rows, rows.tail(1)], ignore_index=True))


def test_a_metric_without_a_number_and_a_result_without_a_relation_are_refused():
    empty = tidy_frame(FRAME.assign(value=float("nan")))
    with pytest.raises(LookupError, match="accuracy has no value that is a number"):
        measured(empty, "accuracy")
    nothing = ProtocolResult(
        records=(LeftOutRelation(relation="a", seed=1, left_out="one-to-one"),), methods=("lrc",)
    )
    with pytest.raises(ValueError, match="holds no relation that was evaluated; nothing can be drawn"):
        tidy_frame(nothing)
