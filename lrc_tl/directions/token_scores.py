"""The score of every token of a text, of one concept or of several, which a notebook or a terminal shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.near_names import near_names
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.probe import Probe, Score
from lrc_tl.markup.fragments import display
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.markup.token_text import legend, rows_under_text, running_text
from lrc_tl.models.chat import Text, as_texts
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.batches import kept_residuals, length_batches, whole_text_ids
from lrc_tl.relations.special_tokens import special_ids

_MOST_ROWS = 12
"""Concepts under one text: those that reach the highest scores."""
_MOST_TOKENS = 5
"""That `repr` names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenScores:
    """A score for every token of a text; it shows itself in a notebook, and `print` writes every token.

    Raises:
        ValueError: not one token per score, or special tokens that are not there.
    """

    label: str
    tokens: tuple[str, ...]
    scores: Float[Tensor, " pos"]
    """In residual-stream units."""
    special: tuple[int, ...] = ()
    """Places of the tokens that stand for no words; their scores do not stretch the colour scale."""

    def __post_init__(self) -> None:
        _require_tokens(self.tokens, self.scores, self.special)

    @property
    def scale(self) -> float:
        """The largest absolute score of a word, which gets the full colour; 0 for a text without words."""
        return _largest(self.scores, self.special)

    def __len__(self) -> int:
        return len(self.tokens)

    def __str__(self) -> str:
        width = max((len(repr(token)) for token in self.tokens), default=0)
        lines = [
            f"{token!r:<{width}} {score:>+12.4g}"
            for token, score in zip(self.tokens, self.scores.tolist(), strict=True)
        ]
        return "\n".join([self.label, *lines])

    def __repr__(self) -> str:
        words = [place for place in range(len(self.tokens)) if place not in self.special]
        best = sorted(words, key=lambda place: -float(self.scores[place]))[:_MOST_TOKENS]
        highest = ", ".join(f"{self.tokens[place]!r} {float(self.scores[place]):+.4g}" for place in best)
        return f"TokenScores({self.label}; {len(self.tokens)} tokens, highest: {highest})"

    def to_frame(self) -> pd.DataFrame:
        """One row per token: token, score, special."""
        return pd.DataFrame(
            {
                "token": list(self.tokens),
                "score": self.scores.tolist(),
                "special": [place in self.special for place in range(len(self.tokens))],
            }
        )

    def _repr_html_(self) -> str:
        text = running_text(self.tokens, self.scores.tolist(), scale=self.scale, special=self.special)
        return display(self.label, legend(self.scale), text)


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptScores:
    """A score of every concept of a set for every token of a text: rows under the text in a notebook.

    Raises:
        ValueError: not one token per row of scores, or not one concept per column.
    """

    label: str
    tokens: tuple[str, ...]
    concepts: tuple[str, ...]
    scores: Float[Tensor, "pos concept"]
    """In the units of `ConceptSet.scores`."""
    special: tuple[int, ...] = ()
    """Places of the tokens that stand for no words; their scores do not stretch the colour scale."""

    def __post_init__(self) -> None:
        _require_tokens(self.tokens, self.scores, self.special)
        if len(self.concepts) != self.scores.shape[1]:
            raise ValueError(f"{len(self.concepts)} concepts but {self.scores.shape[1]} columns of scores")

    @property
    def scale(self) -> float:
        """The largest absolute score of a word, over all concepts; 0 for a text without words."""
        return _largest(self.scores, self.special)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, concept: str) -> TokenScores:
        """The scores of one concept.

        Raises:
            KeyError: there is no such concept; the text has near names.
        """
        if concept not in self.concepts:
            near = near_names(concept, self.concepts) or self.concepts[:8]
            raise KeyError(f"no concept {concept!r}; there are {', '.join(near)}")
        return TokenScores(
            label=f"{self.label}: {concept}",
            tokens=self.tokens,
            scores=self.scores[:, self.concepts.index(concept)],
            special=self.special,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per token, one column per concept; the index holds the tokens."""
        index = pd.Index(list(self.tokens), name="token")
        return pd.DataFrame(self.scores.numpy(), index=index, columns=list(self.concepts))

    @numbers_checked
    def highest(self, n: int) -> tuple[str, ...]:
        """The `n` concepts whose largest score on a word is the highest, in the order of the set."""
        words = [place for place in range(len(self.tokens)) if place not in self.special]
        if not words or n >= len(self.concepts):
            return self.concepts[:n]
        places = self.scores[words].amax(0).topk(n).indices.tolist()
        return tuple(self.concepts[place] for place in sorted(places))

    def __repr__(self) -> str:
        return f"ConceptScores({self.label}; {len(self.tokens)} tokens, {len(self.concepts)} concepts)"

    def _repr_html_(self) -> str:
        scale, chosen = self.scale, self.highest(_MOST_ROWS)
        rows = {name: self.scores[:, self.concepts.index(name)].tolist() for name in chosen}
        under = rows_under_text(self.tokens, rows, scales=dict.fromkeys(rows, scale), special=self.special)
        few = "" if len(chosen) == len(self.concepts) else f" (the {len(chosen)} highest)"
        return display(f"{self.label}: {len(self.concepts)} concepts{few}", legend(scale), under)


def token_scores(probe: Probe, score: Score, model: HookedModel, text: Text, *, label: str) -> TokenScores:
    """The score of every token of `text`, special tokens included and marked; `score` is that of the probe.

    Raises:
        FingerprintMismatch: the probe was made on another model.
        LookupError: the model has no such hook point.
        ValueError: `text` is empty or fills the model's context, the model is of another width, or its residuals
            are not finite.
    """
    ((tokens, scores, special),) = scores_of_texts(probe, score, model, [text], progress=False)
    return TokenScores(label=label, tokens=tokens, scores=scores, special=special)


_OfText = tuple[tuple[str, ...], Tensor, tuple[int, ...]]
"""Tokens, their scores, and the places of special tokens."""


def scores_of_texts(
    probe: Probe, score: Score, model: HookedModel, texts: Sequence[Text], *, progress: bool = True
) -> list[_OfText]:
    """For each text its tokens, their scores, and the places of special tokens; see `token_scores`."""
    texts = as_texts(model, texts, "texts")
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("the text is empty; give at least one word")
    probe.require_model(model)
    sequences = [whole_text_ids(model, text) for text in texts]
    special = special_ids(model.tokenizer)
    with ProgressBar("scores", total=len(texts), progress=progress) as bar:
        of_texts = dict(bar.over(_by_text(probe, score, model, sequences)))
    return [
        (
            decoded(model.tokenizer, torch.tensor(ids, device=HOST)),
            of_texts[number],
            tuple(place for place, token in enumerate(ids) if token in special),
        )
        for number, ids in enumerate(sequences)
    ]


def _by_text(
    probe: Probe, score: Score, model: HookedModel, sequences: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Tensor]]:
    for rows in length_batches([len(sequence) for sequence in sequences]):
        batch = [sequences[row] for row in rows]
        kept = kept_residuals(model, batch, [probe.hook_name], read=lambda _, residual: residual.detach())
        for row, residual in zip(rows, kept[probe.hook_name], strict=True):
            own = residual[: len(sequences[row])]
            if not bool(torch.isfinite(own).all()):
                raise ValueError(f"the residuals at {probe.hook_name} are not finite; load the model in float32")
            yield row, score(own).cpu()


def _require_tokens(tokens: Sequence[str], scores: Tensor, special: Sequence[int]) -> None:
    if len(tokens) != scores.shape[0]:
        raise ValueError(f"{len(tokens)} tokens but {scores.shape[0]} scores")
    if outside := [place for place in special if not 0 <= place < len(tokens)]:
        raise ValueError(f"special tokens at {outside}, but there are {len(tokens)} tokens")


def _largest(scores: Tensor, special: Sequence[int]) -> float:
    words = torch.ones(len(scores), dtype=torch.bool, device=HOST)
    words[list(special)] = False
    return float(scores.to(HOST)[words].abs().max()) if bool(words.any()) and scores.numel() else 0.0


def decoded(tokenizer: object, ids: Tensor) -> tuple[str, ...]:
    """Each token as text."""
    decode = getattr(tokenizer, "decode", None)
    if decode is None:
        raise ValueError("the model has no tokenizer, so its tokens cannot be shown")
    return tuple(decode([token]) for token in torch.as_tensor(ids, device=HOST).tolist())
