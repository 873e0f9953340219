"""How many facts of each built-in relation a model knows: zero-shot on any template, and few-shot.

    .venv/bin/python benchmarks/known_facts.py [--model packaged:gemma-3-270m] [--only NAME ...]

Writes `benchmarks/results/known_facts_<model>.json` and prints the table in `benchmarks/README.md`.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import lrc_tl as lrc
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"


def known_facts(model: lrc.models.HookedModel, relation: lrc.Relation) -> dict[str, object]:
    """Counts for one relation; a fact is known zero-shot when it is on at least one template."""
    zero_shot = lrc.filter_known(model, relation.prompts(templates="all"))
    few_shot = lrc.filter_known(model, relation.prompts(shots=4, seed=0))
    facts = {(prompt.subject, prompt.object) for prompt in zero_shot.prompts}
    return {
        "relation": relation.name,
        "kind": relation.kind,
        "facts": len(relation.facts),
        "objects": len(relation.objects),
        "known_zero_shot": len(facts),
        "objects_zero_shot": len({name for _, name in facts}),
        "known_few_shot": len(few_shot.prompts),
        "objects_few_shot": len({prompt.object for prompt in few_shot.prompts}),
        # Prompts that a plain rule for word ends, no letter behind, would judge otherwise.
        "dropped_by_rule": len(zero_shot.dropped_by_rule) + len(few_shot.dropped_by_rule),
        "kept_by_rule": len(zero_shot.kept_by_rule) + len(few_shot.kept_by_rule),
        "by_template": dict(
            Counter(prompt.text.replace(prompt.subject, "{}") for prompt in zero_shot.prompts).most_common()
        ),
    }


def main() -> None:
    """Count, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME")
    given = parser.parse_args()
    model = lrc.load_model(given.model)
    started = time.perf_counter()
    rows = []
    print("| relation | kind | facts | objects | known zero-shot (objects) | known 4-shot (objects) |")
    print("|---|---|---|---|---|---|")
    for name in given.only or lrc.built_in_relations():
        row = known_facts(model, lrc.load_relation(name))
        rows.append(row)
        print(
            f"| {row['relation']} | {row['kind']} | {row['facts']} | {row['objects']} | {row['known_zero_shot']} "
            f"({row['objects_zero_shot']}) | {row['known_few_shot']} ({row['objects_few_shot']}) |",
            flush=True,
        )
    fingerprint = lrc.models.ModelFingerprint.of(model)
    write_result(
        RESULTS / f"known_facts_{fingerprint.name}.json",
        kind="known_facts",
        results={"rows": rows},
        settings={"shots": 4, "seed": 0, "model": given.model},
        model=fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
