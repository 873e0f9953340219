"""The causality of edits whose strength differs between layers, on training facts alone.

    .venv/bin/python benchmarks/variants/layer_strengths.py --relations FOLDER --collect [--model ...]
    .venv/bin/python benchmarks/variants/layer_strengths.py [--model ...]

Directions from one part of each training half (`halves.py`), swaps of the other part's known facts; every profile
over strengths, with the KL on unrelated statements. `--collect` keeps a part for each relation and seed; without
it `layer_strengths_<model>.json` and `variants.md` are written to `benchmarks/results/`.
"""

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from halves import PLACES, Record, options_of, training_half
from report import run_study

import lrc_tl as lrc
from lrc_tl.evaluation.causality import causality_curves, counterfactual_edits
from lrc_tl.evaluation.collateral import side_effects
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.experiments.statements import side_effect_statements
from lrc_tl.methods.baselines import baseline_concepts
from lrc_tl.passes.activations import prompt_activations

RIDGE, N_LRE_PROMPTS, N_SIDE_EFFECTS, MOST_EDITS = 0.2, 6, 16, 30
BETAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
KLS = (0.25, 0.5, 0.75, 1.0, 1.5)
ABOUT = """Swaps of known held-out training facts with the strength divided over the layers in several ways, at the
strength at which each moves unrelated statements by as many nats (mean KL; outcomes interpolated linearly in its
logarithm, nothing where it lies outside what the strengths reach): causality, and in brackets the share of edits
after which the model says the new object. Means over relations. s and o are the subject and the object layer.
Unrelated statements may be of either half of other relations."""


def profiles(n_layers: int, subject: int, object_: int) -> dict[str, dict[int, float]]:
    """How much of beta each layer gets."""
    every = range(n_layers)
    return {
        "all layers": dict.fromkeys(every, 1.0),
        "up to s": dict.fromkeys(range(subject + 1), 1.0),
        "from s on": dict.fromkeys(range(subject, n_layers), 1.0),
        "s to o": dict.fromkeys(range(subject, object_ + 1), 1.0),
        "s alone": {subject: 1.0},
        "falling away from s": {layer: 1 / (1 + abs(layer - subject) / 2) for layer in every},
    }


def evaluate(model: Any, short: str, relation: lrc.Relation, seed: int, others: Sequence[lrc.Relation]) -> Record:
    """Outcomes of every method, profile and strength.

    Raises:
        ValueError: too little is known.
    """
    subject, object_ = PLACES[short]
    half = training_half(model, relation, seed)
    shown = half.shown.prompts
    names = [prompt.object for prompt in shown]
    usable = [prompt for prompt in half.judged.prompts if prompt.object in names]
    edits = counterfactual_edits(usable, seed=seed)
    edits = tuple(random.Random(seed).sample(edits, min(MOST_EDITS, len(edits))))
    found = prompt_activations(
        model, shown, subject_layers=[subject], object_layers=[object_], object_aggregation="mean"
    )
    lre = lrc.LinearRelationalEmbedding.fit(
        model,
        half.shown.sample(N_LRE_PROMPTS, seed=seed),
        subject_layer=subject,
        object_layer=object_,
        progress=False,
    )
    sets = {
        "lrc-ridge": lre.concepts_from_activations(found.object[object_], names, ridge=RIDGE),
        "mean-difference": baseline_concepts(
            found.subject[subject], names, method="mean-difference", hook_name=f"blocks.{subject}.hook_resid_post"
        ),
    }
    differences = {name: swap_differences(own, edits) for name, own in sets.items()}
    unrelated, _ = side_effect_statements(model, relation, edits, others, n=N_SIDE_EFFECTS, seed=seed)
    outcomes: Record = {}
    for profile, shares in profiles(int(model.cfg.n_layers), subject, object_).items():
        curves = causality_curves(model, edits, differences, betas=BETAS, layers=shares, generated=True)
        elsewhere = side_effects(model, unrelated, differences, betas=BETAS, layers=shares)
        for name in sets:
            outcomes[name, profile] = [
                {
                    "beta": beta,
                    "success": curve.success.tolist(),
                    "hard": curve.generated.tolist(),
                    "kl": side.mean_kl,
                }
                for beta, curve, side in zip(BETAS, curves[name], elsewhere[name], strict=True)
            ]
    return {"outcomes": outcomes, "n_edits": len(edits), "n_objects": len(set(names))}


def at_equal_kl(points: Sequence[Record], kl: float) -> tuple[float, float] | None:
    """Shares of soft and hard success where the curve first rises past `kl`."""
    for low, high in pairwise(points):
        if 0 < low["kl"] < kl <= high["kl"]:
            weight = math.log(kl / low["kl"]) / math.log(high["kl"] / low["kl"])
            return tuple(low[key] + weight * (high[key] - low[key]) for key in ("soft", "hard"))
    return None


def column_means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Of equally long rows."""
    return [statistics.mean(column) for column in zip(*rows, strict=True)]


def table(records: Sequence[Record], method: str) -> list[dict[str, Any]]:
    """A row a profile: mean curves over relations (each the mean of its seeds), read at equal KL."""
    rows = []
    for profile in dict.fromkeys(profile for _, profile in records[0]["outcomes"]):
        points = []
        for place in range(len(BETAS)):
            by_relation: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
            for record in records:
                own = record["outcomes"][method, profile][place]
                by_relation[record["relation"]].append(
                    (statistics.mean(own["success"]), statistics.mean(own["hard"]), own["kl"])
                )
            soft, hard, kl = column_means([column_means(own) for own in by_relation.values()])
            points.append({"beta": BETAS[place], "soft": soft, "hard": hard, "kl": kl})
        row: dict[str, Any] = {"layers": profile}
        for kl in KLS:
            read = at_equal_kl(points, kl)
            row[f"KL {kl:g}"] = "" if read is None else f"{read[0]:.3f} ({read[1]:.3f})"
        rows.append(row | {"curve": points})
    return rows


def tables(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """One for each method."""
    return {method: table(records, method) for method in dict.fromkeys(m for m, _ in records[0]["outcomes"])}


def main() -> None:
    """Collect, or evaluate what was collected."""
    run_study(
        "layer_strengths",
        options_of(__doc__),
        title="Strength by layer",
        about=ABOUT,
        evaluate=evaluate,
        used=lambda record: {"edits": record["n_edits"], "objects": record["n_objects"]},
        tables=tables,
    )


if __name__ == "__main__":
    main()
