"""How a sweep's result, and two cells of it compared, show themselves in a notebook."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lrc_tl.experiments.sweep_metrics import validation_name
from lrc_tl.markup.brief import some_of
from lrc_tl.markup.fragments import Cell, Html, display, note, number
from lrc_tl.markup.tables import bar, pairs, table

if TYPE_CHECKING:
    from lrc_tl.experiments.sweep_comparison import SweepComparison
    from lrc_tl.experiments.sweep_result import SweepResult

_OF_A_CELL = ("subject_layer", "object_layer", "rank", "ridge", "noise", "beta", "place")
_MOST_LEFT_OUT = 5


def sweep_html(result: "SweepResult") -> str:
    """The display of a sweep: what was run, each method's best cell by accuracy, and what was left out."""
    n_cells, n_rows = len(result.cells), len(result.rows)
    parts = [
        pairs(
            {
                "model": str(result.model.get("name")),
                "relations": _counted(result.relations),
                "seeds": _counted([str(seed) for seed in result.settings.seeds]),
                "rows": f"{n_rows:,}",
                "folder": None if result.folder is None else str(result.folder),
            }
        )
    ]
    if (result.rows["metric"] == validation_name("accuracy")).any():
        best = result.best()
        shown = [name for name in _OF_A_CELL if best[name].notna().any()]
        head = [
            "method",
            *map(_head, shown),
            "validation",
            "test",
            "95 % interval",
            "facts",
        ]
        rows: list[list[Cell]] = [
            [
                str(cell["method"]),
                *(_cell(cell[name]) for name in shown),
                bar(float(cell["validation"]), 1.0),
                bar(float(cell["value"]), 1.0),
                f"{cell['low']:.3f} to {cell['high']:.3f}",
                int(cell["n_facts"]),
            ]
            for _, cell in best.iterrows()
        ]
        parts.append(table(head, rows))
        parts.append(note("Accuracy; each method's cell was chosen on validation facts, judged on test facts."))
    else:
        parts.append(
            note("Nothing was held out to choose cells on. .to_frame() has all rows, .plot() draws them.")
        )
    if n := len(result.left_out):
        reasons: list[list[Cell]] = [
            [str(row.relation), int(row.seed), str(row.reason)]
            for row in result.left_out.head(_MOST_LEFT_OUT).itertuples()
        ]
        parts.append(table(["left out", "seed", "why"], reasons))
        if n > _MOST_LEFT_OUT:
            parts.append(note(f"… and {n - _MOST_LEFT_OUT} more; .left_out has all"))
    return display(f"Sweep of {n_cells} cell{'s' * (n_cells != 1)}", *parts)


def comparison_html(self: "SweepComparison") -> str:
    """The display of two cells on the same facts: both values, their difference and its interval."""
    differing = _differing(self)
    rows: list[list[Cell]] = [
        [letter, *(_cell(cell.get(name)) for name in differing), bar(value, 1.0)]
        for letter, cell, value in (("a", self.a, self.value_a), ("b", self.b, self.value_b))
    ]
    reading = f" ({self.reading})" if self.reading else ""
    return display(
        f"{self.metric.replace('_', ' ')}{reading} of two cells on the same {self.n} outcomes",
        table(["", *map(_head, differing), "value"], rows),
        pairs(
            {
                "a less b": f"{self.difference:+.3f}",
                "95 % interval": f"{self.low:+.3f} to {self.high:+.3f}",
                "facts": self.n_facts,
                "relations": self.n_relations,
            }
        ),
        _verdict(self.low, self.high),
    )


def comparison_text(self: "SweepComparison") -> str:
    """One line: both cells by what tells them apart, and the difference with its interval."""
    names = _differing(self)
    a, b = (", ".join(f"{name} {cell.get(name)}" for name in names) for cell in (self.a, self.b))
    return (
        f"SweepComparison({self.metric} {self.value_a:.3f} ({a}) less {self.value_b:.3f} ({b}): "
        f"{self.difference:+.3f}, 95 % {self.low:+.3f} to {self.high:+.3f}, {self.n_facts} facts)"
    )


def _differing(compared: "SweepComparison") -> list[str]:
    """The columns in which the two cells differ, and their method all the same."""
    a, b = compared.a, compared.b
    return ["method", *(name for name in {**a, **b} if name != "method" and a.get(name) != b.get(name))]


def _verdict(low: float, high: float) -> Html:
    if low > 0 or high < 0:
        return note("The interval leaves 0 out: on these relations the two differ.")
    return note("The interval holds 0: these facts cannot tell the two apart.")


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)}: {some_of(names)}"


def _cell(value: Any) -> Cell:
    if value is None or pd.isna(value):
        return None
    if isinstance(value, str):
        return value
    return number(float(value)) if float(value) != int(value) else int(value)


def _head(name: str) -> str:
    return "LRE prompts" if name == "n_lre_prompts" else name.replace("_", " ")
