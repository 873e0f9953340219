"""Edits of every method at the same side effect, each at its own best place, through `run_sweep`.

    .venv/bin/python benchmarks/verdict/steering.py --relations FOLDER --parts PARTS [--seeds 0 1]
    .venv/bin/python benchmarks/verdict/steering.py --parts PARTS --only-summary

On a GPU, several processes share it: `--device cuda --workers 4`; what takes longest begins first. `--groups` runs
one of the two sweeps alone, so that both can run at the same time. `--writings` compares the other ways to write
of `writings.py` too.

Ten sizes from .0005 to .256, three places, at most 60 edits of a relation and seed; places are chosen on
validation facts. Built-in relations and those of the folder are two sweeps, kept in PARTS, resumable at any time.
A relation and seed with all its edits takes most of an hour on one core, and a minute of one H200. Writes
`benchmarks/results/verdict_steering_<model>.json` and prints its tables.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from collect import SPLIT_SEED
from writings import WRITINGS, register

import lrc_tl as lrc
from lrc_tl.experiments.sweep_at_kl import HARD, KL, SOFT, SteeringAtKl, difference_at_kl
from lrc_tl.experiments.sweep_outcomes import Outcomes
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
NEW = "lrc-map-combined"
METHODS = ("lrc", "lrc-combined", "lrc-map", NEW, "svm", "mean-difference", "logistic")
BETAS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
LAYERS = {"gemma-3-270m": (9, 13), "smollm2-135m": (16, 20)}
GROUPS = ("builtin", "shared")
NATS = 0.7


def run(given: argparse.Namespace, short: str) -> None:
    """Both sweeps, from where they are."""
    subject, object_ = LAYERS[short]
    settings = lrc.SweepSettings(
        methods=(*METHODS, *(WRITINGS if given.writings else ())),
        subject_layers=subject,
        object_layers=object_,
        ranks=64,
        noises=1.0,
        betas=tuple(given.betas),
        places=tuple(given.places),
        seeds=tuple(given.seeds),
        max_lre_prompts=given.lre_prompts,
        metrics=("accuracy", SOFT, HARD, KL),
        max_facts=60,
        max_edits=given.edits,
        validation_edits=given.edits,
        n_side_effects=given.statements,
        split_seed=SPLIT_SEED,
    )
    built_in = [lrc.load_relation(name) for name in lrc.relations.built_in_relations()]
    groups = {"builtin": built_in}
    if given.relations is not None:
        groups["shared"] = list(lrc.load_relations(given.relations)[0].values())
    several = given.workers > 1  # processes, which load the model themselves
    model = given.model if several else lrc.load_model(given.model, device=given.device)
    for group, relations in groups.items():
        if given.only:
            relations = [relation for relation in relations if relation.name.replace("_", " ") in given.only]
        if relations and group in given.groups:
            out = given.parts / f"steering_{short}_{group}"
            lrc.run_sweep(
                model,
                longest_first(model, relations, settings) if several else relations,
                settings=settings,
                out=out,
                resume=out.exists(),
                others=built_in,
                workers=given.workers if several else None,
                device=given.device,
            )


def longest_first(model: Any, relations: list[lrc.Relation], settings: lrc.SweepSettings) -> list[lrc.Relation]:
    """The relations by the operations that each is counted to take, so that no process begins a long one last."""
    plan = lrc.plan_sweep(model, relations, settings=settings)
    operations: dict[str, int] = {}
    for unit, cost in zip(plan.units, plan.costs, strict=True):
        name = unit.relation.name
        operations[name] = operations.get(name, 0) + cost.operations
    return sorted(relations, key=lambda relation: -operations.get(relation.name, 0))


def joined(parts: Path, short: str) -> lrc.SweepResult:
    """Both sweeps as one; a relation's name says its group."""
    import pandas as pd

    sweeps = {}
    for group in GROUPS:
        folder = parts / f"steering_{short}_{group}"
        if folder.exists():
            sweeps[group] = lrc.SweepResult.load(folder)
    first = next(iter(sweeps.values()))
    rows = pd.concat(
        [s.rows.assign(relation=group + ": " + s.rows["relation"].astype(str)) for group, s in sweeps.items()]
    )
    records = [
        {**record, "relation": f"{group}: {record['relation']}"}
        for group, sweep in sweeps.items()
        for record in sweep.outcomes.records
    ]
    return lrc.SweepResult(
        settings=first.settings, model=first.model, rows=rows.reset_index(drop=True), outcomes=Outcomes.of(records)
    )


