"""Exact Jacobian LREs: lrc_tl and linear-relational on the same prompts, alternating in one run.

    peer=$(benchmarks/peer_linear_relational/make_environment.sh)
    .venv/bin/python benchmarks/peer_linear_relational/head_to_head.py --peer-python "$peer"

Run it with nothing else on the machine. Writes `benchmarks/results/jacobian_head_to_head.json` and prints a table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lrc_tl as lrc
from lrc_tl.json_results import peak_rss_bytes, write_result
from lrc_tl.packaged import PACKAGED, packaged_folder

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "jacobian_head_to_head.json"
ONE_PAIR = [(6, 12)]
GRID = [(subject, object_) for object_ in range(12, 16) for subject in range(4, 12)]


class Peer:
    """The other library, answering requests in its own process."""

    def __init__(self, python: str, folder: Path) -> None:
        command = [python, str(HERE / "peer_worker.py"), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def fit(self, prompts: list[lrc.Prompt], pairs: list[tuple[int, int]], save: str | None) -> dict[str, Any]:
        texts = [{"text": one.text, "subject": one.subject, "object": one.object} for one in prompts]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": texts, "pairs": pairs, "save": save}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer's process ended with code {self._process.wait()}; its errors are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def matrix_product_gflops() -> float:
    """The machine's float32 matrix products of the sizes in question, the best of five."""
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(512, 2048, generator=generator), torch.randn(2048, 640, generator=generator)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(20):
            rows @ weight
        best = min(best, time.perf_counter() - started)
    return 20 * 2 * 512 * 2048 * 640 / best / 1e9


def minimum_gflop(model: Any, tokens: lrc.TokenizedPrompt, subject: int, object_: int) -> float:
    """Products that the reverse pass from one layer to another needs at least, for all d_model rows.

    In the topmost layer only the object positions take part but for keys and values, in the lowest only the
    subject gives keys, values and a query; the attention over the positions itself is not counted.
    """
    cfg = model.cfg
    groups = cfg.n_key_value_heads or cfg.n_heads
    query = output = cfg.d_model * cfg.n_heads * cfg.d_head
    keys_values = 2 * cfg.d_model * groups * cfg.d_head
    mlp = (3 if cfg.gated_mlp else 2) * cfg.d_model * cfg.d_mlp
    n_after = tokens.object_positions[-1] - tokens.subject_position + 1
    n_objects = len(tokens.object_positions)
    below = (object_ - subject - 1) * n_after * (query + output + keys_values + mlp)
    top = n_objects * (query + output + mlp) + n_after * keys_values
    spared = (n_after - 1) * (query + keys_values)  # in the lowest layer, other positions than the subject's
    return 2 * cfg.d_model * (below + top - spared) / 1e9


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """Norm of the difference over the norm of the peer's."""
    reference = torch.from_numpy(theirs).reshape(ours.shape)
    return float((ours - reference).norm() / reference.norm())


