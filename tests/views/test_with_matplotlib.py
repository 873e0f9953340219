"""Matplotlib draws what a figure holds; drawings for pages name no address and have the page's ink."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from drawn import axes_of, matplotlib_cells
from made_up_sweep import sweep_frame

from lrc_tl.views import plot_curves, plot_layer_grid, plot_layers, plot_relations
from lrc_tl.views.figure import Axis, Figure, HeatMap, Panel, Series
from lrc_tl.views.looks import SURFACES

pytest.importorskip("matplotlib")
FRAME = sweep_frame()
EVIL = '<script>alert(1)</script> & $\\frac{1}{0}$ "x" 日本\x1b[31m_'


def a_figure(name=EVIL, **options):
    series = Series(name=name, x=(0.0, 1.0), y=(0.5, 0.2), look=0, low=(0.4, math.nan), high=(0.6, math.nan))
    axis = Axis(label=name)
    panel = Panel(title=name, x=axis, y=axis, series=(series, Series(name="b", x=(0.0,), y=(1.0,), look=1)))
    return Figure(title=name, panels=(panel,), note=name, **options)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_ink_and_paper_are_those_of_the_theme(theme):
    from matplotlib.colors import to_hex

    drawn = plot_layers(FRAME, over="subject_layer").matplotlib(theme=theme)
    surface = SURFACES[theme]
    assert to_hex(drawn.get_facecolor()) == surface.paper
    texts = [*drawn.texts, *(axes.xaxis.label for axes in drawn.axes), *drawn.legends[0].get_texts()]
    assert {to_hex(text.get_color()) for text in texts} == {surface.ink}


@pytest.mark.parametrize("draw", [plot_layers, plot_layer_grid, plot_curves, plot_relations])
def test_a_drawing_for_a_page_is_one_element_without_addresses(draw):
    svg = draw(FRAME).svg(name="fig7")
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert "http" not in svg
    assert "xmlns" not in svg
    assert "currentColor" in svg
    assert "#010203" not in svg
    ElementTree.fromstring(svg)  # well-formed
    assert set(re.findall(r'(?:\sid="|href="#|url\(#)([^"-]*)', svg)) == {"fig7"}


@pytest.mark.filterwarnings("ignore:Glyph")  # fonts differ between machines
def test_names_are_text_in_a_drawing_and_never_formulas():
    drawn = a_figure().matplotlib()
    drawn.canvas.draw()  # a formula would fail here
    assert drawn.axes[0].get_title(loc="left") == " ".join(EVIL.replace("\x1b", "\\x1b").split())
    svg = a_figure().svg()
    assert "<script" not in svg
    assert "\x1b" not in svg
    tree = ElementTree.fromstring(svg)
    assert any("<script>alert(1)</script> & $\\frac{1}{0}$" in (node.text or "") for node in tree.iter())


def test_a_name_that_begins_with_an_underscore_stands_in_the_legend():
    drawn = a_figure(name="_hidden").matplotlib()
    assert [text.get_text().strip() for text in drawn.legends[0].get_texts()] == ["_hidden", "b"]


def test_empty_cells_stay_empty_and_many_cells_stay_small():
    names = tuple(map(str, range(60)))
    values = tuple(tuple(math.nan if x > y else x / 60 for x in range(60)) for y in range(60))
    heat_map = HeatMap(x_names=names, y_names=names, values=values, label="", limits=(0.0, 1.0))
    figure = Figure(title="", panels=(Panel(x=Axis(label=""), y=Axis(label=""), heat_map=heat_map),))
    assert np.isnan(matplotlib_cells(figure)[0, 1])
    assert len(axes_of(figure).get_xticks()) == 30
    assert len(figure.svg()) < 100_000


def test_marks_are_left_out_where_points_are_many():
    x = tuple(map(float, range(100)))
    series = Series(name="a", x=x, y=x, look=0)
    figure = Figure(title="", panels=(Panel(x=Axis(label=""), y=Axis(label=""), series=(series,)),))
    assert axes_of(figure).get_lines()[0].get_marker() == ""


def test_the_callers_settings_and_figures_are_left_alone():
    import matplotlib as mpl
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    plot_relations(FRAME).matplotlib()
    plot_relations(FRAME).svg()
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []
