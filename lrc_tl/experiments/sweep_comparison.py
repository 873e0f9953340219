"""Two cells of a sweep on the same facts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS
from lrc_tl.experiments.sweep_choice import BEST_COLUMNS, matching, plain_values, require_outcomes, rows_of_metric
from lrc_tl.experiments.sweep_display import comparison_html, comparison_text
from lrc_tl.experiments.sweep_metrics import OF_EDITS, WITH_READING
from lrc_tl.experiments.sweep_outcomes import Outcomes, Trial, by_fact
from lrc_tl.experiments.sweep_rows import EDIT_COLUMNS
from lrc_tl.numerics.statistics import mean_and_std, paired_bootstrap

_MOST_SHOWN = 6
_OF_BEST = {*BEST_COLUMNS, "relation", "seed"}
"""Columns of a row of `best` that do not name a cell."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SweepComparison:
    """Cell `a` less cell `b` on the facts or edits that both have."""

    metric: str
    reading: str | None
    a: Mapping[str, Any]
    """The columns of the cell."""
    b: Mapping[str, Any]
    value_a: float
    """Mean over relations, each with all its seeds together."""
    value_b: float
    difference: float
    low: float
    """95 %: facts drawn again within relations, with their seeds together."""
    high: float
    n_relations: int
    n_facts: int
    n: int
    """Pairs of outcomes."""

    __repr__ = comparison_text
    _repr_html_ = comparison_html

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def compare_cells(
    rows: pd.DataFrame,
    outcomes: Outcomes,
    a: str | Mapping[str, Any] | pd.Series,
    b: str | Mapping[str, Any] | pd.Series,
    *,
    metric: str,
    reading: str,
) -> SweepComparison:
    """What `SweepResult.compare` gives."""
    require_outcomes(metric)
    of_metric = rows_of_metric(rows, metric, reading)
    cells = [_one_cell(of_metric, cell, name, metric) for name, cell in (("a", a), ("b", b))]
    first, second = (
        outcomes.of_cell(
            {name: cell[name] for name in CELL_COLUMNS},
            metric=metric,
            reading=reading,
            beta=cell.get("beta"),
            place=cell.get("place"),
        )
        for cell in cells
    )
    common = [trial for trial in first if trial in second]
    if not common:
        raise ValueError("a and b have no fact or edit in common, so nothing pairs them")
    differences = {trial: float(first[trial]) - float(second[trial]) for trial in common}
    low, high = paired_bootstrap(by_fact(differences))
    value_a, value_b = (_mean({trial: of[trial] for trial in common}) for of in (first, second))
    return SweepComparison(
        metric=metric,
        reading=reading if metric in WITH_READING else None,
        a=cells[0],
        b=cells[1],
        value_a=value_a,
        value_b=value_b,
        difference=value_a - value_b,
        low=low,
        high=high,
        n_relations=len({trial[0] for trial in common}),
        n_facts=len({(trial[0], trial[2], trial[3]) for trial in common}),
        n=len(common),
    )


def _mean(values: Mapping[Trial, float]) -> float:
    relations = [[value for fact in facts for value in fact] for facts in by_fact(values)]
    return mean_and_std([mean_and_std(of_relation)[0] for of_relation in relations])[0]


def _one_cell(
    of_metric: pd.DataFrame, given: str | Mapping[str, Any] | pd.Series, name: str, metric: str
) -> dict[str, Any]:
    columns = [*CELL_COLUMNS, *(EDIT_COLUMNS if metric in OF_EDITS else ())]
    where = {"method": given} if isinstance(given, str) else dict(given)
    where = {column: value for column, value in where.items() if column not in _OF_BEST}
    if metric not in OF_EDITS:
        where = {column: value for column, value in where.items() if column not in EDIT_COLUMNS}
    cells = of_metric[columns].drop_duplicates()
    found = matching(cells, where)
    if len(found) == 1:
        return plain_values(found.iloc[0])
    said = ", ".join(f"{column} {value}" for column, value in plain_values(where).items())
    if found.empty:
        raise ValueError(f"{name}: no cell has {said}")
    open_columns = {
        column: list(found[column].unique()) for column in columns if found[column].nunique(dropna=False) > 1
    }
    told = "; ".join(f"{column} {_listed(values)}" for column, values in open_columns.items())
    raise ValueError(f"{name}: {len(found)} cells have {said}; they differ in {told}: give one of each")


def _listed(values: list[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:_MOST_SHOWN])
    return f"{shown}, ..." if len(values) > _MOST_SHOWN else shown
