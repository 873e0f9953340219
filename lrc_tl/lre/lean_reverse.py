"""HookedTransformer with a shorter reverse pass: norms, activation functions and rotations in closed form.

HookedTransformer writes these as many small tensor operations, each of which the reverse pass repeats on a
gradient of all rows: together they take as long as the matrix products. In closed form each goes over the gradient
one to four times. The values are the same, and hooks see what they always see. 3.9 is the last TransformerLens
with HookedTransformer, so what is replaced here will not change.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_tl.lre.mlp_jacobian import use_mlp_jacobian
from lrc_tl.models.hooked_model import HookedModel, is_hooked_transformer
from lrc_tl.models.hooking import Block, Session, acting_hooks, replace_for
from lrc_tl.numerics.precision import wide_of

_ELEMENTWISE = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "relu")


def lean_reverse(model: HookedModel, layers: Sequence[int], *, mlp_jacobians: bool = False) -> Block:
    """Inside the block these layers give the same values and the same gradients for activations, sooner.

    Their norms give no gradients for weights, nor do their MLPs with `mlp_jacobians`. A norm or MLP with a hook in
    it stays as it is, and so does a TransformerBridge. For a pass in this thread's turn with the model.
    """

    def put_on(session: Session) -> None:
        if not is_hooked_transformer(model):
            return
        for layer in layers:
            block = model.blocks[layer]
            if mlp_jacobians and model.cfg.act_fn in _ELEMENTWISE:
                use_mlp_jacobian(session, block, is_plain_norm=_is_plain_norm)
            for norm in filter(_is_plain_norm, block.modules()):
                replace_for(session, norm, "forward", _norm(norm))
            mlp = getattr(block, "mlp", None)
            # A mixture of experts has none of its own.
            if mlp is not None and hasattr(mlp, "act_fn") and model.cfg.act_fn in _ELEMENTWISE:
                replace_for(session, mlp, "act_fn", _elementwise(mlp.act_fn))
            if model.cfg.positional_embedding_type == "rotary":
                replace_for(session, block.attn, "apply_rotary", _rotary(block.attn))

    return Block(put_on)


def _is_plain_norm(module: Any) -> bool:
    from transformer_lens.components import RMSNorm

    return (
        type(module) is RMSNorm
        and "forward" not in module.__dict__
        and not any(acting_hooks(part) for part in (module, module.hook_scale, module.hook_normalized))
    )


class _Norm(torch.autograd.Function):
    """`w * y` with `y = x / s` and `s = sqrt(mean(x^2) + eps)`; y in float32 or wider, then in the dtype of w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = wide_of(x)
        scale = (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        normalized = wide / scale
        ctx.save_for_backward(normalized, weight / scale)
        ctx.dtype = x.dtype
        return normalized.to(weight.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # dx = (I - y y^T / n) (w g / s)
        normalized, slope = ctx.saved_tensors
        straight = gradients[0] * slope
        along = (straight * normalized).mean(-1, keepdim=True)
        return torch.addcmul(straight, normalized, along, value=-1).to(ctx.dtype), None, None


_normed: Callable[..., Tensor] = _Norm.apply


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    last: list[Tensor] = []

    def forward(x: Tensor) -> Tensor:
        # A block calls the same norm with the same tensor once each for queries, keys and values.
        if not last or last[0] is not x:
            last[:] = x, _normed(x, module.w, module.eps)
        return last[1]

    return forward


class _Elementwise(torch.autograd.Function):
    """`f(x)`, each element on its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value = function(leaf)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        ctx.save_for_backward(slope)
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


_each: Callable[..., Tensor] = _Elementwise.apply


def _elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def act_fn(x: Tensor) -> Tensor:
        return _each(x, function)

    return act_fn


class _Rotary(torch.autograd.Function):
    """Pairs of coordinates, each turned by an angle of its own: linear, so two probes give the whole map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotate: Callable[[Tensor], Tensor], pairs: int, adjacent: bool) -> Tensor:
        first, second = torch.zeros(2, *x.shape[:2], 1, x.shape[3], dtype=x.dtype, device=x.device)
        _halves(first, pairs, adjacent)[0].fill_(1)
        _halves(second, pairs, adjacent)[1].fill_(1)
        ctx.save_for_backward(rotate(first), rotate(second))
        ctx.pairs, ctx.adjacent = pairs, adjacent
        return rotate(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        first, second = _halves(gradients[0], ctx.pairs, ctx.adjacent)
        turned = []
        for image in ctx.saved_tensors:
            along, across = _halves(image, ctx.pairs, ctx.adjacent)
            turned.append(torch.addcmul(first * along, second, across))
        joined = torch.stack(turned, -1).flatten(-2) if ctx.adjacent else torch.cat(turned, -1)
        beyond = gradients[0][..., 2 * ctx.pairs :]
        return torch.cat([joined, beyond], -1) if beyond.shape[-1] else joined, None, None, None


_turned: Callable[..., Tensor] = _Rotary.apply


def _halves(x: Tensor, pairs: int, adjacent: bool) -> tuple[Tensor, Tensor]:
    if adjacent:
        return x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]
    return x[..., :pairs], x[..., pairs : 2 * pairs]


def _rotary(attention: Any) -> Callable[..., Tensor]:
    rotate = attention.apply_rotary
    pairs = int(attention.cfg.rotary_dim) // 2
    adjacent = bool(attention.cfg.rotary_adjacent_pairs)

    def apply_rotary(x: Tensor, past_kv_pos_offset: int = 0, attention_mask: Tensor | None = None) -> Tensor:
        def whole(coordinates: Tensor) -> Tensor:
            rotated: Tensor = rotate(coordinates, past_kv_pos_offset, attention_mask)
            return rotated

        return _turned(x, whole, pairs, adjacent)

    return apply_rotary
