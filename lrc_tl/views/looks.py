"""Colours, dashes and marks of series: told apart without colour, on white, on dark and in grey."""

from dataclasses import dataclass
from typing import NamedTuple


class Look(NamedTuple):
    """How a series is drawn, in the words of both backends."""

    colour: str
    dashes: tuple[float, ...]
    """Lengths of dash and gap in line widths; empty: a whole line."""
    plotly_dash: str
    marker: str
    """Matplotlib's word."""
    plotly_symbol: str


# Each colour has a contrast of at least 3 on white and on #111111; the nearest two differ by .09 in OKLab for
# normal sight and for protanopia, deuteranopia and tritanopia (Machado et al. 2009), found by random search.
LOOKS = (
    Look("#006daf", (), "solid", "o", "circle"),
    Look("#b71475", (4, 1.6), "dash", "s", "square"),
    Look("#879a23", (1, 1.4), "dot", "^", "triangle-up"),
    Look("#00a2ad", (6, 1.5, 1, 1.5), "dashdot", "D", "diamond"),
    Look("#965a00", (8, 2), "longdash", "v", "triangle-down"),
    Look("#b500ff", (8, 1.5, 1, 1.5, 1, 1.5), "longdashdot", "X", "x"),
)
MOST_LINES = len(LOOKS)
"""Lines that one panel may hold; more are drawn as small multiples."""
QUIET = "#8c8c8c"
"""Lines for comparison, spans and ticks."""
HEAT = "cividis"
"""The same on both backends: its lightness rises evenly, for colour-blind eyes and in grey."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What a figure is drawn on, and with what ink."""

    ink: str
    paper: str | None
    """None: the page's own."""


SURFACES = {
    "light": Surface(ink="#1a1a1a", paper="#ffffff"),
    "dark": Surface(ink="#e6e6e6", paper="#111111"),
    None: Surface(ink="#757575", paper=None),  # read on white (4.6 to 1) and on #111111 (4.1 to 1)
}


def look_of(place: int) -> Look:
    """The look of a series by its place, which begins again after the last."""
    return LOOKS[place % len(LOOKS)]
