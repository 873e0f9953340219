"""Tables, bars, maps, curves and short texts: what is drawn are the numbers given, and text is never markup."""

import base64
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from shown_objects import DRAWN, HOSTILE, seen

from lrc_tl.markup.brief import brief, brief_fields, some_of
from lrc_tl.markup.curves import curves, sparkline
from lrc_tl.markup.fragments import NEGATIVE, POSITIVE, STRONGEST, Html, colour, display, html_of, number
from lrc_tl.markup.tables import bar, bars, heat_map, pairs, table
from lrc_tl.markup.token_text import MOST_CELLS, rows_under_text, running_text


@pytest.mark.parametrize("text", [HOSTILE, "</td><td>", "<!--", "&lt;", "a\x1b[31mb", "\u2067x", "x\n y\t z"])
def test_text_is_seen_as_it_is_wherever_it_stands(text):
    visible = text.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u2067", "\\u2067")
    for markup in (
        display(text),
        display("x", table([text], [["a"]])),
        display("x", table(["a"], [[text]])),
        display("x", pairs({text: 1})),
        display("x", pairs({"a": text})),
        display("x", bars([(text, 1.0)])),
        display("x", heat_map([text], ["a"], [[1.0]], scale=1.0)),
        display("x", heat_map(["a"], [text], [[1.0]], scale=1.0)),
        display("x", curves([1.0, 2.0], {text: [1.0, 2.0]})),
    ):
        assert visible in seen(markup).whole
        assert not seen(markup).tags & {"script", "link"}
    tokens = seen(running_text([text], [1.0], scale=1.0)).whole
    under = seen(rows_under_text([text], {text: [1.0]}, scales={text: 1.0}))
    assert tokens.replace("↵", "").replace("⇥", "\t") == visible
    assert visible in under.cells


def test_a_display_loads_nothing_and_takes_its_text_colour_from_around_it():
    markup = display("x", table(["a"], [[1]]), curves([1.0, 2.0], {"a": [1.0, 2.0]}))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|<script|<link", markup)
    assert not re.search(r"[^-]color:(?!inherit)(?!rgb)", markup.replace("currentColor", ""))


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (1234567, "1234567"), (0.123456, "0.1235"), (math.nan, "nan"), (-math.inf, "-inf"), (None, "-")],
)
def test_numbers_have_four_digits_and_whole_ones_all(value, text):
    assert html_of(value) == text
    assert value is None or number(value) == text


def test_colours_grow_with_the_value_and_have_the_sign():
    assert colour(2.0, 2.0) == f"rgba({POSITIVE},{STRONGEST:.3f})"
    assert colour(-1.0, 2.0) == f"rgba({NEGATIVE},{STRONGEST / 2:.3f})"
    assert colour(9.0, 2.0) == colour(2.0, 2.0)
    for value, scale in ((math.nan, 1.0), (1.0, 0.0), (0.0, 1.0)):
        assert colour(value, scale).endswith(("0)", "0.000)"))


def test_a_long_table_is_shortened_and_says_by_how_much():
    shown = seen(table(["a", "b"], [[n, f"t{n}"] for n in range(100)], most=7))
    assert [cell for cell in shown.cells if cell.isdigit()] == [str(n) for n in range(7)]
    assert "… and 93 rows more" in shown.whole
    assert "more" not in seen(table(["a"], [[1]] * 7, most=7)).whole
    assert "… and 1 row more" in seen(table(["a"], [[1]] * 8, most=7)).whole


def test_a_bar_is_as_long_as_its_value():
    def width(markup):
        return float(re.search(r"width:([\d.]+)em", markup)[1])

    assert width(bar(0.5, 1.0)) == pytest.approx(width(bar(1.0, 1.0)) / 2)
    assert width(bar(-2.0, 4.0)) == pytest.approx(width(bar(1.0, 2.0)))
    assert width(bar(math.nan, 1.0)) == width(bar(1.0, 0.0)) == 0
    assert seen(bar(-2.0, 4.0)).whole.strip() == "-2"


def test_a_heat_map_holds_every_value_it_has_room_for():
    values = np.random.default_rng(0).uniform(-1, 1, (20, 30))
    shown = seen(heat_map([f"r{n}" for n in range(20)], [f"c{n}" for n in range(30)], values, scale=1.0))
    hovers = dict(hover.rsplit(": ", 1) for hover in shown.hovers)
    assert len(hovers) == 16 * 16
    for (i, j), value in np.ndenumerate(values[:16, :16]):
        assert float(hovers[f"r{i}, c{j}"]) == pytest.approx(value, abs=1e-6)
    assert "… and 4 rows more" in shown.whole
    assert "… and 14 columns more" in shown.whole


