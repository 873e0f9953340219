"""What a sweep saves by sharing, and what two processes give, on the packaged Gemma.

    .venv/bin/python benchmarks/sweep_sharing.py [--work sharing pairs processes] [--every 2]

`sharing`: part of a comparison of layers as one sweep, and its cells one by one, each as a sweep of its own on
the loaded model. Of each method every n-th cell runs alone and stands for n. Rows of both are compared.
`pairs`: 18 pairs of layers for one relation, by `run_sweep` and by a loop over `evaluate` as one writes it.
`processes`: four units in two processes of one thread, and in one process of two threads; each loads its model.
Some twenty minutes on 2 cores; let nothing else run. Writes `benchmarks/results/sweep_sharing.json`.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import lrc_tl as lrc
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS, SweepCell, sweep_cells
from lrc_tl.storage.json_results import write_result

RESULT = Path(__file__).parent / "results" / "sweep_sharing.json"
MODEL = "packaged:gemma-3-270m"
SHARING = lrc.SweepSettings(
    methods=("lrc", "lrc-map", "svm"),
    subject_layers=(4, 6, 8, 10),
    object_layers=(12, 15),
    ranks=(16, 32, 64, 128, 192),
    betas=(0.005, 0.02),
    seeds=42,
    max_facts=40,
    max_lre_prompts=5,
    metrics=("accuracy", "causality", "hard_causality", "kl_elsewhere"),
    max_edits=10,
    n_side_effects=10,
)
PROCESSES = replace(SHARING, subject_layers=(6, 10), ranks=(64,), seeds=(42, 43))
PAIRS = lrc.SweepSettings(
    methods="lrc",
    subject_layers=range(4, 10),
    object_layers=(11, 13, 15),
    ranks=64,
    seeds=42,
    max_lre_prompts=5,
    metrics=("accuracy", "causality", "hard_causality"),
    validation=0.0,
)
KEYS = [*CELL_COLUMNS, "relation", "seed", "beta", "place", "reading", "metric"]


def relations(names: Sequence[str]) -> list[lrc.Relation]:
    """Built-in ones."""
    return [lrc.load_relation(name) for name in names]


def timed(model: Any, names: Sequence[str], settings: lrc.SweepSettings, **options: Any) -> tuple[Any, float]:
    """A sweep and its seconds."""
    started = time.perf_counter()
    result = lrc.run_sweep(model, relations(names), settings=settings, progress=False, **options)
    return result, time.perf_counter() - started


def alone(settings: lrc.SweepSettings, cell: SweepCell) -> lrc.SweepSettings:
    """The sweep of this cell only."""
    axes = {
        "subject_layers": cell.subject_layer, "object_layers": cell.object_layer,
        "ranks": cell.rank, "ridges": cell.ridge, "noises": cell.noise,
    }  # fmt: skip
    return replace(
        settings, methods=cell.method, **{name: () if value is None else value for name, value in axes.items()}
    )


def differences(whole: pd.DataFrame, parts: list[pd.DataFrame]) -> dict[str, float | int]:
    """How far the rows of both are apart; every row of a cell's own sweep has one in the whole."""
    both = pd.concat(parts).merge(whole, on=KEYS, how="left", suffixes=("", "_whole"), validate="one_to_one")
    gaps = (both["value"] - both["value_whole"]).abs().to_numpy(dtype=float)
    counted = both["count"].notna()
    return {
        "rows": len(both),
        "rows_without_a_counterpart": int(both["value_whole"].isna().sum()),
        "counts_that_differ": int((both["count"] != both["count_whole"])[counted].sum()),
        "largest_difference_of_the_others": float(np.nanmax(np.where(counted, 0.0, gaps))),
    }


