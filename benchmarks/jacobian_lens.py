"""Seconds of our Jacobians and of TransformerLens's `JacobianLens.fit`: the same model, layers and texts.

    .venv/bin/python benchmarks/jacobian_lens.py [--prompts 4]

They compute different things. `JacobianLens.fit` sums the Jacobian over all later target positions and averages it
over the source positions of a text; an LRE has one source, the subject's last token, and the mean of the object's
tokens. Both go from subject layers 4 to 11 to the last of the packaged Gemma on the Bridge, in turn, for texts of
about 40 tokens.
Writes `benchmarks/results/jacobian_lens.json`.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import lrc_tl as lrc
from lrc_tl.storage.json_results import write_result

RESULT = Path(__file__).parent / "results" / "jacobian_lens.json"
MODEL = "packaged:gemma-3-270m"
SUBJECT_LAYERS = range(4, 12)
N_TOKENS = 40
SKIPPED = 4
"""Leading positions that `JacobianLens.fit` leaves out of its mean; they cost as much as the others."""


def texts_of_about(model: Any, n_tokens: int, n: int) -> list[lrc.Prompt]:
    """Few-shot prompts of a relation, those nearest to this number of tokens."""
    prompts = lrc.load_relation("city in country").prompts(shots=2, seed=0)
    length = {prompt: len(lrc.relations.tokenize_prompt(model, prompt).input_ids) for prompt in prompts}
    return sorted(prompts, key=lambda prompt: abs(length[prompt] - n_tokens))[:n]


def of_the_lens(model: Any, text: str, dim_batch: int) -> None:
    """TransformerLens's own fit."""
    from transformer_lens.tools.analysis import JacobianLens

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        JacobianLens.fit(
            model,
            [text],
            corpus="benchmark",
            source_layers=list(SUBJECT_LAYERS),
            dim_batch=dim_batch,
            skip_first_positions=SKIPPED,
            show_progress=False,
        )


def of_ours(model: Any, prompt: lrc.Prompt, solver: lrc.LowRank | str) -> None:
    """A grid of one prompt."""
    lrc.fit_layer_grid(
        model, [prompt], subject_layers=SUBJECT_LAYERS, object_layers=[-1], solver=solver, progress=False
    )


def gflop(model: Any, n_positions: int, n_rows: int) -> float:
    """Products with weights in a plain reverse pass of all rows from the last layer to the lowest of ours.

    Attention over positions is not counted. Ours takes less where an MLP's Jacobian is made once for all rows.
    """
    cfg = model.cfg
    groups = cfg.n_key_value_heads or cfg.n_heads
    attention = 2 * cfg.d_model * cfg.d_head * (cfg.n_heads + groups)
    layer = attention + 3 * cfg.d_model * cfg.d_mlp
    return 2 * n_rows * n_positions * layer * (cfg.n_layers - 1 - min(SUBJECT_LAYERS)) / 1e9


def main() -> None:
    """Measures in turn, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    options = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model(MODEL, backend="bridge")
    prompts = texts_of_about(model, N_TOKENS, options.prompts)
    works = {
        "JacobianLens.fit, 8 rows at once (its default)": lambda prompt: of_the_lens(model, prompt.text, 8),
        "JacobianLens.fit, 64 rows at once": lambda prompt: of_the_lens(model, prompt.text, 64),
        "fit_layer_grid, exact": lambda prompt: of_ours(model, prompt, "exact"),
        "fit_layer_grid, low rank, rank 64": lambda prompt: of_ours(model, prompt, lrc.LowRank(rank=64)),
    }
    of_ours(model, prompts[0], "exact")
    seconds: dict[str, list[float]] = {name: [] for name in works}
    shapes = []
    for prompt in prompts:
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        n_text, n_after = len(tokens.text_ids), tokens.object_positions[-1] - tokens.subject_position + 1
        rows = int(model.cfg.d_model)
        shapes.append(
            {
                "tokens": n_text,
                "from_the_subject_on": n_after,
                "gflop_of_all_positions": gflop(model, n_text, rows),
                "gflop_from_the_subject_on": gflop(model, n_after, rows),
            }
        )
        for name, work in works.items():
            before = time.perf_counter()
            work(prompt)
            seconds[name].append(time.perf_counter() - before)
            print(f"{n_text} tokens, {name}: {seconds[name][-1]:.2f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} |")
    write_result(
        RESULT,
        kind="jacobian_lens",
        results={
            "subject_layers": list(SUBJECT_LAYERS),
            "texts": shapes,
            "seconds_per_text": seconds,
            "median_seconds": medians,
        },
        settings={"command": f"python benchmarks/jacobian_lens.py --prompts {options.prompts}"},
        model={"name": MODEL, "backend": "bridge"},
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
