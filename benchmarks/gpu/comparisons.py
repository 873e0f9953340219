"""The same work on two models with equal weights: how far the figures of one lie from those of the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import lrc_tl as lrc

from .models import made_up_prompts

RANK = 16


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Where a comparison reads subjects and objects."""

    subject: int
    object: int

    @classmethod
    def of(cls, n_layers: int) -> "Layers":
        """A quarter and five eighths of the depth."""
        subject = max(1, n_layers // 4)
        return cls(subject=subject, object=max(subject + 1, 5 * n_layers // 8))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of the device beside the reference's."""

    name: str
    value: float
    """Relative error of a tensor (Frobenius), or 1 less the smallest cosine of directions."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the value is within the tolerance; NaN is not."""
        return self.value <= self.tolerance


def relative_error(got: Tensor, expected: Tensor) -> float:
    """`|got - expected| / |expected|` in float64."""
    got, expected = got.detach().cpu().double(), expected.detach().cpu().double()
    return float((got - expected).norm() / expected.norm())


def cosine_defect(got: Tensor, expected: Tensor) -> float:
    """1 less the smallest cosine over rows."""
    got, expected = got.detach().cpu().double(), expected.detach().cpu().double()
    return float(1 - torch.nn.functional.cosine_similarity(got, expected, dim=-1).min())


def figures(model: Any, layers: Layers, *, n_prompts: int = 4) -> dict[str, Any]:
    """What is compared: weights, directions, statistics and generated tokens of one model."""
    prompts = made_up_prompts(64)
    few = prompts[:n_prompts]
    quiet: dict[str, Any] = {"progress": False}
    pair: dict[str, Any] = {"subject_layer": layers.subject, "object_layer": layers.object}
    lre = lrc.LinearRelationalEmbedding.fit(model, few, **pair, **quiet)
    grid = lrc.fit_layer_grid(
        model, few, subject_layers=[layers.subject - 1, layers.subject], object_layers=[layers.object, -1], **quiet
    )
    low = lrc.LinearRelationalEmbedding.fit(model, few, **pair, solver=lrc.LowRank(rank=RANK), **quiet)
    concepts = lre.concepts(model, prompts, rank=RANK)
    low_concepts = low.concepts(model, prompts, rank=RANK)
    statistics = lrc.SubjectStatistics.fit(model, layers=[layers.subject], background=prompts, **quiet)
    settings = lrc.FitSettings(max_lre_prompts=n_prompts, background=statistics, noise=0.1)
    dual = lrc.fit_concepts(model, prompts, method="lrc-map", **pair, settings=settings, **quiet)
    combined = lrc.fit_concepts(model, prompts, method="lrc-map-combined", **pair, settings=settings, **quiet)
    texts = [prompt.text for prompt in prompts[:4]]
    steering = concepts[prompts[0].object].add(strength=0.2)
    return {
        "weight of an exact fit": lre.weight,
        "bias of an exact fit": lre.bias,
        "weights of a grid": torch.stack([grid[key].weight for key in sorted(grid)]),
        "directions of an exact fit": concepts.vectors,
        "directions of a low-rank fit": low_concepts.vectors,
        "samples of subject statistics": statistics[layers.subject].samples,
        "reading vectors of lrc-map": dual.vectors,
        "writing vectors of lrc-map": torch.stack([direction.write_vector for direction in dual.values()]),
        "reading vectors of lrc-map-combined": combined.vectors,
        "writing vectors of lrc-map-combined": torch.stack(
            [direction.write_vector for direction in combined.values()]
        ),
        "log-probabilities of steered generation": first_log_probs(model, texts, steering),
        "steered generation with and without the cache": cached_and_not(model, texts[0], steering),
    }


def first_log_probs(model: Any, texts: list[str], steering: lrc.Steering) -> Tensor:
    """Of the first token that each text goes on with, and the divergence to the unsteered model there."""
    results = lrc.generate(model, texts, steering=steering, max_new_tokens=4)
    return torch.stack([torch.stack([result.log_probs[0], result.kl[0]]) for result in results])


def cached_and_not(model: Any, text: str, steering: lrc.Steering) -> tuple[list[int], list[int]]:
    """Tokens of the model's own greedy generation under the steering, with the key-value cache and without."""
    told = []
    for cache in (True, False):
        with steering.on(model):
            tokens = model.generate(
                model.to_tokens(text), max_new_tokens=8, do_sample=False, verbose=False, use_past_kv_cache=cache,
                return_type="tokens",
            )  # fmt: skip
        told.append(tokens[0].tolist())
    return told[0], told[1]


EXACT, DIRECTIONS = "exact", "directions"
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "float32": {EXACT: 1e-3, DIRECTIONS: 1e-4},
    "bfloat16": {EXACT: 0.2, DIRECTIONS: 0.3},
    "float16": {EXACT: 0.03, DIRECTIONS: 0.05},
}
"""By dtype: of tensors (relative error) and of directions (1 - cosine), beside float32. A random model's singular
values are nearly equal, so that a rank cuts between some whose order rounding to 16 bits changes."""


def differences(got: Mapping[str, Any], expected: Mapping[str, Any], *, dtype: str) -> list[Difference]:
    """Every figure of `got` against `expected`, with the tolerance for its kind."""
    found = []
    for name, value in expected.items():
        if isinstance(value, tuple):
            first, second = got[name]
            same = sum(a == b for a, b in zip(first, second, strict=False)) / max(len(first), len(second))
            found.append(Difference(name=name, value=1 - same, tolerance=0.0 if dtype == "float32" else 0.25))
            continue
        is_direction = "directions" in name or "vectors" in name
        measure: Callable[[Tensor, Tensor], float] = cosine_defect if is_direction else relative_error
        tolerance = TOLERANCES[dtype][DIRECTIONS if is_direction else EXACT]
        found.append(Difference(name=name, value=measure(got[name], value), tolerance=tolerance))
    return found
