"""The protocol of the models that lrc_tl works with, the names of their hook points, and checks before a pass.

HookedTransformer (TransformerLens 3.9) and TransformerBridge (3.9 and 4.x) are used through the same calls.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import ModelError


@runtime_checkable
class HookedModel(Protocol):
    """The calls that HookedTransformer and TransformerBridge share and that lrc_tl uses."""

    cfg: Any
    tokenizer: Any
    training: bool

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        """Hook points by name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of one forward pass."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """All weights."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """All weights, each with its name."""

    def modules(self) -> Iterator[torch.nn.Module]:
        """The model and all its parts."""

    def eval(self) -> Any:
        """Set evaluation mode."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Say whether weights get gradients."""

    def to_tokens(self, input: Any) -> torch.Tensor:
        """Token ids with the model's beginning-of-sequence policy."""

    def hooks(self, fwd_hooks: Any) -> Any:
        """Context manager that adds forward hooks and removes them on leaving."""

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """Output and activations."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Continue a prompt."""


class Bridge(HookedModel, Protocol):
    """A TransformerBridge: a model of another library behind TransformerLens's calls."""

    original_model: Any


class Transformer(HookedModel, Protocol):
    """A HookedTransformer, with the parts that a Bridge's model calls by names of its own."""

    embed: Any
    blocks: Any


def is_bridge(model: HookedModel) -> TypeGuard[Bridge]:
    """Whether the model wraps another library's."""
    return hasattr(type(model), "original_model")


def hooked_transformer() -> Any:
    """The class HookedTransformer, or None where this TransformerLens has none (4.x)."""
    import transformer_lens

    # 4.x removed the class and raises ImportError on touching the name.
    try:
        return transformer_lens.HookedTransformer
    except (ImportError, AttributeError):
        return None


def is_hooked_transformer(model: HookedModel) -> TypeGuard[Transformer]:
    """Whether the model is of the class HookedTransformer."""
    cls = hooked_transformer()
    return cls is not None and isinstance(model, cls)


RESIDUAL = "hook_resid_post"
"""The hook point behind a block, where activations are read and edited unless another one is named."""


def block_hook(layer: int, point: str = RESIDUAL) -> str:
    """`blocks.{layer}.{point}`, for a layer that is counted from the start."""
    return f"blocks.{layer}.{point}"


def layer_and_point(name: str) -> tuple[int, str]:
    """The inverse of `block_hook`: `blocks.6.attn.hook_z` -> `(6, "attn.hook_z")`.

    Raises:
        ValueError: the name is not that of a hook point in a block.
    """
    match = re.match(r"blocks\.(\d+)\.(.*)", name, flags=re.DOTALL)
    if match is None:
        raise ValueError(f"hook point {name!r} is not in a block; give one such as 'blocks.6.hook_resid_post'")
    return int(match.group(1)), match.group(2)


def hook_layer(name: str) -> int:
    """The layer of a hook point such as `blocks.6.hook_resid_post`.

    Raises:
        ValueError: the name is not that of a hook point in a block.
    """
    return layer_and_point(name)[0]


@numbers_checked
def hook_name(model: HookedModel, layer: int) -> str:
    """`blocks.{layer}.hook_resid_post`; negative layers count from the end.

    Raises:
        ValueError: the layer is outside the model.
    """
    name = block_hook(layer_number(model, layer))
    require_hook(model, name)
    return name


def layer_number(model: HookedModel, layer: int) -> int:
    """The layer counted from the start; negative layers count from the end.

    Raises:
        ValueError: the layer is outside the model.
    """
    n_layers = int(model.cfg.n_layers)
    if not -n_layers <= layer < n_layers:
        raise ValueError(f"layer {layer} is outside the model; allowed are {-n_layers} to {n_layers - 1}")
    return layer % n_layers


def require_hook(model: HookedModel, name: str) -> None:
    """Check that the model has a hook point, before anything runs: TransformerBridge 3.9 ignores unknown names.

    Raises:
        LookupError: no such hook point; near names are shown.
    """
    if name not in model.hook_dict:
        near = get_close_matches(name, model.hook_dict, n=3)
        raise LookupError(f"the model has no hook point {name!r}; near names: {', '.join(near) or 'none'}")


def require_evaluation_mode(model: HookedModel) -> None:
    """Go on unless the model drops activations at random, as models with dropout do in training mode.

    Raises:
        ModelError: it does, so that no number could be had twice.
    """
    wrapped = getattr(model, "original_model", model)  # Hugging Face's model in a Bridge has a mode of its own
    if not (model.training or wrapped.training):
        return
    for part in wrapped.modules():
        shares = {"p": part.p} if isinstance(part, torch.nn.Dropout) else vars(part)
        for name, share in shares.items():
            # Attention code keeps its share as a plain number, and asks the module for its mode.
            if part.training and (name == "p" or "dropout" in name) and isinstance(share, float) and share > 0:
                raise ModelError(
                    f"the model is in training mode, where its {type(part).__name__} drops activations at random "
                    f"(a share of {share:g}), so that its numbers change from pass to pass; call model.eval()"
                )
