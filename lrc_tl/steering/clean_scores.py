"""Scores of the clean run, for steerings that measure against it (`FromClean`).

Those of prompt tokens come from one pass without any edit, over the same tokens, just before the steered pass.
That of a generated token is what its own residual has before the first layer that is steered.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_tl.models.clean_pass import clean_pass
from lrc_tl.models.following import Generation, generation_of
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import Hooks
from lrc_tl.numerics.precision import wide_of
from lrc_tl.passes.chunk import Chunk
from lrc_tl.passes.tracking import PassBegins, Rerun
from lrc_tl.steering.operations import FromClean
from lrc_tl.steering.places import Where, select


class CleanScores(threading.local):
    """Clean scores of one steering. Local to the thread, as the positions are."""

    def __init__(self, operation: FromClean, names: Sequence[str], *, where: Where, bos: bool) -> None:
        self._operation = operation
        self._names = names  # earliest first
        self._where = where
        self._bos = bos
        self._prompt: dict[str, Tensor] = {}
        self._generation: Generation | None = None  # the one whose prompt that is
        self._first: tuple[Chunk, Tensor] | None = None

    def needs_clean_pass(self, chunk: Chunk, generation: Generation | None) -> bool:
        """Whether prompt tokens are steered in this pass whose scores are not known yet.

        Raises:
            ValueError: it is not known where the prompt ends.
        """
        in_prompt = ~chunk.generated(why='value="clean"')
        known = generation is not None and generation is self._generation and bool(self._prompt)
        if known or not bool(in_prompt.any()):
            return False
        self._prompt, self._generation = {}, generation
        return bool(select(self._where, chunk, bos=self._bos)[:, in_prompt].any())

    def reads(self, chunk: Chunk) -> Hooks:
        """Hooks that take the prompt's scores from a clean pass over the tokens of `chunk`."""

        def reading(name: str) -> Any:
            def read(residual: Tensor, hook: Any) -> None:
                self._prompt[name] = self._operation.score(wide_of(residual))[:, : chunk.prompt_width]

            return read

        return [(name, reading(name)) for name in self._names]

    def at(self, name: str, residual: Tensor, chunk: Chunk) -> Tensor:
        """Scores of shape `batch pos` for what the steering does to `residual`; any where it does nothing."""
        assert chunk.prompt_width is not None
        n_prompt = max(0, chunk.prompt_width - chunk.offset)
        if n_prompt >= residual.shape[1]:
            return self._prompt[name]
        if name == self._names[0]:
            self._first = chunk, self._operation.score(wide_of(residual))
        if self._first is None or self._first[0] is not chunk:
            raise ValueError(
                f'value="clean" reads generated tokens at {self._names[0]}, which this pass did not run; start '
                "the pass at or before its layer"
            )
        first = self._first[1].to(residual.device)
        if not n_prompt or name not in self._prompt:
            return first
        return torch.cat([self._prompt[name].to(first), first[:, n_prompt:]], dim=1)


def run_clean_passes(model: HookedModel, steered: Sequence[CleanScores]) -> PassBegins:
    """What runs, before a pass of the model, one clean pass for all steerings of a block that need it."""

    def begins(chunk: Chunk, rerun: Rerun | None) -> None:
        generation = generation_of(model)
        needing = [scores for scores in steered if scores.needs_clean_pass(chunk, generation)]
        if not needing:
            return
        if rerun is None:
            raise ValueError(
                'value="clean" runs the tokens of a prompt once more without edits, but this pass starts from '
                "embeddings, or in the middle of the model (start_at_layer), so that they are not known; give "
                'tokens or text, or steer with value="current"'
            )
        if chunk.offset:
            raise ValueError(
                f'value="clean" runs the whole prompt once more, but {chunk.offset} tokens of it are in a '
                "key-value cache already; give the whole prompt to model.generate or lrc.generate"
            )
        clean_pass(model, rerun, reads=[hook for scores in needing for hook in scores.reads(chunk)])

    return begins
