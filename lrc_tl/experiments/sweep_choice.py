"""The best cells of a sweep: chosen on validation facts, judged on test facts."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS
from lrc_tl.experiments.sweep_metrics import OF_EDITS, READINGS, WITH_OUTCOMES, WITH_READING, validation_name
from lrc_tl.experiments.sweep_outcomes import Outcomes, by_fact
from lrc_tl.experiments.sweep_rows import EDIT_COLUMNS
from lrc_tl.numerics.statistics import paired_bootstrap

BEST_COLUMNS = ("reading", "validation", "value", "low", "high", "n_relations", "n_facts", "n_cells")
"""Of the best cells, behind what names them."""


def best_cells(
    rows: pd.DataFrame,
    outcomes: Outcomes,
    *,
    by: str,
    within: Sequence[str],
    reading: str,
    where: Mapping[str, Any],
) -> pd.DataFrame:
    """What `SweepResult.best` gives."""
    require_outcomes(by)
    columns = (*CELL_COLUMNS, *EDIT_COLUMNS)
    for name in (*within, *where):
        if name not in (*columns, "relation", "seed"):
            raise ValueError(f"there is no column {name!r} to choose within; {did_you_mean(name, columns)}")
    chosen_on = _of_metric(rows, validation_name(by), reading)
    if chosen_on.empty:
        advice = "validation_edits=20, say" if by in OF_EDITS else "validation above 0"
        raise ValueError(
            f"the sweep has no {by} on validation facts to choose by; run it with {advice}, and with enough facts "
            "that the model knows some of those held out"
        )
    narrowed = matching(chosen_on, where)
    if narrowed.empty:
        raise ValueError(f"no cell has {_said(where)}")
    of_relation = [*dict.fromkeys([*within, *columns, "relation"])]
    means = narrowed.groupby(of_relation, dropna=False, sort=False)["value"].mean().reset_index()
    keys = [*dict.fromkeys([*within, *columns])]
    cells = means.groupby(keys, dropna=False, sort=False).agg(
        validation=("value", "mean"), n_relations=("relation", "nunique")
    )
    cells = cells.reset_index()
    tested = _of_metric(rows, by, reading)
    groups = cells.groupby(list(within), dropna=False, sort=False) if within else [((), cells)]
    chosen = []
    for _, group in groups:
        whole = group[group["n_relations"] == group["n_relations"].max()]
        best = whole.loc[whole["validation"].idxmax()]
        chosen.append(
            {**best.to_dict(), "n_cells": len(whole), **_judged(tested, outcomes, best, within, by, reading)}
        )
    frame = pd.DataFrame(chosen)
    frame.insert(frame.columns.get_loc("n_relations"), "reading", reading if by in WITH_READING else None)
    return frame[[*keys, *BEST_COLUMNS]].astype(
        {name: kind for name, kind in rows.dtypes.items() if name in keys}  # NA made the columns objects
    )


def _judged(
    tested: pd.DataFrame, outcomes: Outcomes, cell: pd.Series, within: Sequence[str], by: str, reading: str
) -> dict[str, Any]:
    """The value on test facts, from the outcomes of each, with its interval."""
    plain = plain_values(cell)
    trials = outcomes.of_cell(
        {name: plain[name] for name in CELL_COLUMNS},
        metric=by,
        reading=reading,
        beta=plain.get("beta"),
        place=plain.get("place"),
    )
    for column, place in (("relation", 0), ("seed", 1)):
        if column in within:
            trials = {trial: outcome for trial, outcome in trials.items() if trial[place] == plain[column]}
    same = matching(tested, {name: cell[name] for name in (*CELL_COLUMNS, *EDIT_COLUMNS, *within)})
    low, high = paired_bootstrap(by_fact(trials))
    return {
        "n_relations": len({trial[0] for trial in trials}),
        "value": float(same.groupby("relation")["value"].mean().mean()),
        "low": low,
        "high": high,
        "n_facts": sum(map(len, by_fact(trials))),
    }


def require_outcomes(metric: str) -> None:
    """Raise ValueError for a metric without an outcome for each fact."""
    if metric not in WITH_OUTCOMES:
        raise ValueError(
            f"there is no {metric!r} of single facts; {did_you_mean(metric, WITH_OUTCOMES, otherwise='there are')}"
        )


def matching(rows: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with these values; None, NA and NaN stand for null."""
    keep = pd.Series(True, index=rows.index)
    for name, value in where.items():
        if name not in rows.columns:
            raise ValueError(f"there is no column {name!r}; {did_you_mean(name, rows.columns)}")
        keep &= rows[name].isna() if value is None or pd.isna(value) else (rows[name] == value).fillna(False)
    return rows[keep]


def plain_values(row: Mapping[str, Any] | pd.Series) -> dict[str, Any]:
    """The values as Python's, with None for null."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or pd.isna(value):
            values[str(name)] = None
        else:
            values[str(name)] = value.item() if hasattr(value, "item") else value
    return values


def _of_metric(rows: pd.DataFrame, metric: str, reading: str) -> pd.DataFrame:
    of_metric = rows[rows["metric"] == metric]
    if metric.removeprefix("validation_") not in WITH_READING:
        return of_metric
    if reading not in READINGS:
        raise ValueError(f"there is no reading {reading!r}; {did_you_mean(reading, READINGS)}")
    return of_metric[of_metric["reading"] == reading]


def rows_of_metric(rows: pd.DataFrame, metric: str, reading: str) -> pd.DataFrame:
    """The rows of a metric, by one reading where it has several.

    Raises:
        ValueError: an unknown reading, or a metric that the sweep has not.
    """
    of_metric = _of_metric(rows, metric, reading)
    if of_metric.empty:
        known = [name for name in WITH_OUTCOMES if (rows["metric"] == name).any()]
        raise ValueError(f"the sweep has no {metric}; it has {', '.join(known) or 'no metric of single facts'}")
    return of_metric


def _said(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in where.items()) or "any value"
