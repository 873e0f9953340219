"""What a model's weights must be for a fit, and whether float16 holds its residuals: seen before work starts."""

from collections.abc import Mapping
from contextvars import Context

import torch

from lrc_tl.errors import ModelError, NotFiniteError
from lrc_tl.models.fingerprint import fixed_tokens
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.models.hooking import hooked_pass, keeping


def require_fittable(model: HookedModel) -> None:
    """Go on where LREs can be fitted on a model: to be called once, before anything runs.

    Raises:
        ModelError, ValueError: as `require_differentiable` and `require_no_overflow`.
    """
    require_differentiable(model)
    require_no_overflow(model)


def require_differentiable(model: HookedModel) -> None:
    """Go on where gradients for activations can be had: plain weights on one device.

    Raises:
        ModelError: the weights are quantised, or lie on several devices.
        ValueError: they are inference tensors.
    """
    devices: dict[str, str] = {}
    for name, weight in model.named_parameters():
        # Packed weights are integers; eight-bit floats have no matrix products of their own.
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise ModelError(f"the model's {name} is {weight.dtype}: {_NOT_QUANTISED}")
        if weight.is_inference():
            raise ValueError(
                f"the model's {name} is an inference tensor, whose gradients would be zero; load the model "
                "outside torch.inference_mode()"
            )
        devices.setdefault(str(weight.device), name)
    config = getattr(getattr(model, "original_model", None), "config", None)
    if getattr(config, "quantization_config", None) is not None or getattr(model.cfg, "load_in_4bit", False):
        raise ModelError(f"the model's weights are quantised: {_NOT_QUANTISED}")
    placed = getattr(getattr(model, "original_model", None), "hf_device_map", None)
    if isinstance(placed, Mapping) and len({str(device) for device in placed.values()}) > 1:
        devices = {str(device): str(part) for part, device in placed.items()}
    if len(devices) > 1:
        where = ", ".join(f"{name} on {device}" for device, name in devices.items())
        raise ModelError(
            f"the model lies on {len(devices)} devices ({where}), and fits need one; load it whole on one, with "
            "n_devices=1 or without device_map"
        )


_NOT_QUANTISED = "fits need the gradients of plain ones, so load the model in bfloat16, float16 or float32"


def require_no_overflow(model: HookedModel) -> None:
    """Go on where all residuals of a fixed text are finite, or where no weight is float16.

    float16 holds numbers up to 65,504. Models whose residuals are larger somewhere (at the beginning-of-sequence
    token, say) give NaN in it, or zeros that look well.

    Raises:
        NotFiniteError: some are not, with the first such layer.
    """
    if all(weight.dtype != torch.float16 for weight in model.parameters()):
        return
    n_layers = int(model.cfg.n_layers)
    names = [hook_name(model, layer) for layer in range(n_layers)]
    finite: dict[str, bool] = {}
    ids, _, _ = fixed_tokens(model)

    def run() -> None:
        hooks = keeping(finite, names, lambda _, residual: bool(residual.isfinite().all()))
        hooked_pass(model, ids, fwd_hooks=hooks, stop_at_layer=n_layers, attention_mask=torch.ones_like(ids))

    Context().run(run)  # where no steering of ours is on
    for layer, name in enumerate(names):
        if not finite[name]:
            raise NotFiniteError(
                f"the residual stream of a short text overflows float16 at layer {layer} (it holds numbers up to "
                "65,504); load the model in bfloat16 or float32"
            )
