"""Whether a model is causal, and computes in TransformerLens what it does in transformers: seen at loading."""

from contextvars import Context
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from lrc_tl.errors import ModelError
from lrc_tl.models.fingerprint import FIXED_TEXT
from lrc_tl.models.hooked_model import HookedModel, is_bridge
from lrc_tl.models.hooking import hooked_pass, without_gradients
from lrc_tl.numerics.precision import HOST, wide_of

_OTHER_CODE, _OTHER_ROW = (1e-3, 32), (1e-5, 8)
"""Relative differences that are none: in float32 and wider, and in roundings of a narrower model."""
_WRONG_IN_TRANSFORMER_LENS_3 = ("CohereForCausalLM",)
"""Architectures whose attention the Bridge computes otherwise there; models of such a folder are compared."""


def probes(tokenizer: Any) -> Tensor:
    """A short text as ids, and the same with another last token: two rows."""
    ids = torch.tensor([tokenizer(FIXED_TEXT)["input_ids"]], device=HOST).repeat(2, 1)
    last = int(ids[1, -1])
    ids[1, -1] = last - 1 if last else 1
    return ids


def plain_logits(hf_model: Any, ids: Tensor) -> Tensor:
    """Logits of a model of transformers that TransformerLens left alone, `2 pos d_vocab` in float32 or wider."""
    hf_model.eval()

    def run() -> Tensor:
        logits: Tensor = hf_model(input_ids=ids.to(hf_model.device), use_cache=False).logits
        return logits

    return wide_of(without_gradients(run))


def own_logits(model: HookedModel, ids: Tensor) -> Tensor:
    """The same of a model of TransformerLens."""
    ids = ids.to(model.cfg.device)

    def run() -> Tensor:
        logits: Tensor = hooked_pass(model, ids, fwd_hooks=[], attention_mask=torch.ones_like(ids))
        return logits

    return wide_of(Context().run(run))  # where no steering of ours is on


def require_causal(logits: Tensor, *, what: str, dtype: torch.dtype) -> None:
    """Go on where a changed last token (`probes`) changes nothing before it.

    Raises:
        ModelError: it does, as in BERT, where every activation depends on what follows.
    """
    if _differ(logits[0, :-1], logits[1, :-1], dtype, _OTHER_ROW):
        raise ModelError(
            f"{what} is not causal: what it holds at a token depends on the tokens behind it, so nothing can be "
            "read, fitted or steered there; load a causal language model"
        )


def require_agreement(logits: Tensor, expected: Tensor, *, what: str, dtype: torch.dtype) -> None:
    """Go on where TransformerLens has the logits that transformers has for the same weights.

    Raises:
        ModelError: it has others, so that what is found in its model is not in the real one.
    """
    if _differ(logits, expected.to(logits), dtype, _OTHER_CODE):
        raise ModelError(
            f"TransformerLens {version('transformer-lens')} computes other logits for {what} than transformers "
            f"(relative difference {_distance(logits, expected.to(logits)):.2g}), so this model cannot be used "
            "with it; take another version of TransformerLens or the other backend"
        )


def require_known_right(model: HookedModel, *, what: str) -> None:
    """Go on unless this TransformerLens is known to compute the architecture otherwise than transformers does.

    Raises:
        ModelError: it is, by name.
    """
    if not is_bridge(model):
        return
    architecture = type(model.original_model).__name__
    if version("transformer-lens").startswith("3.") and architecture in _WRONG_IN_TRANSFORMER_LENS_3:
        raise ModelError(
            f"TransformerLens {version('transformer-lens')} computes {architecture} ({what}) otherwise than "
            "transformers does; install transformer-lens 4.3 or newer for it"
        )


def require_decoder(config: Any, *, what: str) -> None:
    """Go on unless the configuration is that of a model with an encoder of its own.

    Raises:
        ModelError: it is, by name.
    """
    if getattr(config, "is_encoder_decoder", False):
        names = getattr(config, "architectures", None) or [type(config).__name__]
        raise ModelError(f"{what} is a {names[0]}, which has an encoder; load a causal language model (a decoder)")


def _distance(logits: Tensor, expected: Tensor) -> float:
    return float((logits - expected).norm() / expected.norm())


def _differ(logits: Tensor, expected: Tensor, dtype: torch.dtype, allowed: tuple[float, int]) -> bool:
    # Numbers that are not finite are reported by what looks for them.
    if not bool(logits.isfinite().all() and expected.isfinite().all()):
        return False
    return _distance(logits, expected) > max(allowed[0], allowed[1] * torch.finfo(dtype).eps)
