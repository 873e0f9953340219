"""Text from elsewhere (names of files, relations and objects, a model's words), made safe for a terminal."""

import unicodedata

_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}
"""Marks that change the direction of the text after them."""


def printable(text: str) -> str:
    """The text with escapes in place of control characters, marks of direction and halves of surrogate pairs.

    Line ends and tabs stay. What is left does not move the cursor or change colours, and can be encoded.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii") if _is_hidden(character) else character
        for character in text
    )


def _is_hidden(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or ord(character) in _TURNING
