"""What the plan of a sweep predicts, beside what the sweep takes: seconds of each unit, and the peak of memory.

    .venv/bin/python benchmarks/sweep_prediction.py

A small sweep of several relations on one model. Seconds are predicted twice: before anything runs, from the
measured rate of products (an upper bound, since it takes every fact for known); and after the first unit, for the
others. Seconds are those of all cores together. Writes `results/sweep_prediction.json`.
"""

import argparse
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scale_rehearsal import cpu_rate

import lrc_tl as lrc
from lrc_tl.models.sizes import model_sizes
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"


def peak_bytes() -> int:
    """The highest resident memory since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument(
        "--relations", nargs="+", default=["city_in_country", "animal_class", "landmark_in_country"]
    )
    parser.add_argument("--max-facts", type=int, default=40)
    parser.add_argument("--max-edits", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=3)
    given = parser.parse_args()
    model = lrc.load_model(given.model)
    relations = [lrc.load_relation(name) for name in given.relations]
    settings = lrc.SweepSettings(
        methods=("lrc", "svm"), subject_layers=(7, 9), object_layers=12, ranks=(64, 128), betas=0.005, seeds=0,
        max_facts=given.max_facts, max_lre_prompts=given.prompts, max_edits=given.max_edits, n_side_effects=10,
    )  # fmt: skip
    lrc.subject_activations(
        model, relations[0].prompts()[:2], layer=7
    )  # weights come into memory as they are used
    rate = cpu_rate(model_sizes(model).d_model, torch.float32, n_products=200)
    plan = lrc.plan_sweep(model, relations, settings=settings)
    print(plan)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    records: list[Any] = []
    ends = [time.process_time()]

    def finished(record: Any) -> None:
        records.append(record)
        ends.append(time.process_time())

    lrc.run_sweep(model, relations, settings=settings, on_record=finished, progress=False)
    taken = [end - start for start, end in pairwise(ends)]
    # CPU seconds in place of those on the clock, which other work on the machine makes longer.
    counted = [
        lrc.experiments.SweepRecord.from_dict({
            **record.to_dict(),
            "seconds": {name: of * cpu / sum(record.seconds.values()) for name, of in record.seconds.items()},
        })
        for record, cpu in zip(records, taken, strict=True) if record.left_out is None
    ]  # fmt: skip
    after_first = plan.seconds_of_units(counted[:1])
    before_all = {
        (unit.relation.name, unit.seed): cost.operations / rate
        for unit, cost in zip(plan.units, plan.costs, strict=True)
    }
    rows = [
        {
            "relation": record.relation, "cpu_seconds": cpu, "stages": dict(record.seconds),
            "predicted_before": before_all[record.relation, record.seed],
            "predicted_after_first": after_first[record.relation, record.seed], "left_out": record.left_out,
        }
        for record, cpu in zip(records, taken, strict=True)
    ]  # fmt: skip
    for row in rows:
        print(row)
    memory = {"bytes_beside_model": peak_bytes() - before, "bytes_predicted": plan.memory_bytes}
    print(memory)
    write_result(
        RESULTS / "sweep_prediction.json",
        kind="sweep_prediction",
        results={"units": rows, **memory, "product_rate": rate, "plan": plan.to_dict()},
        settings={**vars(given), "threads": torch.get_num_threads()},
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=sum(taken),
    )


if __name__ == "__main__":
    main()
