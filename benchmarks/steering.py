"""What steering costs in `model.generate`, and what a batched sweep over strengths saves, on the packaged Gemma.

    .venv/bin/python benchmarks/steering.py
    .venv/bin/python benchmarks/steering.py --clean

Run it with nothing else on the machine. Writes `benchmarks/results/steering_overhead.json` and prints two tables.
With `--clean` it measures what the extra pass of `value="clean"` costs, and writes `steering_clean_pass.json`.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import lrc_tl as lrc
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
TEXT = "Lyon is a city in the south-east of the country, and it is known for"
SUBJECT = "Lyon"
LAYER = 9
N_STRENGTHS = 16


def units(d_model: int, seed: int) -> list[torch.Tensor]:
    """Two random unit vectors; what a vector means makes no difference to the time."""
    vectors = torch.randn(2, d_model, generator=torch.Generator().manual_seed(seed))
    return [vector / vector.norm() for vector in vectors]


def timed(work: Callable[[], Any]) -> float:
    """Wall-clock seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def overhead(
    model: Any, cases: dict[str, lrc.Steering | None], *, repeats: int, new_tokens: int
) -> dict[str, Any]:
    """Each case against the unsteered run of the same round; the order of the cases turns from round to round."""

    def work(steering: lrc.Steering | None) -> None:
        options = {"do_sample": False, "stop_at_eos": False, "verbose": False, "return_type": "tokens"}
        if steering is None:
            model.generate(TEXT, max_new_tokens=new_tokens, **options)
            return
        with steering.on(model):
            model.generate(TEXT, max_new_tokens=new_tokens, **options)

    names = list(cases)
    for name in names:
        work(cases[name])  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(timed(lambda name=name: work(cases[name])))
        print(f"round {number + 1}:", {name: round(seconds[name][-1], 3) for name in names}, flush=True)
    plain = seconds["unsteered"]
    return {
        name: {
            "seconds": seconds[name],
            "median_seconds": statistics.median(seconds[name]),
            "ratios": [mine / other for mine, other in zip(seconds[name], plain, strict=True)],
            "median_ratio": statistics.median(m / o for m, o in zip(seconds[name], plain, strict=True)),
            "ratio_of_fastest": min(seconds[name]) / min(plain),
        }
        for name in names
    }


def sweeps(model: Any, vector: torch.Tensor, *, repeats: int, new_tokens: int) -> dict[str, Any]:
    """16 strengths as one batch against 16 single runs, in turn, by `model.generate` and by `lrc.generate`."""
    strengths = [0.01 * (number + 1) for number in range(N_STRENGTHS)]
    hook_name = f"blocks.{LAYER}.hook_resid_post"

    def plain(rows: list[float]) -> None:
        amount = torch.tensor(rows) if len(rows) > 1 else rows[0]
        with lrc.Steering(operation=lrc.steering.Add(vector=vector, strength=amount), hook_name=hook_name).on(
            model
        ):
            model.generate(
                [TEXT] * len(rows), max_new_tokens=new_tokens, do_sample=False, stop_at_eos=False, verbose=False,
                return_type="tokens",
            )  # fmt: skip

    def measured(rows: list[float]) -> None:
        steering = lrc.Steering(operation=lrc.steering.Add(vector=vector, strength=0.0), hook_name=hook_name)
        lrc.generate(model, TEXT, steering=steering, strengths=rows, max_new_tokens=new_tokens)

    found: dict[str, Any] = {}
    for name, work in (("model.generate", plain), ("lrc.generate", measured)):
        work(strengths)  # warm-up
        work(strengths[:1])
        batched, single = [], []
        for _ in range(repeats):
            batched.append(timed(lambda work=work: work(strengths)))
            single.append(timed(lambda work=work: [work([strength]) for strength in strengths]))
        found[name] = {
            "batched_seconds": batched,
            "single_seconds": single,
            "median_times_faster": statistics.median(s / b for s, b in zip(single, batched, strict=True)),
        }
    return found


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--new-tokens", type=int, default=6)
    parser.add_argument("--sweep-repeats", type=int, default=1)
    parser.add_argument("--clean", action="store_true", help='only what `value="clean"` costs')
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    kind = "steering_clean_pass" if given.clean else "steering_overhead"
    started = time.perf_counter()
    model: Any = lrc.load_model("packaged:gemma-3-270m")
    one, other = units(int(model.cfg.d_model), seed=0)
    hook_name = f"blocks.{LAYER}.hook_resid_post"
    add = lrc.Steering(operation=lrc.steering.Add(vector=one, strength=0.05), hook_name=hook_name)
    subject = lrc.last_subject_token(model, TEXT, subject=SUBJECT)
    swap = lrc.Steering(
        operation=lrc.steering.Swap(remove=one, add=other, beta=0.05),
        hook_name=hook_name,
        layers="all",
        where=subject,
    )
    cases: dict[str, lrc.Steering | None] = {"unsteered": None, "unsteered again": None}
    if given.clean:
        reflect = lrc.Steering(operation=lrc.steering.Reflect(vector=one), hook_name=hook_name, layers="all")
        clean = replace(reflect, operation=lrc.steering.FromClean(does="reflect", vector=one))
        cases |= {
            "reflect, all layers": reflect,
            "reflect by clean scores, all layers": clean,
            "reflect by clean scores, all layers, generated tokens": clean.at(where="generated"),
        }
    else:
        cases |= {
            "add, one layer, all positions": add,
            "swap, all layers, last subject token": swap,
            "add, all layers, all positions": add.at(layers="all"),
        }
    costs = overhead(model, cases, repeats=given.repeats, new_tokens=given.new_tokens)
    print("| steering | median s | median of ratios to unsteered | ratio of fastest |\n|---|---|---|---|")
    for name, row in costs.items():
        numbers = (row[key] for key in ("median_seconds", "median_ratio", "ratio_of_fastest"))
        print(f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |", flush=True)
    saved: dict[str, Any] = {}
    if not given.clean:
        saved = sweeps(model, one, repeats=given.sweep_repeats, new_tokens=given.new_tokens)
    write_result(
        given.out or RESULTS / f"{kind}.json",
        kind=kind,
        results={"overhead": costs, "sweep": saved} if saved else {"overhead": costs},
        settings={
            "command": " ".join(["python benchmarks/steering.py", *sys.argv[1:]]),
            "text": TEXT,
            "prompt_tokens": model.to_tokens(TEXT).shape[1],
            "new_tokens": given.new_tokens,
            "repeats": given.repeats,
            "sweep_repeats": given.sweep_repeats,
            "n_strengths": N_STRENGTHS,
            "layer": LAYER,
            "seed": 0,
            "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "system": platform.system()},
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "transformer-lens")},
        },
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )
    if saved:
        print("| 16 strengths with | batched, s | 16 single runs, s | times faster |\n|---|---|---|---|")
        for name, row in saved.items():
            middle = [statistics.median(row[key]) for key in ("batched_seconds", "single_seconds")]
            print(f"| {name} | {middle[0]:.2f} | {middle[1]:.2f} | {row['median_times_faster']:.1f} |")


if __name__ == "__main__":
    main()
