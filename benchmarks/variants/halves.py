"""The training half of a relation, split again: what variants of LRCs are chosen on."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lrc_tl as lrc
from lrc_tl.errors import RelationError
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.relations.sampling import splittable_sample

SPLIT_SEED, MAX_FACTS, SHOTS, FEWEST = 0, 80, 4, 3
PLACES = {"gemma-3-270m": (9, 13), "smollm2-135m": (16, 20)}
"""Subject and object layer of the benchmark's presets."""
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingHalf:
    """What the model knows of the two parts of a relation's training half."""

    fit: lrc.Relation
    """The facts that directions are made from."""
    shown: lrc.passes.KnownPrompts
    """Few-shot prompts of these."""
    plain: lrc.passes.KnownPrompts
    """Zero-shot prompts of these."""
    judged: lrc.passes.KnownPrompts
    """Zero-shot prompts of the other part."""


def training_half(model: Any, relation: lrc.Relation, seed: int) -> TrainingHalf:
    """Split by `SPLIT_SEED` (its test half stays unseen), at most `MAX_FACTS` facts, split again by `seed`.

    Raises:
        ValueError: too little is known.
    """
    half = splittable_sample(relation.split(seed=SPLIT_SEED)[0], MAX_FACTS, seed=seed)
    fit, held_out = half.split(seed=seed)

    def known(part: lrc.Relation) -> lrc.passes.KnownPrompts:
        asked = part.prompts(seed=seed, templates="all")
        return lrc.filter_known(model, asked, seed=seed, whole_answers=False).one_per_fact()

    judged = known(held_out)
    if len(judged.prompts) < FEWEST:
        raise ValueError(f"{len(judged.prompts)} held-out facts are known")
    shown = lrc.filter_known(model, fit.prompts(shots=SHOTS, seed=seed), seed=seed, whole_answers=False)
    if len({prompt.object for prompt in shown.prompts}) < 2:
        raise ValueError(f"{len(shown.prompts)} facts are known {SHOTS}-shot, of fewer than two objects")
    return TrainingHalf(fit=fit, shown=shown, plain=known(fit), judged=judged)


def read(
    model: Any,
    prompts: Sequence[lrc.Prompt],
    subject_layers: Sequence[int],
    object_layers: dict[int, Any] | None = None,
) -> Record:
    """Activations by layer, with the name of each prompt's object and subject."""
    objects = object_layers or {}
    found = prompt_activations(
        model,
        prompts,
        subject_layers=list(subject_layers),
        object_layers=list(objects),
        object_aggregation=objects,
    )
    return {
        "subject": found.subject,
        "object": found.object,
        "names": [prompt.object for prompt in prompts],
        "subjects": [prompt.subject for prompt in prompts],
    }


def collect(
    parts: Path,
    relations: dict[str, lrc.Relation],
    seeds: Sequence[int],
    evaluate: Callable[[lrc.Relation, int], Record],
) -> None:
    """Write a part for each relation and seed that has none yet, or the reason why it is left out."""
    parts.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for relation in relations.values():
            path = parts / f"{relation.name.replace(' ', '_')}-{seed}.pt"
            if path.exists():
                continue
            record: Record = {"relation": relation.name, "seed": seed, "left_out": None}
            try:
                record |= evaluate(relation, seed)
            except (ValueError, RelationError) as error:
                record["left_out"] = str(error)
            torch.save(record, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            print(f"{relation.name}, seed {seed}: {record['left_out'] or 'kept'}", flush=True)


def stored(parts: Path) -> tuple[list[Record], dict[str, str]]:
    """What `collect` wrote: the records, and reasons by relation and seed."""
    records, left_out = [], {}
    for path in sorted(parts.glob("*.pt")):
        record = torch.load(path, weights_only=False)
        if record["left_out"]:
            left_out[f"{record['relation']}, seed {record['seed']}"] = record["left_out"]
        else:
            records.append(record)
    return records, left_out


def options_of(about: str, **more: Any) -> argparse.Namespace:
    """The options that all studies have, and `more`: of `--n-prompts`, say, as keyword arguments of argparse."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument(
        "--model", default="packaged:gemma-3-270m", choices=[f"packaged:{name}" for name in PLACES]
    )
    parser.add_argument("--relations", type=Path, help="a folder in the LRE dataset's format")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--parts", type=Path, default=Path.home() / ".cache/lrc_tl/variants")
    for name, option in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **option)
    given = parser.parse_args()
    if given.collect and given.relations is None:
        parser.error("--collect needs --relations")
    return given
