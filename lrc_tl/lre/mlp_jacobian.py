"""MLPs of HookedTransformer whose reverse pass is one product with their Jacobian at each position.

An MLP acts on each position alone, so its Jacobian there is one matrix as wide as the residual stream. Making it
takes one product of the MLP's weights, which is what `d_model` rows of gradients take on one of the two or three
weights on their way through the MLP. After that every row, from whatever object layer, takes one product with the
Jacobian in place of those. The norms before and after the MLP are made part of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import Session, acting_hooks, replace_for
from lrc_tl.numerics.precision import wide_of

Value = Callable[[Tensor], Tensor]


def is_worth_it(model: HookedModel, n_rows: int) -> bool:
    """Whether `n_rows` rows of gradients take fewer multiplications with the MLP's Jacobian than without it."""
    d_model, d_mlp = int(model.cfg.d_model), int(getattr(model.cfg, "d_mlp", None) or 0)
    if model.cfg.attn_only or not d_mlp:
        return False
    n_matrices = 3 if getattr(model.cfg, "gated_mlp", False) else 2
    return pays(n_rows, d_model=d_model, d_mlp=d_mlp, mlp_weights=n_matrices * d_model * d_mlp)


def pays(n_rows: int, *, d_model: int, d_mlp: int, mlp_weights: int) -> bool:
    """The same of a model of these sizes."""
    return n_rows * (mlp_weights - d_model * d_model) > d_model * d_model * d_mlp


def bytes_kept(model: HookedModel, n_places: int) -> int:
    """What so many Jacobians, one for each layer and position, take until the graph is gone."""
    width: int = max(parameter.element_size() for parameter in model.parameters())
    return n_places * int(model.cfg.d_model) ** 2 * width


def use_mlp_jacobian(session: Session, block: Any, *, is_plain_norm: Callable[[Any], bool]) -> None:
    """Give the block's MLP the shorter reverse pass, until the session closes.

    An MLP of another kind, or with a hook in it, stays as it is, and so does a norm that is not plain.
    """
    mlp: Any = getattr(block, "mlp", None)
    if type(mlp).__name__ not in ("MLP", "GatedMLP") or "forward" in mlp.__dict__:
        return
    if mlp.cfg.is_layer_norm_activation() or any(acting_hooks(module) for module in mlp.modules()):
        return
    norms = [getattr(block, name, None) if _is_around(block, name) else None for name in ("ln2", "ln2_post")]
    before, after = (norm if norm is not None and is_plain_norm(norm) else None for norm in norms)
    steps = [module.forward for module in (before, mlp, after) if module is not None]
    at = partial(_MlpAt.of, mlp, before, after)
    replace_for(session, mlp, "forward", lambda x: _applied(x, steps, at))
    for norm in (before, after):
        if norm is not None:  # the MLP does its work
            replace_for(session, norm, "forward", lambda x: x)


def _is_around(block: Any, name: str) -> bool:
    """Whether this norm of the block gives to the MLP alone, or takes from it alone."""
    from transformer_lens.components.transformer_block import POST_NORM_ARCHITECTURES

    if block.cfg.parallel_attn_mlp or block.cfg.original_architecture in POST_NORM_ARCHITECTURES:
        return False
    return name == "ln2" or bool(block.cfg.use_normalization_before_and_after)


@dataclass(frozen=True, kw_only=True)
class _NormAt:
    """A norm at one position: `w * y` with `y = x / s`, so that its Jacobian is `diag(w / s) (I - y y^T / n)`."""

    normalized: Tensor
    slope: Tensor
    """`w / s`."""

    @classmethod
    def of(cls, norm: Any, x: Tensor) -> "_NormAt":
        wide = wide_of(x)
        scale = (wide.pow(2).mean() + norm.eps).sqrt()
        return cls(normalized=wide / scale, slope=norm.w / scale)

    def before(self, transposed: Tensor) -> Tensor:
        """The transposed Jacobian of what follows the norm (`d_in d_out`), with the norm before it."""
        straight = self.slope[:, None] * transposed
        return straight - torch.outer(self.normalized, self.normalized @ straight) / len(self.normalized)

    def after(self, transposed: Tensor) -> Tensor:
        """The transposed Jacobian of what the norm follows, with the norm after it."""
        along = torch.outer(transposed @ self.normalized, self.normalized) / len(self.normalized)
        return (transposed - along) * self.slope


@dataclass(frozen=True, kw_only=True)
class _MlpAt:
    """An MLP and the plain norms around it at one position, as far as their Jacobian needs them."""

    mlp: Any
    by_gate: Tensor
    """Slope of what the output weights are given, by the input of the activation function."""
    by_linear: Tensor | None
    """The same by the linear input, where the MLP is gated."""
    before: _NormAt | None
    after: _NormAt | None

    @classmethod
    def of(cls, mlp: Any, norm_before: Any, norm_after: Any, x: Tensor) -> "_MlpAt":
        """For the residual at one position."""
        before = None if norm_before is None else _NormAt.of(norm_before, x)
        normed = x if before is None else before.normalized.to(x.dtype) * norm_before.w
        gate = getattr(mlp, "W_gate", None)
        if gate is None:
            hidden, by_gate = _with_slope(mlp.act_fn, normed @ mlp.W_in + mlp.b_in)
            by_linear = None
        else:
            by_linear, slope = _with_slope(mlp.act_fn, normed @ gate)
            linear = normed @ mlp.W_in
            hidden, by_gate = by_linear * linear + mlp.b_in, slope * linear
        after = None if norm_after is None else _NormAt.of(norm_after, hidden @ mlp.W_out + mlp.b_out)
        return cls(mlp=mlp, by_gate=by_gate, by_linear=by_linear, before=before, after=after)

    def transposed_jacobian(self) -> Tensor:
        """`d out / d x`, transposed: `d_in d_out`, in the dtype of the weights."""
        mlp = self.mlp
        if self.by_linear is None:
            weight = mlp.W_in * self.by_gate
        else:
            weight = torch.addcmul(mlp.W_gate * self.by_gate, mlp.W_in, self.by_linear)
        narrow = weight @ mlp.W_out
        transposed = wide_of(narrow)
        if self.before is not None:
            transposed = self.before.before(transposed)
        if self.after is not None:
            transposed = self.after.after(transposed)
        return transposed.to(narrow.dtype)


def _with_slope(function: Value, x: Tensor) -> tuple[Tensor, Tensor]:
    """`f(x)` and its derivative, element by element."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        value = function(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


class _Applied(torch.autograd.Function):
    """Norm, MLP and norm, with their Jacobians made at the first reverse pass and kept for those after it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Sequence[Value], at: Callable[[Tensor], _MlpAt]) -> Tensor:
        ctx.places, ctx.transposed = [at(place) for place in x.flatten(0, -2)], None
        for step in steps:
            x = step(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if ctx.transposed is None:
            with torch.no_grad():
                ctx.transposed = [place.transposed_jacobian() for place in ctx.places]
        rows = gradients[0].flatten(0, -2)
        # Under vmap `mv` is one product of the matrix with all rows; `row @ matrix` would be one for each row.
        pulled = [torch.mv(back, row) for back, row in zip(ctx.transposed, rows.unbind(0), strict=True)]
        return torch.stack(pulled).reshape(gradients[0].shape), None, None


_applied: Callable[..., Tensor] = _Applied.apply
