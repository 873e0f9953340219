"""What a set of directions is worth: accuracy on unseen subjects and causality of edits."""

from lrc_tl.evaluation.causality import CausalityResult, Edit, causality_curve, counterfactual_edits
from lrc_tl.evaluation.classification import Classification, classify_activations
from lrc_tl.evaluation.summary import Evaluation, evaluate

__all__ = [
    "CausalityResult",
    "Classification",
    "Edit",
    "Evaluation",
    "causality_curve",
    "classify_activations",
    "counterfactual_edits",
    "evaluate",
]
