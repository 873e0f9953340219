"""The weights that a fit goes through, in float32 for its length."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from lrc_tl.lre.fit_settings import FitDtype
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import Block, Result, Session, inside
from lrc_tl.numerics.precision import wide_dtype
from lrc_tl.turns import turn


def run_in(fit_dtype: FitDtype, model: HookedModel, work: Callable[[], Result], *, highest: int) -> Result:
    """The result of `work`, a fit whose passes end behind layer `highest`.

    With `"float32"` what a 16-bit model holds up to that layer, the embedding included, is float32 meanwhile: the
    fit is that of a float32 model with the same weights, and takes 4 bytes more for each of them. Nothing else may
    run on the model until it is over. All tensors of the model are then the ones they were, whatever happens.
    """
    if fit_dtype == "model" or not any(True for _ in _narrow(model, highest)):
        return work()
    with turn(model):
        return inside(Block(lambda session: _widen(session, model, highest)), work)


def widened_bytes(model: HookedModel, *, highest: int) -> int:
    """Bytes that `fit_dtype="float32"` takes beyond the model, for fits whose highest layer is this one."""
    return sum(4 * tensor.numel() for _, _, tensor in _narrow(model, highest))


def _widen(session: Session, model: HookedModel, highest: int) -> None:
    before = model.cfg.dtype

    def as_before() -> None:
        model.cfg.dtype = before

    session.undo_at_close(as_before)
    model.cfg.dtype = wide_dtype(before)  # HookedTransformer casts to it on the way
    for module, name, tensor in list(_narrow(model, highest)):
        _replace(session, module, name, tensor)


def _replace(session: Session, module: Any, name: str, tensor: Tensor) -> None:
    if name in module._parameters:
        parameter, narrow = module._parameters[name], tensor.data

        def undo() -> None:
            parameter.data = narrow

        session.undo_at_close(undo)
        parameter.data = narrow.float()
        return

    def put_back() -> None:
        module._buffers[name] = tensor

    session.undo_at_close(put_back)
    module._buffers[name] = tensor.float()


def _narrow(model: HookedModel, highest: int) -> Iterator[tuple[Any, str, Tensor]]:
    """Each 16-bit parameter and buffer of the embedding and the layers up to `highest`, once, with its module."""
    parts: Any = model
    above = [*parts.blocks[highest + 1 :], *(getattr(parts, name, None) for name in ("ln_final", "unembed"))]
    skipped = {id(module) for part in above if part is not None for module in part.modules()}
    seen: set[int] = set()
    for module in model.modules():
        if id(module) in skipped:
            continue
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or id(tensor) in seen:
                continue
            if tensor.is_floating_point() and tensor.dtype.itemsize == 2:
                seen.add(id(tensor))
                yield module, name, tensor
