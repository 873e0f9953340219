"""Curves and pairs of methods draw the frame's numbers, on both backends."""

import numpy as np
import pandas as pd
import pytest
from drawn import axes_of, matplotlib_lines, plotly_lines
from made_up_sweep import sweep_frame

from lrc_tl.numerics.statistics import bootstrap_interval
from lrc_tl.views import plot_curves, plot_relations, plot_trade_off
from lrc_tl.views.method_figures import plot_curve_summaries

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")
FRAME = sweep_frame(subject_layers=[6], object_layers=[12], ranks=[64])


def mean(metric, method, **where):
    rows = FRAME[(FRAME["metric"] == metric) & (FRAME["method"] == method)]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows.groupby("relation")["value"].mean().mean()


def test_curves_go_over_beta_and_over_the_kl_on_both_backends():
    figure = plot_curves(FRAME, metric="hard_causality")
    for method in ("lrc", "lrc-map", "svm"):
        y = [mean("hard_causality", method, beta=beta) for beta in (0.01, 0.05, 0.2)]
        kl = [mean("kl_elsewhere", method, beta=beta) for beta in (0.01, 0.05, 0.2)]
        for read in (plotly_lines, matplotlib_lines):
            np.testing.assert_allclose(read(figure, 0)[method], np.column_stack([[0.01, 0.05, 0.2], y]))
            np.testing.assert_allclose(read(figure, 1)[method], np.column_stack([kl, y]))
    assert [panel.x.scale for panel in figure.panels] == ["log", "log"]


def test_the_trade_off_is_the_panel_over_the_kl():
    both, alone = plot_curves(FRAME), plot_trade_off(FRAME)
    assert alone.panels == both.panels[1:]


def test_more_than_six_methods_have_a_panel_each_with_the_first_in_grey():
    methods = ("lrc", "lrc-map", "lrc-final", "svm", "logistic", "lda", "mean")
    figure = plot_curves(sweep_frame(methods=methods, subject_layers=[6], object_layers=[12], ranks=[64]))
    assert [panel.title for panel in figure.panels] == list(methods)
    assert [[series.quiet for series in panel.series] for panel in figure.panels] == [
        [False],
        *[[True, False]] * 6,
    ]
    assert [series.name for series in figure.legend] == ["method of the panel", "lrc, for comparison"]
    assert "size of the edit" not in figure.title


def test_edits_without_a_second_beta_or_with_selected_betas_have_no_curve():
    with pytest.raises(LookupError, match="fewer than two positive betas"):
        plot_curves(FRAME[FRAME["beta"].isna() | (FRAME["beta"] == 0.05)])
    selected = FRAME[~((FRAME["relation"] == "food kind") & (FRAME["beta"] == 0.2))]
    with pytest.raises(LookupError, match="or not the same for all relations"):
        plot_curves(selected)
    with pytest.raises(LookupError, match="accuracy is no metric of edits; such are causality, hard_causality"):
        plot_curves(FRAME, metric="accuracy")
    with pytest.raises(LookupError, match="no metric 'kl_same_subject'"):
        plot_curves(FRAME, against=["kl_same_subject"])


def test_summaries_of_a_benchmark_are_drawn_as_they_are():
    def point(beta, value):
        return {
            "beta": beta,
            "causality": {"mean": value, "ci95": [value - 0.1, value + 0.1]},
            "unrelated_kl": {"mean": 2 * value},
        }

    curves = {
        "lrc": [point(0.2, 0.7), point(0.1, 0.5), point(-0.1, 0.0)],
        "svm": [point(0.1, 0.4), point(0.2, 0.6)],
    }
    figure = plot_curve_summaries(curves)
    np.testing.assert_allclose(plotly_lines(figure, 0)["lrc"], [[0.1, 0.5], [0.2, 0.7]])
    np.testing.assert_allclose(matplotlib_lines(figure, 1)["svm"], [[0.8, 0.4], [1.2, 0.6]])
    with pytest.raises(LookupError, match="no method has causality at two positive betas"):
        plot_curve_summaries({"lrc": [point(0.1, 0.5)]})


def test_every_relation_has_its_two_means_ordered_by_their_difference_on_both_backends():
    figure = plot_relations(FRAME)
    accuracies = FRAME[(FRAME["metric"] == "accuracy") & (FRAME["reading"] == "plain")]
    table = accuracies.pivot_table(index="relation", columns="method", values="value")[["lrc", "svm"]]
    table = table.loc[(table["lrc"] - table["svm"]).sort_values(kind="stable").index]
    assert [label.get_text() for label in axes_of(figure).get_yticklabels()] == list(table.index)
    for lines in (plotly_lines(figure), matplotlib_lines(figure)):
        for method in ("lrc", "svm"):
            np.testing.assert_allclose(lines[method], np.column_stack([table[method], range(3)]))
    low, high = bootstrap_interval((table["lrc"] - table["svm"]).tolist())
    assert f"95 % interval over relations {low:+.3f} to {high:+.3f}, 3 relations" in figure.note


def test_relations_without_one_of_the_methods_are_left_out():
    frame = FRAME[~((FRAME["relation"] == "food kind") & (FRAME["method"] == "svm"))]
    assert len(plot_relations(frame).panels[0].y.tick_labels) == 2
    only = FRAME[(FRAME["relation"] == "food kind") == (FRAME["method"] == "svm")]
    with pytest.raises(LookupError, match="no relation has accuracy of both lrc and svm"):
        plot_relations(only[only["method"] != "lrc-map"])
    with pytest.raises(LookupError, match="no method 'mean'; it has lrc, lrc-map, svm"):
        plot_relations(FRAME, second="mean")
    with pytest.raises(LookupError, match="one method, lrc"):
        plot_relations(FRAME[FRAME["method"] == "lrc"])


def test_missing_side_effects_leave_points_out_of_one_panel_only():
    frame = FRAME[~((FRAME["metric"] == "kl_elsewhere") & (FRAME["method"] == "svm"))]
    figure = plot_curves(frame)
    assert len(plotly_lines(figure, 0)["svm"]) == 3
    assert len(plotly_lines(figure, 1)["svm"]) == 0
    assert pd.notna(matplotlib_lines(figure, 1)["lrc"]).all()
