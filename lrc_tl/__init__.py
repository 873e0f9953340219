"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968)."""

from lrc_tl.activations import PromptActivations, object_activations, prompt_activations, subject_activations
from lrc_tl.artifacts import ArtifactError
from lrc_tl.directions import ConceptDirection, ConceptSet
from lrc_tl.display import TokenScores
from lrc_tl.errors import FingerprintMismatch, ModelError
from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.jacobian import SubjectObjectJacobian, subject_object_jacobian
from lrc_tl.knowledge import DroppedPrompt, KnownPrompts, filter_known
from lrc_tl.low_rank import numerical_rank, solve_low_rank
from lrc_tl.lre import LinearRelationalEmbedding
from lrc_tl.models import HookedModel, hook_name, load_model, require_hook
from lrc_tl.prompts import PositionError, Prompt, TokenizedPrompt, relation_prompts, tokenize_prompt
from lrc_tl.relations import (
    Fact,
    Relation,
    RelationError,
    built_in_relations,
    load_relation,
    load_relations,
)
from lrc_tl.steering import Add, Clamp, Gate, Reflect, Schedule, Steering, Swap, steer, swap_edit

__all__ = [
    "Add",
    "ArtifactError",
    "Clamp",
    "ConceptDirection",
    "ConceptSet",
    "DroppedPrompt",
    "Fact",
    "FingerprintMismatch",
    "Gate",
    "HookedModel",
    "KnownPrompts",
    "LinearRelationalEmbedding",
    "ModelError",
    "ModelFingerprint",
    "PositionError",
    "Prompt",
    "PromptActivations",
    "Reflect",
    "Relation",
    "RelationError",
    "Schedule",
    "Steering",
    "SubjectObjectJacobian",
    "Swap",
    "TokenScores",
    "TokenizedPrompt",
    "built_in_relations",
    "filter_known",
    "hook_name",
    "load_model",
    "load_relation",
    "load_relations",
    "numerical_rank",
    "object_activations",
    "prompt_activations",
    "relation_prompts",
    "require_hook",
    "solve_low_rank",
    "steer",
    "subject_activations",
    "subject_object_jacobian",
    "swap_edit",
    "tokenize_prompt",
]
