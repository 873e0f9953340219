"""From vectors in the residual stream to the vocabulary: the model's own final norm and unembedding."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.errors import ModelError
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import without_gradients
from lrc_tl.numerics.precision import wide_of

_MAX_ROWS = 32
"""Vectors that go through the unembedding at a time."""


@checked
def lens_logits(
    model: HookedModel, states: Float[Tensor, "row d_model"]
) -> Iterator[tuple[slice, Float[Tensor, "some d_vocab"]]]:
    """Logits of hidden states, `W_U norm(h) + b_U`, as batches of rows with their places, in float32 or wider.

    Norm and unembedding are the model's, biases included, in the model's dtype; what follows them in some models,
    a soft cap or a constant factor, is left out: both leave the order of words as it is. Of the model's own last
    residual these are its logits up to that. On the model's device.

    Raises:
        ModelError: the model has no final norm and unembedding of its width.
        ValueError: the states are of another width, or not finite.
    """
    require_unembedding(model, states)
    for start in range(0, len(states), _MAX_ROWS):
        rows = slice(start, min(start + _MAX_ROWS, len(states)))
        yield rows, without_gradients(lambda rows=rows: _unembedded(model, states[rows]))  # type: ignore[misc]


@checked
def linear_logits(model: HookedModel, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """What each vector does to the logits, biases apart: `W_U (w * u)`, in float32 or wider.

    `w` is the final norm's weight, and `u` the vector scaled to a root mean square of 1, as the final norm would
    scale it; where that is a LayerNorm the vector is centred first. This is the odd part of `lens_logits`,
    `(f(v) - f(-v)) / 2`, so that it needs no name of a weight, and that of `-v` is exactly the opposite.

    Raises:
        ModelError: the model has no final norm and unembedding of its width.
        ValueError: the vectors are of another width, not finite, or zero.
    """
    require_unembedding(model, vectors)
    lengths = vectors.norm(dim=-1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise ValueError("a vector is zero, which says nothing; give vectors of some length")
    scaled = wide_of(vectors) / wide_of(lengths) * vectors.shape[-1] ** 0.5
    forth = [logits for _, logits in lens_logits(model, scaled)]
    back = [logits for _, logits in lens_logits(model, -scaled)]
    return (torch.cat(forth) - torch.cat(back)) / 2


def require_unembedding(model: HookedModel, states: Tensor) -> None:
    """Check that the model turns vectors as wide as these into logits by a final norm and an unembedding.

    Raises:
        ModelError: it does not.
        ValueError: the vectors are of another width, or not finite.
    """
    width = int(model.cfg.d_model)
    # A HookedTransformer without norms has none at the end either.
    needed = ["ln_final", "unembed"] if getattr(model.cfg, "normalization_type", "unknown") else ["unembed"]
    missing = [name for name in needed if getattr(model, name, None) is None]
    if missing or getattr(model, "project_out", None) is not None:
        lacks = f"has no {' and no '.join(missing)}" if missing else "projects its residual stream before that"
        raise ModelError(
            f"a readout goes through the final norm and the unembedding, but this {type(model).__name__} {lacks}"
        )
    if states.shape[-1] != width:
        raise ValueError(
            f"the vectors have width {states.shape[-1]}, the model {width}; read out what was made on this model"
        )
    if not bool(torch.isfinite(states).all()):
        raise ValueError("the vectors are not finite; load the model in float32")


def _unembedded(model: HookedModel, states: Tensor) -> Tensor:
    parts: Any = model
    weight = next(parts.unembed.parameters())
    hidden = states.to(device=weight.device, dtype=weight.dtype)[None]
    norm = getattr(parts, "ln_final", None)
    return wide_of(parts.unembed(hidden if norm is None else norm(hidden))[0])
