"""Ways to read that take the model again: gates held fixed, other subject layers, metrics and backgrounds.

    .venv/bin/python benchmarks/verdict/further.py --parts PARTS [--model packaged:smollm2-135m]

After `collect.py`, with its facts and the folds of `search.py`: each fold of a training half is judged by what is
made without it. A relation and seed takes about two minutes on one core and is kept beside its parts. Writes
`benchmarks/results/verdict_further_<model>.json` and prints its table.

- Gates held fixed: scales of norms, patterns of attention and activation functions of MLPs count as constants
  where the Jacobian is taken (arXiv:2505.24293), by TransformerLens's own hooks around the fit.
- Fisher metric: noise at the last layer is measured by how it moves the distribution of the next token
  (arXiv:2605.17231), the mean of `J^T (diag(p) - p p^T) J` over the known prompts, J from residual to logits.
- Backgrounds: the covariance of fewer subjects, and of all tokens of plain texts, which are documentation of
  Python's standard library.
"""

import argparse
import inspect
import json
import pydoc
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from collect import LAYERS, SPLIT_SEED, Record, prompt_jacobians
from facts import FOLDS, Facts, fold_facts, means_of, statistics_of, stored
from search import Rights, print_table, readings_of, table_of
from torch import Tensor
from ways import Solver, pseudo_inverse, sigma_of, unit

import lrc_tl as lrc
from lrc_tl.numerics.covariance import Covariance, shrinkage_of
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.relations.prompts import Prompt
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parents[1] / "results"
OTHER_LAYERS: Mapping[str, tuple[int, ...]] = {"gemma-3-270m": (5, 7, 11), "smollm2-135m": (10, 13, 18)}
N_SAMPLES = (60, 120, 300, 600)
N_TEXTS = 150
LIKELIEST = 4000
"""Tokens that the Fisher metric counts."""
TEXT_MODULES = ("argparse", "logging", "random", "statistics", "pathlib", "datetime", "decimal", "textwrap")


def prompts_of(named: Record, relation: str) -> list[Prompt]:
    """The prompts that a record names."""
    rows = zip(named["texts"], named["subjects"], named["objects"], strict=True)
    return [Prompt(text=text, subject=subject, object=name, relation=relation) for text, subject, name in rows]


def gates_held(model: Any) -> list[tuple[str, Any]]:
    """Hooks that make scales, patterns and what MLPs gate with constants."""
    kinds = ("hook_scale", "attn.hook_pattern", "mlp.hook_pre")
    return [(name, lambda gate, hook: gate.detach()) for name in model.hook_dict if name.endswith(kinds)]


def with_gates_held(model: Any, record: Record, short: str) -> Record:
    """The record with Jacobians of the same prompts, gates held fixed."""
    prompts = prompts_of(record["lre"], record["relation"])
    with model.hooks(fwd_hooks=gates_held(model)):
        return {**record, "lre": prompt_jacobians(model, prompts, *LAYERS[short])}


def at_other_layers(model: Any, record: Record, short: str) -> Iterator[tuple[int, Record]]:
    """The record with its subjects and Jacobians at other subject layers."""
    layers, (_, given, last) = OTHER_LAYERS[short], LAYERS[short][1]
    read = {
        kind: prompt_activations(
            model, prompts_of(record[kind], record["relation"]), subject_layers=layers, progress=False
        ).subject
        for kind in ("judged", "plain", "few_shot")
    }
    lre = prompt_jacobians(model, prompts_of(record["lre"], record["relation"]), layers, (given, last))
    for layer in layers:
        own: Record = {kind: {**record[kind], "subject": {layer: read[kind][layer]}} for kind in read}
        own["lre"] = {
            **lre,
            **{
                what: {key: rows for key, rows in lre[what].items() if key[0] == layer}
                for what in ("jacobians", "biases")
            },
        }
        yield layer, {**record, **own}


def fisher_metric(model: Any, residuals: Tensor) -> Tensor:
    """Mean Fisher information of the next token at residuals of the last layer: `d_model d_model`, float64."""
    total = torch.zeros(residuals.shape[1], residuals.shape[1], dtype=torch.float64)
    norm, unembed = model.ln_final, model.unembed.W_U
    for residual in residuals:
        x = residual.clone().requires_grad_(True)
        logits = norm(x[None, None])[0, 0] @ unembed
        p, tokens = logits.detach().softmax(0).topk(LIKELIEST)
        (through,) = torch.autograd.functional.jacobian(lambda x: (norm(x[None, None])[0, 0],), x.detach())
        rows = (unembed[:, tokens].T @ through).double()
        rows = p.double().sqrt()[:, None] * (rows - p.double() @ rows / p.double().sum())
        total += rows.T @ rows
    return total / len(residuals)