def forget_peak() -> None:
    """Count the most memory from here on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def compare(model: Any, peer: Peer, prompts: list[lrc.Prompt], pairs: list[tuple[int, int]], repeats: int) -> Any:
    """Both libraries, `repeats` times in turn, prompt by prompt; the matrix-product rate before each."""
    subjects, objects = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})

    def fit(prompt: lrc.Prompt) -> Any:
        return lrc.fit_layer_grid(model, [prompt], subject_layers=subjects, object_layers=objects, progress=False)

    ours, theirs, rates, errors_weight, errors_bias = [], [], [], [], []
    theirs_peak = 0
    for prompt in prompts * repeats:
        rates.append(matrix_product_gflops())
        started = time.perf_counter()
        found = fit(prompt)
        ours.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            answer = peer.fit([prompt], pairs, f"{folder}/peer.npz")
            arrays = np.load(f"{folder}/peer.npz")
            for subject, object_ in pairs:
                name = f"{subject}-{object_}"
                errors_weight.append(relative(found[subject, object_].weight, arrays[f"weight-{name}"]))
                errors_bias.append(relative(found[subject, object_].bias, arrays[f"bias-{name}"]))
        theirs.append(answer["seconds"])
        theirs_peak = answer["peak_rss_bytes"]
        print(
            f"{len(pairs)} pair(s): {ours[-1]:.2f} s, peer {theirs[-1]:.2f} s, {rates[-1]:.0f} GFLOP/s", flush=True
        )
    return {
        "subject_layers": subjects,
        "object_layers": objects,
        "n_prompts": len(prompts),
        "repeats": repeats,
        "seconds": ours,
        "peer_seconds": theirs,
        "median_seconds": statistics.median(ours),
        "peer_median_seconds": statistics.median(theirs),
        "speed_up": statistics.median(theirs) / statistics.median(ours),
        "matrix_product_gflops": rates,
        "largest_relative_difference_weight": max(errors_weight),
        "largest_relative_difference_bias": max(errors_bias),
        "own_peak_rss_bytes": peak_rss_bytes(),
        "peer_peak_rss_bytes": theirs_peak,
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="what make_environment.sh prints")
    parser.add_argument("--prompts", type=int, default=6, help="prompts for the one pair 6 -> 12")
    parser.add_argument("--grid-prompts", type=int, default=1, help="prompts for the 8 x 4 grid")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model("packaged:gemma-3-270m")
    prompts = list(lrc.load_relation("city_in_country").prompts(shots=4, seed=0))[: given.prompts]
    tokenized = [lrc.tokenize_prompt(model, prompt) for prompt in prompts]
    loading = peak_rss_bytes()
    forget_peak()
    peer = Peer(given.peer_python, packaged_folder(PACKAGED["packaged:gemma-3-270m"]))
    compare(model, peer, prompts[:1], ONE_PAIR, 1)  # warm-up
    one = compare(model, peer, prompts, ONE_PAIR, given.repeats)
    gflop = [minimum_gflop(model, tokens, 6, 12) for tokens in tokenized]
    one["minimum_gflop"] = gflop
    one["share_of_matrix_product_rate"] = statistics.median(
        operations / seconds / rate
        for operations, seconds, rate in zip(
            gflop * given.repeats, one["seconds"], one["matrix_product_gflops"], strict=True
        )
    )
    grid = compare(model, peer, prompts[: given.grid_prompts], GRID, given.repeats)
    peer.close()
    write_result(
        RESULT,
        kind="jacobian_head_to_head",
        results={"one_pair": one, "grid": grid},
        settings={
            "command": " ".join(
                ["python", "benchmarks/peer_linear_relational/head_to_head.py --peer-python $peer", *sys.argv[3:]]
            ),
            "relation": "city_in_country",
            "shots": 4,
            "seed": 0,
            "tokens": [len(tokens.input_ids) for tokens in tokenized],
            "tokens_from_subject": [len(tokens.input_ids) - tokens.subject_position for tokens in tokenized],
            "object_tokens": [len(tokens.object_positions) for tokens in tokenized],
            "versions": {name: version(name) for name in ("torch", "transformers", "transformer-lens")},
            "threads": torch.get_num_threads(),
            "own_peak_rss_bytes_loading": loading,
            "peer": peer.about,
            "peer_attention": "eager",
            "peer_cache": "copied before each forward pass",
        },
        model=lrc.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )
    print("| work | lrc_tl, median s a prompt | linear-relational | times faster | W, b differ by at most |")
    print("|---|---|---|---|---|")
    for name, row in (("one pair, 6 -> 12", one), ("8 x 4 grid", grid)):
        print(
            f"| {name} | {row['median_seconds']:.2f} | {row['peer_median_seconds']:.2f} | {row['speed_up']:.2f} | "
            f"{row['largest_relative_difference_weight']:.1e}, {row['largest_relative_difference_bias']:.1e} |"
        )
    print(f"share of the matrix-product rate: {one['share_of_matrix_product_rate']:.2f}")


if __name__ == "__main__":
    main()
