"""LREs and activations: lrc_tl and linear-relational on the same prompts, alternating in one run.

    peer=$(benchmarks/peer_linear_relational/make_environment.sh)
    .venv/bin/python benchmarks/peer_linear_relational/head_to_head.py --peer-python "$peer"

Run it with nothing else on the machine. Prints a table and writes `benchmarks/results/head_to_head.json`, in which
works that were not asked for stay as they were, each with the command that measured it. Works:
`pair` (exact LRE, 6 -> 12), `low_rank` (the same prompts by the low-rank method, against the peer's full fits of
`pair`), `grid` (exact, subject layers 4 to 11, object layers 12 to 15), `low_rank_grid` (against the peer's fits
of `grid`), `activations` (subjects at all layers).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from operations import matrix_product_gflops, minimum_gflop
from peer import RESULTS, Peer, forget_peak, plain, relative

import lrc_tl as lrc
from lrc_tl.models.packaged import PACKAGED, packaged_folder
from lrc_tl.storage.json_results import peak_rss_bytes, write_result

RESULT = RESULTS / "head_to_head.json"
ONE_PAIR = [(6, 12)]
GRID = [(subject, object_) for object_ in range(12, 16) for subject in range(4, 12)]
WORKS = ("pair", "low_rank", "grid", "low_rank_grid", "activations")
NEEDS = {"low_rank": "pair", "low_rank_grid": "grid"}
RANK = 64


def compare(model: Any, peer: Peer, prompts: list[lrc.Prompt], pairs: list[tuple[int, int]], repeats: int) -> Any:
    """Both libraries, `repeats` times in turn, prompt by prompt; the matrix-product rate before each."""
    subjects, objects = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})

    def fit(prompt: lrc.Prompt) -> Any:
        return lrc.fit_layer_grid(model, [prompt], subject_layers=subjects, object_layers=objects, progress=False)

    forget_peak()
    ours, theirs, rates, errors_weight, errors_bias = [], [], [], [], []
    theirs_peak = 0
    for prompt in prompts * repeats:
        rates.append(matrix_product_gflops())
        started = time.perf_counter()
        found = fit(prompt)
        ours.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            answer = peer.ask("fit", prompts=plain([prompt]), pairs=pairs, save=f"{folder}/peer.npz")
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


def compare_low_rank(
    model: Any, prompts: list[lrc.Prompt], pairs: list[tuple[int, int]], peer: dict[str, Any], repeats: int
) -> Any:
    """Low-rank fits of all prompts together, against the mean of the peer's full fits in this run, a prompt."""
    subjects, objects = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})

    forget_peak()
    ours = []
    for _ in range(repeats):
        started = time.perf_counter()
        grid = lrc.fit_layer_grid(
            model,
            prompts,
            subject_layers=subjects,
            object_layers=objects,
            solver=lrc.LowRank(rank=RANK),
            progress=False,
        )
        ours.append((time.perf_counter() - started) / len(prompts))
        print(f"{len(pairs)} pair(s), low rank: {ours[-1]:.2f} s a prompt", flush=True)
    theirs = statistics.mean(peer["peer_seconds"])
    return {
        "rank": RANK,
        "n_prompts": len(prompts),
        "products_a_prompt": sorted({lre.n_products for lre in grid.values()}),
        "methods": sorted({lre.solver for lre in grid.values()}),
        "seconds_a_prompt": ours,
        "median_seconds": statistics.median(ours),
        "peer_median_seconds": theirs,
        "speed_up": theirs / statistics.median(ours),
        "own_peak_rss_bytes": peak_rss_bytes(),
        "peer_peak_rss_bytes": peer["peer_peak_rss_bytes"],
    }


def compare_activations(model: Any, peer: Peer, prompts: list[lrc.Prompt], repeats: int) -> Any:
    """Subject activations of all prompts at all layers, in turn."""
    layers = list(range(int(model.cfg.n_layers)))
    tokenized = [lrc.relations.tokenize_prompt(model, prompt) for prompt in prompts]
    places = [{"text": one.prompt.text, "position": one.subject_position} for one in tokenized]
    forget_peak()
    ours, theirs, difference = [], [], 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        found = lrc.passes.prompt_activations(model, prompts, subject_layers=layers).subject
        ours.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            answer = peer.ask("activations", prompts=places, n_layers=len(layers), save=f"{folder}/peer.npy")
            array = torch.from_numpy(np.load(f"{folder}/peer.npy"))
        theirs.append(answer["seconds"])
        stacked = torch.stack([found[layer] for layer in layers], dim=1)
        difference = max(difference, float(((stacked - array).norm(dim=-1) / array.norm(dim=-1)).max()))
        print(f"{len(prompts)} activations: {ours[-1]:.2f} s, peer {theirs[-1]:.2f} s", flush=True)
    return {
        "n_prompts": len(prompts),
        "n_layers": len(layers),
        "seconds": ours,
        "peer_seconds": theirs,
        "median_seconds": statistics.median(ours),
        "peer_median_seconds": statistics.median(theirs),
        "speed_up": statistics.median(theirs) / statistics.median(ours),
        "largest_relative_difference": difference,
        "own_peak_rss_bytes": peak_rss_bytes(),
        "peer_peak_rss_bytes": answer["peak_rss_bytes"],
    }


