"""Heat maps and lines over layers and ranks draw the frame's numbers, on both backends."""

import numpy as np
import pandas as pd
import pytest
from drawn import bands, matplotlib_cells, matplotlib_lines, plotly_cells, plotly_lines
from made_up_sweep import sweep_frame

from lrc_tl.numerics.statistics import bootstrap_interval
from lrc_tl.views import plot_layer_grid, plot_layers, plot_ranks

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")
FRAME = sweep_frame()


def relation_means(metric="accuracy", reading="plain", **where):
    """One mean over seeds per relation, by loops over the rows."""
    wanted = {"metric": metric, "reading": reading, **where}
    values = {}
    for row in FRAME.to_dict("records"):
        if all(pd.isna(row[name]) if value is None else row[name] == value for name, value in wanted.items()):
            values.setdefault(row["relation"], {}).setdefault(row["seed"], []).append(row["value"])
    means = []
    for by_seed in values.values():
        assert all(len(found) == 1 for found in by_seed.values()), "the setting is not unique"
        means.append(np.mean([found[0] for found in by_seed.values()]))
    return means


def test_a_heat_map_has_the_mean_over_relations_in_every_cell_on_both_backends():
    figure = plot_layer_grid(FRAME, methods=["lrc"], where={"rank": 64})
    expected = np.array(
        [
            [np.mean(relation_means(method="lrc", subject_layer=s, object_layer=o, rank=64)) for o in (10, 12, 14)]
            for s in range(4, 9)
        ]
    )
    np.testing.assert_allclose(plotly_cells(figure), expected)
    np.testing.assert_allclose(matplotlib_cells(figure), expected)
    best = figure.panels[0].heat_map.best
    assert best == np.unravel_index(expected.argmax(), expected.shape)
    assert figure.panels[0].y.label == "subject layer"


def test_a_cell_is_marked_where_the_interval_of_its_difference_from_the_best_holds_0():
    heat_map = plot_layer_grid(FRAME, methods=["lrc"], where={"rank": 64}).panels[0].heat_map
    best_at = (range(4, 9)[heat_map.best[0]], (10, 12, 14)[heat_map.best[1]])
    best = relation_means(method="lrc", subject_layer=best_at[0], object_layer=best_at[1], rank=64)
    marked = set()
    for row, subject in enumerate(range(4, 9)):
        for column, object_ in enumerate((10, 12, 14)):
            values = relation_means(method="lrc", subject_layer=subject, object_layer=object_, rank=64)
            low, high = bootstrap_interval([a - b for a, b in zip(values, best, strict=True)], n_resamples=1999)
            if (row, column) != heat_map.best and low <= 0 <= high:
                marked.add((row, column))
    assert heat_map.near == marked
    assert 0 < len(marked) < 14
    assert heat_map.text(*heat_map.best).startswith("\u2605")
    assert all(heat_map.text(*place).startswith("\u25cb") for place in marked)


def test_the_best_cell_of_a_kl_is_the_smallest():
    figure = plot_layer_grid(FRAME, metric="kl_elsewhere", where={"beta": 0.2, "rank": 64})
    assert "smallest" not in figure.note
    frame = FRAME.assign(value=FRAME["value"].where(FRAME["subject_layer"] != 5, FRAME["value"] / 2))
    heat_map = plot_layer_grid(frame, metric="kl_elsewhere", where={"beta": 0.2, "rank": 64}).panels[0].heat_map
    assert heat_map.best[0] == 1


def test_no_axis_that_is_not_drawn_is_averaged_over():
    figure = plot_layer_grid(FRAME, methods=["lrc"])
    drawn = plotly_cells(figure)
    by_rank = {
        rank: plotly_cells(plot_layer_grid(FRAME, methods=["lrc"], where={"rank": rank})) for rank in (16, 64, 128)
    }
    best = max(by_rank, key=lambda rank: by_rank[rank].max())
    np.testing.assert_array_equal(drawn, by_rank[best])
    assert f"best on the facts shown: rank {best} (one of 3)" in figure.note


def test_a_setting_is_chosen_on_validation_facts_where_there_are_any():
    frame = sweep_frame(validation=True)
    # On validation facts rank 16 is made the best; on test facts it is not.
    chosen = (frame["metric"] == "validation_accuracy") & (frame["rank"] == 16)
    frame.loc[chosen, "value"] = 0.99
    figure = plot_layer_grid(frame, methods=["lrc"])
    assert "best on validation facts: rank 16 (one of 3)" in figure.note
    np.testing.assert_array_equal(
        plotly_cells(figure), plotly_cells(plot_layer_grid(frame, methods=["lrc"], where={"rank": 16}))
    )