def library_texts() -> list[str]:
    """Paragraphs from the documentation of Python's standard library."""
    found: list[str] = []
    for module in map(pydoc.locate, TEXT_MODULES):
        members = [module, *(value for _, value in inspect.getmembers(module) if inspect.isroutine(value))]
        members += [value for _, value in inspect.getmembers(module) if inspect.isclass(value)]
        for member in members:
            for paragraph in (inspect.getdoc(member) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if len(text) > 80 and text not in found:
                    found.append(text[:400])
    return found[:N_TEXTS]


def duals_of(facts: Facts, noises: Sequence[float] = (1.0, 10.0)) -> Iterator[tuple[str, Tensor]]:
    """Duals of the given and of the last layer, and both together."""
    sigma = sigma_of(facts.prior)
    given, last = sorted({layer for layer, _ in facts.lres})[-2:]
    places = {"given": (given, "mean"), "last": (last, "first_token")}
    for noise in noises:
        read = {}
        for name, place in places.items():
            targets = means_of(facts.objects[place], facts.labels, facts.names)
            read[name] = Solver(facts.lres[place].weight.double(), targets, sigma).read(noise)
            yield f"dual of {name}, noise {noise:g}", read[name]
        spreads = [rows / ((rows @ sigma) * rows).sum(1).clamp_min(0).sqrt().mean() for rows in read.values()]
        yield f"duals of given and last, noise {noise:g}", torch.stack(spreads).sum(0)


def inverses_of(facts: Facts) -> Iterator[tuple[str, Tensor]]:
    """The paper's inverse at a rank, and with a ridge."""
    place = (sorted({layer for layer, _ in facts.lres})[-2], "mean")
    weight, bias = facts.lres[place].weight.double(), facts.lres[place].bias.double()
    targets = means_of(facts.objects[place], facts.labels, facts.names) - bias
    yield "lrc", unit(pseudo_inverse(weight, targets, rank=64))
    yield "lrc-ridge", unit(pseudo_inverse(weight, targets, ridge=0.2))


def metric_ways(facts: Facts, metric: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The dual of the last layer with noise that is even in the Fisher metric."""
    last = max(layer for layer, _ in facts.lres)
    place = (last, "first_token")
    weight = facts.lres[place].weight.double()
    targets = means_of(facts.objects[place], facts.labels, facts.names)
    identity = torch.eye(len(metric), dtype=metric.dtype)
    for share in (0.01, 0.1, 0.5):
        mixed = (1 - share) * metric / metric.trace() * len(metric) + share * identity
        solver = Solver(weight, targets, sigma_of(facts.prior), torch.linalg.inv(mixed))
        for noise in (1.0, 10.0, 100.0):
            yield f"dual of last, Fisher metric ({share:g} identity), noise {noise:g}", solver.read(noise)


def background_ways(facts: Facts, texts: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The dual of the given layer with covariances of other samples."""
    place = (sorted({layer for layer, _ in facts.lres})[-2], "mean")
    weight = facts.lres[place].weight.double()
    targets = means_of(facts.objects[place], facts.labels, facts.names)
    samples = facts.prior.samples
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    backgrounds = {f"{n} subjects": samples[order[:n]] for n in N_SAMPLES}
    backgrounds["tokens of plain texts"] = texts
    for name, chosen in backgrounds.items():
        sigma = Covariance.of_samples(chosen, shrinkage=shrinkage_of(chosen)).dense()
        for noise in (1.0, 10.0):
            yield (
                f"dual of given, background of {name}, noise {noise:g}",
                Solver(weight, targets, sigma).read(noise),
            )


def judged(model: Any, record: Record, statistics: lrc.SubjectStatistics, texts: Tensor, short: str) -> Rights:
    """All ways on all folds of a relation and seed."""
    rights: Rights = defaultdict(lambda: defaultdict(list))

    def judge(prefix: str, facts: Facts, ways: Iterator[tuple[str, Tensor]]) -> None:
        sigma = sigma_of(facts.prior)
        for name, rows in ways:
            for reading, right in readings_of(facts, rows, sigma).items():
                rights[prefix + name][reading] += right

    held = with_gates_held(model, record, short)
    others = list(at_other_layers(model, record, short))
    last = LAYERS[short][1][-1]
    for number in range(FOLDS):
        facts = fold_facts(record, statistics, number)
        if facts is None:
            continue
        judge("", facts, duals_of(facts))
        judge("", facts, inverses_of(facts))
        judge("", facts, background_ways(facts, texts))
        judge("", facts, metric_ways(facts, fisher_metric(model, facts.objects[last, "first_token"])))
        for prefix, own in [("gates held, ", held), *((f"subject layer {at}, ", other) for at, other in others)]:
            found = fold_facts(own, statistics, number)
            assert found is not None
            judge(prefix, found, duals_of(found))
            judge(prefix, found, inverses_of(found))
    return {name: dict(by_reading) for name, by_reading in rights.items()}


def main() -> None:
    """Judge what is not judged yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts, started = given.parts / short, time.perf_counter()
    warnings.filterwarnings("ignore", category=UserWarning)  # solvers on a handful of rows
    model = lrc.load_model(given.model)
    (layer,), others = LAYERS[short][0], OTHER_LAYERS[short]
    statistics = lrc.SubjectStatistics.fit(model, layers=sorted({layer, *others}), progress=False)
    assert statistics.fingerprint == statistics_of(parts).fingerprint
    texts = lrc.SubjectStatistics.fit(model, layers=[layer], background=library_texts(), progress=False)
    units = []
    for path, record in stored(parts):
        kept = path.with_suffix(".further.json")
        if not kept.exists():
            rights = judged(model, record, statistics, texts[layer].samples, short)
            kept.write_text(json.dumps(rights), encoding="utf-8")
            print(kept.name, flush=True)
        units.append((f"{record['group']}: {record['relation']}", record["seed"], json.loads(kept.read_text())))
    table = table_of(units)
    relations, n_facts = print_table(units, table)
    write_result(
        RESULTS / f"verdict_further_{short}.json",
        kind="verdict_further",
        results={"relations": relations, "n_facts": n_facts, "n_texts": len(library_texts()), "table": table},
        settings={
            "command": f"python benchmarks/verdict/further.py --model {given.model}",
            "split_seed": SPLIT_SEED,
            "folds": FOLDS,
            "other_subject_layers": list(others),
            "text_modules": list(TEXT_MODULES),
        },
        model=statistics.fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
