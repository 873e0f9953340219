"""Prompts of a fit that are not finite: left out with a warning, so that no mean counts them."""

from collections.abc import Sequence

from lrc_tl.errors import NotFiniteError
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.relations.prompts import Prompt, TokenizedPrompt


class LeftOut:
    """The prompts of one fit whose residuals or Jacobians are NaN or infinite, each with its error."""

    def __init__(self) -> None:
        self._errors: dict[int, NotFiniteError] = {}

    def __contains__(self, tokens: TokenizedPrompt) -> bool:
        return id(tokens) in self._errors

    def add(self, tokens: TokenizedPrompt, error: NotFiniteError) -> None:
        """Leave a prompt out. Its error is kept without what the work that failed had taken."""
        self._errors[id(tokens)] = error.with_traceback(None)

    def require_some_left(self, tokenized: Sequence[TokenizedPrompt]) -> None:
        """Go on where one of the prompts is not left out.

        Raises:
            NotFiniteError: that of the first prompt.
        """
        if all(tokens in self for tokens in tokenized):
            raise next(iter(self._errors.values()))

    def rest(self, prompts: Sequence[Prompt], tokenized: Sequence[TokenizedPrompt]) -> list[Prompt]:
        """The prompts that were counted; a warning says how many were not, and why the first was not."""
        if self._errors:
            first = next(iter(self._errors.values()))
            warn_caller(f"{len(self._errors)} of {len(prompts)} prompts are left out of the fit: {first}")
        return [prompt for prompt, tokens in zip(prompts, tokenized, strict=True) if tokens not in self]
