"""Every way to read of `ways.py`, judged on training facts that it was not made from.

    .venv/bin/python benchmarks/verdict/search.py --parts PARTS [--model packaged:smollm2-135m]

Four folds of each relation's training half; each fold is judged by what is made without it. A relation takes about
half a minute; what is done is kept beside the parts, so the command can be stopped and given again. Writes
`benchmarks/results/verdict_search_<model>.json` and prints the best.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from collect import LAYERS, SPLIT_SEED, Record
from facts import FOLDS, Facts, fold_facts, statistics_of, stored
from torch import Tensor
from ways import Ways

import lrc_tl as lrc
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
READINGS = ("plain", "centred", "calibrated", "offset", "in spreads")
ABOUT = (
    "Share of facts whose object scores highest, the mean over relations. plain: as it is; centred: less the mean "
    "of the training facts' zero-shot subjects; calibrated: centred, each object's scores standardised on these; "
    "offset: centred, less w.r / 2; in spreads: centred, over the spread of an object's scores among all subjects."
)
Rights = dict[str, dict[str, list[bool]]]
"""By way and reading."""


def readings_of(facts: Facts, rows: Tensor, sigma: Tensor) -> dict[str, list[bool]]:
    """Whether each judged fact is right, by each reading."""
    centre = facts.plain.double().mean(0)
    inside = [row for row, name in enumerate(facts.plain_objects) if name in facts.names]
    shown = (facts.plain[inside].double() - centre) @ rows.T
    scores = (facts.judged.double() - centre) @ rows.T
    spread = shown.std(0, unbiased=False)
    variance = ((rows @ sigma) * rows).sum(1).clamp_min(1e-30)
    by_reading = {
        "plain": facts.judged.double() @ rows.T,
        "centred": scores,
        "calibrated": (scores - shown.mean(0)) / torch.where(spread > 0, spread, torch.ones_like(spread)),
        "offset": scores - variance / 2,
        "in spreads": scores / variance.sqrt(),
    }
    return {
        reading: [
            facts.names[best] == name
            for best, name in zip(s.argmax(1).tolist(), facts.judged_objects, strict=True)
        ]
        for reading, s in by_reading.items()
    }


def judged(record: Record, statistics: lrc.SubjectStatistics) -> Rights:
    """All ways on all folds of a relation and seed."""
    rights: Rights = defaultdict(lambda: defaultdict(list))
    for number in range(FOLDS):
        facts = fold_facts(record, statistics, number)
        if facts is None:
            continue
        ways = Ways(facts)
        for name, rows in ways.all():
            for reading, right in readings_of(facts, rows, ways.sigma).items():
                rights[name][reading] += right
    return {name: dict(by_reading) for name, by_reading in rights.items()}


Unit = tuple[str, int, Rights]
"""A relation, a seed, and what is right there."""


def table_of(units: Sequence[Unit]) -> list[Record]:
    """One row for each way that all units have: the mean over relations by each reading."""
    table = []
    for name in (name for name in units[0][2] if all(name in rights for _, _, rights in units)):
        row: Record = {"way": name}
        for reading in READINGS:
            by_relation: dict[str, list[bool]] = defaultdict(list)
            for relation, _, rights in units:
                by_relation[relation] += rights[name][reading]
            row[reading] = mean(mean(map(float, right)) for right in by_relation.values())
        table.append(row)
    return table


def print_table(units: Sequence[Unit], rows: Sequence[Record]) -> tuple[list[str], int]:
    """As Markdown; gives the relations, and how many facts were judged."""
    relations = sorted({relation for relation, _, _ in units})
    n_facts = sum(len(rights[rows[0]["way"]]["plain"]) for _, _, rights in units)
    print(f"{len(relations)} relations, {n_facts} facts\n\n| way | {' | '.join(READINGS)} |")
    print("|---" * (1 + len(READINGS)) + "|")
    for row in rows:
        print(f"| {row['way']} | {' | '.join(f'{row[reading]:.3f}' for reading in READINGS)} |")
    return relations, n_facts


def main() -> None:
    """Judge what is not judged yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--only-summary", action="store_true", help="of the relations that are judged already")
    parser.add_argument("--show", type=int, default=40)
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts, started = given.parts / short, time.perf_counter()
    warnings.filterwarnings("ignore", category=UserWarning)  # solvers on a handful of rows
    statistics = statistics_of(parts)
    units = []
    for path, record in stored(parts):
        kept = path.with_suffix(".search.json")
        if not kept.exists() and given.only_summary:
            continue
        if not kept.exists():
            kept.write_text(json.dumps(judged(record, statistics)), encoding="utf-8")
            print(kept.name, flush=True)
        units.append((f"{record['group']}: {record['relation']}", record["seed"], json.loads(kept.read_text())))
    table = table_of(units)
    table.sort(key=lambda row: -max(row["centred"], row["calibrated"]))
    relations, n_facts = print_table(units, table[: given.show])
    write_result(
        RESULTS / f"verdict_search_{short}.json",
        kind="verdict_search",
        results={"about": ABOUT, "relations": relations, "n_facts": n_facts, "table": table},
        settings={
            "command": f"python benchmarks/verdict/search.py --model {given.model}",
            "split_seed": SPLIT_SEED,
            "folds": FOLDS,
            "layers": list(map(list, LAYERS[short])),
        },
        model=statistics.fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
