"""What one forward pass covers."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lrc_tl.markup.brief import brief_fields


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """What one forward pass covers, row by row."""

    offset: int
    """Tokens already in the key-value cache, padding included."""
    index: Int[Tensor, "batch pos"]
    """Absolute position in the row's own tokens: the beginning-of-sequence token counts, padding is -1."""
    bos: Bool[Tensor, "batch pos"] | None
    """Beginning-of-sequence tokens, wherever they stand; None: the model was given embeddings, not tokens.

    A token that is the end of sequence too is one only where it is a row's first."""
    ids: Int[Tensor, "batch pos"] | None
    """Token ids of this pass; None where the model was given embeddings."""
    prompt_width: int | None
    """Columns of the prompt, padding included; None: prompt and generated tokens cannot be told apart."""
    prompt_lengths: Int[Tensor, " batch"] | None
    """Tokens of each row's prompt without padding."""
    limit: Int[Tensor, " batch"] | None
    """Positions of each row that can ever be run; None: not known."""

    __repr__ = brief_fields

    @property
    def columns(self) -> Int[Tensor, " pos"]:
        """Columns of the padded batch that this pass covers."""
        return torch.arange(self.offset, self.offset + self.index.shape[1], device=self.index.device)

    def generated(self, *, why: str) -> Bool[Tensor, " pos"]:
        """Which columns hold generated tokens.

        Raises:
            ValueError: it is not known where the prompt ends; `why` says what asked for it.
        """
        if self.prompt_width is None:
            raise ValueError(
                f"{why} needs to know where the prompt ends, but this pass uses a cache, or goes on from an "
                "earlier one, outside model.generate; call model.generate inside the block, or lrc.generate"
            )
        return self.columns >= self.prompt_width
