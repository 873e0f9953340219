"""Are the probabilities of calibrated concept sets worth anything on facts that they have not seen?

    .venv/bin/python benchmarks/calibration.py --relations FOLDER [--model packaged:gemma-3-270m]

For every relation in the folder: one third of the training facts calibrates LRCs that are made from the others,
and the test facts that the model knows are predicted, pooled over relations. Brier score and log-loss of the
calibrated probabilities stand beside two that need no calibration: the base rate (how often each object occurs in
the training facts, counted from one), and the softmax of scores standardised on the calibration samples. Intervals
of the differences are from a paired bootstrap of facts within relations. Writes
`benchmarks/results/calibration_<model>.json`.
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import lrc_tl as lrc
from lrc_tl.directions.probe_metrics import calibration_error
from lrc_tl.errors import RelationError
from lrc_tl.passes.activations import subject_activations
from lrc_tl.relations.relation_files import load_relations
from lrc_tl.relations.sampling import splittable_sample
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
METHODS = ("temperature", "standardised")
REFERENCES = ("base rate", "softmax of standardised scores")
N_BINS = 5
N_RESAMPLES = 4000
Array = npt.NDArray[np.float64]


def relation_predictions(
    model: lrc.models.HookedModel, relation: lrc.Relation, given: argparse.Namespace
) -> dict[str, Array]:
    """Probabilities of every way for each known test fact of one relation, as rows over its concepts.

    Raises:
        ValueError: too little is known of the relation.
    """
    relation = splittable_sample(relation, given.max_facts, seed=given.seed)
    train, test = relation.split(seed=given.seed)
    fit_on, calibrate_on = train.split(seed=given.seed, train_share=2 / 3)
    unseen, held_out = (
        lrc.filter_known(model, part.prompts(templates="all"), seed=given.seed, whole_answers=False).one_per_fact()
        for part in (test, calibrate_on)
    )
    known = lrc.filter_known(
        model, fit_on.prompts(shots=given.shots, seed=given.seed), seed=given.seed, whole_answers=False
    )
    objects = {prompt.object for prompt in known.prompts}
    unseen = [prompt for prompt in unseen.prompts if prompt.object in objects]
    held_out = [prompt for prompt in held_out.prompts if prompt.object in objects]
    if len(objects) < 2 or len(unseen) < given.min_facts or len(held_out) < given.min_facts:
        raise ValueError(
            f"{len(objects)} objects in the known training prompts, and with these {len(held_out)} known "
            f"calibration facts and {len(unseen)} known test facts"
        )
    lre = lrc.LinearRelationalEmbedding.fit(
        model,
        known.sample(given.max_lre_prompts, seed=given.seed),
        subject_layer=given.subject_layer,
        object_layer=given.object_layer,
        progress=False,
    )
    concepts = lre.concepts(model, known.prompts, rank=given.rank)
    names = list(concepts)
    actual = [prompt.object for prompt in unseen]
    acts = subject_activations(model, unseen, layer=concepts.layer)
    own = subject_activations(model, held_out, layer=concepts.layer)
    own_objects = [prompt.object for prompt in held_out]
    scores, own_scores = (concepts.scores(one).double().numpy() for one in (acts, own))
    middle, scale = own_scores.mean(0), own_scores.std(0)
    counts = Counter(fact.object for fact in train.facts)
    base = np.array([1.0 + counts[name] for name in names])
    found = {
        "actual": np.array([[float(name == other) for name in names] for other in actual]),
        "base rate": np.tile(base / base.sum(), (len(actual), 1)),
        "softmax of standardised scores": _softmax((scores - middle) / scale),
    }
    for method in METHODS:
        made = concepts.calibrate(own, own_objects, multiclass=method, missing="skip")
        found[method] = made.probabilities(acts).double().numpy()
    # One concept against the rest, for those that the calibration samples hold: the same columns of every way.
    columns = [number for number, name in enumerate(names) if made[name].threshold is not None]
    found["columns"] = np.array(columns)
    found["platt"] = np.stack([made[names[c]].probability(acts).double().numpy() for c in columns], axis=1)
    return found


def _softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def pooled(relations: Mapping[str, Mapping[str, Array]], *, seed: int) -> dict[str, Any]:
    """Brier score, log-loss and calibration error of every way over all facts of all relations."""
    several = {way: [(one[way], one["actual"]) for one in relations.values()] for way in (*REFERENCES, *METHODS)}
    single = {
        way: [(_ovr(one, way), one["actual"][:, one["columns"]]) for one in relations.values()]
        for way in (*REFERENCES, "platt")
    }
    return {
        "over the concepts of a set": _table(several, METHODS, seed=seed, one_against_rest=False),
        "each concept against the rest": _table(single, ("platt",), seed=seed, one_against_rest=True),
    }


def _ovr(one: Mapping[str, Array], way: str) -> Array:
    return one[way] if way == "platt" else one[way][:, one["columns"]]


def _table(
    ways: Mapping[str, list[tuple[Array, Array]]], ours: Sequence[str], *, seed: int, one_against_rest: bool
) -> dict[str, Any]:
    losses = {
        way: [_losses(*part, one_against_rest=one_against_rest) for part in parts] for way, parts in ways.items()
    }
    rows: dict[str, Any] = {}
    for way, parts in ways.items():
        brier, log_loss = np.concatenate(losses[way]).mean(0)
        if one_against_rest:
            sure = np.concatenate([shares.ravel() for shares, _ in parts])
            right = np.concatenate([actual.ravel() for _, actual in parts])
        else:
            sure = np.concatenate([shares.max(1) for shares, _ in parts])
            right = np.concatenate([actual[np.arange(len(actual)), shares.argmax(1)] for shares, actual in parts])
        rows[way] = {
            "brier": brier,
            "log_loss": log_loss,
            "calibration_error": calibration_error(sure, right.astype(bool), n_bins=N_BINS),
        }
        if not one_against_rest:
            rows[way]["accuracy"] = right.mean()
        if way in ours:
            rows[way]["minus"] = {
                other: _difference(losses[way], losses[other], seed=seed) for other in REFERENCES
            }
    return rows


def _losses(shares: Array, actual: Array, *, one_against_rest: bool) -> Array:
    """Brier score and log-loss of each sample, shape `sample 2`; one against the rest: means over the concepts."""
    kept = shares.clip(1e-12, 1 - 1e-12)
    if one_against_rest:
        log_loss = -(actual * np.log(kept) + (1 - actual) * np.log1p(-kept)).mean(1)
        return np.stack([((shares - actual) ** 2).mean(1), log_loss], axis=1)
    return np.stack([((shares - actual) ** 2).sum(1), -(actual * np.log(kept)).sum(1)], axis=1)


def _difference(own: list[Array], other: list[Array], *, seed: int) -> dict[str, Any]:
    """Mean of own - other over all facts, with 95 % intervals from resampling facts within relations."""
    generator = np.random.default_rng(seed)
    gaps = [a - b for a, b in zip(own, other, strict=True)]
    drawn = np.zeros((N_RESAMPLES, 2))
    for gap in gaps:
        drawn += gap[generator.integers(0, len(gap), (N_RESAMPLES, len(gap)))].sum(1)
    drawn /= sum(len(gap) for gap in gaps)
    means = np.concatenate(gaps).mean(0)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {name: {"mean": means[i], "ci95": [low[i], high[i]]} for i, name in enumerate(("brier", "log_loss"))}


def _print(results: Mapping[str, Any]) -> None:
    for title, rows in results.items():
        print(f"\n{title}\n| way | accuracy | Brier | log-loss | calibration error |\n|---|---|---|---|---|")
        for way, row in rows.items():
            accuracy = f"{row['accuracy']:.3f}" if "accuracy" in row else ""
            figures = (row[name] for name in ("brier", "log_loss", "calibration_error"))
            print(f"| {way} | {accuracy} | {' | '.join(f'{figure:.4f}' for figure in figures)} |")
        for way, row in rows.items():
            for other, gaps in row.get("minus", {}).items():
                texts = [
                    f"{name} {gap['mean']:+.4f} [{gap['ci95'][0]:+.4f}, {gap['ci95'][1]:+.4f}]"
                    for name, gap in gaps.items()
                ]
                print(f"{way} minus {other}: {', '.join(texts)}")


def main() -> None:
    """Predict, pool, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--relations", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    for name, default in (
        ("subject-layer", 7),
        ("object-layer", 12),
        ("rank", 64),
        ("shots", 4),
        ("max-lre-prompts", 5),
        ("max-facts", 300),
        ("min-facts", 3),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    model = lrc.load_model(given.model)
    started = time.perf_counter()
    usable: dict[str, dict[str, Array]] = {}
    left_out: dict[str, str] = {}
    for name, relation in load_relations(given.relations)[0].items():
        try:
            usable[name] = relation_predictions(model, relation, given)
            print(
                f"{name}: {len(usable[name]['actual'])} facts of {usable[name]['actual'].shape[1]} objects",
                flush=True,
            )
        except (ValueError, RelationError) as error:
            left_out[name] = str(error)
            print(f"{name}: left out, {error}", flush=True)
    results = pooled(usable, seed=given.seed)
    n_activations = sum(len(one["actual"]) for one in usable.values())
    print(f"\n{n_activations} unseen facts of {len(usable)} relations")
    _print(results)
    fingerprint = lrc.models.ModelFingerprint.of(model)
    write_result(
        RESULTS / f"calibration_{fingerprint.name}.json",
        kind="calibration",
        results={
            "n_activations": n_activations,
            "relations": {
                name: {
                    "n_facts": len(one["actual"]),
                    "n_objects": one["actual"].shape[1],
                    "n_calibrated": len(one["columns"]),
                }
                for name, one in usable.items()
            },
            "left_out": left_out,
            "ways": results,
        },
        settings={key: str(value) if key == "relations" else value for key, value in vars(given).items()},
        model=fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()


def _softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)
