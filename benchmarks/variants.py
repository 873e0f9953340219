"""Ways to make and to read LRCs, tried on training facts alone.

    .venv/bin/python benchmarks/variants.py --relations FOLDER --collect [--model packaged:smollm2-135m]
    .venv/bin/python benchmarks/variants.py [--model ...]

The training half of each relation (split seed 0, so that its test half stays unseen for what is chosen here) is
split again for each seed: one part for directions, the other for the accuracy of its known zero-shot prompts.
`--collect` keeps activations and LREs of each relation and seed in `--parts` and skips those that are there;
without it every variant and every baseline is made from them. Writes `variants_<model>.json` to
`benchmarks/results/` and, as tables of all models, `variants.md`.
"""

import argparse
import json
import statistics
import textwrap
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.activations import prompt_activations
from lrc_tl.baselines import baseline_concepts
from lrc_tl.json_results import write_result
from lrc_tl.knowledge import one_prompt_a_fact
from lrc_tl.relation_benchmark import splittable_sample
from lrc_tl.relation_files import load_relations
from lrc_tl.relations import RelationError

RESULTS = Path(__file__).parent / "results"
SPLIT_SEED, MAX_FACTS, SHOTS, FEWEST = 0, 80, 4, 3
LAYERS: dict[str, tuple[tuple[int, ...], dict[int, Any]]] = {
    "gemma-3-270m": ((7, 9), {11: "mean", 13: "mean", 17: "first_token"}),
    "smollm2-135m": ((12, 16), {18: "mean", 20: "mean", 29: "first_token"}),
}
"""Subject layers, and object layers with the tokens that are read there."""
RANKS = (8, 16, 32, 64, 128, 192)
RIDGES = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
BASELINES = ("mean", "centred-mean", "mean-difference", "svm", "logistic", "lda", "pca")
READINGS = ("plain", "centred", "centred twice")
"""Activations as they are; less the mean of the training facts' zero-shot prompts; unit directions less their mean
too."""
ABOUT = """Accuracy on held-out training facts, the mean over relations, best first. `9 -> 13` is from the LRE of
these layers; `all` combines the object layers that were tried, `last two` all but the first, each less the mean of
its set; `plus` adds a baseline's directions; `whitened` solves with the shrunk covariance within objects. `plain`
is the dot product as it is, `centred` that of activations less the mean of the training facts' zero-shot prompts,
`centred twice` the same with directions less their mean, of unit length again."""
Record = dict[str, Any]
Variant = tuple[str, str]
"""Name and reading."""


def collect_relation(
    model: Any, short: str, relation: lrc.Relation, seed: int, n_prompts: Sequence[int]
) -> Record:
    """Activations of a relation's training half, and LREs from few-shot and from zero-shot prompts.

    Raises:
        ValueError: too little is known.
    """
    subjects, objects = LAYERS[short]
    half = splittable_sample(relation.split(seed=SPLIT_SEED)[0], MAX_FACTS, seed=seed)
    fit, held_out = half.split(seed=seed)

    def known(part: lrc.Relation) -> lrc.KnownPrompts:
        asked = part.prompts(seed=seed, templates="all")
        return one_prompt_a_fact(lrc.filter_known(model, asked, seed=seed, whole_answers=False))

    def read(prompts: Sequence[lrc.Prompt], *, with_objects: bool = False) -> Record:
        found = prompt_activations(
            model,
            prompts,
            subject_layers=subjects,
            object_layers=list(objects) if with_objects else [],
            object_aggregation=objects,
        )
        return {"subject": found.subject, "object": found.object, "names": [prompt.object for prompt in prompts]}

    judged = known(held_out)
    if len(judged.prompts) < FEWEST:
        raise ValueError(f"{len(judged.prompts)} held-out facts are known")
    shown = lrc.filter_known(model, fit.prompts(shots=SHOTS, seed=seed), seed=seed, whole_answers=False)
    if len({prompt.object for prompt in shown.prompts}) < 2:
        raise ValueError(f"{len(shown.prompts)} facts are known {SHOTS}-shot, of fewer than two objects")
    plain = known(fit)
    record: Record = {
        "judged": read(judged.prompts),
        "shown": read(shown.prompts, with_objects=True),
        "plain": read(fit.prompts(seed=seed)),
    }
    for kind, source, n in zip(("few-shot", "zero-shot"), (shown, plain), n_prompts, strict=True):
        if len(source.prompts) < 2 or not n:
            continue
        record[kind] = {}
        for layer, aggregation in objects.items():
            grid = lrc.fit_layer_grid(
                model,
                source.sample(n, seed=seed),
                subject_layers=subjects,
                object_layers=[layer],
                object_aggregation=aggregation,
                progress=False,
            )
            record[kind] |= {pair: (lre.weight, lre.bias) for pair, lre in grid.items()}
    return record


