"""Statements of other relations that the model gets right: where an edit should change nothing."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import PositionError
from lrc_tl.markup.progress import shows_progress
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import filter_known
from lrc_tl.relations.prompts import Prompt, tokenize_prompt, tokens_once
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.relation_files import built_in_relations, load_relation

_ASKED_OF_EACH = 4


@shows_progress
@numbers_checked
@tokens_once()
def known_statements(
    model: HookedModel,
    relation: Relation,
    *,
    n: int = 8,
    seed: int = 0,
    others: Sequence[Relation] | None = None,
    progress: bool = True,
) -> tuple[Prompt, ...]:
    """At most `n` known zero-shot prompts of other relations, from as many relations as there are.

    Four facts of each of `others` (the built-in relations by default) are asked, drawn with the seed, none with a
    subject or object of `relation`. Relations with the same name as `relation` are skipped. The result is empty
    where the model knows none.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; ask for at least one statement")
    if others is None:
        others = [load_relation(name) for name in built_in_relations()]
    generator = Random(seed)
    names = {name for fact in relation.facts for name in (fact.subject, fact.object)}
    asked: list[Prompt] = []
    for other in generator.sample(others, len(others)):
        if plain_name(other.name) == plain_name(relation.name):
            continue
        apart = [fact for fact in other.facts if fact.subject not in names and fact.object not in names]
        drawn = generator.sample(apart, min(_ASKED_OF_EACH, len(apart)))
        asked += readable_prompts(model, replace(other, facts=tuple(drawn)), seed=seed) if drawn else []
    if not asked:
        return ()
    known = set(filter_known(model, asked, seed=seed, whole_answers=False, progress=progress).prompts)
    by_relation: dict[str, list[Prompt]] = {}
    for prompt in asked:
        if prompt in known:
            by_relation.setdefault(prompt.relation, []).append(prompt)
    rounds = (prompts[turn : turn + 1] for turn in range(_ASKED_OF_EACH) for prompts in by_relation.values())
    return tuple(prompt for prompts in rounds for prompt in prompts)[:n]


def readable_prompts(model: HookedModel, relation: Relation, *, seed: int) -> list[Prompt]:
    """The zero-shot prompts of a relation, except those whose positions cannot be found with this tokenizer."""
    readable = []
    for prompt in relation.prompts(seed=seed):
        try:
            tokenize_prompt(model, prompt)
        except PositionError:
            continue
        readable.append(prompt)
    return readable


def plain_name(name: str) -> str:
    """A relation's name as it is compared: whatever its case, with spaces for underscores."""
    return name.casefold().replace("_", " ")
