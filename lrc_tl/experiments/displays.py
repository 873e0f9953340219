"""How a benchmark result shows itself in a notebook."""

from typing import TYPE_CHECKING, Any

from lrc_tl.markup.fragments import Cell, counted, display, note
from lrc_tl.markup.tables import bar, table

if TYPE_CHECKING:
    from lrc_tl.experiments.result import ProtocolResult


def protocol_html(self: "ProtocolResult") -> str:
    """The display of a result: accuracy and causality of each method with intervals, and what was left out."""
    rows: list[list[Cell]] = []
    for method in self.summaries() if self.n_relations else []:
        row: list[Cell] = [method["method"]]
        for key in ("accuracy", "causality"):
            row += [bar(method[key]["mean"], 1.0), _interval(method[key])]
        rows.append([*row, method["n_relations"], method["n_prompts"], method["n_edits"]])
    head = ["method", "accuracy", "95 % interval", "causality", "95 % interval", "relations", "prompts", "edits"]
    parts = [table(head, rows)]
    if self.relations_left_out:
        parts.append(table(["left out", "why"], [[*entry] for entry in self.relations_left_out.items()], most=5))
    return display(
        f"{counted(len(self.methods), 'method')} on {counted(self.n_relations, 'relation')} with "
        f"{counted(len(self.seeds), 'seed')}",
        *parts,
        note(
            "Means over relations, intervals by bootstrap over relations. .to_markdown() and .to_frame() say more."
        ),
    )


def protocol_text(self: "ProtocolResult") -> str:
    """A line, and one for each of the first methods."""
    counts = ((len(self.methods), "method"), (self.n_relations, "relation"), (len(self.seeds), "seed"))
    head = f"ProtocolResult({', '.join(counted(number, word) for number, word in counts)})"
    means = self.summaries(interval=False) if self.n_relations else []
    lines = [
        f"  {method['method']}: accuracy {method['accuracy']['mean']:.3f}, "
        f"causality {method['causality']['mean']:.3f}"
        for method in means[:4]
    ]
    more = [f"  and {len(means) - 4} methods more"] if len(means) > 4 else []
    return "\n".join([head, *lines, *more])


def _interval(summary: dict[str, Any]) -> str:
    low, high = summary["ci95"]
    return f"{low:.3f} to {high:.3f}" if low == low and high == high else "-"