def curves(sweep: lrc.SweepResult) -> list[dict[str, Any]]:
    """Per method, place and beta: soft and hard success and KL, means over relations."""
    rows = sweep.rows[sweep.rows["metric"].isin([SOFT, HARD, KL])]
    keys = ["method", "place", "beta", "metric"]
    means = rows.groupby([*keys, "relation"], sort=False)["value"].mean().groupby(keys, sort=False).mean()
    table = means.unstack("metric").reset_index()
    return [dict(row) for row in table.to_dict("records")]


def by_place(sweep: lrc.SweepResult) -> list[dict[str, Any]]:
    """Every method at every place, whichever is its best."""
    found = []
    for place in sweep.rows["place"].dropna().unique():
        own = sweep.rows[(sweep.rows["place"] == place) | sweep.rows["place"].isna()]
        for of in replace(sweep, rows=own).at_kl(NATS):
            found.append({name: getattr(of, name) for name in ("method", "place", "hard", "soft", "validation")})
    return found


def summary(sweep: lrc.SweepResult) -> dict[str, Any]:
    """What the tables show."""
    at_kl: dict[str, SteeringAtKl] = {of.method: of for of in sweep.at_kl(NATS)}
    return {
        "nats": NATS,
        "relations": list(sweep.relations),
        "left_out": sweep.left_out.astype(object).where(sweep.left_out.notna(), None).to_dict("records"),
        "at_kl": [of.to_dict() for of in at_kl.values()],
        "differences": [
            difference_at_kl(at_kl[NEW], other, metric=metric).to_dict()
            for name, other in at_kl.items()
            if name != NEW
            for metric in (HARD, SOFT)
        ],
        "by_place": by_place(sweep),
        "curves": curves(sweep),
    }


def print_tables(results: dict[str, Any]) -> None:
    """As Markdown."""
    print(f"{len(results['relations'])} relations, at {results['nats']:g} nats\n")
    print("| method | place | hard | soft | KL | reached | hard, validation |\n|---|---|---|---|---|---|---|")
    for row in results["at_kl"]:
        cells = [row["place"], *(f"{row[name]:.3f}" for name in ("hard", "soft", "kl")), str(row["reached"])]
        print(f"| {row['method']} | {' | '.join(cells)} | {row['validation']:.3f} |")
    for row in results["differences"]:
        facts, relations = row["over_facts"], row["over_relations"]
        print(
            f"{row['a']} less {row['b']}, {row['metric']}: {row['difference']:+.3f} facts "
            f"[{facts[0]:+.3f}, {facts[1]:+.3f}] relations [{relations[0]:+.3f}, {relations[1]:+.3f}]"
        )
    for row in results["curves"]:
        print(
            f"{row['method']:18s} {row['place']:8s} {row['beta']:<7g} "
            f"{row[SOFT]:.2f} {row[HARD]:.2f} {row[KL]:.2f}"
        )


def main() -> None:
    """Run what is missing, summarise, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relations", type=Path, help="a folder in the LRE dataset's format, beside the built-in")
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes, which share the device")
    parser.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--places", nargs="+", default=["all", "from", "subject"])
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--statements", type=int, default=60)
    parser.add_argument("--lre-prompts", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=[], help="names of relations, with spaces")
    parser.add_argument("--writings", action="store_true", help="other ways to write too, by one worker")
    parser.add_argument("--only-summary", action="store_true")
    parser.add_argument("--no-summary", action="store_true", help="run what is missing and write no result")
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    started = time.perf_counter()
    if given.writings:
        if given.workers > 1:
            parser.error("--writings needs one worker: others do not know these methods")
        register()
    if not given.only_summary:
        run(given, short)
    if given.no_summary:
        return
    sweep = joined(given.parts, short)
    results = summary(sweep)
    print_tables(results)
    write_result(
        RESULTS / f"verdict_steering_{short}.json",
        kind="verdict_steering",
        results=results,
        settings={
            "command": f"python benchmarks/verdict/steering.py --model {given.model}",
            "sweep": sweep.settings.to_dict(),
            "seconds_of_units": sweep.seconds,
        },
        model=sweep.model,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
