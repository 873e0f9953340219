"""`variants.md`: the tables of all studies of variants, for every model."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from halves import SPLIT_SEED

from lrc_tl.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
STUDIES = ("inverses", "lre_prompts", "layer_strengths")
"""In the order of the page."""
Row = Mapping[str, Any]


def write_study(
    study: str,
    short: str,
    *,
    title: str,
    about: str,
    used: Sequence[Row],
    left_out: Mapping[str, str],
    tables: Mapping[str, Sequence[Row]],
    seconds: float,
) -> None:
    """Write `<study>_<model>.json`, and `variants.md` anew, without the lists in rows."""
    write_result(
        RESULTS / f"{study}_{short}.json",
        kind="variants",
        results={"title": title, "about": about, "used": used, "left_out": left_out, "tables": tables},
        settings={
            "command": f"python benchmarks/variants/{study}.py --model packaged:{short}",
            "split_seed": SPLIT_SEED,
        },
        model=None,
        seconds=seconds,
    )
    text = page()
    (RESULTS / "variants.md").write_text(text, encoding="utf-8")
    print(text)


def page() -> str:
    """All studies that have a result file."""
    lines = [
        "# Variants of LRCs",
        "",
        "Everything that was tried on held-out facts of the training halves, losers too; the commands are in",
        "`benchmarks/README.md`.",
    ]
    for study in STUDIES:
        for path in sorted(RESULTS.glob(f"{study}_*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
            lines += ["", f"## {found['title']}: {path.stem.removeprefix(study + '_')}", ""]
            lines += [textwrap.fill(found["about"], 115), "", *_table(found["used"])]
            for name, rows in found["tables"].items():
                lines += ["", f"### {name}", "", *_table(rows)]
    return "\n".join([*lines, ""])


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["(none)"]
    columns = [key for key, value in rows[0].items() if not isinstance(value, list)]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    return [" | ".join(["", *row, ""]).strip() for row in [columns, ["---"] * len(columns), *cells]]


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
