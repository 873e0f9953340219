"""What a set of directions is worth: accuracy on unseen subjects, causality of edits, what else they change."""

from lrc_tl.evaluation.causality import (
    CausalityResult,
    Edit,
    causality_curve,
    causality_curves,
    counterfactual_edits,
)
from lrc_tl.evaluation.classification import Classification, classify_activations
from lrc_tl.evaluation.faithfulness import Faithfulness, lre_causality, lre_faithfulness
from lrc_tl.evaluation.control_tasks import Selectivity, random_concepts, random_weights, selectivity
from lrc_tl.evaluation.collateral import SideEffects, same_subject_pairs, side_effects, unrelated_pairs
from lrc_tl.evaluation.summary import Evaluation, evaluate

__all__ = [
    "CausalityResult",
    "Classification",
    "Edit",
    "Evaluation",
    "Faithfulness",
    "Selectivity",
    "SideEffects",
    "causality_curve",
    "causality_curves",
    "classify_activations",
    "counterfactual_edits",
    "evaluate",
    "lre_causality",
    "lre_faithfulness",
    "random_concepts",
    "random_weights",
    "same_subject_pairs",
    "selectivity",
    "side_effects",
    "unrelated_pairs",
]
