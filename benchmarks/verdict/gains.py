"""Where `lrc-map-combined` gains and where not: each relation's gain beside what is known of it beforehand.

    .venv/bin/python benchmarks/verdict/gains.py --parts PARTS [--model packaged:smollm2-135m]

After `accuracy.py`, whose result file it reads; seconds, and no model. What is known beforehand comes from
training facts alone. With some twenty relations a rank correlation below about .4 can be chance. Writes
`benchmarks/results/verdict_gains_<model>.json` and prints its tables.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean

import torch
from collect import LAYERS, Record
from facts import Facts, statistics_of, stored, test_facts
from scipy.stats import spearmanr

from lrc_tl.lre.dual import DualFit
from lrc_tl.methods.method import METHODS
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
NEW, OTHERS = "lrc-map-combined", ("lrc-combined", "svm", "mean-difference", "lda, zero-shot of all facts")
KNOWN = (
    "objects", "facts of an object", "share of the commonest object", "tokens of an object above 1", "lead, given",
    "lead, last", "alike subjects",
)  # fmt: skip


def known_of(facts: Facts, short: str) -> dict[str, float]:
    """What training facts say of a relation before anything is judged."""
    _, (_, given, last) = LAYERS[short]
    noise = METHODS[NEW].noise
    assert noise is not None
    counts = Counter(facts.labels)
    leads = []
    for place in ((given, "mean"), (last, "first_token")):
        fit = DualFit.of(facts.lres[place], facts.prior, metric=facts.metric)
        lead = fit.left_out_lead(facts.objects[place], facts.labels, facts.zero_shot, noise=noise)
        leads.append(0.0 if lead is None else lead)
    several = (facts.objects[last, "first_token"] != facts.objects[last, "mean"]).any(1)
    subjects = facts.plain.double() - facts.prior.samples.double().mean(0)
    unit = subjects / subjects.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
    values = (
        len(counts),
        len(facts.labels) / len(counts),
        max(counts.values()) / len(facts.labels),
        float(several.double().mean()),
        *leads,
        float(cosines.mean()),
    )
    return dict(zip(KNOWN, map(float, values), strict=True))


def main() -> None:
    """Put both beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    given = parser.parse_args()
    short, started = given.model.removeprefix("packaged:"), time.perf_counter()
    judged = json.loads((RESULTS / f"verdict_accuracy_{short}.json").read_text(encoding="utf-8"))
    statistics = statistics_of(given.parts / short)
    known: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path, record in stored(given.parts / short):
        facts = None
        if record["seed"] in judged["seeds"]:
            test = torch.load(path.with_suffix(".test.pt"), weights_only=False)
            facts = test_facts(record, test, statistics)
        if facts is not None:
            for name, value in known_of(facts, short).items():
                known[f"{record['group']}: {record['relation']}"][name].append(value)
    rows: list[Record] = []
    for relation, of_relation in known.items():
        units = [unit for unit in judged["by_relation"] if unit["relation"] == relation]
        accuracy = {
            name: mean(unit[name] for unit in units if name in unit)
            for name in (NEW, *OTHERS)
            if any(name in unit for unit in units)
        }
        rows.append({
            "relation": relation,
            "accuracy": accuracy[NEW],
            **{f"less {name}": accuracy[NEW] - accuracy[name] for name in OTHERS if name in accuracy},
            **{name: mean(values) for name, values in of_relation.items()},
        })  # fmt: skip
    rows.sort(key=lambda row: -row["less svm"])
    gains = [f"less {name}" for name in OTHERS]
    columns = ["accuracy", *gains, *KNOWN]
    print(f"| relation | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
    for row in rows:
        print(
            f"| {row['relation']} | {' | '.join(f'{row[name]:.2f}' if name in row else '' for name in columns)} |"
        )
    correlations = []
    for name in KNOWN:
        of_name: Record = {"known": name}
        for gain in ("accuracy", *gains):
            both = [(row[name], row[gain]) for row in rows if gain in row]
            of_name[gain] = float(spearmanr(*zip(*both, strict=True)).statistic)
        correlations.append(of_name)
    print(f"\n| rank correlation | {' | '.join(['accuracy', *gains])} |\n{'|---' * (2 + len(gains))}|")
    for of_name in correlations:
        print(f"| {of_name['known']} | {' | '.join(f'{of_name[gain]:+.2f}' for gain in ('accuracy', *gains))} |")
    write_result(
        RESULTS / f"verdict_gains_{short}.json",
        kind="verdict_gains",
        results={"seeds": judged["seeds"], "relations": rows, "correlations": correlations},
        settings={"command": f"python benchmarks/verdict/gains.py --model {given.model}", "layers": LAYERS[short]},
        model=statistics.fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
