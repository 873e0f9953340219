"""A thousand steered generations and two hundred fits in one process: what is left of memory, files and hooks.

python benchmarks/long_use.py [--generations 1000] [--fits 200] [--json FILE]
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "passes")]

import tiny_models  # noqa: E402
import torch  # noqa: E402
from left_behind import left_on  # noqa: E402
from long_use import run_long_use  # noqa: E402
from test_activations import random_prompts  # noqa: E402

MOST_GROWTH = 8 << 20
"""Bytes that resident memory may grow after the first fifth of the work: what allocators keep for themselves."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generations", type=int, default=1000)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for kind in ("HookedTransformer", "TransformerBridge"):
        with tempfile.TemporaryDirectory() as place:
            tokenizer = tiny_models.word_tokenizer(Path(place) / "tokenizer")
            if kind == "HookedTransformer":
                model = tiny_models.hooked_transformer(tokenizer)
            else:
                model = tiny_models.bridge(tokenizer, Path(place) / "model")
            model = model.eval().requires_grad_(False)
            before = left_on(model)
            (work := Path(place) / "work").mkdir()
            started = time.process_time()
            measured = run_long_use(
                model,
                random_prompts(6, seed=5),
                n_generations=options.generations,
                n_fits=options.fits,
                folder=work,
            )
            rows.append(
                {
                    "model": kind,
                    **asdict(measured),
                    "hooks_left": len(left_on(model)) - len(before),
                    "files_left": len(list(work.iterdir())),
                    "cpu_seconds": round(time.process_time() - started, 1),
                }
            )
        print(json.dumps(rows[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": rows, "torch": torch.__version__}, indent=2) + "\n")
    return int(
        any(
            row["resident_after"] - row["resident_before"] > MOST_GROWTH
            or row["hooks_left"]
            or row["files_left"]
            or row["files_after"] > row["files_before"]
            or row["tensors_after"] > row["tensors_before"]
            for row in rows
        )
    )


if __name__ == "__main__":
    sys.exit(main())
