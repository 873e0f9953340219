"""Which prompts an LRE is made from, and rank and ridge by cross-validation, on training facts alone.

    .venv/bin/python benchmarks/variants/lre_prompts.py --relations FOLDER --collect [--model ...]
    .venv/bin/python benchmarks/variants/lre_prompts.py [--model ...]

One part of each training half (`halves.py`) is for directions, the other for the accuracy of its known zero-shot
prompts. `--collect` keeps the Jacobian of each prompt; without it every choice of prompts is made from them, and
`lre_prompts_<model>.json` and `variants.md` are written to `benchmarks/results/`.
"""

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from halves import PLACES, Record, options_of, read, training_half
from report import run_study
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.numerics.low_rank import Factors
from lrc_tl.passes.batches import logits_at

MOST, DRAWS, FOLDS = 20, 5, 5
RANK, RIDGE = 64, 0.2
RANKS = (8, 16, 32, 64, 128, 192)
RIDGES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
ABOUT = f"""Accuracy on held-out training facts, the mean over relations, with rank {RANK} and with a ridge of
{RIDGE}, each as it is and centred. Jacobians of at most {MOST} prompts, balanced; for fewer at random,
the mean of {DRAWS} draws. `typical` are those whose subjects are nearest to the mean subject, `various` are each
the farthest from those before, `certain` those with the most probable objects. Cross-validation is over facts
whose few-shot prompts gave no object, in {FOLDS} folds, by centred accuracy; they may still stand among the
examples of other prompts."""
Setting: TypeAlias = dict[str, Any]
"""Of `Factors.solve`: rank and ridge."""
INVERSES: dict[str, Setting] = {"rank": {"rank": RANK}, "ridge": {"rank": None, "ridge": RIDGE}}


def certainty(model: Any, prompts: Sequence[lrc.Prompt]) -> list[float]:
    """Log-probability of each prompt's object, its least token."""
    tokens = [lrc.relations.tokenize_prompt(model, prompt) for prompt in prompts]
    ids, places = [one.input_ids for one in tokens], [one.object_positions for one in tokens]
    found = [0.0] * len(prompts)
    for number, logits in logits_at(model, ids, places):
        of = torch.tensor(tokens[number].object_ids)
        found[number] = float(logits.log_softmax(-1).gather(-1, of[:, None]).min())
    return found


def evaluate(model: Any, short: str, relation: lrc.Relation, seed: int, _: Sequence[lrc.Relation]) -> Record:
    """Activations of a training half, and the Jacobian and bias of each of some prompts.

    Raises:
        ValueError: too little is known.
    """
    subject, object_ = PLACES[short]
    half = training_half(model, relation, seed)
    sampled = half.shown.sample(MOST, seed=seed)
    lres = [
        lrc.LinearRelationalEmbedding.fit(
            model, [prompt], subject_layer=subject, object_layer=object_, progress=False
        )
        for prompt in sampled
    ]
    return {
        "judged": read(model, half.judged.prompts, [subject]),
        "known": read(model, half.plain.prompts, [subject]),
        "plain": read(model, half.fit.prompts(seed=seed), [subject]),
        "shown": read(model, half.shown.prompts, [subject], {object_: "mean"}),
        "sampled": [half.shown.prompts.index(prompt) for prompt in sampled],
        "certainty": certainty(model, sampled),
        "weights": torch.stack([lre.weight for lre in lres]),
        "biases": torch.stack([lre.bias for lre in lres]),
    }


