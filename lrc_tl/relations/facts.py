"""Facts, and how the texts of a relation are read: escapes as letters, in one Unicode form. Needs no torch."""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")  # neighbours together: two of them may be one character
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))


@dataclass(frozen=True, order=True)
class Fact:
    """One (subject, object) pair of a relation."""

    subject: str
    object: str

    def __str__(self) -> str:
        return f"{self.subject!r} -> {self.object!r}"


def in_letters(text: str) -> str:
    r"""`text` in Unicode form NFC, with each escape such as `\u00e1` replaced by its letter.

    Files of the LRE dataset hold such escapes because their texts were escaped twice.
    """
    return unicodedata.normalize("NFC", _ESCAPES.sub(lambda escapes: str(json.loads(f'"{escapes[0]}"')), text))


def cleaned(text: str) -> str:
    """`text` in letters (see `in_letters`), without white space around it."""
    return in_letters(text).strip()


def name_flaw(name: object) -> str | None:
    """Why `name` cannot name a subject, an object or a relation, as the end of a sentence; None: it can."""
    if not isinstance(name, str) or not cleaned(name):
        return f"must be a non-empty string, not {name!r}"
    kept = cleaned(name)
    flaw = "must be one line of text" if len(kept.splitlines()) > 1 else _character_flaw(kept)
    return flaw and f"{flaw}, not {name!r}"


def template_flaw(template: str) -> str | None:
    """Like `name_flaw`, for a template, which may have several lines and tabs."""
    if template.count("{}") != 1:
        return "must hold {} exactly once (the place of the subject)"
    return _character_flaw(template.replace("\n", "").replace("\t", ""))


def _character_flaw(text: str) -> str | None:
    categories = {character: unicodedata.category(character) for character in text}
    for character, category in categories.items():
        if category == "Cs":
            return f"must be whole characters, without the half {character!a}"
        if category == "Cc":
            return f"must be plain text, without the control character {character!a}"
    return None


def lookalikes(texts: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of distinct texts that differ by case or spacing only, invisible spaces included."""
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for text in texts:
        key = "".join(text.translate(_INVISIBLE).casefold().split())
        groups[unicodedata.normalize("NFC", key)][text] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]
