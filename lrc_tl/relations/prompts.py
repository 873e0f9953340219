"""Prompts with exact subject and object token positions, on any tokenizer. Needs no torch."""

import hashlib
import json
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import PositionError
from lrc_tl.markup.brief import brief_fields
from lrc_tl.relations.special_tokens import Tokenizing, token_ids
from lrc_tl.relations.words import UNFINISHED, find_word, name_end, nfc, same_name

ObjectAggregation: TypeAlias = Literal["mean", "first_token"]
"""How an object of several tokens is read: at all their positions, or at the first."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text that ends where the object begins, and the subject that it is about.

    The subject that counts is the last occurrence in `text` as a whole word (see `lrc_tl.relations.words`), unless
    `subject_start` says where it is.

    The object is kept without white space around it (but see `joint`) and in Unicode form NFC, so that two
    spellings of one object are one.

    >>> prompt = Prompt(text="Lyon is located in the country of", subject="Lyon", object="France")
    >>> prompt.text + prompt.joint + prompt.object
    'Lyon is located in the country of France'

    Raises:
        PositionError: the subject is not in the text as a whole word, or not at `subject_start`.
        ValueError: an empty subject, object or text, another `joint`, a `zero_shot` of another subject, or a text
            that ends in white space and is to be followed by more.
    """

    text: str
    subject: str
    object: str
    relation: str = ""
    subject_start: int | None = None
    """Character at which the subject begins; needed where the rule above does not find it, as in a template that
    repeats the subject or makes it part of a longer word."""
    joint: Literal[" ", ""] = " "
    """What stands between text and object. Give "" for a text that is final, such as a chat prompt that ends in a
    line break: the object then follows directly, with a space only where `object` itself begins with one."""
    relation_objects: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """All objects of the relation (one tuple for all its prompts): a longer one in an answer is not this one."""
    relation_aliases: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), repr=False, compare=False)
    """(object, further names that count as saying it) of the relation; see `Relation.from_pairs`."""
    template: str | None = field(default=None, repr=False, compare=False)
    """The template that it was made from; None: it was made by hand."""
    zero_shot: "Prompt | None" = field(default=None, repr=False, compare=False)
    """The prompt of the same fact without examples, where this one has some (`Relation.prompts` fills it in). It
    takes no part in comparisons and hashes."""

    def __post_init__(self) -> None:
        if self.zero_shot is not None and same_name(self.zero_shot.subject) != same_name(self.subject):
            raise ValueError(
                f"zero_shot is about {self.zero_shot.subject!r}, and the prompt about {self.subject!r}; give a "
                "prompt with the same subject, or None"
            )
        for name in ("text", "subject", "object"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty; a prompt needs a text, a subject and an object")
        if self.joint not in (" ", ""):
            raise ValueError(f"joint is {self.joint!r}; allowed are ' ', and '' for a text that is final")
        if self.joint and self.text[-1].isspace():
            raise ValueError(
                f"the text ends in white space ({self.text[-20:]!r}), and a space and the object would follow; "
                "end it with its last word, or give joint='' where it is final, as a chat prompt is"
            )
        # Frozen; everything that goes by objects compares them as strings.
        object.__setattr__(self, "object", spelled_as_object(self.object, self.joint))
        start, end = self.subject_span()
        if start < 0 or nfc(self.text[start:end]) != nfc(self.subject.strip()):
            raise PositionError(
                f"subject_start is {start}, but the subject {self.subject!r} does not begin at that character of "
                f"{_end_of(self.text)!r}; correct subject_start, or leave it out to have the subject found"
            )

    def subject_span(self) -> tuple[int, int]:
        """Character range (start, end) of the subject in `text`."""
        return _subject_span(self.text, self.subject, self.subject_start)

    def without_examples(self) -> "Prompt":
        """`zero_shot`; where there is none the prompt itself, which then counts as one without examples."""
        return self if self.zero_shot is None else self.zero_shot


def spelled_as_object(name: str, joint: str) -> str:
    """The name as the object of a prompt: in NFC, without white space that does not count."""
    return nfc(name.strip() if joint else name.rstrip())


def find_subject(text: str, subject: str) -> tuple[int, int]:
    """Character range of the last whole-word occurrence of `subject` in `text`; see
    `lrc_tl.relations.words.find_word`.

    White space around `subject` is ignored.

    Raises:
        PositionError: the text does not hold the subject as a whole word.
    """
    span = find_word(text, subject)
    if span is None:
        raise PositionError(
            f"subject {subject.strip()!r} is not in the text {_end_of(text)!r} as a whole word; give the subject "
            "exactly as the text spells it, or the character at which it begins as subject_start"
        )
    return span


_SHOWN = 300
"""Characters at the end of a text that an error shows."""
_SHOWN_TOKENS = 40
"""Tokens at the end of a text that an error shows."""


def _subject_span(text: str, subject: str, subject_start: int | None) -> tuple[int, int]:
    if subject_start is None:
        return find_subject(text, subject)
    subject = subject.strip()
    end = name_end(text, subject_start, subject) if subject_start >= 0 else None
    return subject_start, subject_start + len(subject) if end is None else end


@runtime_checkable
class HasObject(Protocol):
    """Anything that has an object: a fact, a prompt."""

    @property
    def object(self) -> str:
        """The object's text."""


Item = TypeVar("Item", bound=HasObject)


@numbers_checked
def spread_over_objects(items: Iterable[Item], count: int, generator: random.Random) -> list[Item]:
    """At most `count` of the items in random order, balanced over objects as far as they allow."""
    by_object: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_object[item.object].append(item)
    groups = list(by_object.values())
    for group in groups:
        generator.shuffle(group)
    chosen: list[Item] = []
    while len(chosen) < count and groups:
        generator.shuffle(groups)
        chosen.extend(group.pop() for group in groups[: count - len(chosen)])
        groups = [group for group in groups if group]
    return chosen


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompt:
    """Token ids of a prompt followed by its object, and the positions that matter in them."""

    prompt: Prompt
    text_ids: tuple[int, ...]
    """Tokens of the text, the beginning-of-sequence token included where the model has one."""
    object_ids: tuple[int, ...]
    subject_position: int
    """Absolute position of the last subject token."""

    __repr__ = brief_fields

    @property
    def object_positions(self) -> range:
        """Positions whose residual predicts the object's tokens: each one earlier than its token."""
        start = len(self.text_ids) - 1
        return range(start, start + len(self.object_ids))

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The text and all object tokens but the last: what must be run to read every object position."""
        return self.text_ids + self.object_ids[:-1]


_remembered: ContextVar[dict[tuple[int, Prompt], tuple[Tokenizing, TokenizedPrompt]] | None] = ContextVar(
    "lrc_tl_tokens", default=None
)


@contextmanager
def tokens_once() -> Iterator[None]:
    """Inside the block, or the function that it decorates, each prompt is tokenised once for each model.

    Use it for the length of one call in which nobody changes the tokenizer, and never around a `yield`.
    """
    if _remembered.get() is not None:
        yield
        return
    try:
        try:
            _remembered.set({})
            yield
        finally:
            _remembered.set(None)
    finally:  # again, should an interrupt have come before it
        _remembered.set(None)


def tokenize_prompt(model: Tokenizing, prompt: Prompt) -> TokenizedPrompt:
    """Tokens and positions of `prompt` under the tokenizer of `model`.

    The object's tokens are those of `text + joint + object` beyond those of `text`, which is taken as it is. White
    space around the object does not count, except before it where `joint` is "". The last subject token is the one
    that holds the subject's last character (the last byte of it, where tokens are smaller than characters); it may
    hold following characters too.

    Inside `tokens_once` a prompt that was tokenised before keeps its tokens.

    Raises:
        PositionError: the text's tokens change when the object follows, the text is longer than the model's
            context, or the tokenizer does not tell which characters a token stands for.
    """
    remembered = _remembered.get()
    if remembered is None:
        return _tokenized(model, prompt)
    key = (id(model), prompt)
    if key not in remembered:
        remembered[key] = model, _tokenized(model, prompt)  # the model too, so that no other gets its id meanwhile
    return remembered[key][1]


def _tokenized(model: Tokenizing, prompt: Prompt) -> TokenizedPrompt:
    whole = _completed(prompt, prompt.object)
    text_ids = token_ids(model, prompt.text)
    full_ids = token_ids(model, whole)
    position = _subject_position(model, whole, full_ids, prompt.subject, prompt.subject_span())
    if full_ids[: len(text_ids)] != text_ids or len(full_ids) == len(text_ids):
        advice = "end the text where a new word begins"
        if not prompt.joint:
            advice += ", or leave out white space that belongs to the object, and joint='' with it"
        raise PositionError(
            f"the tokens of the text change when object {prompt.object!r} follows it: {_shown(model, text_ids)} "
            f"against {_shown(model, full_ids)}; {advice}"
        )
    return TokenizedPrompt(
        prompt=prompt,
        text_ids=tuple(text_ids),
        object_ids=tuple(full_ids[len(text_ids) :]),
        subject_position=position,
    )


def subject_token(
    model: Tokenizing, text: str, *, subject: str, subject_start: int | None = None
) -> tuple[tuple[int, ...], int]:
    """Tokens of a text that is run as it is, without an object, and the position of its last subject token.

    Raises:
        PositionError: as for `Prompt` and `tokenize_prompt`.
        ValueError: an empty text or subject.
    """
    # The object is not looked at.
    return subject_tokens(
        model, Prompt(text=text, subject=subject, object=subject, joint="", subject_start=subject_start)
    )


def subject_tokens(model: Tokenizing, prompt: Prompt) -> tuple[tuple[int, ...], int]:
    """Tokens of a prompt's text, and the position of its last subject token; the object is not looked at.

    Half the work of `tokenize_prompt`, for whoever reads subjects alone.

    Raises:
        PositionError: the tokenizer does not tell which characters a token stands for.
    """
    ids = token_ids(model, prompt.text)
    return tuple(ids), _subject_position(model, prompt.text, ids, prompt.subject, prompt.subject_span())


def object_token_count(model: Tokenizing, tokens: TokenizedPrompt, name: str) -> int:
    """How many tokens the object `name`, spelled as given, would have after the text of these tokens."""
    prompt = tokens.prompt
    whole = f"{prompt.text}{prompt.joint}{name.strip() if prompt.joint else name.rstrip()}"
    return len(token_ids(model, whole)) - len(tokens.text_ids)


def _completed(prompt: Prompt, name: str) -> str:
    """The text followed by the object `name`."""
    return f"{prompt.text}{prompt.joint}{spelled_as_object(name, prompt.joint)}"


def _subject_position(model: Tokenizing, text: str, ids: list[int], subject: str, span: tuple[int, int]) -> int:
    # Decoding first: offsets are wrong where a tokenizer spells several unknown characters in bytes.
    position = _position_by_decoding(model, text, ids, span[1])
    if position is None:
        position = _position_by_offsets(model, text, ids, span)
    if position is None:
        limit = getattr(getattr(model, "cfg", None), "n_ctx", None)
        full = f"; they fill the model's context of {limit}, so shorten the text" if limit == len(ids) else ""
        maker = type(model.tokenizer).__name__
        raise PositionError(
            f"subject {subject!r} of {_end_of(text)!r} cannot be located among the tokens {_shown(model, ids)}: "
            f"they do not decode to the text, and {maker} gives no offsets for them{full}"
        )
    return position


def _shown(model: Tokenizing, ids: list[int]) -> str:
    spelt = repr([model.tokenizer.decode([token]) for token in ids[-_SHOWN_TOKENS:]])
    return spelt if len(ids) <= _SHOWN_TOKENS else f"[... {spelt[1:]}"


def _end_of(text: str) -> str:
    return text if len(text) <= _SHOWN else f"... {text[-_SHOWN:]}"


def _position_by_decoding(model: Tokenizing, text: str, ids: list[int], end: int) -> int | None:
    """The token with which decoding reaches character `end`; None where decoding does not give `text` back."""
    tokenizer = model.tokenizer
    special = set(tokenizer.all_special_ids)
    first = next((index for index, token in enumerate(ids) if token not in special), len(ids))

    def decoded(stop: int) -> str:
        return tokenizer.decode(ids[first:stop], clean_up_tokenization_spaces=False)

    for token in ids[:first]:  # the text may spell out special tokens in front of it, as chat templates do
        spelt = tokenizer.decode([token])
        if spelt and text.startswith(spelt):
            text, end = text.removeprefix(spelt), end - len(spelt)
    whole = decoded(len(ids))
    # Some tokenizers put a space before the text, or drop the one that is there.
    shift = len(whole) - len(text)
    if f"{' ' * -shift}{whole}" != f"{' ' * shift}{text}" or abs(shift) > 1 or UNFINISHED in text:
        return None

    def reached(beginning: str) -> bool:
        # The bytes of a character may be spread over tokens, and then some decoders show the whole run of bytes as
        # unknown until its last character is complete.
        return len(beginning.rstrip(UNFINISHED)) >= end + shift

    stop = bisect_left(range(len(ids) + 1), True, lo=first + 1, key=lambda stop: reached(decoded(stop)))
    if stop > len(ids):
        return None
    # So it may be reached, hidden by the bytes that follow, and shown again: go back to the first time.
    for earlier in range(stop - 1, first, -1):
        beginning = decoded(earlier)
        if reached(beginning):
            stop = earlier
        elif not beginning.endswith(UNFINISHED):
            break
    return stop - 1 if decoded(stop).startswith(whole[: end + shift]) else None


def _position_by_offsets(model: Tokenizing, text: str, ids: list[int], span: tuple[int, int]) -> int | None:
    """The last token with a character in `span` by the tokenizer's offsets; None where there are none."""
    tokenizer = model.tokenizer
    bos = tokenizer.bos_token or ""
    # The model may put its beginning-of-sequence token before the text, which in some tokenizers changes the first
    # token of the text, so each way of encoding is tried until one gives the model's own tokens.
    for added, special in (("", False), ("", True), (bos, False)):
        encoded = tokenizer(added + text, add_special_tokens=special, return_offsets_mapping=True)
        if "offset_mapping" not in encoded:  # a tokenizer in plain Python
            return None
        encoded_ids = encoded["input_ids"]
        # The model may have one token more or one less at the front, its beginning of sequence.
        more = len(ids) - len(encoded_ids)
        if abs(more) > 1 or ids[max(more, 0) :] != encoded_ids[max(-more, 0) :]:
            continue
        start, end = (character + len(added) for character in span)
        covering = [
            index
            for index, (left, right) in enumerate(encoded["offset_mapping"])
            if left < min(end, right) and right > start
        ]
        return covering[-1] + more if covering else None
    return None


def object_positions(tokens: TokenizedPrompt, aggregation: ObjectAggregation) -> list[int]:
    """Positions that are averaged: all object positions, or only the first."""
    positions = list(tokens.object_positions)
    return positions if aggregation == "mean" else positions[:1]


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the prompts, in their order."""
    prompts = as_tuple(prompts, "prompts", Prompt)
    rows = [
        # The joint of most prompts is left out, so that hashes in older files stay theirs.
        [prompt.text, prompt.subject, prompt.object, prompt.relation, *([] if prompt.joint else [""])]
        for prompt in prompts
    ]
    return hashlib.sha256(json.dumps(rows).encode("utf-8")).hexdigest()
