"""How far a step in the last residual moves the distribution of the next token: the Fisher information metric."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.errors import ModelError
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.models.hooking import hooked_pass, without_gradients
from lrc_tl.models.unembedding import lens_logits, require_unembedding
from lrc_tl.numerics.precision import HOST, wide_of

MOST_TOKENS = 1000
"""Likeliest next tokens that count at each residual."""
MOST_RESIDUALS = 64
"""Residuals that the mean is taken over; of more, as many are taken at even distances."""
_TOKENS_OF_A_LOOK = 3
_MOST_OF_CAP = 0.9999
_TOLERANCE = 0.05
"""Relative, of logits that the unembedding's rows must give back; 16-bit models round."""


@checked
def next_token_metric(
    model: HookedModel, states: Float[Tensor, "row d_model"]
) -> Float[Tensor, "d_model d_model"]:
    """The mean Fisher information of the next token at residuals of the last layer, in float64 on the CPU.

    `G = E[J^T (diag(p) - p p^T) J]`, `J` from a residual to its logits through the model's final norm, its
    unembedding and what scales or caps its logits, `p` the distribution of the next token. A small step `d` makes
    a KL divergence of about `d^T G d / 2` nats. The Fisher metric of arXiv:2605.17231.

    Raises:
        ModelError: the model has no final norm and unembedding of its width, or its unembedding is not a matrix.
        ValueError: no states, states of another width, or such that are not finite.
    """
    if not len(states):
        raise ValueError("no residuals to take the metric at; give at least one")
    if len(states) > MOST_RESIDUALS:
        states = states[torch.linspace(0, len(states) - 1, MOST_RESIDUALS, device=states.device).long()]
    require_unembedding(model, states)
    total: Tensor | None = None
    rows_of = _unembedding_of(model, states[:1])
    cap = float(getattr(model.cfg, "output_logits_soft_cap", None) or 0.0)
    factor = _factor_of_logits(model, cap)
    for batch, unembedded in lens_logits(model, states):
        scaled = factor * unembedded
        logits = cap * (scaled / cap).tanh() if cap > 0 else scaled
        likely, tokens = logits.softmax(-1).topk(min(MOST_TOKENS, logits.shape[-1]))
        slopes = 1 - (logits.gather(-1, tokens) / cap).square() if cap > 0 else torch.ones_like(likely)
        slopes = factor * slopes
        for state, p, ids, slope in zip(states[batch], likely, tokens, slopes, strict=True):
            gradients = slope[:, None] * _through_norm(model, state, rows_of(ids))
            p = p / p.sum()
            spread = p.sqrt()[:, None] * (gradients - p @ gradients)
            total = spread.T @ spread if total is None else total.addmm_(spread.T, spread)
    assert total is not None
    return total.to(HOST).double() / len(states)


def _factor_of_logits(model: HookedModel, cap: float) -> float:
    """What the model multiplies the logits of its unembedding by, as Cohere and Granite do, seen in one pass."""
    kept: list[Tensor] = []
    # From the middle of the vocabulary, where no token stands for padding.
    ids = int(model.cfg.d_vocab) // 2 + torch.arange(_TOKENS_OF_A_LOOK, device=model.cfg.device)[None]
    keeping = (hook_name(model, int(model.cfg.n_layers) - 1), lambda residual, hook: kept.append(residual[0, -1:]))
    own = without_gradients(lambda: hooked_pass(model, ids, fwd_hooks=[keeping]))
    ((_, unembedded),) = lens_logits(model, kept[0].detach())
    own = wide_of(own[0, -1]).to(unembedded)
    if cap > 0:
        own = cap * (own / cap).clamp(-_MOST_OF_CAP, _MOST_OF_CAP).atanh()
    own, unembedded = own - own.mean(), unembedded[0] - unembedded[0].mean()
    factor = float((own * unembedded).sum() / unembedded.square().sum())
    return 1.0 if abs(factor - 1) < _TOLERANCE else factor


def _through_norm(model: HookedModel, state: Tensor, rows: Tensor) -> Tensor:
    """Each row times the Jacobian of the final norm at the state, in float32 or wider."""
    norm = getattr(model, "ln_final", None)
    if norm is None:
        return wide_of(rows)
    with torch.inference_mode(False), torch.enable_grad():
        copies = state.detach().to(device=rows.device, dtype=rows.dtype).repeat(len(rows), 1).requires_grad_(True)
        (gradients,) = torch.autograd.grad(norm(copies[None])[0], copies, rows.clone())
    return wide_of(gradients)


def _unembedding_of(model: HookedModel, state: Tensor) -> Callable[[Int[Tensor, " token"]], Tensor]:
    """Gives the unembedding's rows of tokens, after a look whether it is the matrix that it seems to be."""
    unembed: Any = model.unembed  # type: ignore[attr-defined]
    width = state.shape[1]
    first = next(unembed.parameters())
    probe = torch.zeros(1, 2, width, dtype=first.dtype, device=first.device)
    probe[0, 1] = (state[0] / state[0].norm().clamp_min(torch.finfo(state.dtype).tiny)).to(probe)
    with torch.no_grad():
        logits = wide_of(unembed(probe)[0])
        moved = logits[1] - logits[0]
        for weight in unembed.parameters():
            if weight.ndim != 2 or not weight.is_floating_point() or width not in weight.shape:
                continue
            for rows in (weight, weight.T):
                if rows.shape[1] != width or len(rows) != len(moved):
                    continue
                expected = wide_of(rows @ probe[0, 1])
                if float((expected - moved).norm()) <= _TOLERANCE * float(moved.norm()):
                    return lambda tokens, rows=rows: rows.detach()[tokens]  # type: ignore[misc]
    raise ModelError(
        f"the unembedding of this {type(model).__name__} is no matrix in a float dtype, so that the metric of its "
        "next token cannot be taken; load the model without quantised weights"
    )
