"""What a direction or a hidden state says in words: the logit lens, and the Jacobian lens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.token_scores import decoded
from lrc_tl.directions.writing import writing_vector
from lrc_tl.markup.fragments import Cell, display
from lrc_tl.markup.tables import bar, table
from lrc_tl.markup.token_text import token_html
from lrc_tl.models.hooked_model import RESIDUAL, HookedModel, layer_and_point
from lrc_tl.models.jacobian_lens import JacobianLens, to_last_layer
from lrc_tl.models.unembedding import lens_logits, linear_logits

if TYPE_CHECKING:
    from lrc_tl.directions.concept_direction import ConceptDirection

_SHOWN = 6
"""Words of each end that `repr` names."""


class Word(NamedTuple):
    """A token of the vocabulary with its logit."""

    text: str
    token: int
    """Its id."""
    logit: float


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Readout:
    """The words at both ends of a readout; it shows itself as a table in a notebook."""

    label: str
    """What was read out, and through what."""
    top: tuple[Word, ...]
    """The words that get the highest logits, highest first."""
    bottom: tuple[Word, ...]
    """Those that get the lowest, lowest first."""

    def __repr__(self) -> str:
        ends = [f"  {name}: {_named(words)}" for name, words in (("top", self.top), ("bottom", self.bottom))]
        return "\n".join([f"Readout({self.label})", *ends])

    def _repr_html_(self) -> str:
        scale = max(abs(word.logit) for word in (*self.top, *self.bottom))
        rows: list[list[Cell]] = []
        for place, ends in enumerate(zip(self.top, self.bottom, strict=True), 1):
            rows.append([place])
            for word in ends:
                rows[-1] += [token_html(word.text, breaks=False), bar(word.logit, scale)]
        return display(self.label, table(["", "top", "logit", "bottom", "logit"], rows, most=len(rows)))


@numbers_checked
@checked
def readout(
    model: HookedModel,
    state: Float[Tensor, " d_model"],
    *,
    k: int = 10,
    lens: JacobianLens | None = None,
    layer: int | None = None,
) -> Readout:
    """The `k` top and bottom words of a hidden state, through the model's final norm and unembedding.

    This is the logit lens, biases included and soft caps left out: of the last residual, the model's own order.
    With a `lens` of TransformerLens (`transformer_lens.tools.analysis.JacobianLens`) and the state's `layer`, its
    Jacobian stands before that. Logits in the model's own units.

    Raises:
        ModelError: the model has no such norm and unembedding, or its weights are folded and a lens is given.
        ValueError: a state of another width or not finite, `k` outside 1 to the size of the vocabulary, only one
            of lens and layer, a lens of another model, or a model without a tokenizer.
    """
    if (lens is None) != (layer is None):
        raise ValueError("give the Jacobian lens and the layer that the state is of together, or neither")
    through = "logit lens"
    if lens is not None and layer is not None:
        state, through = to_last_layer(model, lens, state, layer=layer), f"Jacobian lens of layer {layer}"
    ((_, logits),) = lens_logits(model, state[None])
    return _ends(model, logits[0], k=k, label=f"hidden state, {through}")


def direction_readout(
    direction: "ConceptDirection", model: HookedModel, *, k: int, lens: JacobianLens | None, writing: bool
) -> Readout:
    """`ConceptDirection.readout`."""
    direction.require_model(model)
    vector = writing_vector(direction) if writing else direction.vector
    through = "logit lens"
    if lens is not None:
        layer, point = layer_and_point(direction.hook_name)
        if point != RESIDUAL:
            raise ValueError(f"a Jacobian lens reads at hook_resid_post, but the direction is at {point}")
        vector, through = to_last_layer(model, lens, vector, layer=layer), "Jacobian lens"
    logits = linear_logits(model, vector[None])[0]
    kind = "writing vector, " if writing else ""
    what = f"{direction.relation}: {direction.object_name} at {direction.hook_name}"
    return _ends(model, logits, k=k, label=f"{what}, {kind}{through}")


def _ends(model: HookedModel, logits: Float[Tensor, " d_vocab"], *, k: int, label: str) -> Readout:
    if not 1 <= k <= len(logits):
        raise ValueError(f"k is {k}; allowed are 1 to {len(logits)}, the size of the vocabulary")
    # The bottom is the top of the opposite, so that the readouts of v and -v mirror each other, ties included.
    return Readout(label=label, top=_words(model, logits, k, sign=1), bottom=_words(model, -logits, k, sign=-1))


def _words(model: HookedModel, logits: Tensor, k: int, *, sign: int) -> tuple[Word, ...]:
    values, ids = torch.topk(logits, k)
    texts = decoded(model.tokenizer, ids)
    return tuple(
        Word(text, token, sign * value)
        for text, token, value in zip(texts, ids.tolist(), values.tolist(), strict=True)
    )


def _named(words: tuple[Word, ...]) -> str:
    more = f", … {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(f"{word.text!r} {word.logit:+.3g}" for word in words[:_SHOWN]) + more
