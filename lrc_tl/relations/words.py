"""Where a word begins and ends, and whether a text says a name: one rule for every script. Needs no torch.

Texts and names are compared in NFC, so the way in which an accent is spelled does not matter. A word goes on over

- a letter or a digit; but scripts that are written without spaces (Chinese, Japanese, Thai ...) or with glued
  particles (Korean) show no word ends, and an emoji is a word by itself, so a word may end before any of these;
- a combining mark, a variation selector or a joiner, which belong to the character before them;
- one of `- ' . + # / &` (or a typographic apostrophe or hyphen) that a letter, a digit or the same sign
  follows;
- between digits also a comma, a colon or a space that does not break: they are one number or one time;
- the second half of a flag, which is two characters.

So neither "Guinea-Bissau" nor "Guineas" is "Guinea", "3.5" and "3,000" are not "3", "AT&T" is not "AT" and
"C++" is not "C", while "東京です" is "東京" and more.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

UNFINISHED = "\ufffd"
"""What decoding shows for an incomplete character."""
_JOINERS = "\u200c\u200d\u2060"  # zero-width non-joiner and joiner, word joiner
_APOSTROPHES = "'\u2019\u2018\uff07"
_HYPHENS = "-\u2010\u2011\u2013\u00ad\uff0d"  # hyphens, en dash, soft hyphen
SIGNS = f"{_APOSTROPHES}{_HYPHENS}.+#/&"
"""Signs that join a word to the letters after it."""
NUMBER_SIGNS = ",:\u066b\u066c\u00a0\u202f"  # also Arabic separators, and spaces that do not break
"""Signs that join a digit to the digit after it."""
_ELIDED = ("l", "d", "qu", "un", "all", "dall", "dell", "nell", "sull")
_UNSPACED = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH", "HANGUL", "BOPOMOFO", "YI ", "THAI", "LAO", "KHMER",
    "MYANMAR", "TIBETAN", "TAI ", "NEW TAI", "AHOM", "JAVANESE", "BALINESE",
)  # fmt: skip


def nfc(text: str) -> str:
    """The text in the form in which texts are compared: composed where Unicode has a composed letter."""
    return unicodedata.normalize("NFC", text)


def same_name(name: str) -> str:
    """One spelling for all spellings of a name: no white space around it, and accents composed."""
    return nfc(name.strip())


def as_spelled(given: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Each of the given names as `names` spells it; one that is not among them stays as it is."""
    spellings = {same_name(name): name for name in names}
    return tuple(spellings.get(same_name(name), name) for name in given)


def decomposed(text: str) -> str:
    """The text with every accent as a separate mark."""
    return unicodedata.normalize("NFD", text)


def caseless(text: str) -> str:
    """The text with differences of case and in the spelling of accents removed."""
    return nfc(nfc(text).casefold())


def is_answer(text: str, name: str, objects: Iterable[str] = ()) -> bool:
    """Whether a continuation begins with the word `name`, and not with a longer name among `objects`.

    White space around both is ignored; case counts.
    """
    return bool(answer_verdict(text, name, longer_names(name, objects), complete=True))


def longer_names(name: str, objects: Iterable[str]) -> tuple[str, ...]:
    """The objects that begin with `name` and are longer."""
    wanted = nfc(name.strip())
    return tuple(other for other in objects if nfc(other.strip()).startswith(wanted) and nfc(other) != wanted)


def answer_verdict(text: str, name: str, longer: Sequence[str], *, complete: bool) -> bool | None:
    """Whether `text` begins with the word `name` and with none of `longer`; None: more text will tell.

    `complete` says that nothing follows.
    """
    said, wanted = nfc(text.lstrip()), nfc(name.strip())
    if not complete:
        said = said.rstrip(UNFINISHED)
    if not said.startswith(wanted):
        # Decomposed, since an accent may still follow the last letter.
        begun = not complete and decomposed(wanted).startswith(decomposed(said))
        return None if begun else False
    goes_on = _goes_on(said, len(wanted))
    if goes_on is None and complete:
        goes_on = False
    if goes_on:
        return False
    others = [answer_verdict(text, other, (), complete=complete) for other in longer]
    if any(others):
        return False
    return None if goes_on is None or None in others else True


def find_word(text: str, name: str) -> tuple[int, int] | None:
    """Character range of the last occurrence of `name` in `text` as a whole word; None: there is none.

    An occurrence that a sign joins to more letters ("Guinea" in "Guinea-Bissau") counts only if there is no other
    occurrence.
    """
    tied = None
    for start, end in _occurrences(text, name.strip()):
        if _goes_on_in_letters(text, end) or _began_before(text, start):
            continue
        if not _tied(text, start, end):
            return start, end
        tied = tied or (start, end)
    return tied


def mentions(text: str, name: str) -> bool:
    """Whether `text` holds `name` as a whole word, in the case given: "Japan's" has Japan, "Japan-US" has not."""
    return any(
        not (_goes_on_in_letters(text, end) or _began_before(text, start) or _tied(text, start, end))
        for start, end in _occurrences(text, name.strip())
    )