def drawn(markup):
    """The picture in the markup."""
    (source,) = re.findall(f'src="{re.escape(DRAWN)}([^"]*)"', markup)
    return base64.b64decode(source).decode()


def points_of(markup):
    (line,) = re.findall(r'points="([^"]*)"', drawn(markup))
    return np.array([[float(c) for c in point.split(",")] for point in line.split()])


def test_a_sparkline_goes_through_the_values():
    values = [1.0, 10.0, 1000.0, 100.0]
    points = points_of(sparkline(values, logarithmic=True))
    assert np.diff(points[:, 0]) == pytest.approx([220 / 3] * 3, abs=0.1)
    heights = (points[0, 1] - points[:, 1]) / (points[0, 1] - points[2, 1])
    assert heights == pytest.approx([0, 1 / 3, 1, 2 / 3], abs=0.01)
    assert seen(sparkline(values)).hovers == ["1: 1", "2: 10", "3: 1000", "4: 100"]
    assert len(points_of(sparkline([1.0, 0.0, math.nan, 5.0], logarithmic=True))) == 2
    assert sparkline([math.nan]) == ""
    assert 150 <= len(seen(sparkline(range(1, 5000))).hovers) <= 200


def test_curves_stand_over_their_numbers():
    over, rates = [0.001, 0.01, 0.1], [0.0, 0.5, math.inf]
    markup = curves(over, {"rate": rates}, marked=0.01, along="strength", top=1.0)
    points = points_of(markup)
    assert points[:, 0] == pytest.approx([0, 110, 220])
    assert points[:, 1] == pytest.approx([110, 55, 0])
    assert seen(markup).hovers == ["0.01", "rate at 0.001: 0", "rate at 0.01: 0.5", "rate at 0.1: inf"]
    assert '<line x1="110.0"' in drawn(markup)
    assert len(points_of(curves(over, {"rate": [0.1, None, math.nan]}))) == 1
    assert curves([], {"rate": []}) == ""


def test_a_picture_is_a_file_of_its_own_and_all_words_stand_outside_it():
    markup = curves([1.0, 2.0], {HOSTILE: [1.0, 2.0]}, along="b < c", marked=1.5)
    for picture in (drawn(markup), drawn(sparkline([1.0, 2.0]))):
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(picture).iter()}
        assert tags <= {"svg", "line", "polyline", "circle"}
    # JupyterLab removes <style> and <svg> from a notebook that is not trusted, and leaves their text.
    assert seen(markup).tags <= {"div", "span", "img"}
    assert "b < c" in seen(markup).whole


def test_markup_is_not_escaped_twice():
    assert html_of(Html("<b>x</b>")) == "<b>x</b>"
    assert html_of(html_of("<b>")) == "&lt;b&gt;"


def test_more_cells_than_the_bound_are_left_out_and_counted():
    rows = {f"c{n}": [1.0] * 4000 for n in range(10)}
    shown = seen(rows_under_text(["a"] * 4000, rows, scales=dict.fromkeys(rows, 1.0)))
    assert len(shown.hovers) == MOST_CELLS
    assert "… and 2000 tokens more" in shown.whole


@dataclass(frozen=True)
class Held:
    vector: object
    names: tuple[str, ...]
    size: float

    __repr__ = brief_fields


def test_repr_says_shapes_and_lengths():
    held = Held(vector=np.zeros((3, 4)), names=tuple(f"n{n}" for n in range(500)), size=0.5)
    assert repr(held) == (
        "Held(vector=<ndarray of shape (3, 4), float64>, names=('n0', 'n1', 'n2', 'n3', … 496 more), size=0.5)"
    )
    assert brief(pd.DataFrame({"a": [1, 2]})) == "<DataFrame of shape (2, 1)>"
    assert brief({n: np.ones(2) for n in range(9)}).endswith("float64>, … 5 more}")
    assert brief(("a",)) == "('a',)"
    assert brief([1, 2]) == "[1, 2]"
    assert brief("x" * 500) == repr("x" * 500)[:90] + "…"
    assert some_of(["a", "b"]) == "a, b"
    assert some_of([str(n) for n in range(10)], most=2) == "0, 1, … 8 more"
