"""What ways to read are compared on: activations of training and test facts, and the Jacobians of single prompts.

    .venv/bin/python benchmarks/verdict/collect.py --relations FOLDER --parts PARTS [--model packaged:smollm2-135m]

Two files for each relation and seed: `NAME.pt` from the training half of a split that all seeds share, on which
variants are compared, and `NAME.test.pt` with the subjects of its test half, which only the last evaluation reads.
What is there already is skipped, so the command can be stopped and given again. On the packaged Gemma a relation
and seed takes about a minute on one free core, and its files 25 MB.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.errors import PositionError, RelationError
from lrc_tl.experiments.relation_prompts import (
    LeftOut,
    known_test_prompts,
    known_training_prompts,
    split_facts,
    training_prompts,
)
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.relations.prompts import Prompt, object_positions, tokenize_prompt, tokens_once

SPLIT_SEED, MAX_FACTS, SHOTS, FEWEST = 0, 60, 4, 4
LAYERS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "gemma-3-270m": ((9,), (11, 13, 17)),
    "smollm2-135m": ((16,), (18, 20, 29)),
}
"""Subject layers, and object layers with the last at the end."""
STATISTICS = "statistics.safetensors"
"""The built-in subjects at the subject layers, in the folder of the parts."""
Record = dict[str, Any]


def all_relations(folder: Path | None) -> Iterator[tuple[str, lrc.Relation]]:
    """Built-in relations and those of a folder, in turn, each with the name of its group."""
    built_in = [("builtin", lrc.load_relation(name)) for name in lrc.relations.built_in_relations()]
    of_folder = [] if folder is None else [("shared", found) for found in lrc.load_relations(folder)[0].values()]
    for row in range(max(len(built_in), len(of_folder))):
        yield from built_in[row : row + 1]
        yield from of_folder[row : row + 1]


def part_name(group: str, relation: lrc.Relation, seed: int) -> str:
    """The name of the file of a relation and seed."""
    return f"{group}-{relation.name.replace(' ', '_')}-{seed}.pt"


def named(prompts: Sequence[Prompt]) -> Record:
    """Subjects, objects and texts of prompts."""
    return {
        "subjects": [prompt.subject for prompt in prompts],
        "objects": [prompt.object for prompt in prompts],
        "texts": [prompt.text for prompt in prompts],
    }


def subject_rows(model: Any, prompts: Sequence[Prompt], layers: Sequence[int]) -> Record:
    """Prompts with the residuals of their subjects, by layer."""
    return {**named(prompts), "subject": prompt_activations(model, prompts, subject_layers=layers).subject}


def n_positions(model: Any, prompt: Prompt) -> int:
    """Tokens of a prompt's object."""
    return len(object_positions(tokenize_prompt(model, prompt), "mean"))


def few_shot_rows(
    model: Any, prompts: Sequence[Prompt], subjects: Sequence[int], objects: Sequence[int]
) -> Record:
    """Few-shot prompts with the residuals of subjects and of objects, these by layer and way to read them."""
    mean = prompt_activations(model, prompts, subject_layers=subjects, object_layers=objects)
    by_reading = {(layer, "mean"): acts for layer, acts in mean.object.items()}
    last = objects[-1]
    by_reading[last, "first_token"] = mean.object[last].clone()
    several = [row for row, prompt in enumerate(prompts) if n_positions(model, prompt) > 1]
    if several:
        first = prompt_activations(
            model, [prompts[row] for row in several], object_layers=[last], object_aggregation="first_token"
        )
        by_reading[last, "first_token"][several] = first.object[last]
    return {**named(prompts), "subject": mean.subject, "object": by_reading}


