"""What a direction and a set of directions have in common as readers of a residual stream."""

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel

Score: TypeAlias = Callable[[Tensor], Tensor]
"""From activations `*batch d_model` to scores: `*batch` of a direction, `*batch concept` of a set."""


@runtime_checkable
class Probe(Protocol):
    """Reads activations at one hook point of the model that it was made on."""

    @property
    def hook_name(self) -> str:
        """Where it reads, e.g. `"blocks.6.hook_resid_post"`."""
        ...

    def require_model(self, model: HookedModel) -> None:
        """Raise unless it means something on this model."""
        ...


def require_width(acts: Tensor, vectors: Tensor) -> None:
    """Raise ValueError unless the activations are as wide as the vectors."""
    if acts.shape[-1] != vectors.shape[-1]:
        raise ValueError(
            f"the activations have width {acts.shape[-1]}, the directions {vectors.shape[-1]}; they must be equal"
        )
