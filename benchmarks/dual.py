"""What dual directions cost, and how far their choice of the noise is from one with every LRE fitted anew.

    .venv/bin/python benchmarks/dual.py [--parts cost,wide,leave_one_out] [--out FILE]

Run it with nothing else on the machine (about 10 minutes). Parts:

- `cost`: on the packaged Gemma, seconds for the statistics of subjects at all layers, and for the directions of
  `lrc-map` from a fitted LRE, with the noise chosen and with one that is given.
- `wide`: the same directions from a random weight of width 4096 and 3,211 random samples.
- `leave_one_out`: `DualFit.choose_noise` leaves each fact out of all means and keeps W. Here W is made anew
  without the fact too (an LRE of each prompt is fitted once, and W without a prompt is the mean of the others).

Writes `benchmarks/results/dual.json`, in which parts that were not run again stay, and prints each.
"""

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.lre.background import built_in_background
from lrc_tl.lre.dual import NOISES, DualFit
from lrc_tl.lre.embedding import combined
from lrc_tl.lre.subject_statistics import LayerStatistics, SubjectStatistics
from lrc_tl.relations.sampling import splittable_sample
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
MODEL = "packaged:gemma-3-270m"
SUBJECT_LAYER, OBJECT_LAYER = 9, 17
RELATIONS = ("city_in_country", "animal_class", "country_language")
GIVEN_NOISE = 10.0
PARTS = ("cost", "wide", "leave_one_out")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Known training prompts of one relation, and what was read from them."""

    prompts: tuple[lrc.Prompt, ...]
    object_acts: Tensor
    subject_acts: Tensor

    @classmethod
    def of(cls, model: Any, relation: str, *, n_prompts: int) -> "Facts":
        """At most `n_prompts` that the model knows 4-shot, up to four for each object, the best known first."""
        train, _ = lrc.load_relation(relation).split(seed=0)
        asked = splittable_sample(train, 3 * n_prompts, seed=0).prompts(shots=4, seed=0)
        by_object: dict[str, list[lrc.Prompt]] = {}
        for prompt in lrc.filter_known(model, asked, progress=False).prompts:
            by_object.setdefault(prompt.object, []).append(prompt)
        most_known = sorted(by_object.values(), key=len, reverse=True)
        prompts = tuple(prompt for known in most_known for prompt in known[:4])[:n_prompts]
        plain = [prompt.without_examples() for prompt in prompts]
        return cls(
            prompts=prompts,
            object_acts=lrc.passes.object_activations(model, prompts, layer=OBJECT_LAYER),
            subject_acts=lrc.subject_activations(model, plain, layer=SUBJECT_LAYER),
        )

    @property
    def objects(self) -> list[str]:
        """The object of each prompt."""
        return [prompt.object for prompt in self.prompts]

    def all_but(self, left_out: int) -> tuple[Tensor, list[str], Tensor]:
        """Object activations, objects and subject activations without one prompt."""
        rows = [row for row in range(len(self.prompts)) if row != left_out]
        return self.object_acts[rows], [self.objects[row] for row in rows], self.subject_acts[rows]


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, and what it gave."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def direction_seconds(
    lre: Any, prior: LayerStatistics, acts: tuple[Tensor, list[str], Tensor]
) -> dict[str, float]:
    """Seconds of each step from a fitted LRE to its directions; the covariance is made for this prior anew."""
    covariance, _ = seconds_of(lambda: prior.covariance)
    shared, fit = seconds_of(lambda: DualFit.of(lre, prior))
    given, _ = seconds_of(lambda: fit.concepts(*acts, noise=GIVEN_NOISE))
    chosen, _ = seconds_of(lambda: fit.choose_noise(*acts))
    return {
        "covariance": covariance,
        "shared": shared,
        "directions": given,
        "choice_of_noise": chosen,
        "all_with_given_noise": covariance + shared + given,
        "all_with_chosen_noise": covariance + shared + chosen + given,
    }


def cost(model: Any, *, n_background: int | None, n_prompts: int) -> dict[str, Any]:
    """Seconds on the packaged Gemma."""
    prompts = built_in_background()
    if n_background is not None:
        prompts = prompts[:: max(1, len(prompts) // n_background)]
    statistics_seconds, statistics = seconds_of(
        lambda: SubjectStatistics.fit(model, background=prompts, progress=False)
    )
    facts = Facts.of(model, RELATIONS[0], n_prompts=n_prompts)
    lre = lrc.LinearRelationalEmbedding.fit(
        model, facts.prompts[:5], subject_layer=SUBJECT_LAYER, object_layer=OBJECT_LAYER, progress=False
    )
    acts = (facts.object_acts, facts.objects, facts.subject_acts)
    return {
        "n_samples": statistics[SUBJECT_LAYER].n_samples,
        "n_layers": len(statistics),
        "statistics_seconds": statistics_seconds,
        "d_model": int(model.cfg.d_model),
        "n_prompts": len(facts.prompts),
        "n_objects": len(set(facts.objects)),
        "seconds_by_step": direction_seconds(lre, statistics[SUBJECT_LAYER], acts),
    }


def wide(*, width: int, n_samples: int, n_prompts: int) -> dict[str, Any]:
    """Seconds for a random weight and random samples, whose spread falls as it does in models."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    fingerprint = random_fingerprint()
    scales = 1 / torch.arange(1, width + 1).sqrt()
    prior = LayerStatistics(
        layer=SUBJECT_LAYER,
        samples=drawn(n_samples, width) * scales,
        kind="subjects",
        sources=tuple(map(str, range(n_samples))),
        source_of=torch.arange(n_samples),
        fingerprint=fingerprint,
    )
    lre = lrc.LinearRelationalEmbedding(
        weight=drawn(width, width) / width**0.5,
        bias=torch.zeros(width),
        subject_layer=SUBJECT_LAYER,
        object_layer=OBJECT_LAYER,
        object_aggregation="mean",
        n_prompts=1,
        prompts_hash="",
        relation="random",
        fingerprint=fingerprint,
    )
    objects = [f"object {row % 8}" for row in range(n_prompts)]
    acts = (drawn(n_prompts, width), objects, drawn(n_prompts, width) * scales)
    return {
        "d_model": width,
        "n_samples": n_samples,
        "n_prompts": n_prompts,
        "n_objects": len(set(objects)),
        "seconds_by_step": direction_seconds(lre, prior, acts),
    }


