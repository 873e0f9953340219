"""Statements of other relations that show what an edit does beside its aim."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.collateral import EditedStatement, same_subject_statements, unrelated_statements
from lrc_tl.evaluation.statements import plain_name, readable_prompts
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import filter_known
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation import Relation

_UNRELATED_PROMPTS = 4
"""Few, so that many edits share one: what lies before its subject is then run once."""


def side_effect_statements(
    model: HookedModel,
    relation: Relation,
    edits: Sequence[Edit],
    others: Sequence[Relation],
    *,
    n: int,
    seed: int,
) -> tuple[tuple[EditedStatement, ...], tuple[EditedStatement, ...]]:
    """At most `n` (edit, statement) pairs of each kind: unrelated ones, and known other facts about its subject.

    Unrelated statements come from four of the other relations, one of each, drawn with the seed, and have neither
    subject nor object in common with `relation`; what the model says to them may be wrong. Relations with the same
    name as `relation` are skipped. Where there are no such statements there are no pairs.
    """
    if not n:
        return (), ()
    own_name = plain_name(relation.name)
    generator = Random(seed)
    subjects = {edit.prompt.subject for edit in edits}
    names = {name for fact in relation.facts for name in (fact.subject, fact.object)}
    apart: list[Prompt] = []
    beside: list[Prompt] = []
    for other in generator.sample(others, len(others)):
        if plain_name(other.name) == own_name:
            continue
        facts = [fact for fact in other.facts if fact.subject not in names and fact.object not in names]
        if facts and len(apart) < _UNRELATED_PROMPTS:
            apart += readable_prompts(model, replace(other, facts=(generator.choice(facts),)), seed=seed)
        if shared := tuple(fact for fact in other.facts if fact.subject in subjects):
            beside += readable_prompts(model, replace(other, facts=shared), seed=seed)
    same: tuple[EditedStatement, ...] = ()
    if beside:
        known = filter_known(model, beside, seed=seed, whole_answers=False, progress=False)
        same = same_subject_statements(edits, known.prompts)
        same = tuple(generator.sample(same, min(n, len(same))))
    return unrelated_statements(edits, apart, n=n) if apart else (), same
