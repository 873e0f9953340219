"""Templates filled with facts: the text before an object, with examples before it. Needs no torch."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lrc_tl.relations.facts import Fact
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.shots import ShotPool
from lrc_tl.relations.words import find_word

if TYPE_CHECKING:
    from lrc_tl.relations.relation import Relation


def filled_prompts(
    relation: "Relation", examples: Sequence[Fact], *, shots: int, seed: int, every_template: bool
) -> tuple[Prompt, ...]:
    """The prompts of `Relation.prompts`, whose `shots` examples each come from the facts `examples`.

    Raises:
        ValueError: a fact has fewer than `shots` examples that do not name its subject.
    """
    example_pool = ShotPool(examples if shots else ())
    templates = relation.templates if shots else relation.zero_shot_templates
    prompts = []
    for fact in relation.facts:
        # One generator per fact: adding or dropping a fact leaves the other zero-shot prompts as they were.
        generator = _draws(seed, shots, fact)
        chosen = templates if every_template else [generator.choice(templates)]
        zero_shot = None
        if shots:
            zero_shot = _prompt("", _draws(seed, 0, fact).choice(relation.zero_shot_templates), fact, relation)
        for template in chosen:
            shown = example_pool.draw(fact.subject, shots, generator)
            if len(shown) < shots:
                raise ValueError(
                    f"{shots} shots were asked for, but relation {relation.name!r} has only {len(shown)} facts "
                    f"to show that do not name the subject {fact.subject!r}; lower shots"
                )
            lines = "".join(f"{filled(template, shot)}{joint_of(template)}{shot.object}\n" for shot in shown)
            prompts.append(_prompt(lines, template, fact, relation, zero_shot=zero_shot))
    return tuple(prompts)


def joint_of(template: str) -> Literal[" ", ""]:
    """What stands between a template and its object: nothing behind a line break, which makes it final."""
    return "" if "\n" in template[len(template.rstrip()) :] else " "


def filled(template: str, fact: Fact) -> str:
    """The template with the fact's subject in it, up to where the joint begins."""
    text = template.replace("{}", fact.subject)
    return text.rstrip() if joint_of(template) else text


def _draws(seed: int, shots: int, fact: Fact) -> random.Random:
    """The draws of template and examples for one fact."""
    return random.Random(f"{seed}|{shots}|{fact.subject}|{fact.object}")


def _prompt(
    examples: str, template: str, fact: Fact, relation: "Relation", *, zero_shot: Prompt | None = None
) -> Prompt:
    text = examples + filled(template, fact)
    start = len(examples) + template.index("{}")
    place = find_word(text, fact.subject)
    return Prompt(
        text=text,
        subject=fact.subject,
        object=fact.object,
        relation=relation.name,
        # Only where a template names the subject again or hides it from the rule, so that equal texts stay equal.
        subject_start=None if place is not None and place[0] == start else start,
        joint=joint_of(template),
        relation_objects=relation.all_objects,
        relation_aliases=relation.aliases,
        template=template,
        zero_shot=zero_shot,
    )
