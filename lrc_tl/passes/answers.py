"""Whether what a model says is an object: how far an answer has to be decoded, and the judgement."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt, TokenizedPrompt, object_token_count
from lrc_tl.relations.words import (
    NUMBER_SIGNS,
    SIGNS,
    UNFINISHED,
    answer_verdict,
    decomposed,
    longer_names,
    same_name,
)

_BEHIND = 2
"""Tokens behind the longest object: a sign that may tie it to more, and what follows the sign."""
_LATER = 5
"""Further ones, where these are bytes of such a sign (three) or of what follows it (four)."""


class Accepted(NamedTuple):
    """A name that an answer may begin with."""

    name: str
    longer: tuple[str, ...]
    """Names of other objects of the relation that begin with it; where one of them is said, this one is not."""


def accepted_names(prompt: Prompt, objects: Sequence[str]) -> tuple[Accepted, ...]:
    """The prompt's object and its aliases, among all `objects` of its relation."""
    own = same_name(prompt.object)
    others = [name for key, names in prompt.relation_aliases if same_name(key) != own for name in (key, *names)]
    rest = dict.fromkeys((*objects, *others))
    return tuple(Accepted(name, longer_names(name, rest)) for name in names_of(prompt, prompt.object))


def names_of(prompt: Prompt, name: str) -> tuple[str, ...]:
    """An object of the prompt's relation, and the aliases that the relation has for it."""
    own = same_name(name)
    return name, *(alias for key, names in prompt.relation_aliases if same_name(key) == own for alias in names)


def is_accepted(answer: str, prompt: Prompt, objects: Sequence[str]) -> bool:
    """Whether an answer, as it was decoded to its end, begins with the prompt's object or an alias of it."""
    return any(
        answer_verdict(answer, entry.name, entry.longer, complete=True)
        for entry in accepted_names(prompt, objects)
    )


@dataclass(frozen=True, kw_only=True)
class ExpectedAnswer:
    """The object that a continuation should begin with, and how many tokens may have to be decoded to tell."""

    accepted: tuple["Accepted", ...]
    """The object, and its aliases, of which any may be said."""
    n_tokens: int
    """What the longest of them needs, and two more; fewer where the model's context ends before."""
    most_tokens: int
    """The same with the bytes of an unfinished character."""

    @classmethod
    def of(cls, model: HookedModel, tokens: TokenizedPrompt, objects: Sequence[str]) -> "ExpectedAnswer":
        """The object of the prompt, among all `objects` of its relation."""
        prompt = tokens.prompt
        accepted = accepted_names(prompt, objects)
        plain = [name for entry in accepted for name in (entry.name, *entry.longer)]
        # A model may spell an accent as a mark of its own, which takes more tokens.
        marked = [spelt for name in plain if (spelt := decomposed(name)) != name]
        names = [*(name for name in plain if name != prompt.object), *marked]  # the object's tokens are known
        longest = max([len(tokens.object_ids), *(object_token_count(model, tokens, name) for name in names)])
        wanted, limit = longest + _BEHIND, getattr(model.cfg, "n_ctx", None)
        room = wanted + _LATER if limit is None else int(limit) - len(tokens.text_ids) + 1
        return cls(
            accepted=accepted,
            n_tokens=min(wanted, room),
            most_tokens=min(wanted + _LATER, room),
        )

    def verdict(self, model: HookedModel, ids: list[int], *, complete: bool = False) -> bool | None:
        """Whether the tokens decoded so far begin with the object as a word; None: more are needed.

        `complete` says that no more will come.
        """
        end = model.tokenizer.eos_token_id
        text = model.tokenizer.decode(without_end(model, ids))
        complete = complete or end in ids or len(ids) >= self.most_tokens
        if not complete and len(ids) >= self.n_tokens:
            complete = not text.endswith((UNFINISHED, *SIGNS, *NUMBER_SIGNS))
        verdicts = [answer_verdict(text, entry.name, entry.longer, complete=complete) for entry in self.accepted]
        return True if any(verdicts) else None if None in verdicts else False


def objects_of_relations(prompts: Sequence[Prompt]) -> dict[str, tuple[str, ...]]:
    """The objects of each relation among the prompts, by its name."""
    objects: dict[str, dict[str, None]] = defaultdict(dict)
    # One tuple is shared by all prompts of a relation.
    shared = {id(prompt.relation_objects): prompt for prompt in prompts}
    for prompt in shared.values():
        objects[prompt.relation].update(dict.fromkeys(prompt.relation_objects))
    for prompt in prompts:
        objects[prompt.relation][prompt.object] = None
    return {relation: tuple(names) for relation, names in objects.items()}


def without_end(model: HookedModel, ids: list[int]) -> list[int]:
    """The tokens before the first end-of-sequence token."""
    end = model.tokenizer.eos_token_id
    return ids[: ids.index(end)] if end in ids else ids
