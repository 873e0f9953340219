"""Every error class of ours."""

import unicodedata
from collections.abc import Sequence

from lrc_tl.markup.printable import printable


def in_one_line(text: str) -> str:
    """The text with white space made single, and with escapes in place of what would steer a terminal."""
    return printable(" ".join(text.split()))


def unprintable(text: str) -> bool:
    """Whether it holds half of a surrogate pair, or a control character other than a tab or the end of a line."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text if character not in "\t\n")


class ModelError(RuntimeError):
    """A model could not be loaded; the text says what to install or change."""


class FingerprintMismatch(ValueError):
    """A direction, set or embedding was used with another model than the one it was made on."""


class NotFiniteError(ValueError):
    """A model or an edit gave numbers that are NaN or infinite; the text says where, and how many."""

    def __init__(self, text: str, *, rows: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.rows = tuple(rows)
        """Numbers of the texts that it is about, where several were read together."""


class OutOfMemoryError(RuntimeError):
    """Memory ran out for the smallest piece of work; the text says what to change."""


class _OfAFile(ValueError):
    """What a file holds may be in the text, which is one line that a terminal can show."""

    def __init__(self, text: str) -> None:
        super().__init__(in_one_line(text))


class ArtifactError(_OfAFile):
    """A file cannot be used; the text says why."""


class RelationError(ValueError):
    """A relation file or a relation's content is not usable; the text says where and why."""


class PositionError(ValueError):
    """A subject or object could not be located among the tokens; the text shows them."""


class ResumeError(_OfAFile):
    """A stored piece is damaged, belongs to another run, or is in the way; the text says what to do."""


class HubError(RuntimeError):
    """The Hub did not give or take a set; the text says why, in one line."""


class UnfitError(ValueError):
    """A method has no directions on these prompts; the text says which, and why."""


class ResultFileError(_OfAFile):
    """A result file cannot be read back; the text names it and says why."""
