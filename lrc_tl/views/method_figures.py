"""Figures that set methods side by side: over the size of edits, over side effects, and relation by relation."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.markup.fragments import counted
from lrc_tl.numerics.statistics import bootstrap_interval
from lrc_tl.views.aggregating import at_one_setting, averaged, over_relations, over_seeds, with_intervals
from lrc_tl.views.figure import Axis, Figure, Panel, Series, Spans, log_axis, short_number
from lrc_tl.views.layer_figures import (
    SHARE,
    bands,
    interval_text,
    joined,
    laid_out,
    reading_note,
    value_axis,
)
from lrc_tl.views.looks import MOST_LINES
from lrc_tl.views.tidy import in_order, measured, metric_of, rows_where, tidy_frame

Against = Literal["beta", "kl_elsewhere", "kl_same_subject", "edit_share"]
_WIDE = 30.0
"""How many times the greatest may be the least before an axis is logarithmic."""


def plot_curves(
    result: Any,
    *,
    metric: str = "causality",
    against: Sequence[Against] | None = None,
    methods: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """Causality over the size of the edits, and over what these do to unrelated statements (KL, nats).

    Means over relations (each with its mean over seeds), one line per method, one mark per positive beta.
    More than six methods have a panel each, over the last of `against`, with the first method in grey behind.
    `metric` may be `"hard_causality"` or another metric of edits. Where edits were made at several places,
    `where={"place": "subject"}` takes one; layers and ranks are fixed as in `plot_layer_grid`.

    Args:
        result: a sweep's result, a `ProtocolResult`, or a tidy frame.
        against: what stands below, one panel each; by default beta, and the KL where it was measured.

    Raises:
        LookupError: there is no such metric, method or row; fewer than two positive betas, or other betas for some
            relations (they were selected), so that no point stands for all.
    """
    frame = rows_where(tidy_frame(result), where)
    if methods is not None:
        names = as_tuple(methods, "methods", str)
        for method in names:
            rows_where(frame, {"method": method})
        frame = rows_where(frame, {"method": list(names)})
    edits = measured(frame, metric)
    if edits["beta"].isna().all():
        raise LookupError(f"{metric} is no metric of edits; such are {', '.join(_edit_metrics(frame))}")
    if not has_curves(frame, metric):
        raise LookupError(
            "the result holds fewer than two positive betas, or not the same for all relations; run it with "
            "several, without selecting them"
        )
    both: tuple[Against, ...] = ("beta", "kl_elsewhere")
    available = [name for name in both if name == "beta" or (frame["metric"] == name).any()]
    below = available if against is None else list(as_tuple(against, "against", str))
    effects = [name for name in below if name != "beta"]
    rows, choice = at_one_setting(frame, metrics=[metric, *effects], reading="plain", drawn=("beta",))
    rows = rows[rows["beta"] > 0]
    table = with_intervals(measured(rows, metric), ["method", "beta"])
    for name in effects:
        means = over_relations(measured(rows, name), ["method", "beta"])
        table = table.merge(means.rename(columns={"mean": name})[["method", "beta", name]], how="left")
    return _curves_figure(table, metric=metric, below=below, note=joined(averaged(rows), choice, bands(table)))


def plot_curve_summaries(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], *, metric: str = "causality"
) -> Figure:
    """`plot_curves` from the means and intervals that a benchmark's JSON file holds for each method.

    Raises:
        LookupError: no method has the metric at two positive betas.
    """
    points = [
        {
            "method": method,
            "beta": point["beta"],
            "mean": point[metric]["mean"],
            "low": point[metric]["ci95"][0],
            "high": point[metric]["ci95"][1],
            "kl_elsewhere": point["unrelated_kl"]["mean"],
        }
        for method, curve in curves.items()
        for point in curve
        if point["beta"] > 0 and point[metric]["mean"] is not None
    ]
    table = pd.DataFrame(points)
    if table.empty or table["beta"].nunique() < 2:
        raise LookupError(f"no method has {metric} at two positive betas")
    table = table.assign(
        method=table["method"].astype(pd.CategoricalDtype(table["method"].unique())),
        **{name: table[name].astype("float64") for name in ("mean", "low", "high", "kl_elsewhere")},
    )
    below: list[Against] = ["beta"] if table["kl_elsewhere"].isna().all() else ["beta", "kl_elsewhere"]
    return _curves_figure(table, metric=metric, below=below, note=joined("Mean over relations", bands(table)))


def _curves_figure(table: pd.DataFrame, *, metric: str, below: Sequence[Against], note: str) -> Figure:
    used = in_order(table["method"])
    by_method = {method: table[table["method"] == method].sort_values("beta") for method in used}
    if len(used) <= MOST_LINES:
        panels = [
            Panel(
                x=_below_axis(name, table),
                y=value_axis(metric),
                series=tuple(
                    _curve(of, name, method, method, look) for look, (method, of) in enumerate(by_method.items())
                ),
            )
            for name in below
        ]
    else:
        name, below = below[-1], below[-1:]
        first = _curve(by_method[used[0]], name, used[0], f"{used[0]}, for comparison", 0, quiet=True)
        panels = [
            Panel(
                title=method,
                x=_below_axis(name, table),
                y=value_axis(metric),
                series=(
                    *([first] if method != used[0] else []),
                    _curve(of, name, method, "method of the panel", 0),
                ),
            )
            for method, of in by_method.items()
        ]
    ending = " and ".join("the size of the edit" if name == "beta" else metric_of(name).label for name in below)
    return Figure(
        title=f"{metric_of(metric).title} against {ending}",
        panels=tuple(panels),
        note=note,
        **laid_out(len(panels)),
    )


def plot_trade_off(
    result: Any,
    *,
    metric: str = "causality",
    methods: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """Causality against the KL on unrelated statements, for every method: `plot_curves` over the KL alone.

    Raises:
        LookupError: as `plot_curves`, or the KL was not measured.
    """
    return plot_curves(result, metric=metric, against=["kl_elsewhere"], methods=methods, where=where)


def plot_relations(
    result: Any,
    *,
    first: str | None = None,
    second: str | None = None,
    metric: str = "accuracy",
    reading: str = "plain",
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """Two methods on every relation, means over seeds (arXiv:2311.08968, figure 3).

    Relations are ordered by the difference; a tick marks chance where accuracy is drawn. The note has the mean
    difference and its 95 % bootstrap interval over relations.

    Args:
        result: a sweep's result, a `ProtocolResult`, or a tidy frame.
        first: by default the first method.
        second: by default `"svm"`, or the second method where there is none.

    Raises:
        LookupError: the result has no such method, metric or reading, or no relation has both methods.
    """
    frame = rows_where(tidy_frame(result), where)
    methods = in_order(measured(frame, metric, reading)["method"])
    pair = tuple(
        name if name is not None else fallback
        for name, fallback in ((first, methods[0]), (second, second_method(methods)))
    )
    for method in pair:
        if method not in methods:
            raise LookupError(f"the result has no method {method!r}; it has {', '.join(methods)}")
    rows, choice = at_one_setting(
        frame[frame["method"].isin(pair)], metrics=[metric, "chance"], reading=reading, drawn=()
    )
    of_metric = measured(rows, metric, reading)
    by_relation = over_seeds(of_metric, ["method"])
    table = by_relation.pivot_table(index="relation", columns="method", values="value", observed=True)
    table = table.reindex(columns=list(pair)).dropna()
    if table.empty:
        raise LookupError(f"no relation has {metric} of both {pair[0]} and {pair[1]}")
    differences = table[pair[0]] - table[pair[1]]
    table = table.loc[differences.sort_values(kind="stable").index]
    places = tuple(map(float, range(len(table))))
    left, right = (tuple(map(float, table[method])) for method in pair)
    spans = Spans(low=tuple(map(min, left, right)), high=tuple(map(max, left, right)), y=places)
    names = tuple(map(str, table.index))
    series = [
        Series(
            name=method,
            x=values,
            y=places,
            look=look,
            kind="points",
            details=tuple(f"{name}, {method}: {value:.3f}" for name, value in zip(names, values, strict=True)),
        )
        for look, (method, values) in enumerate(zip(pair, (left, right), strict=True))
    ]
    chance = rows[rows["metric"] == "chance"]
    if metric == "accuracy" and len(chance):
        means = chance.groupby("relation", observed=True)["value"].mean().reindex(table.index)
        series.append(Series(name="chance", x=tuple(map(float, means)), y=places, look=2, kind="ticks"))
    low, high = bootstrap_interval(differences.tolist())
    interval = f", 95 % interval over relations {low:+.3f} to {high:+.3f}" if low == low else ""
    summary = f"{pair[0]} less {pair[1]}: {differences.mean():+.3f}{interval}, {counted(len(table), 'relation')}"
    kind = metric_of(metric)
    return Figure(
        title=f"{pair[0]} and {pair[1]}, relation by relation",
        panels=(
            Panel(
                x=Axis(label=kind.label, limits=SHARE if kind.is_share else None),
                y=Axis(label="", ticks=places, tick_labels=names, limits=(-0.7, len(table) - 0.3)),
                series=tuple(series),
                spans=spans,
            ),
        ),
        note=joined(summary, choice, *reading_note([metric], reading)),
        panel_size=(6.8, 0.9 + 0.26 * len(table)),
    )


def second_method(methods: Sequence[str]) -> str:
    """What the first method is drawn against.

    Raises:
        LookupError: there is one method.
    """
    if len(methods) < 2:
        raise LookupError(f"the result holds one method, {methods[0]}, and two are drawn; run another one")
    return "svm" if "svm" in methods[1:] else methods[1]


def has_curves(frame: pd.DataFrame, metric: str) -> bool:
    """Whether every relation and seed has the same positive betas, two or more."""
    rows = frame[(frame["metric"] == metric) & (frame["beta"] > 0)]
    rows = rows[["relation", "seed", "beta"]].drop_duplicates()
    if rows.empty:
        return False
    betas = rows.groupby(["relation", "seed"], observed=True)["beta"].agg(lambda values: tuple(sorted(values)))
    return betas.nunique() == 1 and len(betas.iloc[0]) > 1


def _edit_metrics(frame: pd.DataFrame) -> list[str]:
    return in_order(frame.loc[frame["beta"].notna(), "metric"])


def _below_axis(name: str, table: pd.DataFrame) -> Axis:
    if name == "beta":
        betas = in_order(table["beta"])
        shown = betas[:: -(-len(betas) // 8)]
        ticks, labels = tuple(map(float, shown)), tuple(f"{beta:g}" for beta in shown)
        return Axis(label="beta (size of the edit)", scale="log", ticks=ticks, tick_labels=labels)
    values = table[name].dropna()
    if len(values) and values.min() > 0 and values.max() > _WIDE * values.min():
        return log_axis(metric_of(name).label, values)
    greatest = float(values.max()) if len(values) else 1.0
    return Axis(label=metric_of(name).label, limits=(min(0.0, float(values.min())), greatest * 1.04 or 1.0))


def _curve(table: pd.DataFrame, over: str, method: str, name: str, look: int, *, quiet: bool = False) -> Series:
    rows = table.dropna(subset=[over])
    details = []
    for _, row in rows.iterrows():
        effect = "" if over == "beta" else f", {metric_of(over).label} {short_number(row[over])}"
        details.append(f"{method}, beta {row['beta']:g}{effect}: {interval_text(row)}")
    return Series(
        name=name,
        x=tuple(map(float, rows[over])),
        y=tuple(map(float, rows["mean"])),
        low=() if quiet else tuple(map(float, rows["low"])),
        high=() if quiet else tuple(map(float, rows["high"])),
        look=look,
        details=tuple(details),
        quiet=quiet,
    )
