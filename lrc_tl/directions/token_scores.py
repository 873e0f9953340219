"""The score of every token of a text, which a notebook or a terminal shows in colours."""

from dataclasses import dataclass
from html import escape

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.directions.probe import Probe, Score
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.batches import kept_residuals, whole_text_ids
from lrc_tl.relations.special_tokens import special_ids

_POSITIVE, _NEGATIVE = "255, 140, 0", "70, 130, 255"


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenScores:
    """A score for every token of a text; it shows itself in a notebook.

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
        if len(self.tokens) != self.scores.shape[0]:
            raise ValueError(f"{len(self.tokens)} tokens but {self.scores.shape[0]} scores")
        if outside := [place for place in self.special if not 0 <= place < len(self.tokens)]:
            raise ValueError(f"special tokens at {outside}, but there are {len(self.tokens)} tokens")

    @property
    def scale(self) -> float:
        """The largest absolute score of a word, which gets the full colour; 0 for a text without words."""
        words = [abs(score) for place, score in enumerate(self.scores.tolist()) if place not in self.special]
        return max(words, default=0.0)

    def __repr__(self) -> str:
        width = max((len(repr(token)) for token in self.tokens), default=0)
        lines = [
            f"{token!r:<{width}} {score:>+12.4g}"
            for token, score in zip(self.tokens, self.scores.tolist(), strict=True)
        ]
        return "\n".join([self.label, *lines])

    def _repr_html_(self) -> str:
        scale = self.scale or 1.0
        spans = []
        for place, (token, score) in enumerate(zip(self.tokens, self.scores.tolist(), strict=True)):
            special = place in self.special
            share = 0.0 if special else min(abs(score) / scale, 1.0)
            colour = _POSITIVE if score >= 0 else _NEGATIVE
            style = f"background: rgba({colour}, {share:.3f}); white-space: pre-wrap"
            if special:
                style += "; opacity: 0.5"
            spans.append(f'<span style="{style}" title="{score:+.4g}">{escape(token)}</span>')
        return f"<div><b>{escape(self.label)}</b> (largest: {self.scale:.4g})<br>{''.join(spans)}</div>"


def token_scores(probe: Probe, score: Score, model: HookedModel, text: str, *, label: str) -> TokenScores:
    """The score of every token of `text`, special tokens included and marked; `score` is that of the probe.

    Raises:
        FingerprintMismatch: the probe was made on another model.
        LookupError: the model has no such hook point.
        ValueError: `text` is empty or fills the model's context, the model is of another width, or its residuals
            are not finite.
    """
    if not text.strip():
        raise ValueError("the text is empty; give at least one word")
    probe.require_model(model)
    ids = whole_text_ids(model, text)
    kept = kept_residuals(model, [ids], [probe.hook_name], read=lambda _, residual: residual[0].detach())
    scores = score(kept[probe.hook_name])
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"the residuals at {probe.hook_name} are not finite; load the model in float32")
    special = special_ids(model.tokenizer)
    return TokenScores(
        label=label,
        tokens=decoded(model.tokenizer, torch.tensor(ids, device=HOST)),
        scores=scores.cpu(),
        special=tuple(place for place, token in enumerate(ids) if token in special),
    )


def decoded(tokenizer: object, ids: Tensor) -> tuple[str, ...]:
    """Each token as text."""
    decode = getattr(tokenizer, "decode", None)
    if decode is None:
        raise ValueError("the model has no tokenizer, so its tokens cannot be shown")
    return tuple(decode([token]) for token in torch.as_tensor(ids, device=HOST).tolist())
