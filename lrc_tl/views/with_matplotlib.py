"""Figures drawn by matplotlib: files for papers, and vector drawings for HTML pages."""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lrc_tl.views.figure import Axis, Figure, HeatMap, Panel, Series, Spans, Theme
from lrc_tl.views.looks import HEAT, QUIET, SURFACES, Surface, look_of
from lrc_tl.views.text import shown

_INK = "#010203"
"""Stands for the page's own colour of text until the drawing is text itself."""
_PAGE = Surface(ink=_INK, paper=None)
_SETTINGS: Mapping[str, Any] = {
    "text.parse_math": False,  # names may hold dollar signs
    "svg.fonttype": "none",  # text stays text
    "font.size": 9.5,
    "axes.unicode_minus": False,
    "path.simplify": False,
}
_LINE = 0.19
"""Height of a line of text, inches."""
_MOST_VECTOR_CELLS = 2500


def matplotlib_figure(figure: Figure, *, theme: Theme) -> Any:
    """The figure on white or dark paper."""
    return _drawn(figure, SURFACES[theme])


def write_file(drawn: Any, path: Path, *, kind: str) -> None:
    """Write a drawn figure as `png`, `svg` or `pdf`; the same figure gives the same bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with _settings({"svg.hashsalt": "lrc_tl"}):
        drawn.savefig(path, format=kind, metadata=undated)


def inline_svg(figure: Figure, *, name: str) -> str:
    """An `<svg>` element without addresses, whose ink is the page's `currentColor`."""
    buffer = io.StringIO()
    with _settings({"svg.hashsalt": "lrc_tl"}), warnings.catch_warnings():
        # The page's fonts draw the text, whatever matplotlib's own lack.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn = _drawn(figure, _PAGE)
        drawn.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    text = f'<svg viewBox="{box[1]}" role="img" aria-label="{shown(figure.title, quoted=True)}">{rest}'
    text = text.replace("xlink:href", "href")
    # Matplotlib names every part, some twice; what is not referred to needs no name.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(_INK, "currentColor", text, flags=re.IGNORECASE)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    return text.strip()


_METADATA = ("Date", "Creator", "Format", "Type")


@contextmanager
def _settings(more: dict[str, Any]) -> Iterator[None]:
    import matplotlib as mpl

    settings: dict[Any, Any] = {**_SETTINGS, **more}
    with mpl.rc_context(settings):
        yield


def _drawn(figure: Figure, surface: Surface) -> Any:
    # Not pyplot: a Figure of one's own leaves the caller's backend and open figures alone.
    from matplotlib.figure import Figure as Canvas

    with _settings({}):
        width = figure.width
        letters = int(width * 14.5)
        note = textwrap.wrap(shown(figure.note, html=False), width=letters)
        title = textwrap.wrap(shown(figure.title, html=False), width=int(width * 11))
        names, columns = _legend_columns(figure, width)
        legend_rows = math.ceil(len(names) / columns) if names else 0
        top = 0.06 + 1.25 * _LINE * len(title) + 1.15 * _LINE * legend_rows
        bottom = 0.08 + 0.92 * _LINE * len(note)
        height = top + bottom + figure.rows * figure.panel_size[1]
        canvas = Canvas(figsize=(width, height), dpi=130)
        canvas.set_layout_engine("constrained", rect=(0, bottom / height, 1, 1 - (top + bottom) / height))
        canvas.patch.set_facecolor(surface.paper or "none")
        canvas.patch.set_edgecolor("none")
        grid = canvas.subplots(figure.rows, figure.columns, squeeze=False)
        for place, panel in enumerate(figure.panels):
            _draw_panel(grid.flat[place], panel, surface, n_lines=len(panel.series))
        for empty in grid.flat[len(figure.panels) :]:
            empty.remove()
        edge = 0.08 / width
        ink: dict[str, Any] = {"color": surface.ink, "ha": "left", "va": "top"}
        canvas.text(edge, 1 - 0.06 / height, "\n".join(title), fontsize=11.5, fontweight="bold", **ink)
        if names:
            handles = [_handle(series, surface) for series in names]
            canvas.legend(
                handles,
                [shown(series.name, html=False) for series in names],
                loc="upper left",
                bbox_to_anchor=(0, 1 - (0.03 + 1.25 * _LINE * len(title)) / height),
                ncols=columns,
                frameon=False,
                labelcolor=surface.ink,
                handlelength=3.2,
                columnspacing=1.4,
                borderaxespad=0.1,
            )
        canvas.text(edge, bottom / height, "\n".join(note), fontsize=8.5, alpha=0.8, **ink)
    return canvas


def _legend_columns(figure: Figure, width: float) -> tuple[tuple[Series, ...], int]:
    names = figure.legend
    if not names or (len(names) == 1 and len(figure.panels) == 1):
        return (), 1
    longest = max(len(series.name) for series in names)
    return names, max(1, min(len(names), int(width / (0.75 + 0.078 * longest))))


