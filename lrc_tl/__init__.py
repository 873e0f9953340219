"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968).

Names are loaded when they are first used, so importing the package (or asking the command line for help) needs
no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrc_tl.passes.activations import PromptActivations, object_activations, prompt_activations, subject_activations
    from lrc_tl.methods.baselines import baseline_concepts, fit_baselines, mean_concepts
    from lrc_tl.directions.combining import combine_concepts
    from lrc_tl.demo import DemoResult, run_demo
    from lrc_tl.directions.concept_set import ConceptDirection, ConceptSet
    from lrc_tl.directions.token_scores import TokenScores
    from lrc_tl.steering.operations import Add, Clamp, Erase, Reflect, Swap, swap_edit
    from lrc_tl.steering.erasure import fit_erasure, leace
    from lrc_tl.errors import ArtifactError, FingerprintMismatch, ModelError, NotFiniteError
    from lrc_tl.evaluation import (
        CausalityResult,
        Classification,
        Edit,
        Evaluation,
        Faithfulness,
        Selectivity,
        SideEffects,
        causality_curve,
        causality_curves,
        classify_activations,
        counterfactual_edits,
        evaluate,
        lre_causality,
        lre_faithfulness,
        random_concepts,
        random_weights,
        same_subject_pairs,
        selectivity,
        side_effects,
        unrelated_pairs,
    )
    from lrc_tl.directions.exports import (
        ControlVector,
        concepts_by_layer,
        layer_vectors,
        read_control_vector,
        write_control_vector,
    )
    from lrc_tl.relations.facts import Fact
    from lrc_tl.models.fingerprint import ModelFingerprint
    from lrc_tl.steering.generation import Generated, generate
    from lrc_tl.directions.hub import HubError
    from lrc_tl.lre.jacobian import SubjectObjectJacobian, subject_object_jacobian, subject_object_jacobians
    from lrc_tl.passes.known_prompts import DroppedPrompt, KnownPrompts, filter_known, one_prompt_a_fact
    from lrc_tl.numerics.low_rank import numerical_rank, solve_low_rank
    from lrc_tl.lre.embedding import LinearRelationalEmbedding, fit_layer_grid
    from lrc_tl.methods.fitting import fit_concepts
    from lrc_tl.methods.method import require_methods
    from lrc_tl.models.loading import HookedModel, hook_name, load_model, require_hook
    from lrc_tl.tuning.neutral_effects import NEUTRAL_TEXTS
    from lrc_tl.views.plots import plot_curves, plot_relations, plot_sweep, save_plots
    from lrc_tl.directions.pooling import pool_scores, token_mask
    from lrc_tl.steering.places import Chunk, last_subject_token
    from lrc_tl.relations.prompts import PositionError, Prompt, TokenizedPrompt, spread_over_objects, tokenize_prompt
    from lrc_tl.experiments.run import run_protocol
    from lrc_tl.experiments.result import ProtocolResult
    from lrc_tl.relations.relation_files import built_in_relations, find_relation, load_relation, load_relations
    from lrc_tl.relations.relation import Relation, RelationError
    from lrc_tl.experiments.resuming import ResumeError
    from lrc_tl.tuning.selection import Settings, select_settings
    from lrc_tl.evaluation.statements import known_statements
    from lrc_tl.steering.steering import Gate, Schedule, Steering, steer
    from lrc_tl.tuning.strength import (
        at_subject,
        calibrate_strength,
        edits_towards,
        free_text_edits,
        object_named,
        swap_at_subject,
        target_beats_object,
    )
    from lrc_tl.tuning.strength_result import Limits, StrengthCalibration
    from lrc_tl.directions.subspaces import Subspace, concept_subspace, orthonormal_basis, principal_angles

__all__ = [
    "NEUTRAL_TEXTS",
    "Add",
    "ArtifactError",
    "CausalityResult",
    "Chunk",
    "Clamp",
    "Classification",
    "ConceptDirection",
    "ConceptSet",
    "ControlVector",
    "DemoResult",
    "DroppedPrompt",
    "Edit",
    "Erase",
    "Evaluation",
    "Fact",
    "Faithfulness",
    "FingerprintMismatch",
    "Gate",
    "Generated",
    "HookedModel",
    "HubError",
    "KnownPrompts",
    "Limits",
    "LinearRelationalEmbedding",
    "ModelError",
    "ModelFingerprint",
    "NotFiniteError",
    "PositionError",
    "Prompt",
    "PromptActivations",
    "ProtocolResult",
    "Reflect",
    "Relation",
    "RelationError",
    "ResumeError",
    "Schedule",
    "Selectivity",
    "Settings",
    "SideEffects",
    "Steering",
    "StrengthCalibration",
    "SubjectObjectJacobian",
    "Subspace",
    "Swap",
    "TokenScores",
    "TokenizedPrompt",
    "at_subject",
    "baseline_concepts",
    "built_in_relations",
    "calibrate_strength",
    "causality_curve",
    "causality_curves",
    "classify_activations",
    "combine_concepts",
    "concept_subspace",
    "concepts_by_layer",
    "counterfactual_edits",
    "edits_towards",
    "evaluate",
    "filter_known",
    "find_relation",
    "fit_baselines",
    "fit_concepts",
    "fit_erasure",
    "fit_layer_grid",
    "free_text_edits",
    "generate",
    "hook_name",
    "known_statements",
    "last_subject_token",
    "layer_vectors",
    "leace",
    "load_model",
    "load_relation",
    "load_relations",
    "lre_causality",
    "lre_faithfulness",
    "mean_concepts",
    "numerical_rank",
    "object_activations",
    "object_named",
    "one_prompt_a_fact",
    "orthonormal_basis",
    "plot_curves",
    "plot_relations",
    "plot_sweep",
    "pool_scores",
    "principal_angles",
    "prompt_activations",
    "random_concepts",
    "random_weights",
    "read_control_vector",
    "require_hook",
    "require_methods",
    "run_demo",
    "run_protocol",
    "same_subject_pairs",
    "save_plots",
    "select_settings",
    "selectivity",
    "side_effects",
    "solve_low_rank",
    "spread_over_objects",
    "steer",
    "subject_activations",
    "subject_object_jacobian",
    "subject_object_jacobians",
    "swap_at_subject",
    "swap_edit",
    "target_beats_object",
    "token_mask",
    "tokenize_prompt",
    "unrelated_pairs",
    "write_control_vector",
]

# Where the names are, in this order: those that need no torch come first.
_MODULES = (
    "prompts",
    "facts",
    "relations",
    "relation_files",
    "errors",
    "low_rank",
    "models",
    "fingerprint",
    "activations",
    "pooling",
    "knowledge",
    "statements",
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
    "neutral_texts",
    "strength",
    "baselines",
    "erasure",
    "subspaces",
    "combining",
    "exports",
    "hub",
    "demo",
    "result_parts",
    "protocol_result",
    "method_variants",
    "method_fitting",
    "relation_benchmark",
    "protocol",
    "plots",
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
