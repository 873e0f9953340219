"""The metric of the next token at the known prompts of what `collect.py` keeps, for `lrc-fisher` and the default.

    .venv/bin/python benchmarks/verdict/metrics.py --parts PARTS [--model packaged:smollm2-135m]

One file `NAME.metric` beside each training half: of all its prompts, and of those without each fold. Seconds for
each; what is there already is skipped.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from collect import LAYERS, Record
from facts import ALL, FOLDS, folds, metric_path, stored

import lrc_tl as lrc
from lrc_tl.models.next_token_metric import next_token_metric


def metrics_of(model: Any, record: Record, last: int) -> dict[int, torch.Tensor]:
    """By fold, and under `ALL`: the metric at the prompts whose subjects are not in it, in float32."""
    few, fold = record["few_shot"], folds(record)
    residuals = few["object"][last, "first_token"]
    found = {}
    for number in (ALL, *range(FOLDS)):
        kept = [row for row, subject in enumerate(few["subjects"]) if fold.get(subject) != number]
        if kept:
            found[number] = next_token_metric(model, residuals[kept]).float()
    return found


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    model = lrc.load_model(given.model)
    for path, record in stored(given.parts / short):
        if metric_path(path).exists():
            continue
        started = time.perf_counter()
        unfinished = metric_path(path).with_suffix(".tmp")
        torch.save(metrics_of(model, record, LAYERS[short][1][-1]), unfinished)
        unfinished.replace(metric_path(path))
        print(f"{metric_path(path).name}, {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
