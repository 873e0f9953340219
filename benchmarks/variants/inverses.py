"""Ways to make and to read LRCs, tried on training facts alone.

    .venv/bin/python benchmarks/variants/inverses.py --relations FOLDER --collect [--model packaged:smollm2-135m]
    .venv/bin/python benchmarks/variants/inverses.py [--model ...]

One part of each training half (`halves.py`) is for directions, the other for the accuracy of its known zero-shot
prompts. `--collect` keeps activations and LREs of each relation and seed in `--parts` and skips those that are
there; without it every variant and every baseline is made from them, and `inverses_<model>.json` and `variants.md`
are written to `benchmarks/results/`.
"""

import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from halves import Record, options_of, read, training_half
from report import run_study
from sklearn.covariance import LedoitWolf
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.methods.baselines import baseline_concepts

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
these layers; `7 and 9` adds the scores of both subject layers, each over the mean length of activations there;
`all` combines the object layers that were tried, `last two` all but the first, each less the mean of its set;
`plus` adds a baseline's directions; `whitened` solves with the shrunk covariance within objects. `plain` is the
dot product as it is, `centred` that of activations less the mean of the training facts' zero-shot prompts,
`centred twice` the same with directions less their mean, of unit length again."""
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
    half = training_half(model, relation, seed)
    record: Record = {
        "judged": read(model, half.judged.prompts, subjects),
        "shown": read(model, half.shown.prompts, subjects, objects),
        "plain": read(model, half.fit.prompts(seed=seed), subjects),
    }
    for kind, source, n in zip(("few-shot", "zero-shot"), (half.shown, half.plain), n_prompts, strict=True):
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
    """For every variant and reading, whether each held-out fact is right; then for all subject layers together."""
    judged, plain = record["judged"], record["plain"]["subject"]
    names = sorted(set(record["shown"]["names"]))

    def right(scores: Tensor) -> list[bool]:
        best = scores.argmax(1).tolist()
        return [names[b] == name for b, name in zip(best, judged["names"], strict=True)]

    by_layer: dict[Variant, list[Tensor]] = defaultdict(list)
    for name, layer, vectors in variants(record):
        for reading in READINGS:
            centre = 0.0 if reading == "plain" else plain[layer].mean(0)
            directions = unit(centred(vectors)) if reading == "centred twice" else unit(vectors)
            scores = (judged["subject"][layer] - centre) @ directions.T
            yield (name, reading), right(scores)
            length = (plain[layer] - centre).norm(dim=-1).mean()
            by_layer[name.removeprefix(str(layer)), reading].append(scores / length)
    layers = " and ".join(map(str, sorted(plain)))
    for (rest, reading), own in by_layer.items():
        if len(own) == len(plain):
            yield (layers + rest, reading), right(sum(own))


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
        else:
            rows.append({**row, "facts": sum(map(len, by_relation.values()))})
    return sorted(rows, key=lambda row: -max(row[reading] for reading in READINGS))


def tables(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Of all records, and of those with LREs from zero-shot prompts too."""
    warnings.filterwarnings("ignore", category=UserWarning)  # solvers on a handful of rows
    found = [(record["relation"], dict(outcomes(record))) for record in records]
    both = [right for right, record in zip(found, records, strict=True) if "zero-shot" in record]
    return {
        "LREs from few-shot prompts": table(found, lambda name: "zero-shot LRE" not in name),
        "Relations and seeds with LREs from zero-shot prompts too": table(both, lambda name: True),
    }


def main() -> None:
    """Collect, or evaluate what was collected."""
    given = options_of(
        __doc__,
        n_prompts={"type": int, "nargs": 2, "default": [6, 3], "help": "LRE prompts, few-shot and zero-shot"},
    )
    run_study(
        "inverses",
        given,
        title="Inverses, layers and baselines",
        about=ABOUT,
        evaluate=lambda model, short, relation, seed, _: collect_relation(
            model, short, relation, seed, given.n_prompts
        ),
        used=lambda record: {
            "held out": len(record["judged"]["names"]),
            "few-shot prompts": len(record["shown"]["names"]),
            "objects": len(set(record["shown"]["names"])),
            "zero-shot LREs": "yes" if "zero-shot" in record else "no",
        },
        tables=tables,
    )


if __name__ == "__main__":
    main()
