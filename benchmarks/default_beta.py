"""Which beta edits get by default: hard success within limits, on training facts of built-in relations.

    .venv/bin/python benchmarks/default_beta.py [--model packaged:gemma-3-270m] [--relations NAME,...]
        [--betas x,...] [--subject-layer i --object-layer j --rank k]
    .venv/bin/python benchmarks/default_beta.py --table

For each relation the training half is split again: directions come from few-shot prompts of the one part (method
`lrc`), edits are made on known zero-shot prompts of the other. Layers and rank are README's for Gemma and the
presets' for other models. The choice is the beta with the most hard success, as a mean over relations and then
over the models that were run there, among those at which for each model the mean KL elsewhere and the geometric
mean of the perplexity ratio lie within the limits. Test facts take no part.

Writes `benchmarks/results/default_beta_<model>.json`, and prints the choice from all files of that name; for other
layers and rank `beta_<model>_<i>_<j>_<k>.json`, which takes no part in the choice. `--table` writes what each beta
does to the test facts of city in country at README's own settings, `beta_table_<model>.json`.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import lrc_tl as lrc
from lrc_tl.directions.beta import DEFAULT_BETA
from lrc_tl.experiments.presets import benchmark_options
from lrc_tl.storage.json_results import write_result
from lrc_tl.tuning.beta_choice import MOST_KL_ELSEWHERE, MOST_PERPLEXITY_RATIO, BetaEffect, BetaTrials

RESULTS = Path(__file__).parent / "results"
GEMMA = "packaged:gemma-3-270m"
README_PLACES = {"subject_layer": 7, "object_layer": 12, "rank": 128}
BETAS = (0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.02, 0.1)
TABLE_BETAS = (0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
RELATIONS = ("city_in_country", "country_language")
EDITS_PER_OBJECT = 2
LRE_PROMPTS = 5
FEWEST_FACTS = 5


def training_effects(
    model: lrc.models.HookedModel, relation: lrc.Relation, places: dict[str, Any], betas: tuple[float, ...]
) -> dict[str, Any]:
    """Effects of every beta on one relation's held-out training facts, or the reason why there are none."""
    train, _ = relation.split(seed=0)
    fit_on, judge_on = train.split(seed=0)
    known = lrc.filter_known(model, fit_on.prompts(shots=4, seed=0), whole_answers=False)
    asked = judge_on.prompts(templates="all", seed=0)
    judged = lrc.filter_known(model, asked, whole_answers=False).one_per_fact().prompts
    inside = [prompt for prompt in judged if prompt.object in {own.object for own in known.prompts}]
    if len(inside) < FEWEST_FACTS or len({prompt.object for prompt in inside}) < 2:
        return {"relation": relation.name, "left_out": f"{len(inside)} facts are known"}
    settings = lrc.FitSettings(max_lre_prompts=LRE_PROMPTS)
    concepts = lrc.fit_concepts(model, known.prompts, method="lrc", settings=settings, **places)
    edits = lrc.evaluation.counterfactual_edits(inside, seed=0, per_object=EDITS_PER_OBJECT)
    return {"relation": relation.name, "left_out": None, **measured(model, relation, concepts, edits, betas)}


def measured(
    model: lrc.models.HookedModel,
    relation: lrc.Relation,
    concepts: lrc.ConceptSet,
    edits: tuple[lrc.evaluation.Edit, ...],
    betas: tuple[float, ...],
) -> dict[str, Any]:
    """Effects of these edits at these betas."""
    statements = lrc.known_statements(model, relation, seed=0)
    effects = BetaTrials(model, {"": concepts}, edits, statements, seed=0).measured(betas)[""]
    return {
        "n_prompts": len({edit.prompt for edit in edits}),
        "n_edits": len(edits),
        "n_statements": len(statements),
        "effects": [asdict(effect) for effect in effects],
    }


def means(relations: list[dict[str, Any]]) -> list[BetaEffect]:
    """One effect a beta, over relations: arithmetic means, and the geometric one of the perplexity ratio."""
    rows = []
    for own in zip(*(relation["effects"] for relation in relations), strict=True):
        names = ("causality", "hard_success", "mean_log_odds_change", "kl_elsewhere")
        ratio = geometric_mean(effect["perplexity_ratio"] for effect in own)
        rows.append(
            BetaEffect(
                beta=own[0]["beta"],
                perplexity_ratio=ratio,
                **{name: fmean(effect[name] for effect in own) for name in names},
            )
        )
    return rows


