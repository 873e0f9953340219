"""Low-rank fits against exact ones: time, directions, predictions for unseen prompts.

    .venv/bin/python benchmarks/low_rank.py [--relations DIR] [--only NAME ...] [--prompts 20] [--grid-prompts 2]

Run it with nothing else on the machine. Writes `benchmarks/results/low_rank.json` and prints two tables; with
`--prompts 0` only the grids are fitted, and the rest of the file stays as it was, command included. The setting is
that of `peer_linear_relational/head_to_head.py`: packaged Gemma, 4-shot prompts, 6 -> 12, and the grid of subject
layers 4 to 11 and object layers 12 to 15.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import lrc_tl as lrc
from lrc_tl.lre.fit_settings import Solver
from lrc_tl.storage.json_results import peak_rss_bytes, write_result

RESULT = Path(__file__).parent / "results" / "low_rank.json"
ONE_PAIR = {"subject_layer": 6, "object_layer": 12}
GRID = {"subject_layers": range(4, 12), "object_layers": range(12, 16)}
RELATIONS = ("city_in_country", "word_first_letter", "company_in_country", "person_field", "animal_class")


def timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    """What `fit` gives, and its seconds."""
    started = time.perf_counter()
    found = fit()
    return found, time.perf_counter() - started


def likeness(
    model: Any,
    found: lrc.LinearRelationalEmbedding,
    exact: lrc.LinearRelationalEmbedding,
    prompts: Sequence[lrc.Prompt],
    unseen: torch.Tensor,
    rank: int,
) -> dict[str, Any]:
    """Cosines of all directions, and how many unseen subjects get the same prediction."""
    ours, theirs = found.concepts(model, prompts, rank=rank), exact.concepts(model, prompts, rank=rank)
    vectors = [torch.stack([concepts[name].vector for name in theirs]) for concepts in (ours, theirs)]
    same = (unseen @ vectors[0].T).argmax(1) == (unseen @ vectors[1].T).argmax(1)
    return {
        "cosines": (vectors[0] * vectors[1]).sum(1).tolist(),
        "same_predictions": int(same.sum()),
        "predictions": len(same),
        "method": found.solver,
        "products": found.n_products,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table from those of the relations."""
    cosines = [cosine for row in rows for cosine in row["cosines"]]
    return {
        "seconds_a_prompt": statistics.median(row["seconds_a_prompt"] for row in rows),
        "products": statistics.median(row["products"] for row in rows),
        "exact_fits": sum(row["method"] == "exact" for row in rows),
        "fits": len(rows),
        "cosine_min": min(cosines),
        "cosine_median": statistics.median(cosines),
        "same_predictions": sum(row["same_predictions"] for row in rows),
        "predictions": sum(row["predictions"] for row in rows),
    }