class Half:
    """One record, with names for what the variants need."""

    def __init__(self, record: Record) -> None:
        self.weights, self.biases = record["weights"], record["biases"]
        self.sampled, self.certainty = record["sampled"], record["certainty"]
        (self.objects,) = record["shown"]["object"].values()
        (self.subjects,) = record["shown"]["subject"].values()
        self.labels = record["shown"]["names"]
        self.names = sorted(set(self.labels))
        (plain,) = record["plain"]["subject"].values()
        self.centre = plain.mean(0)
        (self.judged,), self.judged_names = record["judged"]["subject"].values(), record["judged"]["names"]
        (self.known,), self.known_names = record["known"]["subject"].values(), record["known"]["names"]
        self.shown_subjects, self.known_subjects = record["shown"]["subjects"], record["known"]["subjects"]
        self.key = record["relation"], record["seed"]

    def means(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Mean object activation by object, of some of the shown prompts."""
        of = defaultdict(list)
        for row in range(len(self.labels)) if rows is None else rows:
            of[self.labels[row]].append(row)
        return {name: self.objects[own].mean(0) for name, own in of.items()}

    def right(self, directions: dict[str, Tensor]) -> tuple[float, float]:
        """Accuracy on the held-out facts, plain and centred."""
        return tuple(accuracy(directions, self.judged - shift, self.judged_names) for shift in (0.0, self.centre))


def accuracy(directions: dict[str, Tensor], activations: Tensor, names: Sequence[str]) -> float:
    """Share of rows whose own direction has the largest product."""
    order = list(directions)
    vectors = torch.stack([directions[name] / directions[name].norm() for name in order])
    best = (activations @ vectors.T).argmax(-1).tolist()
    return statistics.mean(order[b] == name for b, name in zip(best, names, strict=True))


def solved(factors: Factors, rows: Tensor, setting: Setting) -> Tensor:
    """Subject-side rows of object-side ones, less the bias."""
    rank = setting["rank"] or factors.numerical_rank
    return factors.solve(rows, rank=min(rank, factors.numerical_rank), ridge=setting.get("ridge", 0.0))


def made(half: Half, weight: Tensor, bias: Tensor) -> dict[str, dict[str, Tensor]]:
    """Directions by inverse, of one LRE."""
    factors, means = Factors.of(weight), half.means()
    rows = torch.stack([means[name] for name in half.names]) - bias
    return {
        inverse: dict(zip(half.names, solved(factors, rows, setting), strict=True))
        for inverse, setting in INVERSES.items()
    }


def choices(half: Half, n: int) -> dict[str, list[list[int]]]:
    """Sets of at most `n` of the sampled prompts, by how they are chosen."""
    count = len(half.sampled)
    subjects = half.subjects[half.sampled]
    distances = torch.cdist(subjects, subjects)
    various = [int(distances.sum(1).argmin())]
    while len(various) < min(n, count):
        various.append(int(distances[various].min(0).values.argmax()))
    nearest = (subjects - half.subjects.mean(0)).norm(dim=-1).argsort().tolist()
    certain = sorted(range(count), key=lambda row: -half.certainty[row])
    draws = [random.Random(draw).sample(range(count), min(n, count)) for draw in range(DRAWS)]
    return {"at random": draws, "typical": [nearest[:n]], "various": [various], "certain": [certain[:n]]}


def by_object(half: Half, weighting: Callable[[Tensor], Tensor]) -> dict[str, dict[str, Tensor]]:
    """Each direction from an LRE of its own, by inverse; empty where one has no prompts.

    `weighting` says how much each prompt counts, from which have the direction's object.
    """
    found: dict[str, dict[str, Tensor]] = {inverse: {} for inverse in INVERSES}
    means = half.means()
    labels = [half.labels[row] for row in half.sampled]
    for name in half.names:
        weights = weighting(torch.tensor([label == name for label in labels]))
        if not weights.sum() > 0:
            return {}
        weights = weights / weights.sum()
        factors = Factors.of(torch.einsum("p,pij->ij", weights, half.weights))
        rows = (means[name] - weights @ half.biases)[None]
        for inverse, setting in INVERSES.items():
            found[inverse][name] = solved(factors, rows, setting)[0]
    return found


def cross_validated(half: Half, settings: Sequence[Setting]) -> Setting:
    """The setting with the highest centred accuracy on known zero-shot prompts of folds that gave no objects.

    The LRE is that of all prompts; of equal settings the one in the middle.
    """
    factors, bias = Factors.of(half.weights.mean(0)), half.biases.mean(0)
    scores: list[list[float]] = [[] for _ in settings]
    subjects = [half.shown_subjects, half.known_subjects]
    for fold in range(FOLDS):
        left = {name for name in sorted({*subjects[0], *subjects[1]})[fold::FOLDS]}
        means = half.means([row for row, name in enumerate(subjects[0]) if name not in left])
        judged = [row for row, name in enumerate(subjects[1]) if name in left and half.known_names[row] in means]
        if not judged or len(means) < 2:
            continue
        objects = torch.stack(list(means.values())) - bias
        names = [half.known_names[row] for row in judged]
        for own, setting in zip(scores, settings, strict=True):
            directions = dict(zip(means, solved(factors, objects, setting), strict=True))
            own += [accuracy(directions, half.known[judged] - half.centre, names)] * len(judged)
    if not scores[0]:
        return settings[len(settings) // 2]
    reached = [statistics.mean(own) for own in scores]
    equal = [setting for setting, own in zip(settings, reached, strict=True) if own == max(reached)]
    return equal[len(equal) // 2]


def variants(half: Half) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Name of the variant, of the inverse, and accuracies as they are and centred."""

    def judged(name: str, sets: Sequence[dict[str, dict[str, Tensor]]]) -> Iterator[Any]:
        for inverse in INVERSES:
            own = [half.right(one[inverse]) for one in sets]
            yield name, inverse, tuple(map(statistics.mean, zip(*own, strict=True)))

    weight, bias = half.weights.mean(0), half.biases.mean(0)
    for n in (1, 2, 5, 10):
        for choice, sets in choices(half, n).items():
            own = [made(half, half.weights[chosen].mean(0), half.biases[chosen].mean(0)) for chosen in sets]
            yield from judged(f"{n} prompts {choice}", own)
    yield from judged(f"all prompts, at most {MOST}", [made(half, weight, bias)])
    weightings = {
        "its own prompts": lambda own: own.float(),
        "the others' prompts": lambda own: (~own).float(),
        "half of its own, half of the others'": lambda own: own / own.sum() + (~own) / (~own).sum(),
    }
    for kind, weighting in weightings.items():
        if found := by_object(half, weighting):
            yield from judged(f"an LRE for each object, of {kind}", [found])
    sizes = half.weights.flatten(1).norm(dim=1)
    scaled = torch.einsum("p,pij->ij", sizes.mean() / sizes, half.weights) / len(sizes)
    yield from judged("Jacobians of equal norm", [made(half, scaled, bias)])
    median = half.weights.median(0).values
    yield from judged("element-wise median of the Jacobians", [made(half, median, bias)])
    of_all = (half.objects - half.subjects @ weight.T).mean(0)
    yield from judged("bias from all shown prompts", [made(half, weight, of_all)])
    each = [made(half, w, b) for w, b in zip(half.weights, half.biases, strict=True)]
    mean = {
        inverse: {name: sum(one[inverse][name] for one in each) / len(each) for name in half.names}
        for inverse in INVERSES
    }
    yield from judged("mean of the inverses", [mean])
    factors, means = Factors.of(weight), half.means()
    rows = torch.stack([means[name] for name in half.names]) - bias
    for inverse, settings in (
        ("rank", [{"rank": rank} for rank in RANKS]),
        ("ridge", [{"rank": None, "ridge": ridge} for ridge in RIDGES]),
    ):
        chosen = cross_validated(half, settings)
        print(*half.key, chosen, flush=True)
        directions = dict(zip(half.names, solved(factors, rows, chosen), strict=True))
        yield "chosen by cross-validation", inverse, half.right(directions)


def table(halves: Sequence[Half]) -> list[dict[str, Any]]:
    """A row for each variant that all have, best centred ridge first; relations weigh the same."""
    found: dict[str, dict[tuple[str, str], dict[str, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for half in halves:
        for name, inverse, accuracies in variants(half):
            for reading, value in zip(("", ", centred"), accuracies, strict=True):
                found[name][inverse, reading].setdefault(half.key[0], []).append(value)
    rows = []
    everywhere = {half.key[0]: sum(half.key[0] == other.key[0] for other in halves) for half in halves}
    for name, columns in found.items():
        row: dict[str, Any] = {"variant": name}
        for (inverse, reading), own in columns.items():
            if {relation: len(values) for relation, values in own.items()} != everywhere:
                break
            row[inverse + reading] = statistics.mean(statistics.mean(values) for values in own.values())
        else:
            rows.append(row)
    return sorted(rows, key=lambda row: -row["ridge, centred"])


def main() -> None:
    """Collect, or evaluate what was collected."""
    run_study(
        "lre_prompts",
        options_of(__doc__),
        title="LRE prompts",
        about=ABOUT,
        evaluate=evaluate,
        used=lambda record: {
            "held out": len(record["judged"]["names"]),
            "few-shot prompts": len(record["shown"]["names"]),
            "with a Jacobian": len(record["sampled"]),
            "objects": len(set(record["shown"]["names"])),
        },
        tables=lambda records: {"Choice and number of prompts": table([Half(record) for record in records])},
    )


if __name__ == "__main__":
    main()
