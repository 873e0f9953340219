"""`select_settings`: layers, rank and beta chosen on training facts alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lrc_tl.activations import prompt_activations
from lrc_tl.evaluation.causality import causality_curve, counterfactual_edits
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.knowledge import filter_known
from lrc_tl.lre import fit_layer_grid
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.prompts import Prompt
from lrc_tl.relations import Relation

RANKS = (16, 32, 64, 96, 128, 192)
BETAS = (0.025, 0.05, 0.1, 0.2)
_FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `select_settings` chose, and every candidate that it tried."""

    subject_layer: int
    object_layer: int
    rank: int
    beta: float
    accuracy: float
    """Of the chosen layers and rank on the validation facts, which they were chosen by."""
    causality: float
    """Of the chosen beta on the validation facts."""
    n_validation: int
    validation_shots: int
    """Examples in the validation prompts: 0, or as in training where too few are known without."""
    tried: pd.DataFrame
    """One row for each candidate: subject_layer, object_layer, rank, accuracy, mean_reciprocal_rank."""
    tried_betas: pd.DataFrame
    """One row for each beta at the chosen layers and rank: beta, causality."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values without the tables, for JSON."""
        return {key: value for key, value in asdict(self).items() if not key.startswith("tried")}


def default_layers(model: HookedModel) -> tuple[list[int], list[int]]:
    """Subject and object layers to try: around 45 % and 70 % of the depth, where the paper's choices lie."""
    n_layers = int(model.cfg.n_layers)
    subject = sorted({max(0, min(n_layers - 2, round(share * n_layers) - 1)) for share in (0.45, 0.5, 0.55)})
    object_ = sorted({min(n_layers - 1, max(subject[-1] + 1, round(share * n_layers))) for share in (0.67, 0.72)})
    return subject, object_


def select_settings(
    model: HookedModel,
    train: Relation,
    *,
    subject_layers: Sequence[int] | None = None,
    object_layers: Sequence[int] | None = None,
    ranks: Sequence[int] = RANKS,
    betas: Sequence[float] = BETAS,
    shots: int = 4,
    n_prompts: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Settings:
    """Layers and rank by accuracy, then beta by causality, on held-out training facts.

    The facts of `train` are split again: LREs and directions come from known few-shot prompts of the one part, and
    are judged on known zero-shot prompts of the other (few-shot ones where fewer than five are known zero-shot).
    Ties go to the higher mean reciprocal rank, then to the smaller rank; for beta, to the smaller one.

    Args:
        subject_layers: layers to try; by default three around the middle of the model.
        object_layers: layers to try; by default two at about 70 % of the depth.
        n_prompts: LRE prompts for each pair of layers, balanced over objects.

    Raises:
        ValueError: too few known facts to choose by, or layers without a pair subject < object.
    """
    default_subject, default_object = default_layers(model)
    subject_layers = [_counted(model, layer) for layer in subject_layers or default_subject]
    object_layers = [_counted(model, layer) for layer in object_layers or default_object]
    fit_on, validate_on = train.split(seed=seed)
    known = filter_known(model, fit_on.prompts(shots=shots, seed=seed), seed=seed)
    known.require_some()
    validation_shots, validation = _validation_prompts(model, validate_on, shots=shots, seed=seed)
    actual = [prompt.object for prompt in validation]
    grid = fit_layer_grid(
        model,
        known.sample(n_prompts, seed=seed),
        subject_layers=subject_layers,
        object_layers=object_layers,
        progress=progress,
    )
    read = prompt_activations(model, validation, subject_layers=subject_layers).subject
    objects = prompt_activations(model, known.prompts, object_layers=object_layers).object
    names = [prompt.object for prompt in known.prompts]
    rows = []
    for (subject_layer, object_layer), lre in grid.items():
        if (limit := lre.numerical_rank) == 0:  # equal layers: the object does not depend on the subject yet
            continue
        for rank in sorted({min(rank, limit) for rank in ranks}):
            concepts = lre.concepts_from_activations(objects[object_layer], names, rank=rank)
            found = classify_activations(concepts, read[subject_layer], actual)
            rows.append(
                {
                    "subject_layer": subject_layer,
                    "object_layer": object_layer,
                    "rank": rank,
                    "accuracy": found.accuracy,
                    "mean_reciprocal_rank": found.mean_reciprocal_rank,
                }
            )
    if not rows:
        raise ValueError(
            f"no object layer of {object_layers} lies above a subject layer of {subject_layers}; give one"
        )
    tried = pd.DataFrame(rows)
    order = tried.sort_values(["accuracy", "mean_reciprocal_rank", "rank"], ascending=[False, False, True])
    best = order.iloc[0]
    pair = int(best.subject_layer), int(best.object_layer)
    concepts = grid[pair].concepts_from_activations(objects[pair[1]], names, rank=int(best["rank"]))
    edits = counterfactual_edits([p for p in validation if p.object in concepts], seed=seed)
    curve = causality_curve(model, edits, swap_differences(concepts, edits), betas=sorted(betas))
    chosen = max(curve, key=lambda result: result.causality)  # the first, smallest beta of equals
    return Settings(
        subject_layer=pair[0],
        object_layer=pair[1],
        rank=int(best["rank"]),
        beta=chosen.beta,
        accuracy=float(best.accuracy),
        causality=chosen.causality,
        n_validation=len(validation),
        validation_shots=validation_shots,
        tried=tried,
        tried_betas=pd.DataFrame([{"beta": r.beta, "causality": r.causality} for r in curve]),
    )


def _counted(model: HookedModel, layer: int) -> int:
    return int(hook_name(model, layer).split(".")[1])


def _validation_prompts(
    model: HookedModel, relation: Relation, *, shots: int, seed: int
) -> tuple[int, tuple[Prompt, ...]]:
    for used in (0, shots):
        known = filter_known(model, relation.prompts(shots=used, seed=seed), seed=seed)
        if len(known.prompts) >= _FEWEST and len({prompt.object for prompt in known.prompts}) >= 2:
            return used, known.prompts
    raise ValueError(
        f"the model knows only {len(known.prompts)} of the {len(relation.facts)} facts held out for choosing, and "
        f"{_FEWEST} of two objects are needed; give more training facts, or choose layers and rank yourself"
    )