def _draw_panel(axes: Any, panel: Panel, surface: Surface, *, n_lines: int) -> None:
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(surface.ink)
        axes.spines[side].set_alpha(0.6)
    axes.tick_params(colors=surface.ink, labelcolor=surface.ink, labelsize=8.5)
    axes.set_title(shown(panel.title, html=False), loc="left", fontsize=10, color=surface.ink)
    if panel.heat_map is not None:
        _draw_heat_map(axes, panel.heat_map, surface)
        axes.set_xlabel(panel.x.label, color=surface.ink)
        axes.set_ylabel(panel.y.label, color=surface.ink)
        return
    axes.grid(color=surface.ink, alpha=0.13, linewidth=0.7)
    axes.set_axisbelow(True)
    for way, axis in (("x", panel.x), ("y", panel.y)):
        _set_axis(axes, way, axis, surface)
    if panel.spans is not None:
        _draw_spans(axes, panel.spans)
    for series in panel.series:
        _draw_series(axes, series, alpha=0.2 if n_lines <= 3 else 0.1)


def _set_axis(axes: Any, way: str, axis: Axis, surface: Surface) -> None:
    getattr(axes, f"set_{way}label")(shown(axis.label, html=False), color=surface.ink)
    if axis.scale == "log":
        getattr(axes, f"set_{way}scale")("log")
        # Plain numbers: the usual powers of ten are formulas, which are switched off.
        getattr(axes, f"{way}axis").set_major_formatter(lambda value, _: f"{value:g}")
        getattr(axes, f"{way}axis").set_minor_formatter(lambda value, _: "")
    if axis.ticks:
        labels = [shown(label, html=False) for label in axis.tick_labels] or None
        getattr(axes, f"set_{way}ticks")(axis.ticks, labels)
        getattr(axes, f"{way}axis").minorticks_off()
    if axis.limits is not None:
        getattr(axes, f"set_{way}lim")(*axis.limits)


def _draw_spans(axes: Any, spans: Spans) -> None:
    axes.hlines(spans.y, spans.low, spans.high, color=QUIET, alpha=0.6, linewidth=1.6, zorder=1)


def _draw_series(axes: Any, series: Series, *, alpha: float) -> None:
    look = look_of(series.look)
    name = series.name
    if series.kind == "ticks":
        axes.scatter(series.x, series.y, color=QUIET, marker="|", s=70, label=name, zorder=1.5)
        return
    if series.kind == "points":
        axes.scatter(series.x, series.y, color=look.colour, marker=look.marker, s=34, label=name, zorder=3)
        return
    if series.quiet:
        axes.plot(series.x, series.y, color=QUIET, linewidth=1.2, label=name, zorder=1)
        return
    if series.low:
        axes.fill_between(
            series.x, series.low, series.high, color=look.colour, alpha=alpha, linewidth=0, zorder=1.5
        )
    axes.plot(series.x, series.y, label=name, zorder=2, **_line_style(series))


def _line_style(series: Series) -> dict[str, Any]:
    look = look_of(series.look)
    few = len(series.x) <= 40
    return {
        "color": look.colour,
        "linestyle": (0, look.dashes) if look.dashes else "-",
        "linewidth": 1.8,
        "marker": look.marker if few else "",
        "markersize": 5,
    }


def _handle(series: Series, surface: Surface) -> Any:
    from matplotlib.lines import Line2D

    if series.quiet:
        return Line2D([], [], color=QUIET, linewidth=1.2)
    if series.kind == "ticks":
        return Line2D([], [], color=QUIET, linestyle="", marker="|", markersize=9)
    style = _line_style(series)
    return Line2D([], [], **(style | {"linestyle": ""} if series.kind == "points" else style))


def _draw_heat_map(axes: Any, heat_map: HeatMap, surface: Surface) -> None:
    import numpy as np
    from matplotlib.patches import Rectangle

    values = np.ma.masked_invalid(np.array(heat_map.values, dtype=float))
    low, high = heat_map.limits
    mesh = axes.pcolormesh(
        np.arange(values.shape[1] + 1) - 0.5,
        np.arange(values.shape[0] + 1) - 0.5,
        values,
        cmap=HEAT,
        vmin=low,
        vmax=high,
        rasterized=values.size > _MOST_VECTOR_CELLS,
        linewidth=0,
    )
    for way, names in (("x", heat_map.x_names), ("y", heat_map.y_names)):
        step = math.ceil(len(names) / 40)
        labels = [shown(name, html=False) for name in names[::step]]
        getattr(axes, f"set_{way}ticks")(range(0, len(names), step), labels)
    if max(map(len, heat_map.x_names)) > 4:
        axes.tick_params(axis="x", labelrotation=90)
    if heat_map.top_down:
        axes.invert_yaxis()
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            text = heat_map.text(row, column)
            if not text:
                continue
            share = (heat_map.values[row][column] - low) / (high - low)
            size = 7.5 if len(heat_map.x_names) <= 14 else 6
            colour = "#ffffff" if share < 0.5 else "#000000"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    if heat_map.best is not None:
        row, column = heat_map.best
        corner = (column - 0.5, row - 0.5)
        for colour, width in (("#000000", 4.0), ("#ffffff", 1.8)):
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=4))
    bar = axes.figure.colorbar(mesh, ax=axes, fraction=0.06, pad=0.02)
    bar.ax.tick_params(colors=surface.ink, labelsize=8)
    bar.outline.set_visible(False)
    bar.set_label(shown(heat_map.label, html=False), color=surface.ink, fontsize=8.5)
