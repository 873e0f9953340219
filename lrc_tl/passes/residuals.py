"""Residuals at subjects and objects of prompts: from a pass of their own, or from one made for something else."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.hooked_model import HookedModel, hook_layer, hook_name
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.passes.batches import MAX_TOKENS, Hooks, length_batches, right_padded, run
from lrc_tl.passes.finite import require_finite_residuals
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, TokenizedPrompt, object_positions, tokenize_prompt

Reading: TypeAlias = Literal["subject"] | ObjectAggregation
"""The last subject token, or how the positions that predict the object are read."""


class PromptResiduals:
    """Residuals of prompts at the layers that are wanted, float32 or wider; each prompt is read once."""

    def __init__(
        self,
        model: HookedModel,
        *,
        subject_layers: Iterable[int] = (),
        objects: Iterable[tuple[int, ObjectAggregation]] = (),
    ) -> None:
        """`objects` are layers, each with how objects of several tokens are read there.

        Raises:
            ValueError: a layer outside the model.
        """
        self._model = model
        self.subject_layers, self.objects = tuple(subject_layers), tuple(objects)
        wanted: list[tuple[int, Reading]] = [*((layer, "subject") for layer in self.subject_layers), *self.objects]
        self._hook_names = {key: hook_name(model, key[0]) for key in wanted}
        self._residuals: dict[tuple[int, Reading], dict[Prompt, Tensor]] = {key: {} for key in wanted}

    def hooks(self, batch: Sequence[TokenizedPrompt]) -> Hooks:
        """What reads the prompts in a pass over them, each with its object's tokens, in the same order."""
        return [(name, partial(self._take, name, batch)) for name in dict.fromkeys(self._hook_names.values())]

    def _take(self, name: str, batch: Sequence[TokenizedPrompt], residual: Tensor, hook: Any) -> None:
        wide = torch.promote_types(residual.dtype, torch.float32)
        for key, own_name in self._hook_names.items():
            if own_name != name:
                continue
            for row, tokens in enumerate(batch):
                first, last = _positions(tokens, key[1])
                self._residuals[key][tokens.prompt] = residual[row, first : last + 1].to(wide).mean(0)

    def read(self, prompts: Sequence[Prompt], *, max_tokens: int = MAX_TOKENS, progress: bool = True) -> None:
        """Run the prompts that were not read before, in batches; the pass stops above the highest layer."""
        missing = [
            prompt
            for prompt in dict.fromkeys(prompts)
            if any(prompt not in residuals for residuals in self._residuals.values())
        ]
        if not missing:
            return
        tokenized = [tokenize_prompt(self._model, prompt) for prompt in missing]
        sequences = [self._needed_ids(tokens) for tokens in tokenized]
        above = max(map(hook_layer, self._hook_names.values())) + 1

        def compute(batch: Sequence[int], start: int, stop: int) -> None:
            rows = batch[start:stop]
            some = [sequences[row] for row in rows]
            run(
                self._model,
                right_padded(self._model, some),
                lengths=list(map(len, some)),
                fwd_hooks=self.hooks([tokenized[row] for row in rows]),
                stop_at_layer=above,
            )

        pieces = PieceSize("prompts")
        with ProgressBar("activations", total=len(missing), progress=progress) as bar:
            for batch in length_batches(list(map(len, sequences)), max_tokens=max_tokens):
                pieces.run(len(batch), len(batch), partial(compute, batch))
                bar.advance(len(batch))

    def _needed_ids(self, tokens: TokenizedPrompt) -> tuple[int, ...]:
        if any(reading != "subject" for _, reading in self._hook_names):
            return tokens.input_ids
        if is_steered(self._model):  # positions may count from the end of the text
            return tokens.text_ids
        # A subject needs no token after it, and its own residual does not see them.
        return tokens.text_ids[: tokens.subject_position + 1]

    def of(self, prompts: Sequence[Prompt], layer: int, reading: Reading) -> Float[Tensor, "prompt d_model"]:
        """A row for each prompt, after they were read.

        Raises:
            NotFiniteError: some are not finite.
        """
        residuals = self._residuals[layer, reading]
        rows = torch.stack([residuals[prompt] for prompt in prompts])
        require_finite_residuals(rows, [prompt.text for prompt in prompts], layer=layer)
        return rows


def _positions(tokens: TokenizedPrompt, reading: Reading) -> tuple[int, int]:
    if reading == "subject":
        return tokens.subject_position, tokens.subject_position
    positions = object_positions(tokens, reading)
    return positions[0], positions[-1]
