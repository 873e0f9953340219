"""The linear probes at the optimum of their objective, beside the evaluation's table.

    .venv/bin/python benchmarks/linear_probes.py --relations FOLDER [--seeds 42,43]

Runs `svm` and `logistic` with the settings of `results/benchmark_gemma-3-270m.json` (preset `table5-small`, one
split for all seeds, beta .1) on the relations that could be evaluated there, and says of how many relations and
seeds the test prompts and edits are the same as then: of those the other methods' figures still hold. Writes
`results/linear_probes_gemma-3-270m.json`.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lrc_tl as lrc
from lrc_tl.experiments.presets import benchmark_options
from lrc_tl.experiments.record import RelationRecord
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
MODEL = "packaged:gemma-3-270m"
METHODS = ("svm", "logistic")


def main() -> None:
    """Run, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relations", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", default="42,43,44,45,46")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    started = time.perf_counter()
    before = json.loads((RESULTS / "benchmark_gemma-3-270m.json").read_text(encoding="utf-8"))
    there = {(entry["relation"], entry["seed"]): entry for entry in before["relations"]}
    found, _ = lrc.load_relations(arguments.relations)
    relations = [found[name] for name in dict.fromkeys(name for name, _ in there)]
    model = lrc.load_model(MODEL)
    options = benchmark_options(
        {"methods": METHODS, "seeds": seeds, "betas": 0.1, "split_seed": 0}, model=MODEL, preset="table5-small"
    )
    result = lrc.run_protocol(
        model,
        relations,
        methods=options.methods,
        seeds=options.seeds,
        settings=replace(options.settings, n_side_effects=0),
    )
    records = [record for record in result.records if isinstance(record, RelationRecord)]
    same = [record for record in records if _is_same(record, there.get((record.relation, record.seed)))]
    rows = [_row(method, before, result.to_frame(), seeds) for method in METHODS]
    for row in rows:
        print(row)
    print(f"the same test prompts and edits: {len(same)} of {len(records)} relations and seeds")
    write_result(
        RESULTS / "linear_probes_gemma-3-270m.json",
        kind="linear_probes",
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        settings={**options.to_dict(), "command": "benchmarks/linear_probes.py"},
        seconds=time.perf_counter() - started,
        results={
            "n_records": len(records),
            "n_same": len(same),
            "different": [[record.relation, record.seed] for record in records if record not in same],
            "methods": rows,
            "per_relation": result.to_frame()[["method", "relation", "seed", "accuracy", "causality", "n_prompts"]]
            .to_dict(orient="records"),
        },
    )  # fmt: skip


def _is_same(record: RelationRecord, other: dict[str, Any] | None) -> bool:
    plain = record.to_dict()
    return other is not None and all(plain[key] == other[key] for key in ("test_prompts", "edits"))


def _row(method: str, before: dict[str, Any], frame: Any, seeds: list[int]) -> dict[str, Any]:
    """Means over relations, each with its mean over the seeds, then and now."""
    (entry,) = [entry for entry in before["methods"] if entry["method"] == method]
    row: dict[str, Any] = {"method": method}
    for figure in ("accuracy", "accuracy_centred"):
        old: dict[str, list[float]] = {}
        for one in entry["per_relation"]:
            if one["seed"] in seeds:
                old.setdefault(one["relation"], []).append(one[figure])
        new = frame[frame.method == method].groupby("relation")[figure].mean()
        row[f"{figure}_before"] = sum(sum(own) / len(own) for own in old.values()) / len(old)
        row[figure] = float(new.mean())
    return row


if __name__ == "__main__":
    main()
