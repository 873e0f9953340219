"""Figures of what layers and ranks do: the heat map of layers by layers, and lines over one axis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pandas as pd

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.markup.fragments import counted
from lrc_tl.views.aggregating import (
    WORDS,
    at_one_setting,
    averaged,
    near_best,
    over_relations,
    over_seeds,
    with_intervals,
)
from lrc_tl.views.figure import Axis, Figure, HeatMap, Panel, Series, short_number
from lrc_tl.views.looks import MOST_LINES
from lrc_tl.views.tidy import in_order, measured, metric_of, rows_where, tidy_frame, varies

Swept: TypeAlias = Literal["subject_layer", "object_layer", "rank"]
SHARE = (-0.03, 1.03)
_LINES = ("accuracy", "causality")
"""Of the paper's figure 7."""


def plot_layer_grid(
    result: Any,
    *,
    metric: str = "accuracy",
    reading: str = "plain",
    methods: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """A heat map of subject by object layers for each method that has both, with the best cell framed.

    Cells that cannot be told from the best are marked: the 95 % bootstrap interval over relations of their
    difference from it, relation by relation, holds 0. What is not drawn (rank, beta, ...) is fixed by `where`
    (`{"rank": 64}`), else at its best value, which the note names.

    Args:
        result: a sweep's result, a `ProtocolResult`, or a tidy frame.

    Raises:
        LookupError: no method has two layers of each kind, or there is no such metric, reading or method.
    """
    frame = _asked_rows(result, methods, where)
    drawn = ("subject_layer", "object_layer")
    of_metric = measured(frame, metric, reading)
    swept = [
        method
        for method in in_order(of_metric["method"])
        if all(varies(of_metric[of_metric["method"] == method], axis) > 1 for axis in drawn)
    ]
    if not swept:
        raise LookupError(
            "no method has several subject layers and several object layers; run a sweep over both, or draw lines "
            "with plot_layers"
        )
    frame, choice = at_one_setting(
        frame[frame["method"].isin(swept)], metrics=[metric], reading=reading, drawn=drawn
    )
    rows = measured(frame, metric, reading)
    by_method = {method: rows[rows["method"] == method] for method in swept}
    limits = _colour_limits(rows, metric)
    panels = [_grid_panel(of_method, metric, method, limits) for method, of_method in by_method.items()]
    columns = min(len(panels), 3)
    widest = max(len(panel.heat_map.x_names) for panel in panels if panel.heat_map)
    tallest = max(len(panel.heat_map.y_names) for panel in panels if panel.heat_map)
    marks = "\u2605 and frame: the best cell."
    if any(panel.heat_map.near for panel in panels if panel.heat_map):
        marks += " \u25cb: cells whose difference from it has a 95 % interval that holds 0."
    return Figure(
        title=_titled(metric, reading, "subject by object layer"),
        panels=tuple(panels),
        note=joined(averaged(rows), _uneven(rows), choice, marks),
        columns=columns,
        panel_size=(max(3.4, min(8.0, 1.7 + 0.44 * widest)), max(2.6, min(8.0, 1.1 + 0.32 * tallest))),
    )


def _grid_panel(rows: pd.DataFrame, metric: str, method: str, limits: tuple[float, float]) -> Panel:
    by_relation = over_seeds(rows, ["subject_layer", "object_layer"])
    table = by_relation.pivot_table(
        index="relation", columns=["subject_layer", "object_layer"], values="value", observed=True
    )
    best, near = near_best(table, smaller_is_better=metric_of(metric).smaller_is_better)
    subjects, objects = in_order(rows["subject_layer"]), in_order(rows["object_layer"])
    places = [(subjects.index(subject), objects.index(object_)) for subject, object_ in table.columns]
    values = [[math.nan] * len(objects) for _ in subjects]
    details = [[""] * len(objects) for _ in subjects]
    for place, (row, column) in enumerate(places):
        of_cell = table.iloc[:, place].dropna()
        values[row][column] = float(of_cell.mean())
        details[row][column] = (
            f"subject layer {subjects[row]}, object layer {objects[column]}: {of_cell.mean():.3f}, "
            f"{counted(len(of_cell), 'relation')}"
        )
    return Panel(
        title=method,
        x=Axis(label="object layer"),
        y=Axis(label="subject layer"),
        heat_map=HeatMap(
            x_names=tuple(map(str, objects)),
            y_names=tuple(map(str, subjects)),
            values=tuple(map(tuple, values)),
            label=metric_of(metric).label,
            limits=limits,
            details=tuple(map(tuple, details)),
            best=places[best],
            near=frozenset(places[place] for place in near),
        ),
    )


def _uneven(rows: pd.DataFrame) -> str:
    """That cells are means over other numbers of relations, where they are."""
    counts = over_relations(rows, ["method", "subject_layer", "object_layer"])["n_relations"]
    if counts.nunique() == 1:
        return ""
    return f"Cells hold {counts.min()} to {counts.max()} relations; the best is one with the most"


def _colour_limits(rows: pd.DataFrame, metric: str) -> tuple[float, float]:
    """From the least to the greatest mean: one scale for all panels."""
    by = ["method", "subject_layer", "object_layer"]
    means = over_seeds(rows, by).groupby(by, observed=True)["value"].mean()
    low, high = float(means.min()), float(means.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def plot_layers(
    result: Any,
    *,
    over: Swept | None = None,
    metrics: Sequence[str] | None = None,
    reading: str = "plain",
    methods: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """Lines over layers, with 95 % bands (arXiv:2311.08968, figure 7): accuracy, and causality where it is there.

    One panel for each metric with a line for each method; one panel for a single method; and one for each method
    where there are more than six. What is not drawn is fixed as in `plot_layer_grid`.

    Args:
        result: a sweep's result, a `ProtocolResult`, or a tidy frame.
        over: by default whichever of the two layers has more values.

    Raises:
        LookupError: no method was swept over this, or there is no such metric, reading or method.
    """
    frame = _asked_rows(result, methods, where)
    layers: tuple[Swept, Swept] = ("subject_layer", "object_layer")
    axis = max(layers, key=lambda name: varies(frame, name)) if over is None else over
    return _lines(frame, over=axis, metrics=metrics, reading=reading)


def plot_ranks(
    result: Any,
    *,
    metrics: Sequence[str] | None = None,
    reading: str = "plain",
    methods: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """Lines over the rank of the inverse, with 95 % bands (arXiv:2311.08968, figure 6); else as `plot_layers`.

    Raises:
        LookupError: no method was swept over ranks, or there is no such metric, reading or method.
    """
    return _lines(_asked_rows(result, methods, where), over="rank", metrics=metrics, reading=reading)


def _lines(frame: pd.DataFrame, *, over: Swept, metrics: Sequence[str] | None, reading: str) -> Figure:
    available = set(frame["metric"])
    names = (
        tuple(name for name in _LINES if name in available)
        if metrics is None
        else as_tuple(metrics, "metrics", str)
    )
    if not names:
        raise LookupError("the result has neither accuracy nor causality; name the metrics to draw")
    for name in names:
        measured(frame, name, reading)
    every = in_order(frame["method"])
    swept = [method for method in every if varies(frame[frame["method"] == method], over) > 1]
    if not swept:
        raise LookupError(f"the result holds fewer than two values of {over}; run a sweep over it")
    rows, choice = at_one_setting(
        frame[frame["method"].isin(swept)], metrics=names, reading=reading, drawn=(over,)
    )
    tables = {name: with_intervals(measured(rows, name, reading), ["method", over]) for name in names}
    unswept = [method for method in every if method not in swept]
    missing = f"Not swept over {WORDS.get(over, over)}: {', '.join(unswept)}" if unswept else ""
    x = _swept_axis(over, in_order(rows[over]))

    def line(name: str, method: str, label: str, look: int) -> Series:
        table = tables[name]
        return _line(table[table["method"] == method], over, label, look)

    if len(swept) == 1 and all(metric_of(name).is_share for name in names):
        series = [line(name, swept[0], metric_of(name).label, place) for place, name in enumerate(names)]
        panels = [Panel(x=x, y=Axis(label="share", limits=SHARE), series=tuple(series))]
    elif len(swept) <= MOST_LINES:
        panels = [
            Panel(
                x=x,
                y=value_axis(name),
                series=tuple(line(name, method, method, place) for place, method in enumerate(swept)),
            )
            for name in names
        ]
    else:
        panels = [
            Panel(
                title=method,
                x=x,
                y=Axis(label="share", limits=SHARE) if len(names) > 1 else value_axis(names[0]),
                series=tuple(line(name, method, metric_of(name).label, n) for n, name in enumerate(names)),
            )
            for method in swept
        ]
    of_what = swept[0] if len(swept) == 1 else "Methods"
    return Figure(
        title=f"{of_what} over {WORDS.get(over, over)}s",
        panels=tuple(panels),
        note=joined(
            averaged(measured(rows, names[0], reading)),
            choice,
            missing,
            bands(*tables.values()),
            *reading_note(names, reading),
        ),
        **laid_out(len(panels)),
    )


def plot_object_tokens(
    result: ProtocolResult,
    *,
    over: Literal["subject_layer", "object_layer"] = "object_layer",
    metric: str = "accuracy",
) -> Figure:
    """Lines over layers, apart for objects of one token and of several (arXiv:2311.08968, figures 4 and 5).

    Raises:
        LookupError: the result holds fewer than two of these layers, or no such metric.
    """
    frame = result.by_object_tokens()
    if metric not in ("accuracy", "causality"):
        raise LookupError(f"objects are told apart for accuracy and causality, not for {metric!r}")
    frame = frame.assign(method=frame["method"].str.split("@").str[0]).dropna(subset=[over, metric])
    if frame.empty or frame[over].nunique() < 2:
        raise LookupError(f"the result holds fewer than two values of {over}; run a sweep over it")
    panels = []
    for method in in_order(frame["method"].astype("category")):
        rows = frame[frame["method"] == method]
        series = []
        for look, kind in enumerate(("single-token", "multi-token")):
            means = rows[rows["object"] == kind].groupby(over)[metric].mean()
            if len(means):
                x, y = tuple(map(float, means.index)), tuple(map(float, means))
                series.append(Series(name=f"{kind} objects", x=x, y=y, look=look))
        x_axis = _swept_axis(over, sorted(frame[over].unique()))
        panels.append(Panel(title=method, x=x_axis, y=value_axis(metric), series=tuple(series)))
    return Figure(
        title=f"{metric.capitalize()} over {WORDS[over]}s, by the number of the object's tokens",
        panels=tuple(panels),
        note="Mean over relations and seeds.",
        **laid_out(len(panels)),
    )


def _asked_rows(result: Any, methods: Sequence[str] | None, where: Mapping[str, Any] | None) -> pd.DataFrame:
    frame = rows_where(tidy_frame(result), where)
    if methods is not None:
        for method in (names := as_tuple(methods, "methods", str)):
            rows_where(frame, {"method": method})
        frame = rows_where(frame, {"method": list(names)})
    return frame


def _swept_axis(over: Swept, values: Sequence[Any]) -> Axis:
    step = math.ceil(len(values) / 16)
    ticks = tuple(map(float, values[::step]))
    return Axis(
        label=WORDS.get(over, over),
        scale="log" if over == "rank" else "linear",
        ticks=ticks,
        tick_labels=tuple(f"{tick:g}" for tick in ticks),
    )


def _line(table: pd.DataFrame, over: str, name: str, look: int) -> Series:
    rows = table.dropna(subset=[over]).sort_values(over)
    return Series(
        name=name,
        x=tuple(map(float, rows[over])),
        y=tuple(map(float, rows["mean"])),
        low=tuple(map(float, rows["low"])),
        high=tuple(map(float, rows["high"])),
        look=look,
        details=tuple(
            f"{name}, {WORDS.get(over, over)} {row[over]:g}: {interval_text(row)}" for _, row in rows.iterrows()
        ),
    )


def interval_text(row: Mapping[str, Any]) -> str:
    """A mean with its interval and the number of relations."""
    inside = f" [{short_number(row['low'])}, {short_number(row['high'])}]" if row["low"] == row["low"] else ""
    over = f", {counted(int(row['n_relations']), 'relation')}" if "n_relations" in row else ""
    return f"{short_number(row['mean'])}{inside}{over}"


def value_axis(metric: str) -> Axis:
    """The y axis of a metric: shares from 0 to 1."""
    kind = metric_of(metric)
    return Axis(label=kind.label, limits=SHARE if kind.is_share else None)


def laid_out(panels: int) -> dict[str, Any]:
    """Columns and the size of a panel for so many."""
    columns = min(panels, 2 if panels <= 4 else 3)
    return {"columns": columns, "panel_size": ((6.4, 3.2), (4.4, 3.0), (3.3, 2.3))[columns - 1]}


def joined(*sentences: str) -> str:
    """A note: sentences one after the other, each with its full stop."""
    return " ".join(text if text.endswith(".") else f"{text}." for text in sentences if text)


def bands(*tables: pd.DataFrame) -> str:
    """What the bands of a figure are, where there are any: one relation has no interval."""
    drawn = any(table["low"].notna().any() for table in tables)
    return "Bands: 95 % bootstrap intervals over relations." if drawn else ""


def reading_note(metrics: Sequence[str], reading: str) -> list[str]:
    """Which reading scores were taken by, where that is not the plain one."""
    return [f"Scores are {reading}"] if reading != "plain" and {"accuracy", "top3"} & set(metrics) else []


def _titled(metric: str, reading: str, ending: str) -> str:
    label = metric_of(metric).title
    return f"{label}{'' if reading == 'plain' else f' ({reading} scores)'}: {ending}"
