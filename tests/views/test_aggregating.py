"""Means weigh relations equally, intervals are over relations, and choices are said."""

import numpy as np
import pandas as pd
import pytest
from made_up_sweep import sweep_frame

from lrc_tl.numerics.statistics import bootstrap_interval
from lrc_tl.views.aggregating import at_one_setting, averaged, described, near_best, over_relations, with_intervals
from lrc_tl.views.tidy import in_order, measured, tidy_frame

ROWS = pd.DataFrame(
    {
        "relation": ["a", "a", "a", "b"],
        "seed": [0, 1, 2, 0],
        "method": ["lrc"] * 4,
        "value": [0.0, 0.3, 0.6, 0.9],
    }
)


def test_a_relation_counts_once_whatever_the_number_of_its_seeds():
    (row,) = over_relations(ROWS, ["method"]).to_dict("records")
    assert (row["mean"], row["n_relations"]) == (pytest.approx((0.3 + 0.9) / 2), 2)
    (row,) = with_intervals(ROWS, ["method"]).to_dict("records")
    assert (row["low"], row["high"]) == bootstrap_interval([0.3, 0.9])
    (row,) = with_intervals(ROWS[ROWS["relation"] == "a"], ["method"]).to_dict("records")
    assert np.isnan(row["low"])


def test_near_the_best_is_what_it_is_not_surely_better_than():
    table = pd.DataFrame(
        {
            "best": [0.9, 0.8, 0.9, 0.8, 0.9, 0.85],
            "near": [0.92, 0.7, 0.91, 0.79, 0.8, 0.86],
            "far": [0.5, 0.4, 0.5, 0.4, 0.5, 0.4],
            "same": [0.9, 0.8, 0.9, 0.8, 0.9, 0.85],
        }
    )
    assert near_best(table, smaller_is_better=False) == (0, {1, 3})
    assert near_best(1 - table, smaller_is_better=True) == (0, {1, 3})
    assert near_best(table.head(1), smaller_is_better=False) == (1, set())
    fewer = table.assign(lucky=[1.0, *[np.nan] * 5])  # one relation alone
    assert near_best(fewer, smaller_is_better=False)[0] == 0
    apart = pd.DataFrame({"x": [0.9, np.nan], "y": [np.nan, 0.1]})
    assert near_best(apart, smaller_is_better=False) == (0, set())


def test_each_method_stands_at_its_own_best_setting_and_the_note_says_so():
    frame = tidy_frame(sweep_frame())
    rows, choice = at_one_setting(
        frame, metrics=["accuracy", "causality"], reading="plain", drawn=("subject_layer",)
    )
    for method in in_order(frame["method"]):
        accuracies = measured(frame[frame["method"] == method], "accuracy")
        cells = ["subject_layer", "object_layer", "rank"]
        best = over_relations(accuracies, cells).sort_values("mean").iloc[-1]
        kept = measured(rows[rows["method"] == method], "accuracy")
        for name in ("object_layer", "rank"):
            assert kept[name].drop_duplicates().tolist() == [best[name]]
        assert kept["subject_layer"].nunique() == 5
        assert measured(rows[rows["method"] == method], "causality")["beta"].nunique() == 1
    assert choice.startswith("Fixed at what is best on the facts shown: object layer ")
    assert "(one of 3; lrc)" in choice
    assert "beta 0.05 (one of 3)" in choice  # where the new object is said most, not where causality is largest


def test_the_setting_of_edits_is_left_alone_where_none_are_drawn():
    frame = tidy_frame(sweep_frame())
    _, choice = at_one_setting(frame, metrics=["accuracy"], reading="plain", drawn=())
    assert "beta" not in choice


def test_settings_and_averages_are_said_in_words():
    assert described("subject_layer", 4) == "subject layer 4"
    assert described("place", "from") == "edits at the subject layer and after"
    assert described("rank", pd.NA) == "no rank"
    assert averaged(ROWS) == "Mean over 2 relations, each with its mean over 3 seeds"
    assert averaged(ROWS[ROWS["seed"] == 0]) == "Mean over 2 relations"
    assert averaged(ROWS[ROWS["relation"] == "b"]) == "b"


def test_side_effects_alone_are_not_averaged_over_settings_either():
    frame = tidy_frame(sweep_frame())
    of_kl = frame[frame["metric"] == "kl_elsewhere"]
    rows, choice = at_one_setting(of_kl, metrics=["kl_elsewhere"], reading="plain", drawn=())
    for method in in_order(frame["method"]):
        assert not rows[rows["method"] == method].duplicated(["relation", "seed"]).any(), method
    assert set(rows["beta"]) == {0.01}  # where the KL is least
    assert "beta 0.01 (one of 3)" in choice