def test_lines_over_layers_have_means_and_bands_over_relations_on_both_backends():
    where = {"object_layer": 12, "rank": 64, "beta": 0.05}
    figure = plot_layers(FRAME, over="subject_layer", methods=["lrc", "svm"], where=where)
    layers = list(range(4, 9))
    for place, (metric, extra) in enumerate([("accuracy", {}), ("causality", {"reading": None, "beta": 0.05})]):
        values = [
            relation_means(
                metric,
                **{"reading": "plain", **extra},
                method="lrc",
                subject_layer=layer,
                object_layer=12,
                rank=64,
            )
            for layer in layers
        ]
        expected = np.column_stack([layers, [np.mean(found) for found in values]])
        for lines in (plotly_lines(figure, place), matplotlib_lines(figure, place)):
            assert list(lines) == ["lrc", "svm"]
            np.testing.assert_allclose(lines["lrc"], expected)
        intervals = [bootstrap_interval(found) for found in values]
        corners = {(layer, end) for layer, interval in zip(layers, intervals, strict=True) for end in interval}
        drawn = bands(figure, place)[0]
        assert all(min(np.hypot(x - a, y - b) for a, b in drawn) < 1e-9 for x, y in corners)


def test_a_method_alone_has_its_metrics_in_one_panel():
    figure = plot_layers(FRAME, over="subject_layer", methods=["lrc"])
    assert list(matplotlib_lines(figure)) == ["accuracy", "causality"]
    assert len(figure.panels) == 1


def test_more_than_six_methods_have_a_panel_each():
    names = ("lrc", "lrc-map", "lrc-final", "svm", "logistic", "lda", "mean")
    figure = plot_layers(sweep_frame(methods=names), over="subject_layer")
    assert [panel.title for panel in figure.panels] == list(names)
    assert all(len(panel.series) <= 2 for panel in figure.panels)


def test_ranks_leave_out_methods_without_a_rank_and_say_so():
    figure = plot_ranks(FRAME)
    lines = matplotlib_lines(figure)
    assert lines["accuracy"][:, 0].tolist() == [16, 64, 128]
    assert "Not swept over rank: lrc-map, svm" in figure.note
    assert figure.panels[0].x.scale == "log"


def test_what_a_sweep_lacks_is_refused_with_what_it_has():
    one_layer = FRAME[FRAME["subject_layer"] == 6]
    with pytest.raises(LookupError, match="no method has several subject layers and several object layers"):
        plot_layer_grid(one_layer)
    with pytest.raises(LookupError, match="fewer than two values of subject_layer"):
        plot_layers(one_layer, over="subject_layer")
    with pytest.raises(LookupError, match="no metric 'acuracy'; it has accuracy, causality, hard_causality"):
        plot_layers(FRAME, metrics=["acuracy"])
    with pytest.raises(LookupError, match="no reading 'calibrated'; it has plain, centred"):
        plot_layer_grid(FRAME, reading="calibrated")
    with pytest.raises(LookupError, match="no row has rank 65; there are 16, 64, 128"):
        plot_layer_grid(FRAME, where={"rank": 65})
    with pytest.raises(LookupError, match="no row has method 'svn'; there are lrc, lrc-map, svm"):
        plot_layers(FRAME, methods=["svn"])


def test_cells_with_fewer_relations_are_no_best_cells_and_the_note_tells_of_them():
    frame = FRAME[(FRAME["relation"] == "food kind") | (FRAME["subject_layer"] != 7)]
    figure = plot_layer_grid(frame, methods=["lrc"], where={"rank": 64})
    assert figure.panels[0].heat_map.best[0] != 3
    assert "Cells hold 1 to 3 relations; the best is one with the most." in figure.note


def test_one_relation_has_no_bands_and_marks_only_what_is_equal():
    figure = plot_layers(FRAME, over="subject_layer", methods=["lrc"], where={"relation": "food kind"})
    assert figure.note.startswith("food kind, mean over 2 seeds.")
    assert np.isnan(figure.panels[0].series[0].low).all()
    assert "Bands" not in figure.note
    assert "Bands" in plot_layers(FRAME, over="subject_layer", methods=["lrc"]).note
    figure.matplotlib()
    grid = plot_layer_grid(FRAME, where={"relation": "food kind", "rank": 64})
    assert ("\u25cb" in grid.note) == any(panel.heat_map.near for panel in grid.panels)
    assert "\u25cb" in plot_layer_grid(FRAME, methods=["lrc"], where={"rank": 64}).note
    heat_map = grid.panels[0].heat_map
    best = heat_map.values[heat_map.best[0]][heat_map.best[1]]
    assert all(heat_map.values[row][column] == best for row, column in heat_map.near)