def readme_table(model: lrc.models.HookedModel) -> dict[str, Any]:
    """Effects on the test facts of city in country at README's layers, rank and prompts."""
    relation = lrc.load_relation("city_in_country")
    train, test = relation.split(seed=0)
    known = lrc.filter_known(model, train.prompts(shots=4, seed=0))
    unseen = lrc.filter_known(model, test.prompts())
    lre = lrc.LinearRelationalEmbedding.fit(model, known.sample(8, seed=0), subject_layer=7, object_layer=12)
    concepts = lre.concepts(model, known.prompts, rank=128)
    prompts = [prompt for prompt in unseen.prompts if prompt.object in concepts]
    return measured(model, relation, concepts, lrc.evaluation.counterfactual_edits(prompts, seed=0), TABLE_BETAS)


def show(title: str, effects: list[dict[str, Any]]) -> None:
    """A table on stdout."""
    print(f"\n{title}\n| beta | causality | hard success | KL elsewhere | perplexity ratio |")
    print("|---|---|---|---|---|")
    for effect in effects:
        figures = f"{effect['causality']:.2f} | {effect['hard_success']:.2f} | {effect['kl_elsewhere']:.3f}"
        print(f"| {effect['beta']:g} | {figures} | {effect['perplexity_ratio']:.4g} |", flush=True)


def chosen() -> tuple[float, float, list[str]]:
    """The beta, its mean hard success, and the models, from the results that are there; of betas tried on all."""
    by_model = {
        path.stem.removeprefix("default_beta_"): {
            effect["beta"]: effect for effect in json.loads(path.read_text())["mean"]
        }
        for path in sorted(RESULTS.glob("default_beta_*.json"))
    }
    on_all = set.intersection(*map(set, by_model.values()))
    allowed = [
        (fmean(own[beta]["hard_success"] for own in by_model.values()), -beta)
        for beta in on_all
        if all(own[beta]["within_limits"] for own in by_model.values())
    ]
    hard_success, beta = max(allowed)
    return -beta, hard_success, list(by_model)


def write(
    name: str, results: dict[str, Any], model: lrc.models.HookedModel, settings: dict[str, Any], started: float
) -> None:
    """A result file."""
    write_result(
        RESULTS / f"{name}.json",
        kind="default_beta",
        results=results,
        settings={
            **settings,
            "most_kl_elsewhere": MOST_KL_ELSEWHERE,
            "most_perplexity_ratio": MOST_PERPLEXITY_RATIO,
        },
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )


def main() -> None:
    """Measure, write, choose and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=GEMMA)
    parser.add_argument("--relations", default=",".join(RELATIONS))
    parser.add_argument("--betas", default=",".join(map(str, BETAS)))
    for name in README_PLACES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model(given.model)
    model_name = lrc.models.ModelFingerprint.of(model).name
    if given.table:
        table = readme_table(model)
        show(f"{given.model}, city in country, README's settings, {table['n_edits']} edits", table["effects"])
        return write(f"beta_table_{model_name}", table, model, {"model": given.model, **README_PLACES}, started)
    preset = benchmark_options({}, model=given.model, preset="table5-small").to_dict()
    usual = README_PLACES if given.model == GEMMA else {name: preset[name] for name in README_PLACES}
    asked = {name: getattr(given, name) for name in README_PLACES}
    places = {name: usual[name] if value is None else value for name, value in asked.items()}
    betas = tuple(float(beta) for beta in given.betas.split(","))
    relations = []
    for name in given.relations.split(","):
        relations.append(training_effects(model, lrc.load_relation(name), places, betas))
        outcome = relations[-1]["left_out"] or "measured"
        print(f"{name}: {outcome}, {time.perf_counter() - started:.0f} s", flush=True)
    used = [relation for relation in relations if relation["left_out"] is None]
    mean = [{**asdict(effect), "within_limits": effect.within_limits} for effect in means(used)]
    show(f"{given.model} at {places}, mean over {len(used)} relations, training facts", mean)
    name = f"default_beta_{model_name}"
    if places != usual:
        name = f"beta_{model_name}_{'_'.join(map(str, places.values()))}"
    settings = {**vars(given), **places, "max_lre_prompts": LRE_PROMPTS, "edits_per_object": EDITS_PER_OBJECT}
    write(name, {"mean": mean, "relations": relations}, model, settings, started)
    beta, hard_success, models = chosen()
    print(f"\nof {', '.join(models)}: most hard success within limits is {hard_success:.3f}, at beta {beta:g}")
    print(f"lrc_tl.directions.beta.DEFAULT_BETA is {DEFAULT_BETA:g}")


if __name__ == "__main__":
    main()