def estimated_saving(rank: int, d_model: int, own_rank: int, own_d_model: int, products: float) -> dict[str, Any]:
    """Products at another width if the spectrum keeps its shape over rank / d_model: the share stays."""
    share = products / (2 * own_rank)
    return {
        "estimate": True,
        "d_model": d_model,
        "rank": rank,
        "products": round(share * 2 * rank),
        "saving": d_model / (share * 2 * rank),
        "own_saving": own_d_model / products,
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--relations", type=Path, help="a folder in the LRE format; its relations come first")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--grid-prompts", type=int, default=0)
    parser.add_argument("--rank", type=int, default=64)
    given = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model("packaged:gemma-3-270m")
    relations = list(lrc.load_relations(given.relations)[0].values()) if given.relations else []
    taken = {relation.name for relation in relations}
    relations += [one for one in map(lrc.load_relation, RELATIONS) if one.name not in taken]
    if given.only:
        relations = [lrc.find_relation(relations, name) for name in given.only]
    low = lrc.LowRank(rank=given.rank)
    settings: dict[str, Solver] = {"exact": "exact", "fast": low, "safe": replace(low, min_cosine=0.99)}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in settings}
    warm = False
    for relation in relations if given.prompts else ():
        train, test = relation.split(seed=0)
        prompts = lrc.filter_known(model, train.prompts(shots=4, seed=0)).sample(given.prompts, seed=0)
        unseen = lrc.subject_activations(model, list(test.prompts()), layer=ONE_PAIR["subject_layer"])
        exact: lrc.LinearRelationalEmbedding | None = None
        for name, solver in settings.items():

            def fit(some: Sequence[lrc.Prompt], solver: Solver = solver) -> Any:
                return lrc.LinearRelationalEmbedding.fit(model, some, **ONE_PAIR, solver=solver, progress=False)

            if not warm:
                fit(prompts[:2])
            found, seconds = timed(lambda fit=fit, prompts=prompts: fit(prompts))
            exact = exact or found
            row = likeness(model, found, exact, prompts, unseen, given.rank)
            row |= {"relation": relation.name, "prompts": len(prompts), "seconds_a_prompt": seconds / len(prompts)}
            errors = found.direction_errors or {}
            row["largest_estimated_angle"] = max(errors.values(), default=None)
            rows[name].append(row)
            print(
                f"{relation.name}, {name}: {row['seconds_a_prompt']:.2f} s a prompt, {row['products']} products, "
                f"cosine at least {min(row['cosines']):.4f}, same predictions {row['same_predictions']} of "
                f"{row['predictions']}",
                flush=True,
            )
        warm = True
    command = " ".join(["python benchmarks/low_rank.py", *sys.argv[1:]])
    stored: dict[str, Any] = {}
    if given.prompts:
        table = {name: summary(own) for name, own in rows.items()}
        d_model = int(model.cfg.d_model)
        savings = {
            name: estimated_saving(192, 4096, given.rank, d_model, table[name]["products"])
            for name in ("fast", "safe")
        }
    else:
        stored = json.loads(RESULT.read_text(encoding="utf-8"))
        table, rows, savings = stored["table"], stored["rows"], stored["saving_at_llama_2_7b"]
    grid: dict[str, Any] = {}
    if given.grid_prompts:
        grid = compare_grids(model, relations[0], given.grid_prompts, low)
        for one in grid.values():
            one |= {"command": command, "relation": relations[0].name, "prompts": given.grid_prompts}
    write_result(
        RESULT,
        kind="low_rank",
        results={"table": table, "rows": rows, "grid": grid, "saving_at_llama_2_7b": savings},
        settings=stored.get("settings")
        or {
            "command": command,
            "rank": given.rank,
            "prompts": given.prompts,
            "shots": 4,
            "seed": 0,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "transformer-lens")},
            "own_peak_rss_bytes": peak_rss_bytes(),
        },
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )
    print("| setting | s a prompt | products | exact fits | cosine, min | median | same predictions |")
    print("|---|---|---|---|---|---|---|")
    for name, line in [*table.items(), *grid.items()]:
        print(
            f"| {name} | {line['seconds_a_prompt']:.2f} | {line['products']:.0f} | {line['exact_fits']} of "
            f"{line['fits']} | {line['cosine_min']:.4f} | {line['cosine_median']:.4f} | "
            f"{line['same_predictions']} of {line['predictions']} |"
        )
    for name, saving in savings.items():
        print(f"estimate, {name}, d_model 4096, rank 192: {saving['products']} products, {saving['saving']:.1f} x")


def compare_grids(model: Any, relation: lrc.Relation, n_prompts: int, low: lrc.LowRank) -> dict[str, Any]:
    """The 8 x 4 grid, exact and low-rank."""
    train, test = relation.split(seed=0)
    prompts = lrc.filter_known(model, train.prompts(shots=4, seed=0)).sample(n_prompts, seed=0)
    unseen = lrc.passes.prompt_activations(
        model, list(test.prompts()), subject_layers=GRID["subject_layers"]
    ).subject
    rank = low.rank
    assert rank is not None
    rows: dict[str, list[dict[str, Any]]] = {"exact grid": [], "low-rank grid": []}
    exact: dict[Any, Any] = {}
    solvers: dict[str, Solver] = {"exact grid": "exact", "low-rank grid": low}
    for name, solver in solvers.items():

        def fit(solver: Solver = solver) -> Any:
            return lrc.fit_layer_grid(model, prompts, **GRID, solver=solver, progress=False)

        found, seconds = timed(fit)
        exact = exact or found
        for pair, one in found.items():
            row = likeness(model, one, exact[pair], prompts, unseen[pair[0]], rank)
            rows[name].append({**row, "pair": pair, "seconds_a_prompt": seconds / len(prompts)})
    return {name: {**summary(own), "rows": own} for name, own in rows.items()}


if __name__ == "__main__":
    main()
