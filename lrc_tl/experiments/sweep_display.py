"""A sweep's result as a notebook shows it."""

from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from lrc_tl.experiments.sweep_metrics import validation_name

if TYPE_CHECKING:
    from lrc_tl.experiments.sweep_result import SweepResult

_BEST_COLUMNS = ("method", "subject_layer", "object_layer", "rank", "ridge", "noise", "beta", "place")


def sweep_html(result: "SweepResult") -> str:
    """What was run, and the best cell of each method by accuracy, where there were facts to choose on."""
    head = (
        f"<b>Sweep</b> on {escape(str(result.model.get('name')))}: {len(result.relations)} relations, "
        f"{len(result.settings.seeds)} seeds, {len(result.cells)} cells, {len(result.rows):,} rows"
    )
    parts = [f"<p>{head}</p>"]
    if (result.rows["metric"] == validation_name("accuracy")).any():
        best = result.best()
        shown = [name for name in _BEST_COLUMNS if best[name].notna().any()]
        parts.append("<p>Best by accuracy on validation facts; accuracy on test facts with its 95 % interval:</p>")
        parts.append(_table(best, [*shown, "validation", "value", "low", "high", "n_relations", "n_facts"]))
    if n := len(result.left_out):
        parts.append(f"<p>{n} left out (<code>left_out</code> says why).</p>")
    return "".join(parts)


def _table(frame: pd.DataFrame, columns: list[str]) -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    rows = (
        f"<tr>{''.join(f'<td>{escape(_cell(row[name]))}</td>' for name in columns)}</tr>"
        for _, row in frame.iterrows()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