def collect(given: argparse.Namespace, short: str, parts: Path) -> None:
    """Write a part for each relation and seed."""
    parts.mkdir(parents=True, exist_ok=True)
    model = lrc.load_model(given.model)
    found, _ = load_relations(given.relations)
    for seed in given.seeds:
        for relation in found.values():
            path = parts / f"{relation.name.replace(' ', '_')}-{seed}.pt"
            if path.exists() or (given.only and relation.name not in given.only):
                continue
            started = time.perf_counter()
            record: Record = {"relation": relation.name, "seed": seed, "left_out": None}
            try:
                record |= collect_relation(model, short, relation, seed, given.n_prompts)
            except (ValueError, RelationError) as error:
                record["left_out"] = str(error)
            torch.save(record, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            seconds = time.perf_counter() - started
            print(f"{relation.name}, seed {seed}, {seconds:.0f} s: {record['left_out'] or 'kept'}", flush=True)


def unit(vectors: Tensor) -> Tensor:
    """Rows of unit length."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def centred(vectors: Tensor) -> Tensor:
    """Unit rows less their mean."""
    return unit(vectors) - unit(vectors).mean(0)


def inverses(weight: Tensor, bias: Tensor, objects: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Subject-side vectors of object means by every inverse: its name and one row an object."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    along = (objects - bias) @ u
    for rank in RANKS:
        yield f"rank {rank}", (along[:, :rank] / s[:rank]) @ v[:rank]
    for ridge in RIDGES:
        damped = along * (s / (s**2 + (ridge * s[0]) ** 2))
        yield f"ridge {ridge:g}", damped @ v
        if ridge in (0.1, 0.2):
            for rank in (64, 128):
                yield f"rank {rank} and ridge {ridge:g}", damped[:, :rank] @ v[:rank]
    yield "transpose", (along * s) @ v


def variants(record: Record) -> Iterator[tuple[str, int, Tensor]]:
    """Every variant of one record: its name, subject layer, and one direction an object, sorted by name."""
    shown = record["shown"]
    names = sorted(set(shown["names"]))
    rows = [[row for row, other in enumerate(shown["names"]) if other == name] for name in names]

    def means(activations: Tensor) -> Tensor:
        return torch.stack([activations[own].mean(0) for own in rows])

    for layer, activations in sorted(shown["subject"].items()):
        by_inverse: dict[str, dict[int, Tensor]] = defaultdict(dict)
        for kind in ("few-shot", "zero-shot"):
            prefix = "" if kind == "few-shot" else "zero-shot LRE, "
            for (subject, object_), (weight, bias) in record.get(kind, {}).items():
                if subject != layer:
                    continue
                for inverse, vectors in inverses(weight, bias, means(shown["object"][object_])):
                    by_inverse[prefix + inverse][object_] = vectors
                    yield f"{layer} -> {object_}, {prefix}{inverse}", layer, vectors
        baselines = {}
        for kind, source in (("few-shot", shown), ("zero-shot", record["plain"])):
            known = [row for row, name in enumerate(source["names"]) if name in names]
            labels = [source["names"][row] for row in known]
            if set(labels) != set(names):
                continue
            for method in BASELINES:
                if method == "lda" and len(names) == len(labels):
                    continue  # it needs two prompts of an object
                made = baseline_concepts(
                    source["subject"][layer][known],
                    labels,
                    method=method,
                    hook_name=f"blocks.{layer}.hook_resid_post",
                )
                vectors = torch.stack([made[name].vector for name in names])
                yield f"{layer}, {method} of {kind} prompts", layer, vectors
                if kind == "few-shot":
                    baselines[method] = vectors
        within = torch.cat([activations[own] - activations[own].mean(0) for own in rows])
        spread = torch.from_numpy(LedoitWolf(assume_centered=True).fit(within.double().numpy()).covariance_)
        for inverse, found in by_inverse.items():
            for label, chosen in (("all", list(found)), ("last two", list(found)[1:])):
                combined = torch.stack([centred(found[key]) for key in chosen]).mean(0)
                yield f"{layer} -> {label}, {inverse}", layer, combined
            if inverse in ("rank 64", "ridge 0.1", "ridge 0.2"):
                combined = torch.stack([centred(vectors) for vectors in found.values()]).mean(0)
                for method, own in baselines.items():
                    yield f"{layer} -> all, {inverse}, plus {method}", layer, combined + centred(own)
                whitened = torch.linalg.solve(spread, combined.double().T).T.float()
                yield f"{layer} -> all, {inverse}, whitened", layer, whitened


def outcomes(record: Record) -> Iterator[tuple[Variant, list[bool]]]:
    """For every variant and reading, whether each held-out fact is right."""
    judged = record["judged"]
    names = sorted(set(record["shown"]["names"]))
    for name, layer, vectors in variants(record):
        activations = judged["subject"][layer]
        centre = record["plain"]["subject"][layer].mean(0)
        for reading in READINGS:
            own = activations if reading == "plain" else activations - centre
            directions = unit(centred(vectors)) if reading == "centred twice" else unit(vectors)
            best = (own @ directions.T).argmax(1).tolist()
            yield (name, reading), [names[b] == right for b, right in zip(best, judged["names"], strict=True)]


def table(
    found: Sequence[tuple[str, dict[Variant, list[bool]]]], wanted: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """A row for each variant that all relations have: accuracy by reading, relations weighing the same."""
    rows = []
    names = dict.fromkeys(name for name, _ in found[0][1]) if found else {}
    for name in names:
        if not wanted(name):
            continue
        row: dict[str, Any] = {"variant": name}
        for reading in READINGS:
            by_relation: dict[str, list[bool]] = defaultdict(list)
            for relation, right in found:
                by_relation[relation] += right.get((name, reading), [])
            if not all(by_relation.values()):
                break
            row[reading] = statistics.mean(statistics.mean(own) for own in by_relation.values())
            row["n"] = sum(map(len, by_relation.values()))
        else:
            rows.append(row)
    return sorted(rows, key=lambda row: -max(row[reading] for reading in READINGS))


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The tables of all models with a word on each."""
    parts = [section(short, found["used"], found["rows"]) for short, found in results.items()]
    return "\n".join(["# Variants of LRCs", "", textwrap.fill(ABOUT, 115), "", *parts])


def section(short: str, used: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> str:
    """The tables of one model."""
    titles = {
        "all": "LREs from few-shot prompts",
        "with_zero_shot_lres": "Relations and seeds with LREs from zero-shot prompts too",
    }
    lines = [
        f"## {short}",
        "",
        "| relation, seed | held out | few-shot prompts | objects |",
        "|---|---|---|---|",
        *(f"| {key} | {one['n_held_out']} | {one['n_shown']} | {one['n_objects']} |" for key, one in used.items()),
    ]
    for kind, own in rows.items():
        lines += [
            "",
            f"### {titles[kind]}",
            "",
            "| variant | plain | centred | centred twice | facts |",
            "|---|---|---|---|---|",
        ]
        for row in own:
            cells = " | ".join(f"{row[reading]:.3f}" for reading in READINGS)
            lines.append(f"| {row['variant']} | {cells} | {row['n']} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Collect, or evaluate what was collected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="packaged:gemma-3-270m", choices=[f"packaged:{name}" for name in LAYERS]
    )
    parser.add_argument("--relations", type=Path, help="a folder in the LRE dataset's format")
    parser.add_argument("--only", nargs="*", default=[], help="names of relations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--n-prompts", type=int, nargs=2, default=[6, 3], help="LRE prompts, few-shot and zero-shot"
    )
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--parts", type=Path, default=Path.home() / ".cache/lrc_tl/variants")
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts = given.parts / short
    if given.collect:
        collect(given, short, parts)
        return
    started = time.perf_counter()
    warnings.filterwarnings("ignore", category=UserWarning)  # solvers on a handful of rows
    found: dict[str, list[tuple[str, dict[Variant, list[bool]]]]] = {"few-shot": [], "zero-shot": []}
    used, left_out = {}, {}
    for path in sorted(parts.glob("*.pt")):
        record = torch.load(path, weights_only=False)
        key = f"{record['relation']}, seed {record['seed']}"
        if record["left_out"]:
            left_out[key] = record["left_out"]
            continue
        used[key] = {
            "n_held_out": len(record["judged"]["names"]),
            "n_shown": len(record["shown"]["names"]),
            "n_objects": len(set(record["shown"]["names"])),
            "zero_shot_lres": "zero-shot" in record,
        }
        right = record["relation"], dict(outcomes(record))
        found["few-shot"].append(right)
        if "zero-shot" in record:
            found["zero-shot"].append(right)
    rows = {
        "all": table(found["few-shot"], lambda name: "zero-shot LRE" not in name),
        "with_zero_shot_lres": table(found["zero-shot"], lambda name: True),
    }
    write_result(
        RESULTS / f"variants_{short}.json",
        kind="variants",
        results={"used": used, "left_out": left_out, "rows": rows},
        settings={"command": "python benchmarks/variants.py", "model": given.model, "split_seed": SPLIT_SEED},
        model=None,
        seconds=time.perf_counter() - started,
    )
    stored = {path.stem.removeprefix("variants_"): path for path in sorted(RESULTS.glob("variants_*.json"))}
    text = markdown({name: json.loads(path.read_text(encoding="utf-8")) for name, path in stored.items()})
    (RESULTS / "variants.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
