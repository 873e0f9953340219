"""What users write, for `mypy --strict` (`make lint`): every line must type-check as it stands, and none is run.

A wrong type in a signature shows here, where a test that only runs would not see it.
"""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

import lrc_tl as lrc


def a_direction_from_a_relation() -> lrc.ConceptDirection:
    model = lrc.load_model("packaged:gemma-3-270m", device="cpu", dtype=torch.float32)
    relation = lrc.load_relation("city_in_country")
    train, test = relation.split(seed=0)
    known = lrc.filter_known(model, train.prompts(shots=4, seed=0))
    lre = lrc.LinearRelationalEmbedding.fit(model, known.sample(8, seed=0), subject_layer=8, object_layer=12)
    weight: Tensor = lre.weight
    predicted: Tensor = lre.predict(torch.zeros(3, weight.shape[1]))
    concepts = lre.concepts(model, known.prompts, rank=64)
    france = concepts["France"]
    scores: Tensor = france.score(predicted)
    names: list[str] = list(concepts)
    ranking: list[tuple[str, float]] = list(concepts.classify(model, "Lyon is in", subject="Lyon"))
    print(scores.shape, names, ranking[:3], test.report(), known.report())
    return france


def steering(model: lrc.models.HookedModel, france: lrc.ConceptDirection, concepts: lrc.ConceptSet) -> list[str]:
    with france.steer(model, strength=0.1):
        print(model.generate("My favourite city is", max_new_tokens=20))
    gate = france.gate(threshold=40.0)
    first = lrc.Schedule(kind="first", steps=3)
    several = [
        france.add(strength=0.1).at(gate=gate, when=first, layers=range(7, 12)),
        france.ablate().at(where="generated"),
        france.clamp(value=0.0),
        france.reflect(value="clean"),
    ]
    with (
        lrc.steer(model, several),
        concepts.swap(model, remove="France", add="Japan", text="Lyon", subject="Lyon"),
    ):
        pass
    results = lrc.generate(model, "My favourite city is", steering=france, strengths=[0.02, 0.04], unsteered=True)
    return [result.text for result in results]


def own_data(frame: pd.DataFrame, place: Path) -> lrc.Relation:
    pairs = [("iPhone", "Apple"), ("Windows", "Microsoft")]
    mine = lrc.Relation.from_pairs("company of product", pairs, templates=["{} is made by"])
    mine.save(place / "mine.json")
    prompt = lrc.Prompt(text="Lyon is in", subject="Lyon", object="France")
    print(prompt.subject_span(), mine.facts[0].subject)
    return lrc.Relation.from_frame(frame, name="r", templates=["{} is"])


def files(model: lrc.models.HookedModel, concepts: lrc.ConceptSet, place: Path) -> lrc.ConceptSet:
    concepts.save(place / "concepts.safetensors")
    loaded = lrc.ConceptSet.load(place / "concepts.safetensors", model=model)
    vectors: dict[int, Tensor] = lrc.directions.layer_vectors(loaded, "France", layers=[7, 8])
    lrc.write_control_vector(place / "france.gguf", vectors, model_hint="gemma3")
    return loaded


def other_ways(model: lrc.models.HookedModel, prompts: tuple[lrc.Prompt, ...]) -> float | None:
    grid = lrc.fit_layer_grid(model, prompts, subject_layers=range(4, 8), object_layers=[12])
    ranks: dict[tuple[int, int], int] = {pair: lre.numerical_rank for pair, lre in grid.items()}
    statistics = lrc.SubjectStatistics.fit(model, layers=[7])
    settings = lrc.FitSettings(max_lre_prompts=2, background=statistics)
    dual = lrc.fit_concepts(model, prompts, method="lrc-map", subject_layer=7, settings=settings)
    cheap = lrc.LinearRelationalEmbedding.fit(
        model, prompts, subject_layer=7, object_layer=12, solver=lrc.LowRank(rank=64, min_cosine=0.99)
    )
    cost: lrc.lre.FitCost = lrc.lre.fit_cost(model, prompts, subject_layers=[7], object_layers=[12])
    print(cost.n_bytes, cost.seconds(1e11))
    evaluation = lrc.evaluate(model, dual, prompts, beta=0.1)
    style = lrc.contrast_concepts(model, positive=["a"], negative=["b"], names=("x", "y"), layer=9, at="mean")
    acts: Tensor = lrc.subject_activations(model, prompts, layer=7)
    print(ranks, cheap.n_products, style, dual.calibrate(acts, [prompt.object for prompt in prompts]))
    return evaluation.accuracy


def sweeps(model: lrc.models.HookedModel, relation: lrc.Relation, place: Path) -> pd.DataFrame:
    settings = lrc.SweepSettings(methods=("lrc", "svm"), subject_layers=(7, 9), object_layers=12, ranks=(64, 128))
    plan = lrc.plan_sweep(model, relation, settings=settings)
    print(plan.products, plan.seconds(lrc.numerics.product_rate(640)), plan.memory_bytes)
    records: list[lrc.experiments.SweepRecord] = []
    result = lrc.run_sweep(model, relation, settings=settings, out=place, on_record=records.append)
    print(plan.seconds_left(records))
    best = result.best()
    print(result.compare(best.iloc[0], best.iloc[1]))
    return result.to_frame()


def errors(path: Path) -> str:
    try:
        lrc.ConceptSet.load(path)
    except lrc.errors.ArtifactError as error:
        return str(error)
    return ""
