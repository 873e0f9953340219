"""A lens over a whole prompt: for every layer and token, the words that its hidden state says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.token_scores import decoded
from lrc_tl.markup.fragments import display, note
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.markup.tables import word_map
from lrc_tl.markup.token_text import token_html
from lrc_tl.models.chat import Text, as_text
from lrc_tl.models.hooked_model import HookedModel, block_hook, layer_number
from lrc_tl.models.jacobian_lens import JacobianLens, require_jacobian_lens, to_last_layer
from lrc_tl.models.unembedding import lens_logits
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.batches import kept_residuals, whole_text_ids
from lrc_tl.relations.special_tokens import special_ids


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class PromptLens:
    """The top words of a lens at every layer and token of a text: a heat map with words in a notebook.

    Raises:
        ValueError: words, ids, probabilities, layers and tokens do not fit together.
    """

    label: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    words: tuple[tuple[tuple[str, ...], ...], ...]
    """Of each layer and token, the `k` most probable words, most probable first."""
    ids: Int[Tensor, "layer pos k"]
    """Their ids."""
    probabilities: Float[Tensor, "layer pos k"]
    """Their probabilities over the whole vocabulary, soft caps left out."""
    special: tuple[int, ...] = ()
    """Places of the tokens that stand for no words."""

    def __post_init__(self) -> None:
        shape = len(self.layers), len(self.tokens)
        words = len(self.words), *{len(row) for row in self.words}
        if not shape == self.ids.shape[:2] == words or self.ids.shape != self.probabilities.shape:
            raise ValueError(
                f"{shape[0]} layers and {shape[1]} tokens, but ids {tuple(self.ids.shape)} and probabilities "
                f"{tuple(self.probabilities.shape)}; they must fit together"
            )

    @numbers_checked
    def top(self, *, layer: int, position: int) -> tuple[tuple[str, float], ...]:
        """The words at a layer and a token (from the end where negative) with their probabilities.

        Raises:
            ValueError: the layer was not read, or there is no such token.
        """
        if layer not in self.layers:
            raise ValueError(f"layer {layer} was not read; these were: {', '.join(map(str, self.layers))}")
        if not -len(self.tokens) <= position < len(self.tokens):
            raise ValueError(f"position {position} is outside the text of {len(self.tokens)} tokens")
        row = self.layers.index(layer)
        words, shares = self.words[row][position], self.probabilities[row, position].tolist()
        return tuple(zip(words, shares, strict=True))

    def to_frame(self) -> pd.DataFrame:
        """One row per layer, token and word: layer, position, token, place (from 1), word, id, probability."""
        return pd.DataFrame(
            [
                (layer, position, token, place + 1, word, int(number), float(share))
                for layer, words, ids, shares in zip(
                    self.layers, self.words, self.ids, self.probabilities, strict=True
                )
                for position, token in enumerate(self.tokens)
                for place, (word, number, share) in enumerate(
                    zip(words[position], ids[position], shares[position], strict=True)
                )
            ],
            columns=["layer", "position", "token", "place", "word", "id", "probability"],
        )

    def __repr__(self) -> str:
        last = ", ".join(f"{word!r} {share:.2g}" for word, share in self.top(layer=self.layers[-1], position=-1))
        return (
            f"PromptLens({self.label}; {len(self.layers)} layers, {len(self.tokens)} tokens; "
            f"at the last of both: {last})"
        )

    def _repr_html_(self) -> str:
        hovers = [
            [
                ", ".join(f"{word!r} {share:.3g}" for word, share in self.top(layer=layer, position=place))
                for place in range(len(self.tokens))
            ]
            for layer in self.layers
        ]
        first = [[token_html(words[0], breaks=False) for words in row] for row in self.words]
        heads = [token_html(token, breaks=False) for token in self.tokens]
        drawn = word_map(
            [str(layer) for layer in self.layers], heads, first, self.probabilities[..., 0].tolist(),
            hovers=hovers, pale=self.special,
        )  # fmt: skip
        return display(self.label, note("layers by tokens; the stronger the colour, the more probable"), drawn)


@numbers_checked
def logit_lens(
    model: HookedModel,
    text: Text,
    *,
    k: int = 3,
    layers: Sequence[int] | None = None,
    lens: JacobianLens | None = None,
    progress: bool = True,
) -> PromptLens:
    """The `k` top words of the residual behind every layer at every token, as `readout` gives them.

    With a Jacobian `lens`, through its Jacobians, at the layers that it has and the last; `layers` chooses others.

    Raises:
        ModelError, ValueError: as `readout`; a text that is empty or fills the model's context, a layer outside
            the model, or residuals that are not finite.
    """
    if lens is None:
        return read_prompt(
            model, text, k=k, layers=layers, label="logit lens", moved=lambda acts, layer: acts, progress=progress
        )
    require_jacobian_lens(model, lens)
    if layers is None:
        layers = [*sorted(lens.jacobians), int(model.cfg.n_layers) - 1]

    def moved(acts: Tensor, layer: int) -> Tensor:
        return to_last_layer(model, lens, acts, layer=layer)

    return read_prompt(model, text, k=k, layers=layers, label="Jacobian lens", moved=moved, progress=progress)


def read_prompt(
    model: HookedModel,
    text: Text,
    *,
    k: int,
    layers: Sequence[int] | None,
    label: str,
    moved: Callable[[Tensor, int], Tensor],
    progress: bool = True,
) -> PromptLens:
    """A lens over a text: what `moved(residuals, layer)` says through the final norm and the unembedding.

    Raises:
        ModelError: the model has no final norm and unembedding.
        ValueError: an empty text or one that fills the context, no layers or one outside the model, `k` outside
            1 to the size of the vocabulary, residuals that are not finite, or a model without a tokenizer.
    """
    text = as_text(model, text)
    if not text.strip():
        raise ValueError("the text is empty; give at least one word")
    chosen = _layers(model, layers)
    n_words = int(model.cfg.d_vocab)
    if not 1 <= k <= n_words:
        raise ValueError(f"k is {k}; allowed are 1 to {n_words}, the size of the vocabulary")
    ids = whole_text_ids(model, text)
    tokens = decoded(model.tokenizer, torch.tensor(ids, device=HOST))
    names = {layer: block_hook(layer) for layer in chosen}
    kept = kept_residuals(model, [ids], names.values(), read=lambda _, residual: residual[0].detach())
    with ProgressBar(label, total=len(names), progress=progress) as bar:
        tops = [_top_words(model, moved(kept[name], layer), k) for layer, name in bar.over(names.items())]
    special = special_ids(model.tokenizer)
    numbers = torch.stack([top for top, _ in tops])
    unique = sorted(set(numbers.flatten().tolist()))
    spelled = dict(zip(unique, decoded(model.tokenizer, torch.tensor(unique, device=HOST)), strict=True))
    return PromptLens(
        label=label,
        tokens=tokens,
        layers=chosen,
        words=tuple(tuple(tuple(spelled[one] for one in cell) for cell in row) for row in numbers.tolist()),
        ids=numbers,
        probabilities=torch.stack([shares for _, shares in tops]),
        special=tuple(place for place, token in enumerate(ids) if token in special),
    )


def _layers(model: HookedModel, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(int(model.cfg.n_layers)))
    given = as_tuple(layers, "layers")
    if not given:
        raise ValueError("no layers were given; give some, or None for all")
    return tuple(sorted({layer_number(model, layer) for layer in given}))


def _top_words(model: HookedModel, states: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and probabilities of the `k` most probable words of each row, on the CPU."""
    tops = [torch.topk(logits.log_softmax(-1), k) for _, logits in lens_logits(model, states)]
    ids = torch.cat([top.indices for top in tops]).cpu()
    return ids, torch.cat([top.values for top in tops]).exp().cpu()