def sharing(every: int) -> dict[str, Any]:
    """Seconds of one sweep and of its cells one by one, in turn."""
    model = lrc.load_model(MODEL)
    names = ["city in country"]
    timed(model, names, alone(SHARING, sweep_cells(SHARING, model.cfg.n_layers)[0]))
    whole, first = timed(model, names, SHARING)
    seconds: dict[str, list[float]] = {}
    parts = []
    number_of = {name: 0 for name in SHARING.methods}
    for cell in sweep_cells(SHARING, model.cfg.n_layers):
        if number_of[cell.method] % every == 0:
            result, taken = timed(model, names, alone(SHARING, cell))
            seconds.setdefault(cell.method, []).append(taken)
            parts.append(result.rows)
            print(f"{cell.name}: {taken:.1f} s", flush=True)
        number_of[cell.method] += 1
    _, second = timed(model, names, SHARING)
    together = sum(float(np.mean(taken)) * number_of[name] for name, taken in seconds.items())
    shared = (first + second) / 2
    plan = lrc.plan_sweep(model, relations(names), settings=SHARING)
    return {
        "relations": names,
        "cells": number_of,
        "cells_run_alone": {name: len(taken) for name, taken in seconds.items()},
        "seconds_of_one_sweep": [first, second],
        "seconds_of_a_cell_alone": {name: float(np.mean(taken)) for name, taken in seconds.items()},
        "seconds_cell_by_cell": together,
        "times_faster": together / shared,
        "jacobian_products_times_fewer": plan.products_cell_by_cell / plan.products,
        "agreement": differences(whole.rows, parts),
    }


def pairs(_: int) -> dict[str, Any]:
    """Seconds of one sweep, and of a loop over the same pairs with one shared grid of LREs."""
    model = lrc.load_model(MODEL)
    name = "city in country"
    _, by_sweep = timed(model, [name], PAIRS)
    started = time.perf_counter()
    train, test = lrc.load_relation(name).split(seed=42)
    shown = lrc.filter_known(model, train.prompts(shots=4, seed=42), progress=False).one_per_fact()
    asked = lrc.filter_known(model, test.prompts(templates="all", seed=42), progress=False).one_per_fact()
    grid = lrc.fit_layer_grid(
        model,
        shown.sample(5, seed=42),
        subject_layers=PAIRS.subject_layers,
        object_layers=PAIRS.object_layers,
        progress=False,
    )
    fitted = time.perf_counter() - started
    for lre in grid.values():
        concepts = lre.concepts(model, shown.prompts, rank=64)
        lrc.evaluate(model, concepts, asked.prompts, progress=False)
    return {
        "relation": name,
        "pairs": len(grid),
        "test_prompts": len(asked.prompts),
        "seconds_by_sweep": by_sweep,
        "seconds_by_loop": time.perf_counter() - started,
        "of_which_before_the_first_evaluate": fitted,
    }


def processes(_: int) -> dict[str, Any]:
    """Seconds of the same units in two processes and in one, in turn, twice."""
    names = ["animal class", "city in country"]
    one, two, rows = [], [], []
    for _ in range(2):
        result, taken = timed(MODEL, names, PROCESSES)
        one.append(taken)
        rows.append(result.rows)
        result, taken = timed(MODEL, names, PROCESSES, workers=2)
        two.append(taken)
        rows.append(result.rows)
        print(f"one process {one[-1]:.1f} s, two {two[-1]:.1f} s", flush=True)
    return {
        "relations": names,
        "threads": torch.get_num_threads(),
        "seconds_one_process": one,
        "seconds_two_processes": two,
        "one_over_two": sum(one) / sum(two),
        "agreement": differences(rows[0], [rows[1]]),
    }


WORKS = {"sharing": sharing, "pairs": pairs, "processes": processes}


def main() -> None:
    """Measures, prints, writes; work that was not asked for keeps its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--every", type=int, default=2, help="of each method's cells one in so many is run alone")
    options = parser.parse_args()
    started = time.perf_counter()
    results = json.loads(RESULT.read_text())["works"] if RESULT.exists() else {}
    for work in options.work:
        results[work] = WORKS[work](options.every)
    print(json.dumps(results, indent=1))
    write_result(
        RESULT,
        kind="sweep_sharing",
        results={"works": results},
        settings={
            "command": f"python benchmarks/sweep_sharing.py --every {options.every}",
            "sharing": SHARING.to_dict(),
            "pairs": PAIRS.to_dict(),
            "processes": PROCESSES.to_dict(),
        },
        model={"name": MODEL},
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
