"""From tidy rows to what is drawn: one setting where none is asked for, means over relations, intervals.

No axis that is not drawn is averaged over: of several values one is taken, on validation facts where there are
any, and the figure's note says which. Only seeds and relations are averaged.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lrc_tl.numerics.statistics import bootstrap_interval, mean_and_std
from lrc_tl.views.tidy import CELL, EDIT, in_order, metric_of, varies

_QUICK = 1999
"""Draws of an interval that is only asked whether it holds 0; there may be one for each of many cells."""
WORDS = {
    "subject_layer": "subject layer",
    "object_layer": "object layer",
    "n_lre_prompts": "LRE prompts",
    "place": "edits at",
}
PLACES = {"all": "all layers", "from": "the subject layer and after", "subject": "the subject layer"}


def at_one_setting(
    frame: pd.DataFrame, *, metrics: Sequence[str], reading: str, drawn: Sequence[str]
) -> tuple[pd.DataFrame, str]:
    """The rows of each method at one setting, which no column of `drawn` belongs to, and a sentence on the choice.

    Rows of `metrics` and of those that decide are given. The setting is that of the best cell by the first of
    `metrics`; on validation facts where these were measured. Edits (beta, place) are chosen for metrics of edits,
    by how often the new object is said where that is known, else by causality, else by the first of these metrics.
    """
    kept: list[pd.DataFrame] = []
    # Ground of the choice -> what was chosen -> methods.
    choices: dict[str, dict[str, list[str]]] = {}
    methods = in_order(frame["method"])
    asked = {name.removeprefix("validation_") for name in (*metrics, "hard_causality", "causality")}
    frame = frame[frame["metric"].isin({*metrics, *asked, *(f"validation_{name}" for name in asked)})]
    by_edits = ["hard_causality", "causality", *(name for name in metrics if metric_of(name).of_edits)]
    axes: list[tuple[Sequence[str], Sequence[str]]] = [
        (CELL, by_edits if metric_of(metrics[0]).of_edits else metrics[:1])
    ]
    if any(metric_of(name).of_edits for name in metrics):
        axes.append((EDIT, by_edits))
    for method in methods:
        rows = frame[frame["method"] == method]
        for columns, by in axes:
            rows, chosen, ground = _at_best(rows, by=by, reading=reading, columns=columns, drawn=drawn)
            for choice in chosen:
                choices.setdefault(ground, {}).setdefault(choice, []).append(method)
        kept.append(rows)
    return pd.concat(kept), "; ".join(
        f"{'on' if place else 'Fixed at what is best on'} {ground}: {_of_methods(by_choice, len(methods))}"
        for place, (ground, by_choice) in enumerate(choices.items())
    )


def _of_methods(methods_by_choice: Mapping[str, list[str]], n_methods: int) -> str:
    """Choices, with the methods that they are of where these are not all."""
    return ", ".join(
        f"{choice})" if len(methods) == n_methods else f"{choice}; {', '.join(methods)})"
        for choice, methods in methods_by_choice.items()
    )


def _at_best(
    rows: pd.DataFrame, *, by: Sequence[str], reading: str, columns: Sequence[str], drawn: Sequence[str]
) -> tuple[pd.DataFrame, list[str], str]:
    """The rows with the best cell's values of those columns that are open and not drawn, in words, and on what.

    The best is that by the first metric of `by` that there is, on validation facts where it was measured there.
    """
    metrics = [f"validation_{by[0]}", *by]
    deciding = next((name for name in metrics if (rows["metric"] == name).any()), None)
    if deciding is None:
        return rows, [], ""
    measured = rows[(rows["metric"] == deciding) & (rows["reading"].isna() | (rows["reading"] == reading))]
    open_columns = [name for name in columns if name not in drawn and varies(measured, name) > 1]
    if not open_columns:
        return rows, [], ""
    # Whatever else varies is not averaged over: the best of it counts.
    others = [name for name in (*CELL, *EDIT) if name not in open_columns and varies(measured, name) > 1]
    means = over_relations(measured, [*open_columns, *others])
    means = means[means["n_relations"] == means["n_relations"].max()]
    order = means.sort_values(
        ["mean", *open_columns], ascending=[metric_of(deciding).smaller_is_better, *(True for _ in open_columns)]
    )
    best = order.iloc[0]
    choices = []
    for name in open_columns:
        same = rows[name].isna() if pd.isna(best[name]) else rows[name] == best[name]
        # Metrics without the column, such as accuracy without a beta, stay.
        rows = rows[same | (rows[name].isna() if name in EDIT else False)]
        choices.append(f"{described(name, best[name])} (one of {measured[name].nunique()}")
    ground = "validation facts" if deciding.startswith("validation_") else "the facts shown"
    return rows, choices, ground


def described(column: str, value: Any) -> str:
    """A setting in words: `rank 64`."""
    if pd.isna(value):
        return f"no {WORDS.get(column, column)}"
    shown = PLACES.get(value, value) if column == "place" else f"{value:g}"
    return f"{WORDS.get(column, column)} {shown}"


def over_seeds(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`by`, `relation` and `value`: the mean over seeds, so that each relation weighs the same."""
    groups = rows.groupby([*by, "relation"], dropna=False, observed=True)["value"]
    return groups.mean().reset_index()


