"""Figures drawn by plotly: in notebooks, and as HTML files that hold plotly's script."""

import math
import textwrap
from typing import Any

from lrc_tl.views.figure import Axis, Figure, HeatMap, Panel, Series, Theme
from lrc_tl.views.looks import HEAT, QUIET, SURFACES, Surface, look_of
from lrc_tl.views.text import shown

_DPI = 96
_MOST_ACROSS = 4
"""Letters of names that stand beside each other below a heat map; longer ones stand upright."""
_ROW = 19
"""Height of a line of text, pixels."""
_GRID = "rgba(128, 128, 128, 0.22)"


def plotly_figure(figure: Figure, *, theme: Theme | None) -> Any:
    """The figure on white or dark paper, or on the page's own (None)."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    surface = SURFACES[theme]
    width = figure.width * _DPI
    title = _lines(figure.title, int(figure.width * 9))
    note = _lines(figure.note, int(figure.width * 14))
    legend = figure.legend if len(figure.legend) > 1 or len(figure.panels) > 1 else ()
    per_row = max(1, int(width / (70 + 8 * max((len(series.name) for series in legend), default=1))))
    legend_rows = math.ceil(len(legend) / per_row)
    top = 14 + 22 * len(title) + _ROW * legend_rows + 24
    names = max((_longest(panel) for panel in figure.panels[-figure.columns :]), default=0)
    upright = 7 * names if names > _MOST_ACROSS else 0
    bottom = 64 + 15 * len(note) + upright
    plot_height = figure.rows * figure.panel_size[1] * _DPI
    drawn = make_subplots(
        rows=figure.rows,
        cols=figure.columns,
        subplot_titles=[shown(panel.title) for panel in figure.panels],
        vertical_spacing=min(0.9, 0.72 / (figure.panel_size[1] * figure.rows)) if figure.rows > 1 else 0,
        horizontal_spacing=min(0.9, (1.15 if _has_heat_map(figure) else 0.85) / figure.width)
        if figure.columns > 1
        else 0,
    )
    named: set[str] = set()
    for place, panel in enumerate(figure.panels):
        at = {"row": place // figure.columns + 1, "col": place % figure.columns + 1}
        for trace in _traces(go, panel, named, figure, place):
            drawn.add_trace(trace, **at)
        drawn.update_xaxes(**_axis("x", panel.x, surface, panel.heat_map.x_names if panel.heat_map else ()), **at)
        drawn.update_yaxes(**_axis("y", panel.y, surface, panel.heat_map.y_names if panel.heat_map else ()), **at)
        if panel.heat_map is not None:
            if panel.heat_map.top_down:
                drawn.update_yaxes(autorange="reversed", **at)
            if panel.heat_map.best is not None:
                _frame(drawn, panel.heat_map.best, at)
    drawn.update_annotations(font={"size": 13, "color": surface.ink})
    height = top + plot_height + bottom
    drawn.update_layout(
        width=width,
        height=height,
        title={
            "text": "<br>".join(f"<b>{line}</b>" for line in title),
            "x": 0.01,
            "y": 1 - 10 / height,
            "yanchor": "top",
            "font": {"size": 15},
        },
        font={"color": surface.ink, "size": 12},
        paper_bgcolor=surface.paper or "rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        margin={"l": 64, "r": 24, "t": top, "b": bottom},
        showlegend=bool(legend),
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1 + 24 / plot_height,
            "yanchor": "bottom",
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
        hovermode="closest",
        template="none",
    )
    drawn.add_annotation(
        text="<br>".join(note),
        xref="paper",
        yref="paper",
        x=0,
        xshift=-54,
        y=-(52 + upright) / plot_height,
        xanchor="left",
        yanchor="top",
        align="left",
        showarrow=False,
        font={"size": 11, "color": surface.ink},
    )
    return drawn


def _lines(text: str, width: int) -> list[str]:
    """Lines of at most so many letters, escaped after they were cut."""
    return [shown(line) for line in textwrap.wrap(shown(text, html=False), width=width)]


def _longest(panel: Panel) -> int:
    """Letters of the longest name below a heat map."""
    return max(map(len, panel.heat_map.x_names), default=0) if panel.heat_map is not None else 0


def _has_heat_map(figure: Figure) -> bool:
    return any(panel.heat_map is not None for panel in figure.panels)


def _traces(go: Any, panel: Panel, named: set[str], figure: Figure, place: int) -> list[Any]:
    traces = []
    if panel.heat_map is not None:
        traces.append(_heat_map(go, panel.heat_map, figure, place))
    if panel.spans is not None:
        xs: list[float | None] = []
        ys: list[float | None] = []
        for low, high, y in zip(panel.spans.low, panel.spans.high, panel.spans.y, strict=True):
            xs += [low, high, None]
            ys += [y, y, None]
        line = {"color": QUIET, "width": 1.6}
        traces.append(
            go.Scatter(x=xs, y=ys, mode="lines", line=line, opacity=0.6, hoverinfo="skip", showlegend=False)
        )
    alpha = 0.2 if len(panel.series) <= 3 else 0.1
    for series in panel.series:
        if series.low and not series.quiet:
            traces += _band(go, series, alpha)
    for series in sorted(panel.series, key=lambda series: not series.quiet):
        traces.append(_series(go, series, first=series.name not in named))
        named.add(series.name)
    return traces


def _series(go: Any, series: Series, *, first: bool) -> Any:
    look = look_of(series.look)
    grey = series.quiet or series.kind == "ticks"
    colour = QUIET if grey else look.colour
    mode = {"line": "lines" if series.quiet or len(series.x) > 40 else "lines+markers"}.get(series.kind, "markers")
    symbol = "line-ns-open" if series.kind == "ticks" else look.plotly_symbol
    return go.Scatter(
        x=series.x,
        y=series.y,
        name=shown(series.name),
        legendgroup=shown(series.name),
        showlegend=first,
        mode=mode,
        line={
            "color": colour,
            "dash": "solid" if grey else look.plotly_dash,
            "width": 1.2 if series.quiet else 2.2,
        },
        marker={"color": colour, "symbol": symbol, "size": 8},
        # Names never stand in the template, where they could hold fields of it.
        customdata=[[shown(text)] for text in series.details] or None,
        hovertemplate="%{customdata[0]}<extra></extra>" if series.details else None,
    )


def _band(go: Any, series: Series, alpha: float) -> list[Any]:
    """Two lines without ink and what lies between them; NaN ends both."""
    look = look_of(series.look)
    red, green, blue = (int(look.colour[start : start + 2], 16) for start in (1, 3, 5))
    plain = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    group = {"legendgroup": shown(series.name)}
    return [
        go.Scatter(x=series.x, y=series.low, **plain, **group),
        go.Scatter(
            x=series.x,
            y=series.high,
            fill="tonexty",
            fillcolor=f"rgba({red}, {green}, {blue}, {alpha})",
            **plain,
            **group,
        ),
    ]


def _heat_map(go: Any, heat_map: HeatMap, figure: Figure, place: int) -> Any:
    columns, rows = range(len(heat_map.x_names)), range(len(heat_map.y_names))
    return go.Heatmap(
        x=list(columns),
        y=list(rows),
        z=heat_map.values,
        zmin=heat_map.limits[0],
        zmax=heat_map.limits[1],
        colorscale=HEAT,
        text=[[heat_map.text(row, column) for column in columns] for row in rows],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=[[shown(text) for text in row] for row in heat_map.details] or None,
        hovertemplate="%{customdata}<extra></extra>" if heat_map.details else None,
        hoverongaps=False,
        showscale=place == len(figure.panels) - 1,
        colorbar={"title": {"text": shown(heat_map.label), "side": "right"}, "thickness": 12, "outlinewidth": 0},
    )


def _frame(drawn: Any, best: tuple[int, int], at: dict[str, int]) -> None:
    row, column = best
    corners = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    for colour, width in (("#000000", 5), ("#ffffff", 2)):
        drawn.add_shape(type="rect", **corners, line={"color": colour, "width": width}, **at)


def _axis(way: str, axis: Axis, surface: Surface, names: tuple[str, ...]) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "title": {"text": shown(axis.label), "standoff": 8},
        "type": axis.scale,
        "color": surface.ink,
        "gridcolor": _GRID,
        "zeroline": False,
        "showgrid": not names,
        "ticks": "outside",
        "automargin": True,
    }
    if names:
        step = math.ceil(len(names) / 40)
        places = list(range(0, len(names), step))
        layout |= {"tickvals": places, "ticktext": [shown(names[place]) for place in places]}
        if way == "x" and max(map(len, names)) > _MOST_ACROSS:
            layout["tickangle"] = -90
    elif axis.ticks:
        labels = axis.tick_labels or tuple(f"{tick:g}" for tick in axis.ticks)
        layout |= {"tickvals": axis.ticks, "ticktext": [shown(label) for label in labels]}
    if axis.limits is not None:
        layout["range"] = [math.log10(end) for end in axis.limits] if axis.scale == "log" else axis.limits
    return layout