def random_fingerprint() -> Any:
    """Of a tiny model without a tokenizer: a weight that was drawn belongs to no model."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=16, d_head=4, n_heads=2, d_mlp=8, d_vocab=20, act_fn="gelu", device="cpu"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(config)
    return lrc.models.ModelFingerprint.of(model)


def leave_one_out(model: Any, relation: str, prior: SubjectStatistics, *, n_prompts: int) -> dict[str, Any]:
    """Accuracy by noise on facts that are left out of the means alone, and of W too."""
    facts = Facts.of(model, relation, n_prompts=n_prompts)
    tested = [fact.subject for fact in lrc.load_relation(relation).split(seed=0)[1].facts]
    statistics = prior.without(tested)[SUBJECT_LAYER]
    lres = [
        lrc.LinearRelationalEmbedding.fit(
            model, [prompt], subject_layer=SUBJECT_LAYER, object_layer=OBJECT_LAYER, progress=False
        )
        for prompt in facts.prompts
    ]
    kept = DualFit.of(combined(lres), statistics)
    counts = Counter(facts.objects)
    counted = [row for row, name in enumerate(facts.objects) if counts[name] > 1]
    answers: dict[str, list[list[bool]]] = {"kept": [], "anew": []}
    for row in counted:
        anew = DualFit.of(combined([lre for other, lre in enumerate(lres) if other != row]), statistics)
        for name, fit in (("kept", kept), ("anew", anew)):
            answers[name].append([is_right(fit, facts, row, noise) for noise in NOISES])
    accuracies = {name: mean_by_noise(rows) for name, rows in answers.items()}
    choice = kept.choose_noise(facts.object_acts, facts.objects, facts.subject_acts)
    differing = [
        sum(first[place] != second[place] for first, second in zip(answers["kept"], answers["anew"], strict=True))
        for place in range(len(NOISES))
    ]
    return {
        "relation": relation,
        "n_facts": len(counted),
        "n_left_out": choice.n_left_out,
        "noises": list(NOISES),
        "accuracy_w_kept": accuracies["kept"],
        "accuracy_w_anew": accuracies["anew"],
        "accuracy_of_choose_noise": [choice.accuracies[noise] for noise in NOISES],
        "n_facts_that_differ": differing,
        "noise_w_kept": choice.noise,
        "noise_w_anew": best_noise(accuracies["anew"]),
    }


def is_right(fit: DualFit, facts: Facts, row: int, noise: float) -> bool:
    """Whether directions made without a fact read its object from its subject."""
    object_acts, objects, subject_acts = facts.all_but(row)
    concepts = fit.concepts(object_acts, objects, subject_acts, noise=noise)
    scores = concepts.scores(facts.subject_acts[row : row + 1].to(concepts.vectors))[0]
    return list(concepts)[int(scores.argmax())] == facts.objects[row]


def mean_by_noise(rows: Sequence[Sequence[bool]]) -> list[float]:
    """The share of right answers for each noise."""
    return [sum(row[place] for row in rows) / max(1, len(rows)) for place in range(len(NOISES))]


def best_noise(accuracies: Sequence[float]) -> float:
    """As `choose_noise` takes it: of equally good ones the largest."""
    return max(zip(accuracies, NOISES, strict=True))[1]


def main() -> None:
    """Run the parts, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "dual.json")
    parser.add_argument("--n-prompts", type=int, default=20)
    parser.add_argument("--n-background", type=int, help="Prompts of the background; else all, as by default.")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--n-samples", type=int, default=3211)
    parser.add_argument("--relations", default=",".join(RELATIONS))
    given = parser.parse_args()
    parts, started = given.parts.split(","), time.perf_counter()
    earlier = json.loads(given.out.read_text()) if given.out.exists() else {}
    results: dict[str, Any] = {name: earlier[name] for name in PARTS if name in earlier}
    results["n_threads"] = torch.get_num_threads()
    model = None
    if {"cost", "leave_one_out"} & {*parts}:
        model = lrc.load_model(MODEL)
    if "cost" in parts:
        results["cost"] = cost(model, n_background=given.n_background, n_prompts=given.n_prompts)
        print(results["cost"], flush=True)
    if "wide" in parts:
        results["wide"] = wide(width=given.width, n_samples=given.n_samples, n_prompts=given.n_prompts)
        print(results["wide"], flush=True)
    if "leave_one_out" in parts:
        prompts = built_in_background() if given.n_background else None
        if prompts:
            prompts = prompts[:: max(1, len(prompts) // given.n_background)]
        prior = SubjectStatistics.fit(model, layers=[SUBJECT_LAYER], background=prompts, progress=False)
        results["leave_one_out"] = []
        for name in given.relations.split(","):
            results["leave_one_out"].append(leave_one_out(model, name, prior, n_prompts=given.n_prompts))
            print(results["leave_one_out"][-1], flush=True)
    write_result(
        given.out,
        kind="dual",
        results=results,
        settings={
            "command": "python benchmarks/dual.py",
            **{name: value for name, value in vars(given).items() if name != "out"},
            "subject_layer": SUBJECT_LAYER,
            "object_layer": OBJECT_LAYER,
            "given_noise": GIVEN_NOISE,
        },
        model=None if model is None else lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