def many_prompts(n: int) -> list[lrc.Prompt]:
    """Zero-shot prompts of the built-in relations, on every template, evenly from all of them."""
    relations = [lrc.load_relation(name) for name in lrc.built_in_relations()]
    columns = [relation.prompts(templates="all") for relation in relations]
    found = [prompt for row in zip_longest(*columns) for prompt in row if prompt is not None]
    if len(found) < n:
        raise SystemExit(f"the built-in relations give {len(found)} prompts, fewer than {n}")
    return found[:n]


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="what make_environment.sh prints")
    parser.add_argument("--work", default=",".join(WORKS), help="a list of works, or all")
    parser.add_argument("--prompts", type=int, default=6, help="prompts for the one pair 6 -> 12")
    parser.add_argument("--grid-prompts", type=int, default=1, help="prompts for the 8 x 4 grid")
    parser.add_argument(
        "--low-rank-grid-prompts", type=int, help="prompts for the low-rank grid; the peer's are those of the grid"
    )
    parser.add_argument("--activations", type=int, default=1000, help="prompts whose activations are read")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULT, help="the result file")
    given = parser.parse_args()
    works = given.work.split(",")
    for work in works:
        if work not in WORKS or NEEDS.get(work, work) not in works:
            raise SystemExit(f"--work {given.work}: allowed are {', '.join(WORKS)}; {NEEDS} go together")
    started = time.perf_counter()
    model = lrc.load_model("packaged:gemma-3-270m")
    shown = list(lrc.load_relation("city_in_country").prompts(shots=4, seed=0))
    prompts = shown[: given.prompts]
    tokenized = [lrc.relations.tokenize_prompt(model, prompt) for prompt in prompts]
    loading = peak_rss_bytes()
    forget_peak()
    peer = Peer(given.peer_python, packaged_folder(PACKAGED["packaged:gemma-3-270m"]))
    results: dict[str, Any] = {}
    if {"pair", "grid"} & set(works):
        compare(model, peer, prompts[:1], ONE_PAIR, 1)  # warm-up
    if "pair" in works:
        results["pair"] = one = compare(model, peer, prompts, ONE_PAIR, given.repeats)
        gflop = [minimum_gflop(model, tokens, 6, 12) for tokens in tokenized]
        one["minimum_gflop"] = gflop
        one["share_of_matrix_product_rate"] = statistics.median(
            operations / seconds / rate
            for operations, seconds, rate in zip(
                gflop * given.repeats, one["seconds"], one["matrix_product_gflops"], strict=True
            )
        )
    if "low_rank" in works:
        results["low_rank"] = compare_low_rank(model, prompts, ONE_PAIR, results["pair"], 3)
    if "grid" in works:
        results["grid"] = compare(model, peer, shown[: given.grid_prompts], GRID, given.repeats)
    if "low_rank_grid" in works:
        n_low_rank = given.low_rank_grid_prompts or given.grid_prompts
        results["low_rank_grid"] = compare_low_rank(model, shown[:n_low_rank], GRID, results["grid"], 1)
    if "activations" in works:
        many = many_prompts(given.activations)
        compare_activations(model, peer, many[:64], 1)  # warm-up
        results["activations"] = compare_activations(model, peer, many, 2)
    peer.close()
    command = ["python", "benchmarks/peer_linear_relational/head_to_head.py --peer-python $peer", *sys.argv[3:]]
    for row in results.values():
        row["command"] = " ".join(command)
    earlier = json.loads(given.json.read_text())["works"] if given.json.exists() else {}
    write_result(
        given.json,
        kind="head_to_head",
        results={"works": earlier | results},
        settings={
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
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )
    print("| work | prompts | lrc_tl, s | linear-relational, s | times faster | peak GiB, ours | the peer's |")
    print("|---|---|---|---|---|---|---|")
    for name, row in results.items():
        peaks = (row[key] / 2**30 for key in ("own_peak_rss_bytes", "peer_peak_rss_bytes"))
        print(
            f"| {name} | {row['n_prompts']} | {row['median_seconds']:.2f} | {row['peer_median_seconds']:.2f} | "
            f"{row['speed_up']:.2f} | {' | '.join(f'{peak:.2f}' for peak in peaks)} |"
        )
    for name in ("pair", "grid"):
        if name in results:
            worst = (results[name][f"largest_relative_difference_{which}"] for which in ("weight", "bias"))
            print(f"{name}: W and b differ by at most {', '.join(f'{one:.1e}' for one in worst)}")
    if "pair" in works:
        print(f"share of the matrix-product rate: {results['pair']['share_of_matrix_product_rate']:.2f}")


if __name__ == "__main__":
    main()
