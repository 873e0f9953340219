"""One description of a figure, which plotly and matplotlib draw alike: what is drawn, not how.

A figure is a drawing; its numbers come from a tidy frame and stand here once, for both.
"""

import importlib.util
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from lrc_tl.arguments.numbers_checked import numbers_checked

Theme: TypeAlias = Literal["light", "dark"]
FileKind: TypeAlias = Literal["png", "svg", "pdf", "html"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a panel."""

    label: str
    scale: Literal["linear", "log"] = "linear"
    ticks: tuple[float, ...] = ()
    """Where ticks stand; empty: wherever the backend likes."""
    tick_labels: tuple[str, ...] = ()
    """One for each tick; empty: the numbers."""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together: a line with a mark at each, points alone, or ticks.

    Raises:
        ValueError: its lists have different lengths.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    look: int
    """Place in `looks.LOOKS`: colour, dashes and mark. The same name has the same look in every panel."""
    kind: Literal["line", "points", "ticks"] = "line"
    low: tuple[float, ...] = ()
    """Lower end of the band around each y, NaN where there is none; empty: no band."""
    high: tuple[float, ...] = ()
    details: tuple[str, ...] = ()
    """What plotly shows of each point under the mouse."""
    quiet: bool = False
    """Drawn thin and grey, for comparison, behind the others."""

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), *(len(part) for part in (self.low, self.high, self.details) if part)}
        if len(lengths) > 1 or bool(self.low) != bool(self.high):
            raise ValueError(
                f"the lists of series {self.name!r} have {sorted(lengths)} entries; they must be equal"
            )


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Grey lines across, each from `low` to `high` at height `y`."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Values by row (y, from the bottom or from the top) and column (x); NaN where a cell is empty.

    Raises:
        ValueError: rows have different lengths, or other numbers than there are names.
    """

    x_names: tuple[str, ...]
    y_names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    label: str
    """Of the colours."""
    limits: tuple[float, float]
    """Values that the ends of the colour scale stand for."""
    details: tuple[tuple[str, ...], ...] = ()
    best: tuple[int, int] | None = None
    """Row and column of the best cell, which is framed."""
    near: frozenset[tuple[int, int]] = frozenset()
    """Row and column of cells that cannot be told from the best."""
    top_down: bool = False
    """Whether the first row stands at the top."""

    def __post_init__(self) -> None:
        if len(self.values) != len(self.y_names) or any(len(row) != len(self.x_names) for row in self.values):
            raise ValueError(
                f"a heat map of {len(self.y_names)} by {len(self.x_names)} names holds rows of "
                f"{sorted({len(row) for row in self.values})} values, {len(self.values)} in all"
            )

    def text(self, row: int, column: int) -> str:
        """What stands in a cell: its number where there are few cells, `*` in the best, `o` in those near it."""
        value = self.values[row][column]
        mark = "\u2605" if (row, column) == self.best else "\u25cb" if (row, column) in self.near else ""
        if math.isnan(value) or max(len(self.x_names), len(self.y_names)) > MOST_WITH_NUMBERS:
            return mark
        return f"{mark} {short_number(value)}".strip()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    x: Axis
    y: Axis
    title: str = ""
    series: tuple[Series, ...] = ()
    spans: Spans | None = None
    heat_map: HeatMap | None = None


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class Figure:
    """Panels beside and below each other, with one legend, a title and a note on what was measured.

    It shows itself in a notebook: by plotly where the front end can draw that, else as a vector drawing whose text
    takes the colour of the page. No network and no magic is needed.
    """

    title: str
    panels: tuple[Panel, ...]
    note: str = ""
    """How the numbers came about: over what they are means, what is fixed, what bands are."""
    columns: int = 1
    panel_size: tuple[float, float] = (6.2, 3.2)
    """Width and height of a panel in inches, at 96 pixels an inch on a screen."""
    shared_y: bool = False
    """Whether the panels of a row have one label of the y axis."""

    def plotly(self, *, theme: Theme | None = None) -> Any:
        """A `plotly.graph_objects.Figure`; without a theme its text can be read on light and on dark pages.

        Raises:
            ImportError: plotly is missing; the text says how to install it.
        """
        require("plotly")
        from lrc_tl.views.with_plotly import plotly_figure

        return plotly_figure(self, theme=theme)

    def matplotlib(self, *, theme: Theme = "light") -> Any:
        """A `matplotlib.figure.Figure`, not known to pyplot.

        Raises:
            ImportError: matplotlib is missing; the text says how to install it.
        """
        require("matplotlib")
        from lrc_tl.views.with_matplotlib import matplotlib_figure

        return matplotlib_figure(self, theme=theme)

    def svg(self, *, name: str = "figure") -> str:
        """An `<svg>` element for an HTML page, which names no address and has the page's colour of text.

        `name` begins every identifier in it, so that several can stand on one page.

        Raises:
            ImportError: matplotlib is missing; the text says how to install it.
        """
        require("matplotlib")
        from lrc_tl.views.with_matplotlib import inline_svg

        return inline_svg(self, name=name)

    def save(self, path: str | Path, *, kind: FileKind | None = None, theme: Theme = "light") -> Path:
        """Write PNG, SVG or PDF (matplotlib), or HTML (plotly, with its script inside: some 5 MB).

        The file appears whole or not at all.

        Args:
            kind: `"png"`, `"svg"`, `"pdf"` or `"html"`; by default what the name ends in.

        Raises:
            ValueError: the kind, or the end of the name, is none of these.
            ArtifactError: the folder is missing, or `path` is no file.
            ImportError: what draws it is missing; the text says how to install it.
        """
        from lrc_tl.storage.whole_file import whole_file

        target = Path(path)
        wanted = target.suffix.lower().removeprefix(".") if kind is None else kind
        if wanted not in get_args(FileKind):
            raise ValueError(
                f"{target.name} cannot be {wanted or 'without an ending'!r}; figures are written as "
                f"{', '.join(get_args(FileKind))}"
            )
        with whole_file(target) as partial:
            if wanted == "html":
                partial.write_text(self.plotly(theme=theme).to_html(include_plotlyjs=True), encoding="utf-8")
            else:
                drawn = self.matplotlib(theme=theme)
                from lrc_tl.views.with_matplotlib import write_file

                write_file(drawn, partial, kind=wanted)
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": self.title}
        if is_installed("matplotlib"):
            # On a narrow page it is scrolled rather than drawn too small to be read.
            full = f"{self.width * 96:.0f}px"
            style = f"max-width:{full};min-width:min({full},34em)"
            drawing = f'<div style="{style}">{self.svg(name=_unique())}</div>'
            bundle["text/html"] = f'<div style="overflow-x:auto">{drawing}</div>'
        if is_installed("plotly"):
            # A front end without plotly takes the drawing instead; none has to fetch anything.
            bundle["application/vnd.plotly.v1+json"] = json.loads(self.plotly().to_json())
        return bundle

    @property
    def width(self) -> float:
        """Inches."""
        return self.columns * self.panel_size[0]

    @property
    def rows(self) -> int:
        """How many panels stand below each other."""
        return math.ceil(len(self.panels) / self.columns)

    @property
    def legend(self) -> tuple[Series, ...]:
        """The series that the legend names: each name once; empty where the panels' titles say it all."""
        by_name: dict[str, Series] = {}
        for panel in self.panels:
            for series in panel.series:
                by_name.setdefault(series.name, series)
        return tuple(by_name.values())


MOST_WITH_NUMBERS = 14
"""Rows or columns of a heat map whose cells still hold numbers."""


def short_number(value: float) -> str:
    """Two decimals, without the zero before the point, as in papers."""
    text = f"{round(value, 2) + 0.0:.2f}"  # no minus before a zero
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """A logarithmic axis around positive values, with ticks at powers of ten, or closer where these are few."""
    finite = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = min(finite, default=0.1), max(finite, default=1.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    inside = tuple(tick for tick in ticks if low / 1.3 <= tick <= high * 1.3)
    return Axis(
        label=label,
        scale="log",
        ticks=inside,
        tick_labels=tuple(f"{tick:g}" for tick in inside),
        limits=(low / 1.15, high * 1.15),
    )


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require(package: Literal["plotly", "matplotlib"]) -> None:
    """Raise ImportError, which says what to install, where a package that draws is missing."""
    if not is_installed(package):
        raise ImportError(f"this figure needs {package}; install lrc-tl[plots]")


def _unique() -> str:
    """A name for a drawing in a notebook, whose cells share one page."""
    import secrets

    return f"lrc-{secrets.token_hex(4)}"
