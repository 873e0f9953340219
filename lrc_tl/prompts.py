"""Prompts with exact subject and object token positions, on any tokenizer. Needs no torch."""

import random
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from lrc_tl.turns import turn


class PositionError(ValueError):
    """A subject or object could not be located among the tokens; the text shows them."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text that ends where the object begins, and the subject that it is about.

    The subject that counts is the last occurrence, as a whole word, in the last line of `text`, unless
    `subject_start` says where it is.

    Raises:
        PositionError: the subject is not in the last line as a whole word, or not at `subject_start`.
        ValueError: an empty subject, object or text.
    """

    text: str
    subject: str
    object: str
    relation: str = ""
    subject_start: int | None = None
    """Character at which the subject begins, where the rule above would not find it: a template that repeats the
    subject, goes on over several lines, or glues the subject to a longer word."""

    def __post_init__(self) -> None:
        for field in ("text", "subject", "object"):
            if not getattr(self, field).strip():
                raise ValueError(f"{field} is empty; a prompt needs a text, a subject and an object")
        start, end = self.subject_span()
        if start < 0 or self.text[start:end] != self.subject.strip():
            raise PositionError(
                f"subject_start is {start}, but the subject {self.subject!r} does not begin at that character of "
                f"{self.text!r}; correct subject_start, or leave it out to have the subject found"
            )

    def subject_span(self) -> tuple[int, int]:
        """Character range (start, end) of the subject in `text`."""
        if self.subject_start is None:
            return find_subject(self.text, self.subject)
        return self.subject_start, self.subject_start + len(self.subject.strip())


def find_subject(text: str, subject: str) -> tuple[int, int]:
    """Character range of the last whole-word occurrence of `subject` in the last line of `text`.

    White space around `subject` is ignored. Scripts that are written without spaces (Chinese, Japanese, Thai ...)
    or with glued particles (Korean) show no word boundaries, so there any occurrence counts.

    Raises:
        PositionError: there is none.
    """
    subject = subject.strip()
    start_of_line = text.rstrip().rfind("\n") + 1
    stop = len(text)
    while subject and (start := text.rfind(subject, start_of_line, stop)) >= 0:
        end = start + len(subject)
        inside = (start > 0 and _joined(text[start - 1], text[start])) or (
            end < len(text) and _joined(text[end - 1], text[end])
        )
        if not inside:
            return start, end
        stop = end - 1
    raise PositionError(
        f"subject {subject!r} is not in the last statement {text[start_of_line:]!r} as a whole word; "
        "give the subject exactly as the text spells it"
    )


_JOINER = "\u200d"
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def _joined(left: str, right: str) -> bool:
    """Whether no word or emoji can end between these two neighbouring characters."""
    if _JOINER in (left, right) or _extends(right):
        return True
    return all(_is_word(side) and not unicodedata.name(side, "").startswith(_UNSPACED) for side in (left, right))


def _extends(character: str) -> bool:
    """Combining marks, variation selectors and emoji skin tones belong to the character before them."""
    return unicodedata.category(character).startswith("M") or "\U0001f3fb" <= character <= "\U0001f3ff"


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_" or _extends(character)


@runtime_checkable
class HasObject(Protocol):
    """Anything that tells its object: a fact, a prompt."""

    @property
    def object(self) -> str:
        """The object's text."""


Item = TypeVar("Item", bound=HasObject)


def spread_over_objects(items: Iterable[Item], count: int, generator: random.Random) -> list[Item]:
    """At most `count` of the items in random order, each object as often as every other as far as they go."""
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


_UNKNOWN = "\ufffd"


