"""What a fit costs, by length of the prompt, width, layers, prompts, size of the grid and rank.

    .venv/bin/python benchmarks/scaling.py

Run it with nothing else on the machine (about 5 minutes). Models have random weights, since time does not depend
on them: gated MLPs four times as wide as the model, heads of 64, RMS norms, rotary positions, float32. Writes
`benchmarks/results/scaling.json` and `scaling.png`, and prints two tables: exponents fitted to the times, against
those expected, and what a fit would take on models that are not run here, an estimate from counted operations.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from peer_linear_relational.operations import matrix_product_gflops, minimum_gflop
from transformer_lens import HookedTransformer, HookedTransformerConfig

import lrc_tl as lrc
from lrc_tl.lre.fit_settings import sketch_for
from lrc_tl.lre.jacobian import jacobian_grid
from lrc_tl.lre.low_rank_fit import fit_pair
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
N_LAYERS, LOWEST, TOP = 14, 3, 9
WIDTH, PREFIX, SUFFIX, PROMPTS, RANK = 256, 40, 6, 2, 32


@dataclass(frozen=True, kw_only=True)
class Study:
    """One quantity that grows while the others keep their values."""

    name: str
    expected: float
    """Exponent of the time in it once the products with weights are all that counts."""
    sizes: tuple[int, ...]
    run: Callable[[int], Callable[[], Any]]
    """Prepares a size; what it gives is timed."""


def random_model(d_model: int = WIDTH) -> HookedTransformer:
    """A model of random weights without a tokenizer."""
    config = HookedTransformerConfig(
        n_layers=N_LAYERS,
        d_model=d_model,
        n_ctx=1024,
        d_head=64,
        n_heads=d_model // 64,
        d_mlp=4 * d_model,
        d_vocab=1000,
        act_fn="silu",
        gated_mlp=True,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=64,
        seed=0,
        device="cpu",
    )
    return HookedTransformer(config).eval().requires_grad_(False)


def made_up(
    prefix: int = PREFIX, suffix: int = SUFFIX, *, n: int = PROMPTS
) -> list[lrc.relations.TokenizedPrompt]:
    """Prompts of random tokens: `prefix` before the subject's last, `suffix` from there to the object of two."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(n):
        ids = torch.randint(1000, (prefix + suffix,), generator=generator).tolist()
        prompt = lrc.Prompt(text="made up", subject="made", object=f"object {number % 2}", relation="made up")
        text = suffix - 1  # the last token run is the object's first
        found.append(
            lrc.relations.TokenizedPrompt(
                prompt=prompt,
                text_ids=tuple(ids[: prefix + text]),
                object_ids=(ids[-1], ids[0]),
                subject_position=prefix,
            )
        )
    return found


def exact(
    model: HookedTransformer,
    tokenized: Sequence[lrc.relations.TokenizedPrompt],
    subjects: Sequence[int] = (LOWEST,),
    objects: Sequence[int] = (TOP,),
) -> Callable[[], Any]:
    """Whole Jacobians of a grid, added up as a fit does."""
    pairs = [(subject, object_) for object_ in objects for subject in subjects]

    def run() -> None:
        for tokens in tokenized:
            for _ in jacobian_grid(model, tokens, pairs, object_aggregation="mean", memory_limit=None):
                pass

    return run


def low_rank(
    model: HookedTransformer, tokenized: Sequence[lrc.relations.TokenizedPrompt], rank: int = RANK
) -> Callable[[], Any]:
    """A low-rank fit of one pair, in the fast setting."""
    sketch = sketch_for(lrc.LowRank(rank=rank), int(model.cfg.d_model))
    assert sketch is not None
    return lambda: fit_pair(
        model, tokenized, (LOWEST, TOP), sketch, object_aggregation="mean", memory_limit=None, progress=False
    )


