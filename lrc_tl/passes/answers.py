"""Whether what a model says is an object: how far an answer has to be decoded, and the judgement."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt, TokenizedPrompt, object_token_count
from lrc_tl.relations.words import NUMBER_SIGNS, SIGNS, UNFINISHED, answer_verdict, decomposed, longer_names

_BEHIND = 2
"""Tokens behind the longest object: a sign that may tie it to more, and what follows the sign."""
_LATER = 5
"""Further ones, where these are bytes of such a sign (three) or of what follows it (four)."""


@dataclass(frozen=True, kw_only=True)
class ExpectedAnswer:
    """The object that a continuation should begin with, and how many tokens may have to be decoded to tell."""

    name: str
    longer: tuple[str, ...]
    """Objects of the same relation that begin with it; where one of them is said, this one is not."""
    n_tokens: int
    """What the longest of them needs, and two more; fewer where the model's context ends before."""
    most_tokens: int
    """The same with the bytes of an unfinished character."""

    @classmethod
    def of(cls, model: HookedModel, tokens: TokenizedPrompt, objects: Sequence[str]) -> "ExpectedAnswer":
        """The object of the prompt, among all `objects` of its relation."""
        prompt = tokens.prompt
        longer = longer_names(prompt.object, objects)
        # A model may spell an accent as a mark of its own, which takes more tokens.
        names = [*longer, *(marked for name in (prompt.object, *longer) if (marked := decomposed(name)) != name)]
        longest = max([len(tokens.object_ids), *(object_token_count(model, tokens, name) for name in names)])
        wanted, limit = longest + _BEHIND, getattr(model.cfg, "n_ctx", None)
        room = wanted + _LATER if limit is None else int(limit) - len(tokens.text_ids) + 1
        return cls(
            name=prompt.object,
            longer=longer,
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
        return answer_verdict(text, self.name, self.longer, complete=complete)


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
