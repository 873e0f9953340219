"""How a study of variants runs, and `variants.md`: the tables of all of them, for every model."""

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from halves import SPLIT_SEED, Record, collect, stored

import lrc_tl as lrc
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
STUDIES = ("inverses", "lre_prompts", "layer_strengths")
"""In the order of the page."""
MOST_ROWS, WORST_ROWS = 9, 2
"""Of a table on the page; the result files have all rows."""
Row = Mapping[str, Any]


def run_study(
    study: str,
    given: argparse.Namespace,
    *,
    title: str,
    about: str,
    evaluate: Callable[[Any, str, lrc.Relation, int, Sequence[lrc.Relation]], Record],
    used: Callable[[Record], Row],
    tables: Callable[[Sequence[Record]], Mapping[str, Sequence[Row]]],
) -> None:
    """Collect, or write `<study>_<model>.json` and `variants.md` (without lists in rows) from what was collected.

    `evaluate` makes the record of a relation and seed, from the model, its short name and all relations; `used`
    says what is worth knowing of one, and `tables` makes the tables of all.
    """
    short = given.model.removeprefix("packaged:")
    parts = given.parts / study / short
    if given.collect:
        model = lrc.load_model(given.model)
        relations, _ = lrc.load_relations(given.relations)
        others = list(relations.values())
        collect(
            parts, relations, given.seeds, lambda relation, seed: evaluate(model, short, relation, seed, others)
        )
        return
    started = time.perf_counter()
    records, left_out = stored(parts)
    write_result(
        RESULTS / f"{study}_{short}.json",
        kind="variants",
        results={
            "title": title,
            "about": about,
            "used": [{"relation": one["relation"], "seed": one["seed"], **used(one)} for one in records],
            "left_out": left_out,
            "tables": tables(records),
        },
        settings={
            "command": f"python benchmarks/variants/{study}.py --model {given.model}",
            "split_seed": SPLIT_SEED,
        },
        model=None,
        seconds=time.perf_counter() - started,
    )
    text = page()
    (RESULTS / "variants.md").write_text(text, encoding="utf-8")
    print(text)


def page() -> str:
    """All studies that have a result file."""
    lines = [
        "# Variants of LRCs",
        "",
        "What was tried on held-out facts of the training halves: of each table the best rows and the worst.",
        "Every row is in the result file that stands above it; the commands are in `benchmarks/README.md`.",
    ]
    for study in STUDIES:
        for path in sorted(RESULTS.glob(f"{study}_*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
            lines += ["", f"## {found['title']}: {path.stem.removeprefix(study + '_')}", ""]
            counts = f"{len(found['used'])} relations and seeds, {len(found['left_out'])} left out"
            lines += [textwrap.fill(found["about"], 115), "", f"`{path.name}`: {counts}."]
            for name, rows in found["tables"].items():
                lines += ["", f"### {name}", "", *_shortened(rows)]
    return "\n".join([*lines, ""])


def _shortened(rows: Sequence[Row]) -> list[str]:
    """The table of the first and the last rows, and how many stand between them."""
    if len(rows) <= MOST_ROWS + WORST_ROWS:
        return _table(rows)
    between = len(rows) - MOST_ROWS - WORST_ROWS
    worst = _table(rows[-WORST_ROWS:])[2:]
    return [
        *_table(rows[:MOST_ROWS]),
        *worst,
        "",
        f"The last {WORST_ROWS} rows are the worst; {between} are between.",
    ]


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["(none)"]
    columns = [key for key, value in rows[0].items() if not isinstance(value, list)]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    return [" | ".join(["", *row, ""]).strip() for row in [columns, ["---"] * len(columns), *cells]]


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