def last_word(text: str) -> tuple[int, int] | None:
    """Character range of the last word of `text`; None: it has none."""
    end = len(text)
    while end and not _is_word(text[end - 1]):
        end -= 1
    start = end
    while start and (_is_word(text[start - 1]) or text[start - 1] in _JOINERS or _tied_before(text, start)):
        start -= 1
    return (start, end) if end else None


def name_end(text: str, start: int, name: str) -> int | None:
    """Where `name` ends if it begins at character `start` of `text`; None: it does not begin there."""
    if text.startswith(name, start):
        return start + len(name)
    wanted = nfc(name)
    most = min(len(text), start + len(decomposed(name)))
    return next((end for end in range(start + 1, most + 1) if nfc(text[start:end]) == wanted), None)


def _occurrences(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Character ranges of `name` in `text`, the last first."""
    if not name:
        return
    if all(unicodedata.is_normalized("NFC", written) for written in (text, name)):
        start = text.rfind(name)
        while start >= 0:
            yield start, start + len(name)
            start = text.rfind(name, 0, start + len(name) - 1)
        return
    first = decomposed(name)[0]
    for start in reversed(range(len(text))):
        if decomposed(text[start])[0] == first and (end := name_end(text, start, name)) is not None:
            yield start, end


def _goes_on(text: str, end: int) -> bool | None:
    """Whether the word before character `end` continues; None: the text ends too early to tell."""
    if end == len(text):
        return None
    if _goes_on_in_letters(text, end):
        return True
    in_number = text[end - 1 : end].isdigit() and text[end] in NUMBER_SIGNS
    if not in_number and text[end] not in SIGNS:
        return False
    if end + 1 == len(text):
        return None
    if in_number:
        return text[end + 1].isdigit()
    return _is_word(text[end + 1]) or _same_sign(text[end], text[end + 1])


def _goes_on_in_letters(text: str, end: int) -> bool:
    if end >= len(text):
        return False
    before, after = _base(text, end - 1), text[end]
    if before in _JOINERS or after in _JOINERS or _extends(after) or _halves_a_flag(text, end):
        return True
    return _is_word(after) and not (_stands_alone(before) or _stands_alone(after))


def _began_before(text: str, start: int) -> bool:
    if start <= 0:
        return False
    before, after = _base(text, start - 1), text[start]
    if before in _JOINERS or _extends(after) or _halves_a_flag(text, start):
        return True
    return _is_word(before) and not (_stands_alone(before) or _stands_alone(after))


def _tied(text: str, start: int, end: int) -> bool:
    """Whether a sign joins the word to letters before or after it, in running text.

    In running text the signs are punctuation too: an apostrophe may mark a genitive ("Japan's") or follow an
    article ("l'Italie"), and dots, dashes and slashes come in rows ("Japan...").
    """
    if _tied_before(text, start) and not _elided(text, start):
        return True
    after = text[end : end + 2]
    if _inside_number(text, end) or _inside_number(text, start - 1):
        return True
    if len(after) < 2 or after[0] not in SIGNS:
        return False
    if _same_sign(*after):
        return after[0] in "+#"
    genitive = after[0] in _APOSTROPHES and after[1] in "sS" and not _goes_on(text, end + 2)
    return _is_word(after[1]) and not genitive


def _tied_before(text: str, start: int) -> bool:
    return start > 1 and text[start - 1] in SIGNS and _is_word(text[start - 2])


def _inside_number(text: str, place: int) -> bool:
    """Whether the character at `place` is a sign between two digits."""
    around = text[place - 1 : place + 2] if place > 0 else ""
    return len(around) == 3 and around[0].isdigit() and around[1] in NUMBER_SIGNS and around[2].isdigit()


def _halves_a_flag(text: str, place: int) -> bool:
    """Whether the two characters around `place` form one flag; regional indicators pair up from the left."""
    first = place
    while first and _of_a_flag(text[first - 1]):
        first -= 1
    return (place - first) % 2 == 1 and place < len(text) and _of_a_flag(text[place])


def _of_a_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _elided(text: str, start: int) -> bool:
    """Whether an elided article or a similar word comes before character `start`, as in "l'Italie"."""
    if text[start - 1] not in _APOSTROPHES:
        return False
    first = start - 1
    while first and _is_word(text[first - 1]):
        first -= 1
    return text[first : start - 1].casefold() in _ELIDED


def _same_sign(sign: str, other: str) -> bool:
    return sign == other or any(sign in kind and other in kind for kind in (_APOSTROPHES, _HYPHENS))


def _base(text: str, place: int) -> str:
    """The character at `place`; for a combining mark, the character that it belongs to."""
    while place > 0 and _extends(text[place]):
        place -= 1
    return text[place] if place >= 0 else ""


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_" or _extends(character)


def _extends(character: str) -> bool:
    """Marks, variation selectors, emoji skin tones, and the parts of a Korean syllable behind its first."""
    if character.isascii():
        return False
    return (
        unicodedata.category(character).startswith("M")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\u1160" <= character <= "\u11ff"
    )


def _stands_alone(character: str) -> bool:
    """Whether words are written around this character without spaces: scripts without spaces, and emoji."""
    if character < "\u0e00":
        return False
    return unicodedata.name(character, "").startswith(_UNSPACED) or unicodedata.category(character) == "So"