def tokenize_prompt(model: Tokenizing, prompt: Prompt) -> TokenizedPrompt:
    """Tokens and positions of `prompt` under the tokenizer of `model`.

    The object's tokens are those of `text.rstrip() + " " + object` beyond those of `text.rstrip()`. The last
    subject token is the one that holds the subject's last character (the last byte of it, where tokens are smaller
    than characters); it may hold following characters too.

    Raises:
        PositionError: the text's tokens change when the object follows, the text is longer than the model's
            context, or the tokenizer does not tell which characters a token stands for.
    """
    text = prompt.text.rstrip()
    whole = f"{text} {prompt.object.strip()}"
    text_ids = _ids(model, text)
    full_ids = _ids(model, whole)
    span = prompt.subject_span()
    # Decoding first: offsets are wrong where a tokenizer spells several unknown characters in bytes.
    position = _position_by_decoding(model, whole, full_ids, span[1])
    if position is None:
        position = _position_by_offsets(model, whole, full_ids, span)
    if position is None:
        limit = getattr(getattr(model, "cfg", None), "n_ctx", None)
        full = f"; they fill the model's context of {limit}, so shorten the text" if limit == len(full_ids) else ""
        maker = type(model.tokenizer).__name__
        raise PositionError(
            f"subject {prompt.subject!r} of {whole!r} cannot be located among the tokens "
            f"{_shown(model, full_ids)}: they do not decode to the text, and {maker} gives no "
            f"offsets for them{full}"
        )
    if full_ids[: len(text_ids)] != text_ids or len(full_ids) == len(text_ids):
        raise PositionError(
            f"the tokens of the text change when object {prompt.object!r} follows it: {_shown(model, text_ids)} "
            f"against {_shown(model, full_ids)}; end the text where a new word begins"
        )
    return TokenizedPrompt(
        prompt=prompt,
        text_ids=tuple(text_ids),
        object_ids=tuple(full_ids[len(text_ids) :]),
        subject_position=position,
    )


def _ids(model: Tokenizing, text: str) -> list[int]:
    with turn(model):
        ids: list[int] = model.to_tokens(text)[0].tolist()
    return ids


def _shown(model: Tokenizing, ids: list[int]) -> str:
    return repr([model.tokenizer.decode([token]) for token in ids])


def _position_by_decoding(model: Tokenizing, text: str, ids: list[int], end: int) -> int | None:
    """The token with which decoding reaches character `end`; None where decoding does not give `text` back."""
    tokenizer = model.tokenizer
    special = set(tokenizer.all_special_ids)
    first = next((index for index, token in enumerate(ids) if token not in special), len(ids))

    def decoded(stop: int) -> str:
        result: str = tokenizer.decode(ids[first:stop], clean_up_tokenization_spaces=False)
        return result

    whole = decoded(len(ids))
    # Some tokenizers put a space before the text, or drop the one that is there.
    shift = len(whole) - len(text)
    if f"{' ' * -shift}{whole}" != f"{' ' * shift}{text}" or abs(shift) > 1 or _UNKNOWN in text:
        return None

    def reached(beginning: str) -> bool:
        # The bytes of a character may be spread over tokens, and then some decoders show the whole run of bytes as
        # unknown until its last character is complete.
        return len(beginning.rstrip(_UNKNOWN)) >= end + shift

    stop = bisect_left(range(len(ids) + 1), True, lo=first + 1, key=lambda stop: reached(decoded(stop)))
    if stop > len(ids):
        return None
    # So it may be reached, hidden by the bytes that follow, and shown again: go back to the first time.
    for earlier in range(stop - 1, first, -1):
        beginning = decoded(earlier)
        if reached(beginning):
            stop = earlier
        elif not beginning.endswith(_UNKNOWN):
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
        own = encoded["input_ids"]
        # The model may have one token more or one less at the front, its beginning of sequence.
        more = len(ids) - len(own)
        if abs(more) > 1 or ids[max(more, 0) :] != own[max(-more, 0) :]:
            continue
        start, end = (character + len(added) for character in span)
        covering = [
            index
            for index, (left, right) in enumerate(encoded["offset_mapping"])
            if left < min(end, right) and right > start
        ]
        return covering[-1] + more if covering else None
    return None
