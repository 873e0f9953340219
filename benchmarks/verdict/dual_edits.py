"""The edits of `benchmarks/dual_evaluation.py`, read at one KL elsewhere with paired intervals.

    .venv/bin/python benchmarks/verdict/dual_edits.py --parts PARTS

PARTS is the folder that `dual_evaluation.py` keeps its records in. Its edits are of test facts at six betas and
two places, so places and noises are not chosen here: each is a row of its own. Writes
`benchmarks/results/verdict_dual_edits.json` and prints its tables.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import lrc_tl as lrc
from lrc_tl.experiments.at_kl import AtKl, value_at_kl
from lrc_tl.experiments.record import RelationRecord
from lrc_tl.numerics.statistics import bootstrap_interval, paired_bootstrap
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
NATS = 0.7
ROWS = {
    "lrc": ("chosen", "lrc"),
    "lrc-ridge": ("chosen", "lrc-ridge"),
    "lrc-combined": ("chosen", "lrc-combined"),
    "lrc-map, noise .1": ("noise01", "lrc-map"),
    "lrc-map, noise 1": ("noise1", "lrc-map"),
    "lrc-map, noise chosen for reading": ("chosen", "lrc-map"),
    "lrc-map-given, noise .1": ("noise01", "lrc-map-given"),
    "lrc-map-given, noise 1": ("noise1", "lrc-map-given"),
    "mean-difference": ("chosen", "mean-difference"),
    "logistic": ("chosen", "logistic"),
    "svm": ("chosen", "svm"),
    "mean": ("chosen", "mean"),
}
FIRSTS = ("lrc-map, noise .1", "lrc-map, noise 1", "lrc-map-given, noise .1", "lrc-map-given, noise 1")
Records = Sequence[RelationRecord]


def records_of(parts: Path, run: str) -> dict[tuple[str, str], RelationRecord]:
    """The relations of a run that have edits and statements, by group and name."""
    return {
        (group, record.relation): record
        for group in ("builtin", "shared")
        for record in lrc.ProtocolResult.load(parts / f"{group}_{run}").records
        if isinstance(record, RelationRecord) and record.n_edits and record.n_unrelated
    }


def curve_of(record: RelationRecord, method: str, place: str) -> list[Any]:
    """Points in increasing beta."""
    outcome = record.methods[method]
    points = outcome.curve if place == "all" else outcome.curve_single_layer
    return sorted(points, key=lambda point: point.beta)


def at_kl(records: Records, method: str, place: str) -> AtKl | None:
    """Of the curve of means over relations; None where its smallest size lies above."""
    curves = [curve_of(record, method, place) for record in records]
    hard = [mean(curve[size].hard_causality for curve in curves) for size in range(len(curves[0]))]
    kls = [mean(curve[size].unrelated.kl for curve in curves) for size in range(len(curves[0]))]
    return None if kls[0] > NATS else value_at_kl(hard, kls, at=NATS)


def outcomes(records: Records, method: str, place: str, at: AtKl, field: str) -> list[dict[Any, list[float]]]:
    """By relation and edited fact: the outcome of each edit, mixed over betas."""
    mixed = []
    for record in records:
        facts: dict[Any, list[float]] = {}
        curve = curve_of(record, method, place)
        for number, edit in enumerate(record.edits):
            value = at.mixed([float(getattr(point, field)[number]) for point in curve])
            facts.setdefault((edit.subject, edit.object), []).append(value)
        mixed.append(facts)
    return mixed


def average(mixed: list[dict[Any, list[float]]]) -> float:
    """Mean over relations."""
    return mean(mean(value for fact in facts.values() for value in fact) for facts in mixed)


def main() -> None:
    """Read, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    given = parser.parse_args()
    started = time.perf_counter()
    by_name = {run: records_of(given.parts, run) for run in {run for run, _ in ROWS.values()}}
    common = [name for name in by_name["chosen"] if all(name in of_run for of_run in by_name.values())]
    runs = {run: [of_run[name] for name in common] for run, of_run in by_name.items()}
    table, of_row = [], {}
    for name, (run, method) in ROWS.items():
        for place in ("subject", "all"):
            at = at_kl(runs[run], method, place)
            row: dict[str, Any] = {"method": name, "place": place}
            if at is not None:
                hard, soft = (
                    outcomes(runs[run], method, place, at, field) for field in ("hard_success", "success")
                )
                of_row[name, place] = {"hard": hard, "soft": soft}
                row |= {"hard": average(hard), "soft": average(soft), "reached": at.reached}
                row["kl"] = at.mixed(
                    [
                        mean(curve_of(record, method, place)[size].unrelated.kl for record in runs[run])
                        for size in range(len(at.weights))
                    ]
                )
            table.append(row)
    compared = []
    for first in FIRSTS:
        for second in ROWS:
            if second in FIRSTS:
                continue
            a, b = of_row[first, "subject"]["hard"], of_row[second, "subject"]["hard"]
            differences = [
                [[x - y for x, y in zip(fact, other[key], strict=True)] for key, fact in one.items()]
                for one, other in zip(a, b, strict=True)
            ]
            means = [mean(value for fact in relation for value in fact) for relation in differences]
            compared.append(
                {
                    "first": first,
                    "second": second,
                    "difference": mean(means),
                    "over_facts": paired_bootstrap(differences),
                    "over_relations": bootstrap_interval(means),
                }
            )
    curves = [
        {
            "method": name,
            "points": [
                {
                    "beta": curve_of(runs[run][0], method, "subject")[size].beta,
                    "hard": mean(curve_of(record, method, "subject")[size].hard_causality for record in runs[run]),
                    "kl": mean(curve_of(record, method, "subject")[size].unrelated.kl for record in runs[run]),
                }
                for size in range(len(curve_of(runs[run][0], method, "subject")))
            ],
        }
        for name, (run, method) in ROWS.items()
    ]
    first_run = next(iter(runs.values()))
    n_edits = sum(record.n_edits for record in first_run)
    print(f"{len(first_run)} relations, {n_edits} edits, at {NATS:g} nats")
    for row in table:
        print(row)
    for row in compared:
        print(row)
    write_result(
        RESULTS / "verdict_dual_edits.json",
        kind="verdict_dual_edits",
        results={
            "nats": NATS,
            "n_relations": len(first_run),
            "relations": [f"{group}: {relation}" for group, relation in common],
            "n_edits": n_edits,
            "table": table,
            "compared": compared,
            "curves_at_the_subject_layer": curves,
        },
        settings={"command": "python benchmarks/verdict/dual_edits.py"},
        model=None,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
