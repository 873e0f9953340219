"""A TransformerLens `JacobianLens` that the user has: checked against the model, then applied."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import ModelError
from lrc_tl.models.fingerprint import model_name, processing_of
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.numerics.precision import wide_of


@runtime_checkable
class JacobianLens(Protocol):
    """What is used of `transformer_lens.tools.analysis.JacobianLens`, which no wing imports."""

    jacobians: Mapping[int, Tensor]
    d_model: int
    metadata: Mapping[str, Any]


def require_jacobian_lens(model: HookedModel, lens: JacobianLens) -> None:
    """Check that a Jacobian lens belongs to the model, as far as it says.

    The lens's own check takes a fresh TransformerBridge only. Here any model with the raw residual stream will do,
    since the lens is a matrix for each layer of that stream.

    Raises:
        ModelError: the model's weights are folded, so that it has another residual stream.
        ValueError: the lens is of another width, has layers that the model has not, was fitted to another layer
            than the last, or on a model of another name.
    """
    width, last = int(model.cfg.d_model), int(model.cfg.n_layers) - 1
    if processing_of(model) != "raw":
        raise ModelError(
            "a Jacobian lens reads the raw residual stream, but this model's weights are folded; load it with "
            "lrc_tl.load_model or HookedTransformer.from_pretrained_no_processing"
        )
    if lens.d_model != width:
        raise ValueError(f"the Jacobian lens has width {lens.d_model}, the model {width}; give this model's lens")
    layers = sorted(lens.jacobians)
    if beyond := [layer for layer in layers if not 0 <= layer < last]:
        raise ValueError(
            f"the Jacobian lens has the layers {beyond}, but those of this model that a lens may have are 0 to "
            f"{last - 1}; give this model's lens"
        )
    target = lens.metadata.get("target_layer")
    if target is not None and int(target) != last:
        raise ValueError(
            f"the Jacobian lens leads to layer {target}, but a readout needs one to the last layer, {last}; fit "
            "it without a target layer"
        )
    name = lens.metadata.get("model_name")
    if name is not None and model_name(name) != model_name(getattr(model.cfg, "model_name", None)):
        raise ValueError(
            f"the Jacobian lens was fitted on {name!r}, but this model is {model.cfg.model_name!r}; give this "
            "model's lens"
        )


@numbers_checked
def to_last_layer(
    model: HookedModel, lens: JacobianLens, acts: Float[Tensor, "*batch d_model"], *, layer: int
) -> Float[Tensor, "*batch d_model"]:
    """`J h` for each row: what the lens makes of activations behind block `layer`, in float32 or wider.

    At the last layer, which no lens holds, J is the identity. Gurnee et al. 2026, "Verbalizable representations
    form a global workspace in language models".

    Raises:
        ModelError, ValueError: as `require_jacobian_lens`, or the lens has no such layer.
    """
    require_jacobian_lens(model, lens)
    place = layer_number(model, layer)
    wide = wide_of(acts)
    if place == int(model.cfg.n_layers) - 1:
        return wide
    if place not in lens.jacobians:
        raise ValueError(f"the Jacobian lens has no layer {place}; it has {sorted(lens.jacobians)}")
    moved: Tensor = wide @ lens.jacobians[place].to(wide).T
    return moved
