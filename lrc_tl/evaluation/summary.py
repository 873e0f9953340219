"""`evaluate`: accuracy and causality of a set of directions on known prompts, by fixed definitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.activations import subject_activations
from lrc_tl.directions import ConceptSet
from lrc_tl.evaluation.causality import CausalityResult, Edit, causality_curve, counterfactual_edits
from lrc_tl.evaluation.classification import Classification, classify_activations
from lrc_tl.models import HookedModel
from lrc_tl.no_booleans import no_booleans
from lrc_tl.prompts import Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Accuracy and causality of one set, with the counts behind them."""

    classification: Classification
    causality_result: CausalityResult
    edits: tuple[Edit, ...]
    seed: int

    @property
    def accuracy(self) -> float:
        """Share of subjects whose object has the highest score."""
        return self.classification.accuracy

    @property
    def causality(self) -> float:
        """Share of edits after which p(o') > p(o)."""
        return self.causality_result.causality

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "accuracy": self.accuracy,
            "n_prompts": self.classification.n_prompts,
            "n_correct": self.classification.n_correct,
            "n_objects": len(self.classification.candidates),
            "chance": self.classification.chance,
            "mean_reciprocal_rank": self.classification.mean_reciprocal_rank,
            "causality": self.causality,
            "n_edits": self.causality_result.n_edits,
            "beta": self.causality_result.beta,
            "edit_share": self.causality_result.edit_share,
            "mean_log_odds_change": float(self.causality_result.log_odds_change.mean()),
            "wrong_way": self.causality_result.wrong_way,
            "seed": self.seed,
        }

    def __repr__(self) -> str:
        c, e = self.classification, self.causality_result
        return (
            f"Evaluation(accuracy {c.accuracy:.3f} ({c.n_correct} of {c.n_prompts}, {len(c.candidates)} objects, "
            f"chance {c.chance:.3f}), causality {e.causality:.3f} ({int(e.success.sum())} of {e.n_edits} edits, "
            f"beta {e.beta:g}))"
        )


@no_booleans
def evaluate(
    model: HookedModel,
    concepts: ConceptSet,
    prompts: Sequence[Prompt],
    *,
    beta: float = 0.1,
    seed: int = 0,
    edits_per_object: int = 5,
) -> Evaluation:
    """Accuracy on the prompts' subjects, causality of swaps between their objects (arXiv:2311.08968, section 4).

    Give prompts that the model answers correctly (`filter_known`), of subjects that the set was not made from. A
    prompt whose object has no direction counts as wrong and takes no part in the edits.

    Args:
        beta: the factor of eq. 7; the edit is `beta |h| (v_o' - v_o)` at every layer.
        seed: draws the edits, the same for every set on the same prompts.

    Raises:
        ValueError: no prompts, one object only, or a beta that is not finite.
        FingerprintMismatch: the set was made on another model.
    """
    concepts.require_model(model)
    activations = subject_activations(model, prompts, layer=concepts.layer)
    found = classify_activations(concepts, activations, [prompt.object for prompt in prompts])
    with_direction = [prompt for prompt in prompts if prompt.object in concepts]
    edits = counterfactual_edits(with_direction, seed=seed, per_object=edits_per_object)
    (effect,) = causality_curve(model, edits, swap_differences(concepts, edits), betas=[beta])
    return Evaluation(classification=found, causality_result=effect, edits=edits, seed=seed)


def swap_differences(concepts: ConceptSet, edits: Sequence[Edit]) -> Float[Tensor, "edit d_model"]:
    """`v_o' - v_o` for each edit."""
    return torch.stack([concepts[edit.target].vector - concepts[edit.prompt.object].vector for edit in edits])


def random_differences(differences: Float[Tensor, "edit d_model"], *, seed: int) -> Float[Tensor, "edit d_model"]:
    """A random direction for each edit, with the norm of its own difference: the control for causality."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(differences.shape, generator=generator, dtype=torch.float64).to(differences)
    scaled: Tensor = drawn / drawn.norm(dim=-1, keepdim=True) * differences.norm(dim=-1, keepdim=True)
    return scaled
