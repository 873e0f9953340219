"""LEACE: the smallest change after which no linear probe can tell the objects apart (Belrose et al. 2023).

Ablating directions takes out what they read, but the objects stay partly readable along others. LEACE makes the
class means of all objects equal, so that least squares finds nothing. It moves the activations as little as that
allows. It needs the extra `erasure`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.passes.activations import subject_activations
from lrc_tl.relations.prompts import Prompt
from lrc_tl.steering.operations import Erase
from lrc_tl.steering.steering import Steering

_TOLERANCE = 1e-6


@numbers_checked
def fit_erasure(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    layer: int,
    shrinkage: bool = True,
    progress: bool = True,
) -> Steering:
    """A steering that erases from `layer` which object a prompt has, fitted on the prompts' subject activations.

    It is put on a model as ablation is (`.on(model)`, `steer`, `lrc.generate`), everywhere unless `.at` says more.

    Raises:
        ImportError: the package concept-erasure is missing.
        ValueError: no prompts, or what `leace` refuses.
    """
    _leace_fitter()
    prompts = as_tuple(prompts, "prompts", Prompt)
    if not prompts:
        raise ValueError("no prompts to fit the erasure on; give at least two for each object")
    activations = subject_activations(model, prompts, layer=layer, progress=progress)
    return Steering(
        operation=leace(activations, [prompt.object for prompt in prompts], shrinkage=shrinkage),
        hook_name=hook_name(model, layer),
        fingerprint=ModelFingerprint.of(model),
    )


@checked
def leace(
    activations: Float[Tensor, "sample d_model"], objects: Sequence[str], *, shrinkage: bool = True
) -> Erase:
    """The affine projection after which the mean activation is the same for every object.

    `x - W^+ U U^T W (x - m)` with whitening `W = Cov(x)^(-1/2)` and `U` the left singular vectors of
    `W Cov(x, z)`, z the objects one-hot; rank objects - 1 at most. `shrinkage` estimates the covariance by
    optimal linear shrinkage towards a multiple of the identity, steadier where there are not many more samples
    than d_model. Computed and returned in float64. Belrose et al. 2023 (arXiv:2306.03819, theorem 4.3), by
    the package concept-erasure.

    Raises:
        ImportError: the package concept-erasure is missing.
        ValueError: not one object per activation, fewer than two objects, activations that are not finite or that
            the objects do not differ in, or an erasure that is not exact to 1e-6 of their size.
    """
    fitter = _leace_fitter()
    objects = as_tuple(objects, "objects", str)
    if len(objects) != len(activations):
        raise ValueError(f"{len(activations)} activations and {len(objects)} objects were given; give one each")
    names = list(dict.fromkeys(objects))
    if len(names) < 2 or len(objects) <= len(names):
        raise ValueError(
            f"{len(objects)} activations of {len(names)} objects; erasing needs two objects or more, and more "
            "activations than objects"
        )
    if not bool(torch.isfinite(activations).all()):
        raise ValueError("the activations are not finite; load the model in float32")
    wide = activations.detach().double()
    # The package counts from an absolute threshold; at unit scale it means the same for every model.
    scale = (wide - wide.mean(0)).norm() / wide.numel() ** 0.5
    if float(scale) == 0:
        raise ValueError("all activations are equal, so there is nothing to erase")
    classes = torch.tensor([names.index(name) for name in objects], device=wide.device)
    labels = torch.nn.functional.one_hot(classes, len(names)).double()
    # Keeping the variance from growing would mix in another projection, which does not erase.
    eraser = fitter.fit(
        (wide - wide.mean(0)) / scale, labels, shrinkage=shrinkage, constrain_cov_trace=False, svd_tol=1e-9
    ).eraser
    used = eraser.proj_right.norm(dim=1) > 0
    if not bool(used.any()):
        raise ValueError("the mean activations of all objects are equal, so there is nothing to erase")
    left, right = eraser.proj_left[:, used], eraser.proj_right[used]
    # A covariance that is not positive definite would leave out what it must whiten.
    if float((right @ left - torch.eye(len(right), device=right.device)).abs().max()) < _TOLERANCE:
        operation = Erase(left=left, right=right, mean=wide.mean(0))
        centred = (wide + operation.shift(wide) - wide.mean(0)) / scale
        covariance = centred.T @ (labels - labels.mean(0)) / len(labels)
        if float(covariance.abs().max()) < _TOLERANCE:
            return operation
    raise ValueError(
        f"the erasure fitted on {len(objects)} activations of width {wide.shape[1]} leaves linear information; "
        "give more, or the other value of `shrinkage`"
    )


def _leace_fitter() -> Any:
    try:
        from concept_erasure import LeaceFitter  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "LEACE needs the package concept-erasure; install lrc-tl with its extra: lrc-tl[erasure]"
        ) from error
    return LeaceFitter
