"""Linear Relational Concepts on TransformerLens (arXiv:2311.08968)."""

from lrc_tl.relations import (
    Fact,
    Relation,
    RelationError,
    built_in_relations,
    load_relation,
    load_relations,
)

__all__ = [
    "Fact",
    "Relation",
    "RelationError",
    "built_in_relations",
    "load_relation",
    "load_relations",
]
