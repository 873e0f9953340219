"""Facts, and how the texts of a relation are read: escapes as letters, in one Unicode form. Needs no torch."""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.errors import RelationError

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


def pair_of(pair: Any, where: str) -> tuple[str, str]:
    """The subject and object as they were given, checked as far as they can be told from other things."""
    if isinstance(pair, str | bytes | Mapping | Set) or not isinstance(pair, Iterable):
        raise RelationError(f"{where}: {pair!r:.60} is no (subject, object) pair; give a tuple of two strings")
    parts = tuple(pair)
    if len(parts) != 2:
        raise RelationError(f"{where}: {parts!r:.60} has {len(parts)} items; give (subject, object)")
    for role, value in zip(("subject", "object"), parts, strict=True):
        if flaw := name_flaw(value):
            raise RelationError(f"{where}: {role} {flaw}")
    return parts[0], parts[1]


def require_clean(facts: Sequence[Fact], name: str) -> None:
    """Refuse facts that are not as `Relation.from_pairs` makes them."""
    subjects: set[str] = set()
    for fact in facts:
        for text in (fact.subject, fact.object):
            if flaw := name_flaw(text):
                raise RelationError(f"relation {name!r}: a subject or object {flaw}")
            if cleaned(text) != text:
                raise RelationError(
                    f"relation {name!r}: {text!r} has white space around it or escapes in it, or is not in "
                    "Unicode form NFC; make the relation with Relation.from_pairs, which brings texts into form"
                )
        if fact.subject in subjects:
            raise RelationError(
                f"relation {name!r}: the subject {fact.subject!r} comes more than once; make the relation with "
                "Relation.from_pairs, which keeps one of equal facts"
            )
        subjects.add(fact.subject)


def checked_aliases(
    given: Mapping[str, Sequence[str]], objects: Iterable[str], where: str
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(object, further names) from a mapping, cleaned, for objects that have some.

    Raises:
        RelationError: an alias of something that is no object, or that is no plain name, or names two objects.
    """
    aliases: dict[str, tuple[str, ...]] = {}
    objects = dict.fromkeys(objects)
    owners = {name: name for name in objects}
    if not isinstance(given, Mapping):
        raise RelationError(f"{where}: aliases must map objects to lists of names, not {given!r:.60}")
    for key, names in given.items():
        name = cleaned(key) if isinstance(key, str) else key
        if name not in objects:
            raise RelationError(f"{where}: aliases are given for {key!r}; {did_you_mean(str(key), objects)}")
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise RelationError(f"{where}: the aliases of {key!r} are {names!r:.60}; give a list of names")
        for alias in names:
            if flaw := name_flaw(alias):
                raise RelationError(f"{where}: an alias of {key!r} {flaw}")
            if (owner := owners.setdefault(cleaned(alias), name)) != name:
                raise RelationError(f"{where}: {alias!r} would name both {owner!r} and {name!r}; leave it to one")
        aliases[name] = tuple(dict.fromkeys(kept for alias in names if (kept := cleaned(alias)) != name))
    return tuple((name, names) for name, names in aliases.items() if names)
