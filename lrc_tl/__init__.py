"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968)."""

from lrc_tl.directions import ConceptDirection, ConceptSet, object_activations, subject_activations
from lrc_tl.jacobian import SubjectObjectJacobian, subject_object_jacobian
from lrc_tl.low_rank import numerical_rank, solve_low_rank
from lrc_tl.lre import LinearRelationalEmbedding
from lrc_tl.models import HookedModel, ModelError, hook_name, load_model, require_hook
from lrc_tl.prompts import PositionError, Prompt, TokenizedPrompt, relation_prompts, tokenize_prompt
from lrc_tl.relations import (
    Fact,
    Relation,
    RelationError,
    built_in_relations,
    load_relation,
    load_relations,
)
from lrc_tl.steering import Add, Clamp, Gate, Reflect, Schedule, Steering, Swap, steer

__all__ = [
    "Add",
    "Clamp",
    "ConceptDirection",
    "ConceptSet",
    "Fact",
    "Gate",
    "HookedModel",
    "LinearRelationalEmbedding",
    "ModelError",
    "PositionError",
    "Prompt",
    "Reflect",
    "Relation",
    "RelationError",
    "Schedule",
    "Steering",
    "SubjectObjectJacobian",
    "Swap",
    "TokenizedPrompt",
    "built_in_relations",
    "hook_name",
    "load_model",
    "load_relation",
    "load_relations",
    "numerical_rank",
    "object_activations",
    "relation_prompts",
    "require_hook",
    "solve_low_rank",
    "steer",
    "subject_activations",
    "subject_object_jacobian",
    "tokenize_prompt",
]
