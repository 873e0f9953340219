"""What bfloat16 changes in LREs and directions of a real model, measured against float32.

    .venv/bin/python benchmarks/narrow_precision.py

Three models: float32, bfloat16, and float32 with the weights rounded to bfloat16, which shows what the rounded
weights do alone. The bfloat16 model is fitted in its own dtype, and with `fit_dtype="float32"`.
One LRE each on the same prompts, directions from it, and the accuracy of each model's directions
on its own activations of unseen facts that the float32 model knows. Writes `results/narrow_precision.json`.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import lrc_tl as lrc
from lrc_tl.errors import NotFiniteError
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"


def rounded(model: Any) -> Any:
    """The float32 model with each weight at the nearest bfloat16."""
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    return model


def measured(
    model: Any, few: Any, known: Any, unseen: Any, given: argparse.Namespace, *, fit_dtype: Any = "model"
) -> dict[str, Any]:
    """The LRE, its directions and their accuracy, with the seconds of the fit."""
    layers = {"subject_layer": given.subject_layer, "object_layer": given.object_layer}
    started = time.process_time()
    lre = lrc.LinearRelationalEmbedding.fit(model, few, **layers, fit_dtype=fit_dtype, progress=False)
    taken = time.process_time() - started
    concepts = lre.concepts(model, known, rank=given.rank)
    evaluated = lrc.evaluate(model, concepts, unseen, beta=0.005, progress=False)
    return {
        "lre": lre, "concepts": concepts, "accuracy": float(evaluated.accuracy),
        "causality": float(evaluated.causality), "cpu_seconds_fit": taken,
        "said": lrc.filter_known(model, unseen, progress=False).prompts,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--relation", default="city_in_country")
    parser.add_argument("--subject-layer", type=int, default=7)
    parser.add_argument("--object-layer", type=int, default=12)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--facts", type=int, default=60, help="training facts, and unseen facts, at most")
    parser.add_argument("--backend", default="auto", choices=["auto", "bridge", "hooked_transformer"])
    given = parser.parse_args()
    started = time.perf_counter()
    plain = lrc.load_model(given.model, backend=given.backend)
    train, test = lrc.load_relation(given.relation).split(seed=0)
    known = lrc.filter_known(plain, train.prompts(shots=4, seed=0)[: given.facts], progress=False)
    unseen = lrc.filter_known(plain, test.prompts()[: given.facts], progress=False).prompts
    few = known.sample(given.prompts, seed=0)
    fingerprint = lrc.models.ModelFingerprint.of(plain).to_dict()
    reference = measured(plain, few, known.prompts, unseen, given)
    results = {"float32": reference}
    results["float32, weights rounded"] = measured(rounded(plain), few, known.prompts, unseen, given)
    narrow = lrc.load_model(given.model, backend=given.backend, dtype=torch.bfloat16)
    results["bfloat16"] = measured(narrow, few, known.prompts, unseen, given)
    results["bfloat16, fitted in float32"] = measured(
        narrow, few, known.prompts, unseen, given, fit_dtype="float32"
    )
    rows = []
    for name, result in results.items():
        weight, expected = result["lre"].weight.double(), reference["lre"].weight.double()
        cosines = (result["concepts"].vectors.double() * reference["concepts"].vectors.double()).sum(1)
        rows.append({
            "model": name,
            "relative_error_of_weight": float((weight - expected).norm() / expected.norm()),
            "least_cosine": float(cosines.min()),
            "mean_cosine": float(cosines.mean()),
            "accuracy": result["accuracy"],
            "causality": result["causality"],
            "n_said": len(result["said"]),
            "cpu_seconds_fit": result["cpu_seconds_fit"],
        })  # fmt: skip
        print(rows[-1], flush=True)
    try:
        lrc.load_model(given.model, backend=given.backend, dtype=torch.float16)
        float16 = "loaded"
    except NotFiniteError as error:
        float16 = str(error)
    print("float16:", float16)
    write_result(
        RESULTS / "narrow_precision.json",
        kind="narrow_precision",
        results={"rows": rows, "n_known": len(known.prompts), "n_unseen": len(unseen), "float16": float16},
        settings={**vars(given), "torch": torch.__version__},
        model=fingerprint,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