def over_relations(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`by`, `mean` and `n_relations`: means over relations, each with its mean over seeds."""
    groups = over_seeds(rows, by).groupby(list(by), dropna=False, observed=True)["value"]
    return groups.agg(mean="mean", n_relations="count").reset_index()


def with_intervals(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`over_relations` with `low` and `high`: the 95 % bootstrap interval over relations, NaN for one relation."""
    groups = over_seeds(rows, by).groupby(list(by), dropna=False, observed=True)["value"]
    table = groups.agg(mean="mean", n_relations="count", values=list).reset_index()
    intervals = [bootstrap_interval(values) for values in table["values"]]
    table["low"], table["high"] = [low for low, _ in intervals], [high for _, high in intervals]
    return table.drop(columns="values")


def near_best(relation_values: pd.DataFrame, *, smaller_is_better: bool) -> tuple[int, set[int]]:
    """The best column, of those with the most relations, and what cannot be told from it; one row per relation.

    A column is near where the 95 % bootstrap interval over relations of its difference from the best, relation by
    relation, holds 0. With one relation, or none in common, only what is equal to the best is near.
    """
    values = relation_values.to_numpy(dtype=np.float64)
    means = np.array([mean_and_std(column[np.isfinite(column)].tolist())[0] for column in values.T])
    counts = np.isfinite(values).sum(axis=0)
    signed = np.where(counts == counts.max(), -means if smaller_is_better else means, -np.inf)
    best = int(np.nanargmax(signed))
    near = set()
    for place, column in enumerate(values.T):
        if place == best or math.isnan(means[place]):
            continue
        differences = (column - values[:, best])[np.isfinite(column) & np.isfinite(values[:, best])]
        if smaller_is_better:
            differences = -differences
        # The interval ends below the greatest difference, which decides most cells without draws.
        if not len(differences) or differences.max() < 0:
            continue
        if len(differences) == 1:
            near.add(place)
            continue
        _, high = bootstrap_interval(differences.tolist(), n_resamples=_QUICK)
        if high >= 0:
            near.add(place)
    return best, near


def averaged(rows: pd.DataFrame) -> str:
    """Over what the numbers are means, for a figure's note."""
    relations, seeds = rows["relation"].nunique(), rows["seed"].nunique()
    if relations == 1:
        words = str(rows["relation"].dropna().iloc[0])
        return words if seeds == 1 else f"{words}, mean over {seeds} seeds"
    text = f"Mean over {relations} relations"
    return text if seeds == 1 else f"{text}, each with its mean over {seeds} seeds"
