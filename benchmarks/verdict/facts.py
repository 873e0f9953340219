"""What was collected of a relation and seed, read again: a fold of training facts for choosing, or all of them."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from collect import STATISTICS, Record
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.subject_statistics import LayerStatistics
from lrc_tl.relations.prompts import Prompt

FOLDS = 4
ALL = -1
"""The number of no fold."""
Place = tuple[int, str]
"""An object layer and how objects are read there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """Training facts that directions are made from, and others that they are judged on."""

    names: list[str]
    """Objects with a known few-shot prompt, in the order of their rows."""
    labels: list[str]
    """Objects of the known few-shot prompts."""
    few_shot: Tensor
    """Subjects of these, at the subject layer."""
    zero_shot: Tensor
    """The same facts' subjects without examples."""
    objects: Mapping[Place, Tensor]
    plain: Tensor
    """Zero-shot subjects of all training facts, known or not."""
    plain_objects: list[str]
    lres: Mapping[Place, LinearRelationalEmbedding]
    prior: LayerStatistics
    others: LayerStatistics
    """The built-in subjects that are not of this relation."""
    metric: Tensor | None
    """Of the next token, at the known few-shot prompts; None: `metrics.py` has not run."""
    judged: Tensor
    judged_subjects: list[str]
    judged_objects: list[str]

    @property
    def plain_prompts(self) -> list[Prompt]:
        """A prompt with the object of each row of `plain`; its text does not matter."""
        return [Prompt(text="s", subject="s", object=name) for name in self.plain_objects]


def stored(parts: Path) -> Iterator[tuple[Path, Record]]:
    """The records of training halves that are there, and not left out."""
    for path in sorted(parts.glob("*-[0-9]*.pt")):
        if not path.name.endswith(".test.pt"):
            record = torch.load(path, weights_only=False)
            if record["left_out"] is None:
                if metric_path(path).exists():
                    record["metrics"] = torch.load(metric_path(path))
                yield path, record


def metric_path(path: Path) -> Path:
    """Where the metrics of a training half's file are."""
    return path.with_suffix(".metric")


def statistics_of(parts: Path) -> lrc.SubjectStatistics:
    """The background of all relations, with the test subjects still in it."""
    return lrc.SubjectStatistics.load(parts / STATISTICS)


def folds(record: Record) -> dict[str, int]:
    """The fold of each training subject: objects spread evenly over folds, the same for every variant."""
    by_object: dict[str, list[str]] = defaultdict(list)
    plain = record["plain"]
    for subject, name in sorted(set(zip(plain["subjects"], plain["objects"], strict=True))):
        by_object[name].append(subject)
    generator, number, fold = random.Random(0), 0, {}
    for name in sorted(by_object):
        generator.shuffle(by_object[name])
        for subject in by_object[name]:
            fold[subject] = number % FOLDS
            number += 1
    return fold


def fold_facts(record: Record, statistics: lrc.SubjectStatistics, number: int) -> Facts | None:
    """All made without the subjects of a fold, LREs and background too, to be judged on them; None: impossible."""
    fold = folds(record)
    out = {subject for subject, of in fold.items() if of == number}
    judged = record["judged"]
    rows = [row for row, subject in enumerate(judged["subjects"]) if subject in out]
    facts = _facts(record, statistics, out, judged, rows, number)
    return facts if facts is not None and rows else None


def test_facts(record: Record, test: Record, statistics: lrc.SubjectStatistics) -> Facts | None:
    """All training facts, to be judged on those of the test half."""
    return _facts(record, statistics, set(), test["test"], range(len(test["test"]["subjects"])), ALL)


def _facts(
    record: Record,
    statistics: lrc.SubjectStatistics,
    out: set[str],
    judged: Record,
    rows: Sequence[int],
    number: int,
) -> Facts | None:
    few, plain, lre = record["few_shot"], record["plain"], record["lre"]
    layer = next(iter(few["subject"]))
    kept = [row for row, subject in enumerate(few["subjects"]) if subject not in out]
    of_lre = [row for row, subject in enumerate(lre["subjects"]) if subject not in out]
    labels = [few["objects"][row] for row in kept]
    if len(set(labels)) < 2 or not of_lre:
        return None
    row_of = {subject: row for row, subject in enumerate(plain["subjects"])}
    of_plain = [row for row, subject in enumerate(plain["subjects"]) if subject not in out]
    background = statistics.without([*record["test_subjects"], *sorted(out)])
    own_names = [*record["test_subjects"], *plain["subjects"]]
    plain_acts = plain["subject"][layer][of_plain]
    return Facts(
        names=list(dict.fromkeys(labels)),
        labels=labels,
        few_shot=few["subject"][layer][kept],
        zero_shot=plain["subject"][layer][[row_of[few["subjects"][row]] for row in kept]],
        objects={place: acts[kept] for place, acts in few["object"].items()},
        plain=plain_acts,
        plain_objects=[plain["objects"][row] for row in of_plain],
        lres={
            (object_layer, aggregation): LinearRelationalEmbedding(
                weight=lre["jacobians"][layer, object_layer, aggregation][of_lre].mean(0),
                bias=lre["biases"][layer, object_layer, aggregation][of_lre].mean(0),
                subject_layer=layer,
                object_layer=object_layer,
                object_aggregation=aggregation,
                n_prompts=len(of_lre),
                prompts_hash="0" * 64,
                relation=record["relation"],
                fingerprint=statistics.fingerprint,
            )
            for _, object_layer, aggregation in lre["jacobians"]
        },
        prior=background[layer],
        others=background.without(own_names)[layer],
        metric=record.get("metrics", {}).get(number),
        judged=judged["subject"][layer][list(rows)],
        judged_subjects=[judged["subjects"][row] for row in rows],
        judged_objects=[judged["objects"][row] for row in rows],
    )


def means_of(acts: Tensor, labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """The mean of each object's rows, in float64."""
    rows: dict[Any, list[int]] = {name: [] for name in names}
    for row, label in enumerate(labels):
        if label in rows:
            rows[label].append(row)
    return torch.stack([acts[rows[name]].double().mean(0) for name in names])
