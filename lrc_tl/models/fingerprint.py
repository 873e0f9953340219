"""ModelFingerprint: which model a direction was made on, and whether another one may use it."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, TypeAlias, get_type_hints

import numpy as np
import torch

from lrc_tl.errors import FingerprintMismatch
from lrc_tl.models.displays import fingerprint_html, fingerprint_text
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.models.hooking import hooked_pass, keeping
from lrc_tl.relations.prompts import tokens_once
from lrc_tl.storage.json_fields import checked_fields
from lrc_tl.turns import turn

FIXED_TEXT = "The river runs past Lyon, 3 old mills and a café; nobody counts them."
_N_PROJECTIONS = 8
_TOLERANCE = 1e-3
_MUST_MATCH = ("name", "n_layers", "d_model", "d_vocab", "processing", "tokenizer", "bos")
_RECORDED = ("model_class", "transformer_lens", "torch", "dtype", "device")
_Taken: TypeAlias = dict[int, tuple[Any, "ModelFingerprint"]]
"""Models with their fingerprints, by the models' ids."""
_taken: ContextVar[_Taken | None] = ContextVar("lrc_tl_fingerprints", default=None)


@dataclass(frozen=True, kw_only=True)
class ModelFingerprint:
    """What identifies a model (must match) and how it was run (recorded; a difference is warned about).

    `behaviour` holds, for three layers, the residual norm at the last token of a fixed prompt and the residual's
    products with eight fixed Gaussian vectors, in residual-stream units: enough to see a relative difference of
    1e-3. Weight hashes would not do, since HookedTransformer stores the same model in rescaled weights.

    Functions of others on modules or hook points are part of what the model does, and so of its fingerprint; this
    library's steering is not. What leaves those residuals as they are, to 1e-3, cannot be seen: smaller changes,
    embeddings of tokens or places that the fixed prompt does not have, what lies behind the last block (final norm
    and unembedding), and functions that act on other texts only.
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

    __repr__ = fingerprint_text
    _repr_html_ = fingerprint_html

    @classmethod
    def of(cls, model: HookedModel) -> "ModelFingerprint":
        """The fingerprint of a model as it is now, from a short forward pass.

        Nothing is remembered, since weights and hooks can change without a trace; but inside `fingerprints_once`
        each model takes one pass.
        """
        taken = _taken.get()
        if taken is not None and id(model) in taken:
            return taken[id(model)][1]
        # In a context of its own, where no steering of ours is on.
        fingerprint = Context().run(cls._compute, model)
        if taken is not None:
            taken[id(model)] = model, fingerprint  # the model too, so that no other gets its id meanwhile
        return fingerprint

    @classmethod
    def _compute(cls, model: HookedModel) -> "ModelFingerprint":
        cfg = model.cfg
        ids, tokenizer, bos = fixed_tokens(model)
        return cls(
            name=model_name(getattr(cfg, "model_name", None)),
            n_layers=int(cfg.n_layers),
            d_model=int(cfg.d_model),
            d_vocab=int(cfg.d_vocab),
            processing=processing_of(model),
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
            ValueError: fields are missing, unknown or of another type, or the behaviour or the dtype is not one.
        """
        hints = get_type_hints(cls)
        if set(data) != set(hints):
            raise ValueError(
                f"a model fingerprint needs the fields {sorted(hints)}; missing are "
                f"{sorted(set(hints) - set(data))}, unknown are {sorted(set(data) - set(hints))}"
            )
        fields = checked_fields(data, hints, what="model fingerprint")
        for layer, numbers in fields["behaviour"].items():
            if len(numbers) != 1 + _N_PROJECTIONS:
                raise ValueError(
                    f"the behaviour of a model fingerprint at layer {layer!r} has {len(numbers)} numbers; it must "
                    f"have {1 + _N_PROJECTIONS}"
                )
        if not getattr(getattr(torch, fields["dtype"], None), "is_floating_point", False):
            raise ValueError(f"dtype {fields['dtype']!r} of a model fingerprint is no floating-point one of torch")
        return cls(**fields)

    def require_match(self, other: "ModelFingerprint", *, what: str = "this was made") -> None:
        """Check that `other` is the same model; warn where it was only run differently.

        Raises:
            FingerprintMismatch: a field that must match differs, or the behaviour by more than 1e-3 (relative;
                more where either model is narrower than float32).
        """
        self._require(self._different_fields(other) or self._different_behaviour(other), what)
        self._warn_of_other_ways(other, what)

    def require_model(self, model: HookedModel, *, what: str = "this was made") -> None:
        """`require_match` for a model as it is now.

        While functions of others are on its hook points, a difference of behaviour is warned about only: they may
        be what makes it.

        Raises:
            FingerprintMismatch: it is another model.
        """
        current = ModelFingerprint.of(model)
        self._require(self._different_fields(current), what)
        behaviour = self._different_behaviour(current)
        if behaviour and _has_hooks(model):
            warnings.warn(
                f"hooks are on the model, so it is not seen whether {what} on its weights: {behaviour[0]}",
                stacklevel=2,
            )
            return
        self._require(behaviour, what)
        self._warn_of_other_ways(current, what)

    def is_same_model(self, other: "ModelFingerprint | None") -> bool:
        """Whether `require_match` would pass."""
        return other is not None and not (self._different_fields(other) or self._different_behaviour(other))

    def _different_fields(self, other: "ModelFingerprint") -> list[str]:
        return [
            f"{name} {getattr(self, name)!r} against {getattr(other, name)!r}"
            for name in _MUST_MATCH
            if getattr(self, name) != getattr(other, name)
        ]

    def _different_behaviour(self, other: "ModelFingerprint") -> list[str]:
        distance = _distance(self.behaviour, other.behaviour)
        tolerance = max(_TOLERANCE, *(8 * torch.finfo(getattr(torch, f.dtype)).eps for f in (self, other)))
        if distance <= tolerance:
            return []
        return [
            f"residuals of a fixed prompt, relative difference {distance:.2g} (allowed {tolerance:.2g}); are the "
            "weights others, or were hooks on the model?"
        ]

    def _require(self, differing: list[str], what: str) -> None:
        if differing:
            raise FingerprintMismatch(
                f"{what} on another model: {'; '.join(differing)}. Load the model that it was made on, the same "
                "way, or make it anew on this one"
            )

    def _warn_of_other_ways(self, other: "ModelFingerprint", what: str) -> None:
        recorded = [
            f"{name} {getattr(self, name)} against {getattr(other, name)}"
            for name in _RECORDED
            if getattr(self, name) != getattr(other, name)
        ]
        if recorded:
            warnings.warn(f"{what} on the same model, run differently: {'; '.join(recorded)}", stacklevel=3)