def studies() -> list[Study]:
    """Every quantity, for exact fits and, where it differs, for low-rank ones."""
    base, wide = random_model(), random_model(512)
    widths = (128, 192, 256, 384, 512, 768)
    tokens = made_up()
    few = [1, 2, 4, 8]
    return [
        Study(
            name="tokens before the subject",
            expected=0,
            sizes=(8, 16, 32, 64, 128, 256),
            run=lambda n: exact(base, made_up(n)),
        ),
        Study(
            name="tokens from the subject on",
            expected=1,
            sizes=(3, 6, 12, 24, 48),
            run=lambda n: exact(base, made_up(suffix=n, n=1)),
        ),
        Study(name="d_model", expected=3, sizes=widths, run=lambda n: exact(random_model(n), tokens)),
        Study(name="d_model, low rank", expected=2, sizes=widths, run=lambda n: low_rank(random_model(n), tokens)),
        Study(
            name="layers from subject to object",
            expected=1,
            sizes=(1, 2, 4, 6, 10),
            run=lambda n: exact(base, tokens, (LOWEST,), (LOWEST + n,)),
        ),
        Study(name="prompts", expected=1, sizes=tuple(few), run=lambda n: exact(base, made_up(n=n))),
        Study(name="prompts, low rank", expected=1, sizes=tuple(few), run=lambda n: low_rank(base, made_up(n=n))),
        Study(
            name="subject layers of a grid",
            expected=0,
            sizes=(1, 2, 4, 6),
            run=lambda n: exact(base, tokens, range(LOWEST, LOWEST + n)),
        ),
        Study(
            name="object layers of a grid",
            expected=1,
            sizes=(1, 2, 3, 4),
            run=lambda n: exact(base, tokens, (LOWEST,), range(TOP, TOP + n)),
        ),
        Study(
            name="rank, low rank",
            expected=1,
            sizes=(8, 16, 32, 64, 128),
            run=lambda n: low_rank(wide, tokens, n),
        ),
    ]


def slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent of a power law through the points, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(study: Study, repeats: int) -> dict[str, Any]:
    """Seconds at every size, the median of `repeats` rounds after a warm-up, each round through all sizes."""
    runs = [study.run(size) for size in study.sizes]
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for own, run in zip(seconds, runs, strict=True):
            started = time.perf_counter()
            run()
            if number:
                own.append(time.perf_counter() - started)
    medians = [statistics.median(own) for own in seconds]
    return {
        "study": study.name,
        "sizes": list(study.sizes),
        "seconds": medians,
        "expected": study.expected,
        "exponent": slope(study.sizes, medians),
        "exponent_last_three": slope(study.sizes[-3:], medians[-3:]),
    }


ESTIMATED = {
    "Gemma 3 270M": (
        (6, 12),
        64,
        {"d_model": 640, "n_heads": 4, "n_key_value_heads": 1, "d_head": 256, "d_mlp": 2048},
    ),
    "Llama-2-7b": (
        (15, 25),
        192,
        {"d_model": 4096, "n_heads": 32, "n_key_value_heads": 32, "d_head": 128, "d_mlp": 11008},
    ),
    "Llama-2-70b": (
        (38, 62),
        192,
        {"d_model": 8192, "n_heads": 64, "n_key_value_heads": 8, "d_head": 128, "d_mlp": 28672},
    ),
}
"""Layers, rank and shape of models that are not run here."""
PRODUCTS_PER_RANK = 4.5
"""Of a low-rank fit in the fast setting: 2 (rank + oversample) products, oversample 1.25 times the rank."""


