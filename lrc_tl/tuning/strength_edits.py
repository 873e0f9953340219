"""Edits to choose a strength by, and the steering of each of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import swap_of
from lrc_tl.evaluation.causality import Edit
from lrc_tl.models.chat import Text, as_texts, is_one_chat
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.words import last_word, same_name
from lrc_tl.steering.places import LastTokenOf, last_subject_token
from lrc_tl.steering.steering import Steering

SteeringOf: TypeAlias = Callable[[Edit], Steering]
"""Makes the steering of each edit, where it depends on the edit's text or objects."""


def edits_towards(prompts: Sequence[Prompt], target: str) -> tuple[Edit, ...]:
    """Each prompt from its own object to `target`; prompts that already have this object are left out.

    Raises:
        ValueError: no prompt is left.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    edits = tuple(
        Edit(prompt=prompt, target=target) for prompt in prompts if same_name(prompt.object) != same_name(target)
    )
    if not edits:
        raise ValueError(f"none of the {len(prompts)} prompts has another object than {target!r}")
    return edits


def free_text_edits(texts: Sequence[Text], target: str, *, model: HookedModel | None = None) -> tuple[Edit, ...]:
    """Texts to be continued, with the object that should be named: for `object_named`, which is then the default.

    A text may be a chat, which `model` puts into words (`lrc_tl.models.chat_text`). The last word of a text stands
    for its subject, and the target for its object. A text that ends in white space is taken as final: what is
    generated follows directly.

    Raises:
        ValueError: a text has no word in its last line, or is a chat, and no model is given.
    """
    edits = []
    for text in _as_plain(texts, model):
        span = last_word(text)
        if span is None or "\n" in text[span[1] :].rstrip():
            raise ValueError(f"the text {text!r} has no word in its last line; give a text to be continued")
        prompt = Prompt(
            text=text,
            subject=text[slice(*span)],
            object=target,
            subject_start=span[0],
            joint="" if text[-1].isspace() else " ",
        )
        edits.append(Edit(prompt=prompt, target=target))
    return tuple(edits)


def _as_plain(texts: Sequence[Text], model: HookedModel | None) -> tuple[str, ...]:
    if model is not None:
        return as_texts(model, texts, "texts")
    given: tuple[Any, ...] = as_tuple(texts, "texts")
    if any(isinstance(text, Mapping) or is_one_chat(text) for text in given):
        raise ValueError("a text is a chat, which needs the template of a model; give model=")
    return as_tuple(given, "texts", str)


def at_subject(model: HookedModel, steering: Steering) -> SteeringOf:
    """The same steering at the last subject token of each edit's text."""
    return lambda edit: steering.at(where=_subject_token(model, edit.prompt))


def _subject_token(model: HookedModel, prompt: Prompt) -> LastTokenOf:
    return last_subject_token(model, prompt.text, subject=prompt.subject, subject_start=prompt.subject_start)


def swap_at_subject(model: HookedModel, concepts: ConceptSet) -> SteeringOf:
    """Each edit's own object for its target at the last subject token, in all layers (arXiv:2311.08968, eq. 7).

    With the set's own beta (`ConceptSet.beta`), which `calibrate_strength` replaces.

    Raises:
        KeyError: when it is used on an edit whose object or target has no direction.
    """

    def swap(edit: Edit) -> Steering:
        return Steering(
            operation=swap_of(concepts[edit.prompt.object], concepts[edit.target], beta=concepts.beta),
            hook_name=concepts.hook_name,
            layers="all",
            where=_subject_token(model, edit.prompt),
            fingerprint=concepts.fingerprint,
        )

    return swap