@contextmanager
def fingerprints_once() -> Iterator[None]:
    """Inside the block, or the function that it decorates, each model is fingerprinted once.

    Each prompt is tokenised once as well (`tokens_once`). Use it for the length of one call in which nothing but
    this library touches the model, and never around a `yield`.
    """
    if _taken.get() is not None:
        yield
        return
    try:
        try:
            _taken.set({})
            with tokens_once():
                yield
        finally:
            _taken.set(None)
    finally:  # again, should an interrupt have come before it
        _taken.set(None)


def _has_hooks(model: HookedModel) -> bool:
    """Whether functions that others made are on the model's hook points."""
    return any(
        not type(function).__module__.startswith("lrc_tl.")
        for point in model.hook_dict.values()
        for function in point._forward_hooks.values()
    )


def fixed_tokens(model: HookedModel) -> tuple[torch.Tensor, str, str]:
    """Ids of the fixed prompt, a hash of how the tokenizer cuts it, and whether a BOS stands before it."""
    if model.tokenizer is None:
        ids = torch.arange(8, device=model.cfg.device)[None] % int(model.cfg.d_vocab)
        return ids, "none", "none"
    with turn(model):
        ids = model.to_tokens(FIXED_TEXT)
    plain = model.tokenizer(FIXED_TEXT, add_special_tokens=False)["input_ids"]
    # len() of the tokenizer differs between classes (added padding tokens), so only the model's own ids count.
    digest = hashlib.sha256(repr(plain).encode()).hexdigest()[:16]
    return ids, digest, "prepended" if ids.shape[1] > len(plain) else "none"


def model_name(name: object) -> str:
    """Last part of a model's name or path, e.g. `gemma-3-270m`; `custom` where there is none."""
    return os.path.basename(str(name or "custom").rstrip("/\\"))


def processing_of(model: HookedModel) -> str:
    """`raw`, or `folded` where TransformerLens folded normalisation weights into others."""
    folded = str(getattr(model.cfg, "normalization_type", None)).endswith("Pre")
    return "folded" if folded or getattr(model, "compatibility_mode", False) else "raw"


def _behaviour(model: HookedModel, ids: torch.Tensor) -> dict[str, list[float]]:
    n_layers, d_model = int(model.cfg.n_layers), int(model.cfg.d_model)
    layers = sorted({0, n_layers // 2, n_layers - 1})
    names = [hook_name(model, layer) for layer in layers]
    kept: dict[str, torch.Tensor] = {}
    hooks = keeping(kept, names, lambda _, residual: residual[0, -1].double().cpu())
    hooked_pass(model, ids, fwd_hooks=hooks, stop_at_layer=n_layers, attention_mask=torch.ones_like(ids))
    # RandomState's stream is frozen across NumPy versions.
    gaussians = torch.from_numpy(np.random.RandomState(0).standard_normal((_N_PROJECTIONS, d_model)))
    return {
        str(layer): [float(kept[name].norm()), *(float(product) for product in gaussians @ kept[name])]
        for layer, name in zip(layers, names, strict=True)
    }


def _distance(behaviour: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """Largest relative residual difference over the layers, from the Gaussian projections; of zeros to zeros 0."""
    if set(behaviour) != set(other):
        return float("inf")
    worst = 0.0
    for layer, (norm, *products) in behaviour.items():
        difference = np.array(products) - np.array(other[layer][1:])
        if norm == 0:  # weights made by hand; else any residual has a length
            worst = max(worst, 0.0 if other[layer][0] == 0 else float("inf"))
            continue
        worst = max(worst, float(np.sqrt(np.mean(difference**2))) / norm, abs(norm - other[layer][0]) / norm)
    return worst
