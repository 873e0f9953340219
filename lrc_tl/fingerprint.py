"""ModelFingerprint: which model a direction was made on, and whether another one may use it."""

import hashlib
import os
import warnings
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from lrc_tl.errors import FingerprintMismatch
from lrc_tl.forward import run
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.turns import turn

_TEXT = "The river runs past Lyon, 3 old mills and a café; nobody counts them."
_N_PROJECTIONS = 8
_TOLERANCE = 1e-3
_MUST_MATCH = ("name", "n_layers", "d_model", "d_vocab", "processing", "tokenizer", "bos")
_RECORDED = ("model_class", "transformer_lens", "torch", "dtype", "device")
_made: WeakKeyDictionary[Any, tuple[object, "ModelFingerprint"]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class ModelFingerprint:
    """What identifies a model (must match) and how it was run (recorded; a difference is warned about).

    `behaviour` holds, for three layers, the residual norm at the last token of a fixed prompt and the residual's
    products with eight fixed Gaussian vectors, in residual-stream units: enough to see a relative difference of
    1e-3. Weight hashes would not do, since HookedTransformer stores the same model in rescaled weights.
    """

    name: str
    """Last part of the model's name or path, e.g. `gemma-3-270m`."""
    n_layers: int
    d_model: int
    d_vocab: int
    processing: str
    """`raw`, or `folded` where TransformerLens folded normalisation weights into others."""
    tokenizer: str
    """Hash of the fixed text's token ids and the vocabulary's size; `none` without a tokenizer."""
    bos: str
    """`prepended` or `none`."""
    behaviour: dict[str, list[float]] = field(hash=False)
    model_class: str
    transformer_lens: str
    torch: str
    dtype: str
    device: str

    @classmethod
    def of(cls, model: HookedModel) -> "ModelFingerprint":
        """The fingerprint of a model, computed once for each state of its weights (one short forward pass)."""
        module: Any = model
        weights = tuple((id(p), p._version, p.data_ptr()) for p in module.parameters())
        state: object = (weights, getattr(model.cfg, "default_prepend_bos", None), id(model.tokenizer))
        known = _made.get(module)
        if known is not None and known[0] == state:
            return known[1]
        made = cls._compute(model)
        # Under somebody's hooks the residuals are not the model's own; that must not be remembered.
        if not any(point._forward_hooks for point in model.hook_dict.values()):
            _made[module] = state, made
        return made

    @classmethod
    def _compute(cls, model: HookedModel) -> "ModelFingerprint":
        cfg = model.cfg
        ids, tokenizer, bos = _fixed_tokens(model)
        return cls(
            name=os.path.basename(str(getattr(cfg, "model_name", None) or "custom").rstrip("/\\")),
            n_layers=int(cfg.n_layers),
            d_model=int(cfg.d_model),
            d_vocab=int(cfg.d_vocab),
            processing=_processing(model),
            tokenizer=tokenizer,
            bos=bos,
            behaviour=_behaviour(model, ids),
            model_class=type(model).__name__,
            transformer_lens=version("transformer-lens"),
            torch=torch.__version__,
            dtype=str(cfg.dtype).removeprefix("torch."),
            device=str(cfg.device),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ModelFingerprint":
        """The inverse of `to_dict`.

        Raises:
            ValueError: fields are missing or unknown.
        """
        expected = set(cls.__dataclass_fields__)
        if set(data) != expected:
            raise ValueError(
                f"a model fingerprint needs the fields {sorted(expected)}; missing are "
                f"{sorted(expected - set(data))}, unknown are {sorted(set(data) - expected)}"
            )
        return cls(**data)

    def require_match(self, other: "ModelFingerprint", *, what: str = "this was made") -> None:
        """Check that `other` is the same model; warn where it was only run differently.

        Raises:
            FingerprintMismatch: a field that must match differs, or the behaviour by more than 1e-3 (relative;
                more where either model is narrower than float32).
        """
        differing = [
            f"{name} {getattr(self, name)!r} against {getattr(other, name)!r}"
            for name in _MUST_MATCH
            if getattr(self, name) != getattr(other, name)
        ]
        if not differing:
            distance = _distance(self.behaviour, other.behaviour)
            tolerance = max(_TOLERANCE, *(8 * torch.finfo(getattr(torch, f.dtype)).eps for f in (self, other)))
            if not distance <= tolerance:
                differing.append(
                    f"residuals of a fixed prompt, relative difference {distance:.2g} (allowed {tolerance:.2g}); "
                    "are the weights others, or were hooks on the model?"
                )
        if differing:
            raise FingerprintMismatch(
                f"{what} on another model: {'; '.join(differing)}. Load the model that it was made on, the same "
                "way, or make it anew on this one"
            )
        recorded = [
            f"{name} {getattr(self, name)} against {getattr(other, name)}"
            for name in _RECORDED
            if getattr(self, name) != getattr(other, name)
        ]
        if recorded:
            warnings.warn(f"{what} on the same model, run differently: {'; '.join(recorded)}", stacklevel=2)


def _fixed_tokens(model: HookedModel) -> tuple[torch.Tensor, str, str]:
    if model.tokenizer is None:
        ids = torch.arange(8, device=model.cfg.device)[None] % int(model.cfg.d_vocab)
        return ids, "none", "none"
    with turn(model):
        ids = model.to_tokens(_TEXT)
    plain = model.tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    # len() of the tokenizer differs between classes (added padding tokens), so only the model's own ids count.
    digest = hashlib.sha256(repr(plain).encode()).hexdigest()[:16]
    return ids, digest, "prepended" if ids.shape[1] > len(plain) else "none"


def _processing(model: HookedModel) -> str:
    folded = str(getattr(model.cfg, "normalization_type", None)).endswith("Pre")
    return "folded" if folded or getattr(model, "compatibility_mode", False) else "raw"


def _behaviour(model: HookedModel, ids: torch.Tensor) -> dict[str, list[float]]:
    n_layers, d_model = int(model.cfg.n_layers), int(model.cfg.d_model)
    layers = sorted({0, n_layers // 2, n_layers - 1})
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook_function(residual: torch.Tensor, hook: Any) -> None:
            kept[layer] = residual[0, -1].double().cpu()

        return hook_function

    run(model, ids, fwd_hooks=[(hook_name(model, layer), keep(layer)) for layer in layers], stop_at_layer=n_layers)
    # RandomState's stream is frozen across NumPy versions.
    gaussians = torch.from_numpy(np.random.RandomState(0).standard_normal((_N_PROJECTIONS, d_model)))
    return {
        str(layer): [float(kept[layer].norm()), *(float(x) for x in gaussians @ kept[layer])] for layer in layers
    }


def _distance(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """Largest relative residual difference over the layers, from the Gaussian projections; of zeros to zeros 0."""
    if set(one) != set(other):
        return float("inf")
    worst = 0.0
    for layer, (norm, *products) in one.items():
        difference = np.array(products) - np.array(other[layer][1:])
        if norm == 0:  # weights made by hand; else any residual has a length
            worst = max(worst, 0.0 if other[layer][0] == 0 else float("inf"))
            continue
        worst = max(worst, float(np.sqrt(np.mean(difference**2))) / norm, abs(norm - other[layer][0]) / norm)
    return worst
