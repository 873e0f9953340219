"""What a figure holds, how it is written, and how it shows itself."""

import json
import math
import re

import pytest
from made_up_sweep import sweep_frame

from lrc_tl.errors import ArtifactError
from lrc_tl.views import figure as figures
from lrc_tl.views import plot_layer_grid, plot_layers, plot_relations
from lrc_tl.views.figure import Axis, Figure, HeatMap, Panel, Series, log_axis, short_number

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")
FRAME = sweep_frame()


def test_series_and_heat_maps_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"series 'a' have \[1, 2\] entries"):
        Series(name="a", x=(1.0, 2.0), y=(1.0,), look=0)
    with pytest.raises(ValueError, match="must be equal"):
        Series(name="a", x=(1.0,), y=(1.0,), look=0, low=(0.5,))
    with pytest.raises(ValueError, match=r"2 by 1 names holds rows of \[1\] values, 1 in all"):
        HeatMap(x_names=("a",), y_names=("b", "c"), values=((1.0,),), label="", limits=(0.0, 1.0))


@pytest.mark.parametrize(
    ("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("html", b"<!doctype html>")]
)
def test_figures_are_written_in_four_kinds(tmp_path, kind, start):
    figure = plot_relations(FRAME)
    path = figure.save(tmp_path / f"f.{kind.upper()}", theme="dark")
    assert path.read_bytes()[:400].lstrip().startswith(start)
    assert figure.save(tmp_path / "without ending", kind=kind).stat().st_size > 1000


def test_the_same_figure_gives_the_same_file(tmp_path):
    figure = plot_layers(FRAME, over="subject_layer")
    for kind in ("png", "svg", "pdf"):
        first, second = (figure.save(tmp_path / f"{n}.{kind}").read_bytes() for n in (1, 2))
        assert first == second


def test_other_endings_and_missing_folders_are_refused(tmp_path):
    figure = plot_relations(FRAME)
    with pytest.raises(ValueError, match=r"f\.jpg cannot be 'jpg'; figures are written as png, svg, pdf, html"):
        figure.save(tmp_path / "f.jpg")
    with pytest.raises(ArtifactError, match="there is no folder"):
        figure.save(tmp_path / "no" / "f.png")
    assert list(tmp_path.iterdir()) == []


def test_an_html_file_fetches_nothing(tmp_path):
    text = plot_relations(FRAME).save(tmp_path / "f.html").read_text(encoding="utf-8")
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?(https?:)?//""", text)


def test_a_notebook_gets_plotly_where_it_can_draw_that_and_a_drawing_otherwise(monkeypatch):
    figure = plot_layer_grid(FRAME)
    bundle = figure._repr_mimebundle_()
    assert json.dumps(bundle["application/vnd.plotly.v1+json"], allow_nan=False)
    assert "<svg" in bundle["text/html"]
    assert len(bundle["text/html"]) < 100_000
    assert bundle["text/plain"] == figure.title
    monkeypatch.setattr(figures, "is_installed", lambda package: package == "matplotlib")
    assert set(figure._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_notebook_shows_a_figure_without_magic():
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(plot_layer_grid(FRAME))
    assert "<svg" in shown["text/html"]
    assert "application/vnd.plotly.v1+json" in shown


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "is_installed", lambda package: False)
    for draw in (plot_relations(FRAME).matplotlib, plot_relations(FRAME).plotly, plot_relations(FRAME).svg):
        with pytest.raises(ImportError, match=r"this figure needs \w+; install lrc-tl\[plots\]"):
            draw()
    with pytest.raises(ImportError, match="needs plotly"):
        plot_relations(FRAME).save(tmp_path / "f.html")


def test_the_legend_has_each_name_once():
    series = (Series(name="a", x=(0.0,), y=(0.0,), look=0), Series(name="b", x=(0.0,), y=(0.0,), look=1))
    panel = Panel(x=Axis(label=""), y=Axis(label=""), series=series)
    figure = Figure(title="", panels=(panel, panel, panel), columns=2)
    assert [entry.name for entry in figure.legend] == ["a", "b"]
    assert (figure.rows, figure.width) == (2, 2 * figure.panel_size[0])


def test_cells_hold_numbers_only_where_there_is_room():
    def grid(n):
        values = tuple((math.nan, *[0.25] * (n - 1)) for _ in range(n))
        names = tuple(map(str, range(n)))
        return HeatMap(
            x_names=names,
            y_names=names,
            values=values,
            label="",
            limits=(0.0, 1.0),
            best=(0, 1),
            near=frozenset({(1, 1)}),
        )

    few, many = grid(3), grid(20)
    assert [few.text(0, 0), few.text(0, 1), few.text(1, 1), few.text(2, 2)] == [
        "",
        "\u2605 .25",
        "\u25cb .25",
        ".25",
    ]
    assert [many.text(0, 1), many.text(1, 1), many.text(2, 2)] == ["\u2605", "\u25cb", ""]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.456, ".46"), (-0.456, "-.46"), (1.0, "1.00"), (10.046, "10.05"), (0.0, ".00"), (-0.001, ".00")],
)
def test_numbers_in_cells_are_as_in_papers(value, text):
    assert short_number(value) == text


def test_logarithmic_axes_have_plain_ticks_inside_their_ends():
    axis = log_axis("x", [0.004, 0, math.nan, 3.0])
    assert axis.tick_labels == ("0.01", "0.1", "1")
    assert log_axis("x", [0.5, 2.0]).tick_labels == ("0.5", "1", "2")
    assert axis.limits[0] < 0.004
    assert axis.limits[1] > 3.0
