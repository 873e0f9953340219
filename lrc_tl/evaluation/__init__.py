"""What a set of directions is worth: accuracy on unseen subjects and causality of edits."""

from lrc_tl.evaluation.causality import CausalityResult, Edit, causality_curve, counterfactual_edits
from lrc_tl.evaluation.classification import Classification, classification
from lrc_tl.evaluation.evaluate import Evaluation, evaluate

__all__ = [
    "CausalityResult",
    "Classification",
    "Edit",
    "Evaluation",
    "causality_curve",
    "classification",
    "counterfactual_edits",
    "evaluate",
]
