"""Dual directions against all others, through `lrc-tl benchmark`: one seed, the built-in relations and a folder's.

    .venv/bin/python benchmarks/dual_evaluation.py --relations FOLDER --parts PARTS [--device cuda]

Seven runs for the built-in relations and seven for the folder's, each resumable, its records in a folder of PARTS:
`chosen` (nine methods; the noise of `lrc-map` chosen on each relation's training facts), `kept` (the test subjects
counted in the covariance), `noise01`, `noise1`, `noise10`, `noise30` (a given noise), and `combined` (the
default method). Subject layer 9, object layer 13, rank 64, the rest as in the preset `table5-small`, edits at
all layers and at the subject layer alone.

Writes `benchmarks/results/dual_evaluation.json` and prints its tables; with `--only-summary` in place of
`--relations` from finished records alone.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import lrc_tl as lrc
from lrc_tl.experiments.record import RelationRecord
from lrc_tl.numerics.statistics import bootstrap_interval, paired_bootstrap
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
METHODS = "lrc,lrc-map,lrc-map-given,lrc-ridge,lrc-combined,svm,logistic,mean,mean-difference"
DUAL = ("--methods", "lrc-map,lrc-map-given")
RUNS = {
    "chosen": ("--methods", METHODS),
    "kept": (*DUAL, "--keep-test-subjects"),
    "noise01": (*DUAL, "--noise", "0.1"),
    "noise1": (*DUAL, "--noise", "1"),
    "noise10": (*DUAL, "--noise", "10"),
    "noise30": (*DUAL, "--noise", "30"),
    "combined": ("--methods", "lrc-map-combined"),
}
COMMON = (
    "--model", "packaged:gemma-3-270m", "--preset", "table5-small", "--seeds", "42", "--single-layer",
    "--subject-layer", "9", "--object-layer", "13", "--rank", "64", "--beta", "0.05,0.005,0.01,0.02,0.1,0.2",
)  # fmt: skip
READINGS = {"plain": "correct", "centred": "correct_centred", "calibrated": "correct_calibrated"}
Records = Sequence[tuple[str, RelationRecord]]


def run(parts: Path, relations: Path, device: str) -> None:
    """All runs, by the command line; what an earlier call finished is taken from its records."""
    for group, where in (("builtin", ()), ("shared", ("--relations", str(relations)))):
        for name, options in RUNS.items():
            out = parts / f"{group}_{name}"
            resume = ("--resume",) if out.exists() else ()
            command = ("benchmark", *COMMON, *options, *where, "--device", device, "--out", str(out), *resume)
            print("lrc-tl", *command, flush=True)
            starter = "import sys; from lrc_tl.cli.main import main; sys.exit(main())"
            subprocess.run([sys.executable, "-c", starter, *command], check=True)


def read_records(parts: Path, name: str) -> tuple[Records, dict[str, str]]:
    """The evaluated records of a run with their group, and the relations that were left out, with the reason."""
    records, left_out = [], {}
    for group in ("builtin", "shared"):
        result = lrc.ProtocolResult.load(parts / f"{group}_{name}")
        records += [(group, record) for record in result.records if isinstance(record, RelationRecord)]
        left_out |= {f"{group}: {relation}": reason for relation, reason in result.relations_left_out.items()}
    return records, left_out


def accuracies(records: Records, method: str) -> dict[str, Any]:
    """Accuracy at each reading with its interval over relations: of all relations, and of each group."""
    by_reading: dict[str, Any] = {}
    for reading, field in READINGS.items():
        shares = [(group, mean(getattr(record.methods[method], field))) for group, record in records]
        values = [share for _, share in shares]
        by_reading[reading] = {
            "all": mean(values),
            "interval_over_relations": bootstrap_interval(values),
            **{group: mean(share for of, share in shares if of == group) for group in ("builtin", "shared")},
        }
    return by_reading


def best_reading(records: Records, method: str) -> str:
    """The name of the reading with the highest accuracy over all relations, which favours every method alike."""
    summary = accuracies(records, method)
    return max(READINGS, key=lambda reading: summary[reading]["all"])


def compared(records: Records, first: str, second: str) -> dict[str, Any]:
    """Accuracy of the first less that of the second, each at its best reading, with both kinds of interval."""
    fields = [READINGS[best_reading(records, method)] for method in (first, second)]
    facts = [
        [
            [float(a) - float(b)]
            for a, b in zip(
                getattr(record.methods[first], fields[0]), getattr(record.methods[second], fields[1]), strict=True
            )
        ]
        for _, record in records
    ]
    by_relation = [mean(fact[0] for fact in relation) for relation in facts]
    return {
        "difference": mean(by_relation),
        "interval_over_facts": paired_bootstrap(facts),
        "interval_over_relations": bootstrap_interval(by_relation),
        "readings": [best_reading(records, method) for method in (first, second)],
    }


def curve(records: Records, method: str, points: Callable[[Any], Any]) -> list[dict[str, float]]:
    """Per beta: soft causality, hard success and KL elsewhere, means over relations with edits."""
    with_edits = [points(record.methods[method]) for _, record in records if record.n_edits]
    rows = []
    for place in range(len(with_edits[0])):
        at_beta = [curve_points[place] for curve_points in with_edits]
        kl = [p.unrelated.kl for p in at_beta if p.unrelated is not None and p.unrelated.kl is not None]
        rows.append(
            {
                "beta": at_beta[0].beta,
                "soft": mean(p.causality for p in at_beta),
                "hard": mean(p.hard_causality for p in at_beta),
                "kl_elsewhere": mean(kl),
            }
        )
    return sorted(rows, key=lambda row: row["beta"])


def summary(parts: Path) -> dict[str, Any]:
    """Everything that the tables show."""
    runs = {name: read_records(parts, name) for name in RUNS}
    records, left_out = runs["chosen"]
    results: dict[str, Any] = {
        "n_relations": len(records),
        "n_prompts": sum(record.n_prompts for _, record in records),
        "n_edits": sum(record.n_edits for _, record in records),
        "left_out": left_out,
        "runs": {},
        "compared": {
            f"{first} less {second}": compared(records, first, second)
            for first in ("lrc-map", "lrc-map-given")
            for second in ("lrc", "lrc-ridge", "lrc-combined", "svm", "logistic", "mean", "mean-difference")
        },
        "by_relation": [
            {
                "group": group,
                "relation": record.relation,
                "n_prompts": record.n_prompts,
                **{name: mean(outcome.correct) for name, outcome in record.methods.items()},
            }
            for group, record in records
        ],
    }
    for name, (of_run, _) in runs.items():
        results["runs"][name] = {
            method: {
                "accuracy": accuracies(of_run, method),
                "subject_layer": curve(of_run, method, lambda outcome: outcome.curve_single_layer),
                "all_layers": curve(of_run, method, lambda outcome: outcome.curve),
            }
            for method in of_run[0][1].methods
        }
    return results


def print_tables(results: dict[str, Any]) -> None:
    """Accuracy, then the edits at the subject layer, as Markdown."""
    print(f"{results['n_relations']} relations, {results['n_prompts']} prompts, {results['n_edits']} edits\n")
    print(
        "| run | method | plain | centred | calibrated | built-in, best | folder, best |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, methods in results["runs"].items():
        for method, of_method in methods.items():
            accuracy = of_method["accuracy"]
            best = max(accuracy.values(), key=lambda reading: reading["all"])
            cells = [f"{accuracy[reading]['all']:.3f}" for reading in READINGS]
            print(f"| {name} | {method} | {' | '.join(cells)} | {best['builtin']:.3f} | {best['shared']:.3f} |")
    betas = [row["beta"] for row in next(iter(results["runs"]["chosen"].values()))["subject_layer"]]
    print("\n| run | method |", " | ".join(f"beta {beta:g}" for beta in betas), "|")
    print("|---|---|" + "---|" * len(betas))
    for name, methods in results["runs"].items():
        for method, of_method in methods.items():
            cells = [
                f"{r['soft']:.2f} / {r['hard']:.2f} / {r['kl_elsewhere']:.2f}" for r in of_method["subject_layer"]
            ]
            print(f"| {name} | {method} | {' | '.join(cells)} |")
    for pair, row in results["compared"].items():
        facts, relations = row["interval_over_facts"], row["interval_over_relations"]
        print(
            f"{pair}: {row['difference']:+.3f} facts [{facts[0]:+.3f}, {facts[1]:+.3f}] "
            f"relations [{relations[0]:+.3f}, {relations[1]:+.3f}] {row['readings']}"
        )


def main() -> None:
    """Run what is missing, summarise, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relations", type=Path, help="Folder in the LRE dataset's format.")
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only-summary", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "dual_evaluation.json")
    given = parser.parse_args()
    started = time.perf_counter()
    if not given.only_summary:
        if given.relations is None:
            parser.error("give --relations, or --only-summary to read finished records")
        run(given.parts, given.relations, given.device)
    results = summary(given.parts)
    print_tables(results)
    record = json.loads(next((given.parts / "builtin_chosen").glob("*.json")).read_text())
    write_result(
        given.out,
        kind="dual_evaluation",
        results=results,
        settings={"command": "python benchmarks/dual_evaluation.py", "benchmark": list(COMMON), "runs": RUNS},
        model=record["model"],
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
