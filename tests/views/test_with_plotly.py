"""Plotly draws the same values as matplotlib, and reads no name as markup or as a field."""

import numpy as np
import pytest
from drawn import matplotlib_cells, matplotlib_lines, plotly_cells, plotly_lines, plotly_traces
from made_up_sweep import sweep_frame
from test_with_matplotlib import a_figure

from lrc_tl.views import plot_layer_grid
from lrc_tl.views.looks import SURFACES
from lrc_tl.views.plots import figures_of

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")
FRAME = sweep_frame()
MANY = sweep_frame(methods=("lrc", "lrc-map", "lrc-final", "svm", "logistic", "lda", "mean"))
FIGURES = {**figures_of(FRAME), **{f"many {name}": figure for name, figure in figures_of(MANY).items()}}


@pytest.mark.parametrize("name", FIGURES)
def test_both_backends_draw_the_same_values(name):
    figure = FIGURES[name]
    for place, panel in enumerate(figure.panels):
        if panel.heat_map is not None:
            np.testing.assert_array_equal(plotly_cells(figure, place), matplotlib_cells(figure, place))
            continue
        by_plotly, by_matplotlib = plotly_lines(figure, place), matplotlib_lines(figure, place)
        assert set(by_plotly) == {series.name for series in panel.series}
        for series, points in by_plotly.items():
            np.testing.assert_array_equal(points, by_matplotlib[series])


@pytest.mark.parametrize("name", FIGURES)
def test_no_panel_has_more_lines_than_can_be_told_apart(name):
    for panel in FIGURES[name].panels:
        looks = [series.look for series in panel.series if not series.quiet]
        assert len(set(looks)) == len(looks) <= 6


def test_names_are_escaped_and_never_stand_in_a_template():
    name = "<b>x</b> %{y} <a href='javascript:1'>"
    figure = a_figure(name)
    drawn = figure.plotly()
    texts = [drawn.layout.title.text, drawn.layout.xaxis.title.text, *(a.text for a in drawn.layout.annotations)]
    texts += [trace.name for trace in drawn.data if trace.name]
    assert all("<b>x" not in text and "<a" not in text for text in texts)
    assert any("&lt;b&gt;x" in text for text in texts)
    detailed = plot_layer_grid(FRAME[FRAME["relation"] == "food kind"].assign(relation=name))
    for trace in detailed.plotly().data:
        assert trace.hovertemplate in (None, "%{customdata}<extra></extra>")


def test_bands_end_where_there_is_no_interval():
    low, high = (trace for trace in plotly_traces(a_figure("a")) if trace.name is None)
    assert (low.y[0], high.y[0]) == (0.4, 0.6)
    assert np.isnan([low.y[1], high.y[1]]).all()


def test_the_best_cell_is_framed():
    heat_map = plot_layer_grid(FRAME, methods=["lrc"]).panels[0].heat_map
    shapes = plot_layer_grid(FRAME, methods=["lrc"]).plotly().layout.shapes
    assert {(shape.y0 + 0.5, shape.x0 + 0.5) for shape in shapes} == {heat_map.best}
    assert len(shapes) == 2


@pytest.mark.parametrize("theme", ["light", "dark", None])
def test_paper_is_that_of_the_theme_or_of_the_page(theme):
    layout = a_figure("a").plotly(theme=theme).layout
    assert layout.font.color == SURFACES[theme].ink
    assert layout.paper_bgcolor == (SURFACES[theme].paper or "rgba(0, 0, 0, 0)")