def estimates(sustained: Sequence[float]) -> list[dict[str, Any]]:
    """Operations a prompt (six tokens from the subject on, an object of two), and seconds at given rates."""
    rows = []
    tokens: Any = SimpleNamespace(subject_position=0, object_positions=range(4, 6))
    for name, (layers, rank, shape) in ESTIMATED.items():
        cfg = SimpleNamespace(**shape, gated_mlp=True)
        tera = minimum_gflop(SimpleNamespace(cfg=cfg), tokens, *layers) / 1e3
        share = min(1.0, PRODUCTS_PER_RANK * rank / cfg.d_model)
        rows.append(
            {
                "model": name,
                "layers": list(layers),
                "rank": rank,
                "estimate": True,
                "tflop_a_prompt": tera,
                "tflop_a_prompt_low_rank": tera * share,
                "seconds_for_20_prompts": {str(rate): 20 * tera / rate for rate in sustained},
                "seconds_for_20_prompts_low_rank": {str(rate): 20 * share * tera / rate for rate in sustained},
            }
        )
    return rows


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Times against sizes, each with a line of the expected exponent through its last point."""
    from matplotlib.figure import Figure

    columns = 4
    figure = Figure(figsize=(11.5, 2.5 * math.ceil(len(rows) / columns)), layout="constrained")
    grid = figure.subplots(math.ceil(len(rows) / columns), columns, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows, strict=False):
        sizes, seconds = np.array(row["sizes"], float), np.array(row["seconds"])
        axes.loglog(sizes, seconds, "o-", color="#0b6e99", markersize=4, label="measured")
        line = seconds[-1] * (sizes / sizes[-1]) ** row["expected"]
        axes.loglog(sizes, line, "--", color="#d1711f", label="expected exponent")
        axes.set_title(f"{row['exponent']:.2f}, expected {row['expected']:g}", fontsize=9)
        axes.set_xlabel(row["study"], fontsize=9)
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(min(seconds.min(), line.min()) / 1.5, 1.5 * max(seconds.max(), line.max()))
        axes.tick_params(labelsize=8)
    grid[0, 0].set_ylabel("seconds")
    grid[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, write, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="the studies whose names hold this text; writes nothing")
    given = parser.parse_args()
    started = time.perf_counter()
    rate = matrix_product_gflops()
    rows = []
    for study in studies():
        if given.only and given.only not in study.name:
            continue
        rows.append(measure(study, given.repeats))
        print(study.name, [f"{value:.3f}" for value in rows[-1]["seconds"]], flush=True)
    sustained = (rate * 0.6 / 1e3, 20.0, 100.0)
    found = estimates(sustained)
    if not given.only:
        write_result(
            RESULTS / "scaling.json",
            kind="scaling",
            results={"studies": rows, "estimates": found, "matrix_product_gflops": rate},
            settings={
                "command": "python benchmarks/scaling.py",
                "repeats": given.repeats,
                "threads": torch.get_num_threads(),
                "d_model": WIDTH,
                "tokens_before_subject": PREFIX,
                "tokens_from_subject": SUFFIX,
                "prompts": PROMPTS,
                "rank": RANK,
                "layers": [LOWEST, TOP],
                "torch": str(torch.__version__),
            },
            model=None,
            seconds=time.perf_counter() - started,
        )
        plot(rows, RESULTS / "scaling.png")
    print("| quantity | sizes | seconds | exponent | of the last three sizes | expected |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        ends = [row["seconds"][0], row["seconds"][-1]]
        print(
            f"| {row['study']} | {row['sizes'][0]} to {row['sizes'][-1]} | {ends[0]:.3f} to {ends[1]:.3f} | "
            f"{row['exponent']:.2f} | {row['exponent_last_three']:.2f} | {row['expected']:g} |"
        )
    rates = [f"at {value:.3g} TFLOP/s" for value in sustained]
    print(f"\n| estimate | layers | TFLOP a prompt | 20 prompts {' | '.join(rates)} | low rank, rank |")
    print("|---|---|---|" + "---|" * len(rates) + "---|")
    for row in found:
        seconds = [
            f"{whole:.3g} s ({thin:.3g} low rank)"
            for whole, thin in zip(
                row["seconds_for_20_prompts"].values(),
                row["seconds_for_20_prompts_low_rank"].values(),
                strict=True,
            )
        ]
        print(
            f"| {row['model']} | {row['layers'][0]} -> {row['layers'][1]} | {row['tflop_a_prompt']:.3g} | "
            f"{' | '.join(seconds)} | {row['rank']} |"
        )


if __name__ == "__main__":
    main()
