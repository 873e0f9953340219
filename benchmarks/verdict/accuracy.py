"""Accuracy of every method on test facts, from what `collect.py` and `metrics.py` keep: seconds, and no model.

    .venv/bin/python benchmarks/verdict/accuracy.py --parts PARTS [--model packaged:smollm2-135m]

All seeds test on the same halves of the facts, on which nothing was chosen. Writes
`benchmarks/results/verdict_accuracy_<model>.json` and prints its tables.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from collect import LAYERS, SPLIT_SEED
from facts import Facts, statistics_of, stored, test_facts
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.experiments.readings import readings
from lrc_tl.lre.dual import DualFit
from lrc_tl.lre.dual_means import MeansShare, joined_with_means, weights_by_lead
from lrc_tl.methods.baselines import baseline_concepts
from lrc_tl.methods.method import METHODS
from lrc_tl.numerics.statistics import bootstrap_interval, paired_bootstrap
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
BASELINES = ("mean", "centred-mean", "mean-difference", "svm", "logistic", "lda")
READINGS = ("plain", "centred", "calibrated")
NEW = "lrc-map-combined"
Outcome = Mapping[str, tuple[bool, ...]]
"""By reading: whether each test fact is right."""


def sets_of(facts: Facts, short: str) -> dict[str, lrc.ConceptSet | None]:
    """Directions of every method; None where a method has none here."""
    _, (half_way, given, last) = LAYERS[short]
    objects, labels, zero_shot = facts.objects, facts.labels, facts.zero_shot
    first = (last, "first_token")

    def ridged(place: Any) -> lrc.ConceptSet:
        return facts.lres[place].concepts_from_activations(
            objects[place], labels, ridge=METHODS["lrc-ridge"].ridge
        )

    def dual(place: Any, *, noise: float | None = None, metric: Tensor | None = None) -> lrc.ConceptSet:
        fit = DualFit.of(facts.lres[place], facts.prior, metric=metric)
        write_noise = None if noise is None else METHODS[NEW].write_noise
        return fit.directions(objects[place], labels, zero_shot, noise=noise, write_noise=write_noise)

    own_noise = METHODS[NEW].noise
    assert own_noise is not None
    if facts.metric is None:
        raise SystemExit("the metrics of the next token are missing; run metrics.py first")

    def combined(
        share: MeansShare, *, weighed: bool = True, noise: float = own_noise, metric: Tensor | None = facts.metric
    ) -> lrc.ConceptSet:
        places = [(given, "mean"), first]

        def lead(place: Any) -> float | None:
            fit = DualFit.of(facts.lres[place], facts.prior, metric=metric)
            return fit.left_out_lead(objects[place], labels, zero_shot, noise=noise)

        return joined_with_means(
            [dual(place, noise=noise, metric=metric) for place in places],
            zero_shot,
            labels,
            facts.prior,
            write_acts=facts.few_shot,
            share=share,
            method=NEW,
            weights=weights_by_lead([lead(place) for place in places]) if weighed else None,
        )

    makers: dict[str, Callable[[], lrc.ConceptSet]] = {
        "lrc": lambda: facts.lres[given, "mean"].concepts_from_activations(
            objects[given, "mean"], labels, rank=64
        ),
        "lrc-final": lambda: facts.lres[first].concepts_from_activations(objects[first], labels, rank=64),
        "lrc-ridge": lambda: ridged((given, "mean")),
        "lrc-combined": lambda: lrc.combine_concepts(
            [ridged((half_way, "mean")), ridged((given, "mean")), ridged(first)]
        ),
        "lrc-map": lambda: dual((last, "mean")),
        "lrc-map-given": lambda: dual((given, "mean")),
        NEW: lambda: combined(MeansShare()),
        f"{NEW}, both duals alike": lambda: combined(MeansShare(), weighed=False),
        f"{NEW}, even noise of 10, .15 class means": lambda: combined(
            MeansShare(reading=0.15), noise=10.0, metric=None
        ),
        "lrc-fisher": lambda: dual(first, noise=own_noise, metric=facts.metric),
        f"{NEW}, without class means": lambda: combined(MeansShare(reading=0.0, writing=0.0)),
    }
    plain = facts.plain[[row for row, name in enumerate(facts.plain_objects) if name in facts.names]]
    plain_labels = [name for name in facts.plain_objects if name in facts.names]
    sources: dict[str, tuple[Tensor, list[str]]] = {
        "": (facts.few_shot, labels),
        ", zero-shot": (zero_shot, labels),
        ", zero-shot of all facts": (plain, plain_labels),
    }
    for what, (acts, names) in sources.items():
        for method in BASELINES:
            makers[method + what] = lambda acts=acts, names=names, method=method: baseline_concepts(
                acts, names, method=method, hook_name="blocks.0.hook_resid_post", relation="r", seed=0
            )
    sets: dict[str, lrc.ConceptSet | None] = {}
    for name, make in makers.items():
        try:
            sets[name] = make()
        except ValueError:
            sets[name] = None
    return sets


def outcomes_of(facts: Facts, concepts: lrc.ConceptSet) -> Outcome:
    """Whether each judged fact is right, by reading."""
    read = readings(
        concepts,
        facts.judged,
        facts.judged_objects,
        plain=facts.plain,
        plain_prompts=facts.plain_prompts,
    )
    by_reading = zip(READINGS, (read.as_it_is, read.centred, read.calibrated), strict=True)
    return {reading: tuple(place == 1 for place in of.places) for reading, of in by_reading}


Values = dict[str, dict[tuple[str, str], dict[int, bool]]]
"""By group and relation, by subject and object: the outcome of each seed."""


def by_relation(measured: list[dict[str, Any]], method: str, reading: str, group: str | None = None) -> Values:
    """Outcomes of a method where it has directions."""
    values: Values = {}
    for unit in measured:
        outcomes = unit["outcomes"].get(method)
        if outcomes is None or group not in (None, unit["group"]):
            continue
        facts = values.setdefault(f"{unit['group']}: {unit['relation']}", {})
        for fact, right in zip(unit["facts"], outcomes[reading], strict=True):
            facts.setdefault(fact, {})[unit["seed"]] = right
    return values


def accuracy(values: Values) -> float:
    """Mean over relations, each with its facts of all seeds."""
    return mean(
        mean(float(right) for fact in facts.values() for right in fact.values()) for facts in values.values()
    )


def best_reading(measured: list[dict[str, Any]], method: str) -> str:
    """The reading with the highest accuracy over all relations, which favours every method alike."""
    return max(READINGS, key=lambda reading: accuracy(by_relation(measured, method, reading)))


def compared(measured: list[dict[str, Any]], first: str, second: str, group: str | None) -> dict[str, Any]:
    """The first less the second, each at its best reading, on the facts and seeds that both have."""
    a, b = (by_relation(measured, method, best_reading(measured, method), group) for method in (first, second))
    differences = []
    for relation in (relation for relation in a if relation in b):
        pairs = [(first_of, b[relation].get(fact, {})) for fact, first_of in a[relation].items()]
        of_facts = [[float(x[seed]) - float(y[seed]) for seed in x if seed in y] for x, y in pairs]
        differences.append([of_seeds for of_seeds in of_facts if of_seeds])
    means = [mean(value for fact in relation for value in fact) for relation in differences]
    return {
        "first": first,
        "second": second,
        "group": group or "all",
        "difference": mean(means),
        "over_facts": paired_bootstrap(differences),
        "over_relations": bootstrap_interval(means),
        "n_relations": len(means),
        "n_facts": sum(map(len, differences)),
    }


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """What the tables show."""
    methods = [name for name in measured[0]["outcomes"] if any(unit["outcomes"][name] for unit in measured)]
    seeds = sorted({unit["seed"] for unit in measured})
    table = []
    for method in methods:
        best = best_reading(measured, method)
        values = by_relation(measured, method, best)
        table.append(
            {
                "method": method,
                **{reading: accuracy(by_relation(measured, method, reading)) for reading in READINGS},
                "best": best,
                "over_relations": bootstrap_interval([accuracy({"": facts}) for facts in values.values()]),
                "builtin": accuracy(by_relation(measured, method, best, "builtin")),
                "shared": accuracy(by_relation(measured, method, best, "shared")),
                "n_relations": len(values),
                "by_seed": [
                    accuracy(by_relation([unit for unit in measured if unit["seed"] == seed], method, best))
                    for seed in seeds
                ],
            }
        )
    groups = (None, "builtin", "shared")
    others = [method for method in methods if method != NEW]
    return {
        "relations": sorted({f"{unit['group']}: {unit['relation']}" for unit in measured}),
        "seeds": seeds,
        "n_prompts": sum(len(unit["facts"]) for unit in measured),
        "table": table,
        "compared": [compared(measured, NEW, other, group) for other in others for group in groups],
        "by_relation": [
            {
                "relation": f"{unit['group']}: {unit['relation']}",
                "seed": unit["seed"],
                "n_prompts": len(unit["facts"]),
                "n_lre_prompts": unit["n_lre_prompts"],
                **{
                    method: mean(map(float, unit["outcomes"][method][best_reading(measured, method)]))
                    for method in methods
                    if unit["outcomes"][method]
                },
            }
            for unit in measured
        ],
    }


def print_tables(results: dict[str, Any]) -> None:
    """As Markdown."""
    print(f"{len(results['relations'])} relations, seeds {results['seeds']}, {results['n_prompts']} prompts\n")
    print("| method | plain | centred | calibrated | built-in, best | folder, best |\n|---|---|---|---|---|---|")
    for row in results["table"]:
        cells = [f"{row[name]:.3f}" for name in (*READINGS, "builtin", "shared")]
        print(f"| {row['method']} | {' | '.join(cells)} |")
    print()
    for row in results["compared"]:
        facts, relations = row["over_facts"], row["over_relations"]
        print(
            f"{row['first']} less {row['second']}, {row['group']}: {row['difference']:+.3f} facts "
            f"[{facts[0]:+.3f}, {facts[1]:+.3f}] relations [{relations[0]:+.3f}, {relations[1]:+.3f}]"
        )


def main() -> None:
    """Judge everything on test facts, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default all that are there")
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts, started = given.parts / short, time.perf_counter()
    warnings.filterwarnings("ignore", category=UserWarning)  # solvers on a handful of rows
    statistics = statistics_of(parts)
    measured = []
    for path, record in stored(parts):
        if given.seeds and record["seed"] not in given.seeds:
            continue
        test = torch.load(path.with_suffix(".test.pt"), weights_only=False)
        facts = test_facts(record, test, statistics)
        if facts is None:
            continue
        sets = sets_of(facts, short)
        measured.append(
            {
                **{name: record[name] for name in ("group", "relation", "seed")},
                "facts": list(zip(facts.judged_subjects, facts.judged_objects, strict=True)),
                "n_lre_prompts": len(record["lre"]["subjects"]),
                "outcomes": {
                    name: None if concepts is None else outcomes_of(facts, concepts)
                    for name, concepts in sets.items()
                },
            }
        )
        print(path.name, flush=True)
    results = summary(measured)
    print_tables(results)
    write_result(
        RESULTS / f"verdict_accuracy_{short}.json",
        kind="verdict_accuracy",
        results=results,
        settings={
            "command": f"python benchmarks/verdict/accuracy.py --model {given.model}"
            + (f" --seeds {' '.join(map(str, given.seeds))}" if given.seeds else ""),
            "split_seed": SPLIT_SEED,
            "layers": list(map(list, LAYERS[short])),
        },
        model=statistics.fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
