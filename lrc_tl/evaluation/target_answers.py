"""Whether greedy decoding under an edit gives its target: what was said so far, and what is still to be run."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.answers import ExpectedAnswer, accepted_names
from lrc_tl.relations.prompts import TokenizedPrompt


class TargetAnswers:
    """What the model says under each variant of each edit, as far as it takes to tell whether that is the target.

    A target without aliases that does not come token by token is not said. Where its tokens came, it remains to
    see whether the word ends there; where it has aliases, whether the model says one of them.
    """

    def __init__(
        self, model: HookedModel, targets: Sequence[TokenizedPrompt], objects: Mapping[str, Sequence[str]]
    ) -> None:
        """`targets` are the edits' prompts with the target as object; `objects` are those of each relation."""
        self._model, self._targets, self._objects = model, targets, objects
        self._has_aliases = [len(accepted_names(tokens.prompt, ())) > 1 for tokens in targets]
        self._expected: dict[int, ExpectedAnswer] = {}
        self._said: dict[tuple[int, int], list[int]] = {}
        self._verdicts: dict[tuple[int, int], bool | None] = {}

    def take(self, variant: int, number: int, greedy: Sequence[int]) -> None:
        """The greedy tokens of an edit: first those at the target's positions, then one at a time."""
        key = variant, number
        if key in self._said:
            self._said[key] += greedy
        else:
            target = self._targets[number].object_ids
            n_right = next((i for i, token in enumerate(target) if greedy[i] != token), len(target))
            # Behind a token that the model does not say, the others were not asked for.
            self._said[key] = list(greedy[: min(n_right + 1, len(target))])
            if n_right < len(target) and not self._has_aliases[number]:
                self._verdicts[key] = False
                return
        self._verdicts[key] = self._answer(number).verdict(self._model, self._said[key])

    def _answer(self, number: int) -> ExpectedAnswer:
        if number not in self._expected:
            tokens = self._targets[number]
            self._expected[number] = ExpectedAnswer.of(self._model, tokens, self._objects[tokens.prompt.relation])
        return self._expected[number]

    def next_ids(self, variant: int, number: int) -> list[int] | None:
        """The text with all that was said, where more has to be said; else None."""
        key = variant, number
        return None if self._verdicts[key] is not None else [*self._targets[number].text_ids, *self._said[key]]

    def says_target(self, n_variants: int) -> Bool[Tensor, "variant edit"]:
        """The verdicts."""
        says = torch.zeros(n_variants, len(self._targets), dtype=torch.bool, device=HOST)
        for key, verdict in self._verdicts.items():
            says[key] = bool(verdict)
        return says
