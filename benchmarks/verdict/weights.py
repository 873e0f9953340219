"""How `lrc-map-combined` should be joined: weights of duals, noise, metric, share of class means; training facts.

    .venv/bin/python benchmarks/verdict/weights.py --parts PARTS [--model packaged:smollm2-135m] [--seeds 0]

After `metrics.py`. Four folds of each relation's training half, as in `search.py`; each is judged by what is made
without it. Some minutes for a model and seed. Writes
`benchmarks/results/verdict_weights_<model>.json` and prints its table.
"""

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch
from accuracy import READINGS, outcomes_of
from collect import LAYERS, SPLIT_SEED
from facts import FOLDS, Facts, Place, fold_facts, metric_path, statistics_of, stored
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.lre.dual import DualFit
from lrc_tl.lre.dual_means import MeansShare, joined_with_means, weights_by_lead
from lrc_tl.methods.method import METHODS
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
METHOD = METHODS["lrc-map-combined"]
POWERS = (1, 2, 4)
NOISES = (3.0, 10.0, 30.0, 100.0)
SHARES = (0.0, 0.1, 0.15, 0.3)


class Duals:
    """The duals at several places with one noise, made from the same facts."""

    def __init__(self, facts: Facts, fits: Mapping[Place, DualFit], *, noise: float) -> None:
        self._facts = facts
        given = {place: (facts.objects[place], facts.labels, facts.zero_shot) for place in fits}
        self.sets: Mapping[Place, lrc.ConceptSet] = {
            place: fit.concepts(*given[place], noise=noise, write_noise=METHOD.write_noise)
            for place, fit in fits.items()
        }
        self.leads = {place: fit.left_out_lead(*given[place], noise=noise) for place, fit in fits.items()}
        self.accuracies = {
            place: fit.choose_noise(*given[place], noises=[noise]).accuracies[noise] for place, fit in fits.items()
        }

    def joined(self, weights: Mapping[Place, float], share: float | None = None) -> lrc.ConceptSet:
        """The method with these weights, and this share of class means."""
        return joined_with_means(
            [self.sets[place] for place in weights],
            self._facts.zero_shot,
            self._facts.labels,
            self._facts.prior,
            share=MeansShare() if share is None else MeansShare(reading=share),
            method=METHOD.name,
            weights=list(weights.values()),
        )

    def by_lead(self, places: Sequence[Place], power: int = 1) -> dict[Place, float]:
        """Weights by leads to this power."""
        leads = [self.leads[place] for place in places]
        powered = [None if lead is None else max(lead, 0.0) ** power for lead in leads]
        return dict(zip(places, weights_by_lead(powered), strict=True))


def ways(facts: Facts, short: str) -> Iterator[tuple[str, lrc.ConceptSet]]:
    """Every way to join duals, by name."""
    assert METHOD.noise is not None
    _, (half_way, given, last) = LAYERS[short]
    two: list[Place] = [(given, "mean"), (last, "first_token")]
    three: list[Place] = [(half_way, "mean"), *two]
    metrics: Mapping[str, Tensor | None] = {"even noise": None, "noise in the metric": facts.metric}
    fits = {
        kind: {place: DualFit.of(facts.lres[place], facts.prior, metric=metric) for place in three}
        for kind, metric in metrics.items()
    }
    duals = Duals(facts, fits["noise in the metric"], noise=METHOD.noise)
    for place in three:
        yield f"the dual of {place[0]} alone", duals.joined({place: 1.0})
    for name, places in (("two", two), ("three", three)):
        yield f"{name} alike", duals.joined(dict.fromkeys(places, 1.0))
        for power in POWERS:
            yield f"{name} by lead to the power of {power}", duals.joined(duals.by_lead(places, power))
            by_accuracy = {place: duals.accuracies[place] ** power for place in places}
            if not sum(by_accuracy.values()):
                by_accuracy = dict.fromkeys(places, 1.0)
            yield f"{name} by accuracy to the power of {power}", duals.joined(by_accuracy)
    for kind, of_kind in fits.items():
        for noise in NOISES:
            grid = Duals(facts, {place: of_kind[place] for place in two}, noise=noise)
            yield f"{kind} of {noise:g}: the dual of {last} as it is", grid.sets[two[1]]
            for share in SHARES:
                weights = grid.by_lead(two)
                yield f"{kind} of {noise:g}: two by lead, {share:g} class means", grid.joined(weights, share)


def main() -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts, started = given.parts / short, time.perf_counter()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_grad_enabled(False)
    statistics = statistics_of(parts)
    rights: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for path, record in stored(parts):
        if not metric_path(path).exists():
            raise SystemExit("the metrics of the next token are missing; run metrics.py first")
        if record["seed"] not in given.seeds:
            continue
        relation = f"{record['group']}: {record['relation']}"
        for number in range(FOLDS):
            facts = fold_facts(record, statistics, number)
            if facts is None:
                continue
            for name, concepts in ways(facts, short):
                for reading, right in outcomes_of(facts, concepts).items():
                    rights[name][reading][relation] += map(float, right)
    table = [
        {"way": name, **{reading: mean(mean(right) for right in of[reading].values()) for reading in READINGS}}
        for name, of in rights.items()
    ]
    print(f"| way | {' | '.join(READINGS)} |\n|---|---|---|---|")
    for row in table:
        print(f"| {row['way']} | {' | '.join(f'{row[reading]:.3f}' for reading in READINGS)} |")
    relations = next(iter(rights.values()))[READINGS[0]]
    write_result(
        RESULTS / f"verdict_weights_{short}.json",
        kind="verdict_weights",
        results={"relations": sorted(relations), "n_facts": sum(map(len, relations.values())), "table": table},
        settings={
            "command": f"python benchmarks/verdict/weights.py --model {given.model} --seeds "
            f"{' '.join(map(str, given.seeds))}",
            "split_seed": SPLIT_SEED,
            "folds": FOLDS,
            "layers": list(map(list, LAYERS[short])),
        },
        model=statistics.fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
