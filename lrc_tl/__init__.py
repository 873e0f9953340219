"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968).

Names are loaded when they are first used, so importing the package (or asking the command line for help) needs
no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrc_tl.activations import PromptActivations, object_activations, prompt_activations, subject_activations
    from lrc_tl.artifacts import ArtifactError
    from lrc_tl.baselines import baseline_concepts, fit_baselines, mean_concepts
    from lrc_tl.demo import DemoResult, run_demo
    from lrc_tl.directions import ConceptDirection, ConceptSet
    from lrc_tl.display import TokenScores
    from lrc_tl.edits import Add, Clamp, Reflect, Swap, swap_edit
    from lrc_tl.errors import FingerprintMismatch, ModelError
    from lrc_tl.evaluation import (
        CausalityResult,
        Classification,
        Edit,
        Evaluation,
        causality_curve,
        classify_activations,
        counterfactual_edits,
        evaluate,
    )
    from lrc_tl.fingerprint import ModelFingerprint
    from lrc_tl.generation import Generated, generate
    from lrc_tl.jacobian import SubjectObjectJacobian, subject_object_jacobian, subject_object_jacobians
    from lrc_tl.knowledge import DroppedPrompt, KnownPrompts, filter_known
    from lrc_tl.low_rank import numerical_rank, solve_low_rank
    from lrc_tl.lre import LinearRelationalEmbedding, fit_layer_grid
    from lrc_tl.models import HookedModel, hook_name, load_model, require_hook
    from lrc_tl.positions import Chunk, last_subject_token
    from lrc_tl.prompts import PositionError, Prompt, TokenizedPrompt, spread_over_objects, tokenize_prompt
    from lrc_tl.protocol import run_protocol
    from lrc_tl.protocol_result import ProtocolResult
    from lrc_tl.relation_benchmark import require_methods
    from lrc_tl.relation_files import built_in_relations, find_relation, load_relation, load_relations
    from lrc_tl.relations import Fact, Relation, RelationError
    from lrc_tl.result_parts import ResumeError
    from lrc_tl.selection import Settings, select_settings
    from lrc_tl.steering import Gate, Schedule, Steering, steer
    from lrc_tl.strength import (
        at_subject,
        calibrate_strength,
        edits_towards,
        free_text_edits,
        object_named,
        swap_at_subject,
        target_beats_object,
    )
    from lrc_tl.strength_result import Limits, StrengthCalibration

__all__ = [
    "Add",
    "ArtifactError",
    "CausalityResult",
    "Chunk",
    "Clamp",
    "Classification",
    "ConceptDirection",
    "ConceptSet",
    "DemoResult",
    "DroppedPrompt",
    "Edit",
    "Evaluation",
    "Fact",
    "FingerprintMismatch",
    "Gate",
    "Generated",
    "HookedModel",
    "KnownPrompts",
    "Limits",
    "LinearRelationalEmbedding",
    "ModelError",
    "ModelFingerprint",
    "PositionError",
    "Prompt",
    "PromptActivations",
    "ProtocolResult",
    "Reflect",
    "Relation",
    "RelationError",
    "ResumeError",
    "Schedule",
    "Settings",
    "Steering",
    "StrengthCalibration",
    "SubjectObjectJacobian",
    "Swap",
    "TokenScores",
    "TokenizedPrompt",
    "at_subject",
    "baseline_concepts",
    "built_in_relations",
    "calibrate_strength",
    "causality_curve",
    "classify_activations",
    "counterfactual_edits",
    "edits_towards",
    "evaluate",
    "filter_known",
    "find_relation",
    "fit_baselines",
    "fit_layer_grid",
    "free_text_edits",
    "generate",
    "hook_name",
    "last_subject_token",
    "load_model",
    "load_relation",
    "load_relations",
    "mean_concepts",
    "numerical_rank",
    "object_activations",
    "object_named",
    "prompt_activations",
    "require_hook",
    "require_methods",
    "run_demo",
    "run_protocol",
    "select_settings",
    "solve_low_rank",
    "spread_over_objects",
    "steer",
    "subject_activations",
    "subject_object_jacobian",
    "subject_object_jacobians",
    "swap_at_subject",
    "swap_edit",
    "target_beats_object",
    "tokenize_prompt",
]

# Where the names are, in this order: those that need no torch come first.
_MODULES = (
    "prompts",
    "relations",
    "relation_files",
    "errors",
    "low_rank",
    "models",
    "fingerprint",
    "activations",
    "knowledge",
    "jacobian",
    "directions",
    "lre",
    "evaluation",
    "selection",
    "steering",
    "artifacts",
    "edits",
    "display",
    "generation",
    "strength",
    "baselines",
    "demo",
    "result_parts",
    "protocol_result",
    "relation_benchmark",
    "protocol",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"lrc_tl.{name}")
    if name in __all__:
        for module_name in _MODULES:
            module = import_module(f"lrc_tl.{module_name}")
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module 'lrc_tl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *globals()]