def prompt_jacobians(
    model: Any, prompts: Sequence[Prompt], subjects: Sequence[int], objects: Sequence[int]
) -> Record:
    """By (subject layer, object layer, way to read): the Jacobian and the bias of each prompt by itself."""
    jacobians: dict[tuple[int, int, str], list[Tensor]] = {}
    biases: dict[tuple[int, int, str], list[Tensor]] = {}
    for prompt in prompts:
        single = n_positions(model, prompt) == 1
        for aggregation, layers in (("mean", list(objects)), ("first_token", list(objects[-1:]))):
            if aggregation == "first_token" and single:
                for subject in subjects:
                    for kept in (jacobians, biases):
                        of_mean = kept[subject, objects[-1], "mean"][-1]
                        kept.setdefault((subject, objects[-1], aggregation), []).append(of_mean)
                continue
            grid = lrc.fit_layer_grid(
                model,
                [prompt],
                subject_layers=subjects,
                object_layers=layers,
                object_aggregation=aggregation,  # type: ignore[arg-type]
                progress=False,
            )
            for (subject, object_), lre in grid.items():
                jacobians.setdefault((subject, object_, aggregation), []).append(lre.weight)
                biases.setdefault((subject, object_, aggregation), []).append(lre.bias)
    return {
        **named(prompts),
        "jacobians": {key: torch.stack(rows) for key, rows in jacobians.items()},
        "biases": {key: torch.stack(rows) for key, rows in biases.items()},
    }


def collected(model: Any, short: str, relation: lrc.Relation, seed: int, n_prompts: int) -> Record:
    """Everything of one relation and seed.

    Raises:
        LeftOut: too little is known.
    """
    subjects, objects = LAYERS[short]
    settings = ExperimentSettings(max_facts=MAX_FACTS, split_seed=SPLIT_SEED)
    half, _ = split_facts(relation, seed, settings)
    asked = half.prompts(seed=seed, templates="all")
    judged = lrc.filter_known(model, asked, seed=seed, whole_answers=False, progress=False).one_per_fact()
    if len(judged.prompts) < FEWEST:
        raise LeftOut(f"the model knows {len(judged.prompts)} of {len(half.facts)} training facts zero-shot")
    prompts = training_prompts(half, seed, shots=SHOTS)
    known = known_training_prompts(model, half, prompts, seed, shots=SHOTS)
    return {
        "test_subjects": sorted({fact.subject for fact in relation.facts} - {fact.subject for fact in half.facts}),
        "judged": subject_rows(model, judged.prompts, subjects),
        "plain": subject_rows(model, half.prompts(seed=seed), subjects),
        "few_shot": few_shot_rows(model, known.prompts, subjects, objects),
        "lre": prompt_jacobians(model, known.sample(n_prompts, seed=seed), subjects, objects),
    }


def collected_test(model: Any, short: str, relation: lrc.Relation, seed: int) -> Record:
    """Known zero-shot prompts of test facts, one for each fact, as the benchmark asks them, with their subjects.

    Raises:
        LeftOut: too few are known.
    """
    subjects, _ = LAYERS[short]
    _, test = split_facts(relation, seed, ExperimentSettings(max_facts=MAX_FACTS, split_seed=SPLIT_SEED))
    return {"test": subject_rows(model, known_test_prompts(model, test, seed).prompts, subjects)}


def keep(path: Path, head: Record, collect: Callable[[], Record]) -> Record | None:
    """Write what `collect` gives to a file that is not there yet, or why there is nothing."""
    if path.exists():
        return None
    started = time.perf_counter()
    record: Record = {**head, "left_out": None}
    try:
        with tokens_once():
            record |= collect()
    except (LeftOut, RelationError, PositionError) as error:
        record["left_out"] = str(error)
    record["seconds"] = time.perf_counter() - started
    torch.save(record, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
    print(f"{path.name}: {record['left_out'] or 'kept'}, {record['seconds']:.0f} s", flush=True)
    return record


def main() -> None:
    """Collect what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relations", type=Path, help="a folder in the LRE dataset's format, beside the built-in")
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-prompts", type=int, default=3)
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts = given.parts / short
    parts.mkdir(parents=True, exist_ok=True)
    model = lrc.load_model(given.model)
    statistics = parts / STATISTICS
    if not statistics.exists():
        lrc.SubjectStatistics.fit(model, layers=LAYERS[short][0]).save(statistics)
    for seed in given.seeds:
        for group, relation in all_relations(given.relations):
            head: Record = {"group": group, "relation": relation.name, "seed": seed}
            path = parts / part_name(group, relation, seed)
            # The cheaper half first: most relations that are left out have too few known test facts.
            test = path.with_suffix(".test.pt")
            keep(test, head, partial(collected_test, model, short, relation, seed))
            if not path.exists() and torch.load(test, weights_only=False)["left_out"] is None:
                keep(path, head, partial(collected, model, short, relation, seed, given.n_prompts))


if __name__ == "__main__":
    main()
