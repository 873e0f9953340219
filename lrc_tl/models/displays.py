"""How a fingerprint shows itself in a notebook."""

from typing import TYPE_CHECKING

from lrc_tl.markup.fragments import display
from lrc_tl.markup.tables import pairs

if TYPE_CHECKING:
    from lrc_tl.models.fingerprint import ModelFingerprint


def fingerprint_html(self: "ModelFingerprint") -> str:
    """The display of a fingerprint: what must match, and what is recorded."""
    norms = ", ".join(f"layer {layer}: {numbers[0]:.4g}" for layer, numbers in self.behaviour.items())
    return display(
        f"Fingerprint of {self.name}",
        pairs(
            {
                "layers": self.n_layers,
                "width": self.d_model,
                "vocabulary": self.d_vocab,
                "weights": self.processing,
                "tokenizer": self.tokenizer,
                "beginning of sequence": self.bos,
                "residual norms": norms,
                "class": f"{self.model_class}, TransformerLens {self.transformer_lens}, torch {self.torch}",
                "run in": f"{self.dtype} on {self.device}",
            }
        ),
    )


def fingerprint_text(self: "ModelFingerprint") -> str:
    """One line: the model and how it was run."""
    return (
        f"ModelFingerprint({self.name}: {self.n_layers} layers, d_model {self.d_model}, d_vocab {self.d_vocab}, "
        f"{self.processing} weights, {self.model_class}, {self.dtype} on {self.device})"
    )
