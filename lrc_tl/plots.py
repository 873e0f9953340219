"""Figures of results, with matplotlib (extra `plots`)."""

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from lrc_tl.protocol_result import ProtocolResult

_COLOURS = ("#0b6e99", "#d1711f", "#5b8c3a", "#8a4fa3", "#7a7a7a", "#b3a125")
_LABELS = {
    "accuracy": "accuracy",
    "accuracy_centred": "accuracy, centred",
    "causality": "causality",
    "hard_causality": "share generated",
    "unrelated_kl": "KL on unrelated statements (nats)",
    "object_layer": "object layer",
    "subject_layer": "subject layer",
    "rank": "rank",
}


def plot_relations(
    result: ProtocolResult, *, first: str = "lrc", second: str = "svm", figure: str = "accuracy"
) -> Any:
    """A matplotlib Figure: two methods on every relation, means over seeds (arXiv:2311.08968, figure 3).

    Relations are ordered by the difference; a tick marks chance where accuracy is drawn.

    Raises:
        LookupError: the result has no such method or figure.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.to_frame()
    for method in (first, second):
        if method not in set(frame["method"]):
            raise LookupError(f"the result has no method {method!r}; it has {', '.join(result.methods)}")
    _require_column(frame, figure)
    table = frame.pivot_table(index="relation", columns="method", values=figure, aggfunc="mean")
    table = table[[first, second]].dropna()
    table = table.loc[(table[first] - table[second]).sort_values(kind="stable").index]
    figure_, axes = _figure(height=1.3 + 0.3 * len(table))
    places = range(len(table))
    axes.hlines(places, table[first], table[second], color="#bbbbbb", linewidth=1.5, zorder=1)
    for method, colour, marker in ((first, _COLOURS[0], "o"), (second, _COLOURS[1], "s")):
        axes.scatter(table[method], places, color=colour, marker=marker, s=34, label=method, zorder=2)
    if figure.startswith("accuracy"):
        chance = frame.groupby("relation")["chance"].mean().loc[table.index]
        axes.scatter(chance, places, color="#555555", marker="|", s=60, label="chance", zorder=1)
    axes.set_yticks(list(places), list(table.index))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set_xlabel(_LABELS.get(figure, figure))
    axes.grid(axis="x", color="#eeeeee")
    figure_.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure_


def plot_sweep(
    result: ProtocolResult,
    *,
    over: Literal["object_layer", "subject_layer", "rank"],
    figures: Sequence[str] = ("accuracy", "causality"),
    by_object_tokens: bool = False,
) -> Any:
    """A matplotlib Figure: figures of a sweep over layers or ranks (arXiv:2311.08968, figures 4 to 7).

    Means over relations, one line for each method and figure; with `by_object_tokens` apart for objects of one
    token and of several.

    Raises:
        LookupError: the result has no such figure, or none of its methods was swept over this.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.by_object_tokens() if by_object_tokens else result.to_frame()
    for name in figures:
        _require_column(frame, name)
    if over not in frame or frame[over].nunique() < 2:
        raise LookupError(f"the result holds fewer than two values of {over}; run a sweep over it")
    frame = frame.dropna(subset=[over])
    frame = frame.assign(method=frame["method"].str.split("@").str[0])
    groups = ["method", "object"] if by_object_tokens else ["method"]
    figure_, axes = _figure(height=3.6)
    lines = [(keys, rows, name) for keys, rows in frame.groupby(groups) for name in figures]
    for number, (keys, rows, name) in enumerate(lines):
        # Each relation weighs the same, whatever the number of its seeds.
        inner = rows if by_object_tokens else rows.groupby([over, "relation"], as_index=False)[name].mean()
        means = inner.groupby(over)[name].mean().dropna()
        label = ", ".join([*keys, _LABELS.get(name, name)])
        axes.plot(means.index, means, marker="o", color=_COLOURS[number % len(_COLOURS)], label=label)
    axes.set_xlabel(_LABELS[over])
    axes.set_ylim(-0.03, 1.03)
    if over == "rank":
        axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(frame[over].unique()), [str(int(value)) for value in sorted(frame[over].unique())])
    axes.grid(color="#eeeeee")
    figure_.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure_


def _require_column(frame: pd.DataFrame, name: str) -> None:
    if name not in frame or not pd.api.types.is_numeric_dtype(frame[name].dropna().infer_objects()):
        numeric = [column for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
        raise LookupError(f"the result has no figure {name!r}; it has {', '.join(numeric)}")


def _figure(*, height: float) -> Any:
    try:
        # Not pyplot: a Figure of one's own leaves the caller's backend and open figures alone.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; install lrc-tl[plots]") from error
    figure = Figure(figsize=(7, height), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
