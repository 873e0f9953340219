"""Tables of the page about files, made from the code that writes them."""

from dataclasses import fields

from lrc_tl.demo import DemoResult
from lrc_tl.experiments.sweep_metrics import METRICS
from lrc_tl.experiments.sweep_rows import COLUMNS, KEY, SCHEMA

MEANING = {
    "relation": "the relation's name",
    "seed": "of the split, the examples and all draws",
    "method": "a name of `lrc_tl.methods.METHODS`",
    "subject_layer": "where directions are read, counted from 0",
    "object_layer": "of the LRE; null for baselines",
    "rank": "of the inverse; null where there is none",
    "ridge": "of the inverse, as a share of the largest singular value",
    "noise": "of dual directions; null where it is chosen, too",
    "n_lre_prompts": "prompts for the LRE, at most",
    "shots": "examples in training prompts",
    "beta": "factor of eq. 7, for rows about edits",
    "place": "layers that edits act in: `all`, `from`, `subject`",
    "reading": "`plain`, `centred`, `calibrated`, for accuracy and top3",
    "metric": "what is measured: the table below",
    "value": "the metric's value",
    "count": "for shares: how many",
    "n": "for shares: of how many",
    "n_facts": "facts behind them",
}


def columns_table() -> str:
    """The columns of a sweep's rows."""
    lines = ["| column | type | key | what it is |", "|---|---|---|---|"]
    for name in COLUMNS:
        key = "yes" if name in KEY else ""
        lines.append(f"| `{name}` | {SCHEMA.field(name).type} | {key} | {MEANING[name]} |")
    return "\n".join(lines) + "\n"


def metrics_table() -> str:
    """The metrics of a sweep."""
    lines = ["| metric | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in METRICS.items()]
    lines += [
        "| `edit_share` | mean size of the edit as a share of \\|h\\|, in one layer |",
        "| `chosen_noise` | the noise that was chosen for dual directions |",
        "| `validation_...` | the same on training facts that no direction was made from |",
    ]
    return "\n".join(lines) + "\n"


def demo_fields() -> str:
    """The fields of the demo's result."""
    return ", ".join(f"`{field.name}`" for field in fields(DemoResult)) + "\n"


def schema_pages() -> dict[str, str]:
    """The tables by the path of the file that the page includes."""
    return {
        "generated/tables/sweep_columns.inc": columns_table(),
        "generated/tables/sweep_metrics.inc": metrics_table(),
        "generated/tables/demo_fields.inc": demo_fields(),
    }
