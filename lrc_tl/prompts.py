"""Prompts with exact subject and object token positions, on any tokenizer."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lrc_tl.relations import Fact, Relation


class PositionError(ValueError):
    """A subject or object could not be located among the tokens; the text shows them."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text that ends where the object begins, and the subject that it is about.

    The subject that counts is the last occurrence, as a whole word, in the last line of `text`.

    Raises:
        PositionError: the subject is not in the last line as a whole word.
        ValueError: an empty subject, object or text.
    """

    text: str
    subject: str
    object: str
    relation: str = ""

    def __post_init__(self) -> None:
        for field in ("text", "subject", "object"):
            if not getattr(self, field).strip():
                raise ValueError(f"{field} is empty; a prompt needs a text, a subject and an object")
        self.subject_span()

    def subject_span(self) -> tuple[int, int]:
        """Character range (start, end) of the subject in `text`."""
        return find_subject(self.text, self.subject)


def find_subject(text: str, subject: str) -> tuple[int, int]:
    """Character range of the last whole-word occurrence of `subject` in the last line of `text`.

    Raises:
        PositionError: there is none.
    """
    start_of_line = text.rstrip().rfind("\n") + 1
    # Only an end of the subject that is itself a word character can be inside a longer word.
    before = r"(?<!\w)" if re.match(r"\w", subject) else ""
    after = r"(?!\w)" if re.search(r"\w$", subject) else ""
    matches = list(re.finditer(before + re.escape(subject) + after, text[start_of_line:]))
    if not matches:
        raise PositionError(
            f"subject {subject!r} is not in the last statement {text[start_of_line:]!r} as a whole word; "
            "give the subject exactly as the text spells it"
        )
    start, end = matches[-1].span()
    return start_of_line + start, start_of_line + end


def relation_prompts(
    relation: Relation,
    *,
    shots: int = 0,
    seed: int = 0,
    shots_from: Relation | None = None,
) -> tuple[Prompt, ...]:
    """One prompt for each fact, its template drawn with `seed`, few-shot with examples from `shots_from`.

    Examples use the same template as the prompt, come from distinct objects while these last, and never hold the
    tested subject. `shots_from` is the training relation; by default `relation` itself. `shots=0` uses the
    zero-shot templates.

    Raises:
        ValueError: `shots` is negative, or more than the other facts there are.
    """
    source = (shots_from or relation).facts
    if shots < 0:
        raise ValueError(f"shots is {shots}; it must be 0 or more")
    templates = relation.templates if shots else relation.zero_shot_templates
    prompts = []
    for fact in relation.facts:
        # One generator a fact: adding or dropping a fact leaves the other prompts as they were.
        generator = random.Random(f"{seed}|{shots}|{fact.subject}|{fact.object}")
        template = generator.choice(templates)
        others = [other for other in source if other.subject.casefold() != fact.subject.casefold()]
        if shots > len(others):
            raise ValueError(
                f"{shots} shots were asked for, but relation {relation.name!r} has only {len(others)} other "
                "facts to show; lower shots"
            )
        examples = spread_over_objects(others, shots, generator)
        lines = [f"{template.replace('{}', shot.subject)} {shot.object}" for shot in examples]
        text = "\n".join([*lines, template.replace("{}", fact.subject)])
        prompts.append(Prompt(text=text, subject=fact.subject, object=fact.object, relation=relation.name))
    return tuple(prompts)


def spread_over_objects(items: Sequence[Fact], count: int, generator: random.Random) -> list[Fact]:
    """`count` of the items in random order, each object as often as every other as far as they go."""
    by_object: dict[str, list[Fact]] = defaultdict(list)
    for item in items:
        by_object[item.object].append(item)
    groups = list(by_object.values())
    for group in groups:
        generator.shuffle(group)
    chosen: list[Fact] = []
    while len(chosen) < count and groups:
        generator.shuffle(groups)
        chosen.extend(group.pop() for group in groups[: count - len(chosen)])
        groups = [group for group in groups if group]
    return chosen


@runtime_checkable
class Tokenizing(Protocol):
    """What is needed to turn text into a model's own tokens."""

    tokenizer: Any

    def to_tokens(self, input: str) -> Any:
        """Token ids with the model's beginning-of-sequence policy, shape `1 pos`."""


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompt:
    """Token ids of a prompt followed by its object, and the positions that matter in them."""

    prompt: Prompt
    text_ids: tuple[int, ...]
    """Tokens of the text, the beginning-of-sequence token included where the model has one."""
    object_ids: tuple[int, ...]
    subject_position: int
    """Absolute position of the last subject token."""

    @property
    def object_positions(self) -> range:
        """Positions whose residual predicts the object's tokens: each one earlier than its token."""
        start = len(self.text_ids) - 1
        return range(start, start + len(self.object_ids))

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The text and all object tokens but the last: what must be run to read every object position."""
        return self.text_ids + self.object_ids[:-1]


def tokenize_prompt(model: Tokenizing, prompt: Prompt) -> TokenizedPrompt:
    """Tokens and positions of `prompt` under the tokenizer of `model`.

    The object's tokens are those of `text.rstrip() + " " + object` beyond those of `text.rstrip()`.

    Raises:
        PositionError: the subject covers no token, or the text's tokens change when the object follows.
    """
    text = prompt.text.rstrip()
    text_ids = _ids(model, text)
    full_ids = _ids(model, f"{text} {prompt.object}")
    if full_ids[: len(text_ids)] != text_ids or len(full_ids) == len(text_ids):
        raise PositionError(
            f"the tokens of the text change when object {prompt.object!r} follows it: {_shown(model, text_ids)} "
            f"against {_shown(model, full_ids)}; end the text where a new word begins"
        )
    return TokenizedPrompt(
        prompt=prompt,
        text_ids=tuple(text_ids),
        object_ids=tuple(full_ids[len(text_ids) :]),
        subject_position=_last_token_of(model, text, text_ids, prompt),
    )


def _ids(model: Tokenizing, text: str) -> list[int]:
    ids: list[int] = model.to_tokens(text)[0].tolist()
    return ids


def _shown(model: Tokenizing, ids: list[int]) -> str:
    return repr([model.tokenizer.decode([token]) for token in ids])


def _last_token_of(model: Tokenizing, text: str, text_ids: list[int], prompt: Prompt) -> int:
    start, end = prompt.subject_span()
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    added = len(text_ids) - len(ids)
    if added < 0 or text_ids[added:] != ids:
        raise PositionError(
            f"the model's tokens {_shown(model, text_ids)} do not end with the tokenizer's own "
            f"{_shown(model, ids)}; pass text without special tokens"
        )
    covering = [index for index, (left, right) in enumerate(offsets) if left < end and right > start]
    if not covering:
        raise PositionError(f"subject {prompt.subject!r} covers none of the tokens {_shown(model, text_ids)}")
    return added + covering[-1]
