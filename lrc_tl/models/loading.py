"""Models: loading them with the raw residual stream, and the protocol that the rest of lrc_tl relies on.

HookedTransformer (TransformerLens 3.9) and TransformerBridge (3.9 and 4.x) are used through the same calls.
Only this module, `prefix_cache`, `lean_reverse` and `packaged` import `transformer_lens` or `transformers`, and
only when a model is loaded or run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch

from lrc_tl.arguments.near_names import near_names
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import ModelError, in_one_line
from lrc_tl.models.mapped_weights import (
    mapped_hooked_transformer,
    plain_hooked_transformer,
    store_by_output,
)
from lrc_tl.models.packaged import PACKAGED, gguf_folder, packaged_folder

Backend = Literal["auto", "hooked_transformer", "bridge"]


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


@numbers_checked
def hook_name(model: HookedModel, layer: int) -> str:
    """`blocks.{layer}.hook_resid_post`; negative layers count from the end.

    Raises:
        ValueError: the layer is outside the model.
    """
    name = f"blocks.{layer_number(model, layer)}.hook_resid_post"
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
        near = near_names(name, model.hook_dict)
        raise LookupError(f"the model has no hook point {name!r}; near names: {', '.join(near) or 'none'}")


def require_evaluation_mode(model: HookedModel) -> None:
    """Go on unless the model drops activations at random, as models with dropout do in training mode.

    Raises:
        ModelError: it does, so that no number could be had twice.
    """
    module: Any = model
    wrapped = getattr(module, "original_model", module)  # Hugging Face's model in a Bridge has a mode of its own
    if not (module.training or wrapped.training):
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


def load_model(
    name_or_model: Any,
    *,
    backend: Backend = "auto",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> HookedModel:
    """A model with the raw residual stream (nothing folded or centred), in evaluation mode, without gradients.

    Args:
        name_or_model: `"packaged:gemma-3-270m"` or `"packaged:smollm2-135m"` (packages; converted once, about a
            minute and a half), the path of a GGUF file or of a Hugging Face folder, a name that TransformerLens
            knows, or a HookedTransformer or TransformerBridge, which stays as it is but for evaluation mode and
            gradients.
        backend: `"auto"` takes HookedTransformer where this TransformerLens has it and lists the model, else
            TransformerBridge.
        device: where the weights are put, e.g. `"cuda:1"`; a model that is given stays where it is.

    Raises:
        ModelError: the package with the model is missing or damaged, the name is unknown, or this TransformerLens
            lacks the class asked for.
        TypeError: `name_or_model` is neither a name nor a model.
        ValueError: an unknown backend, or a device that torch does not know or this machine does not have.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend is {backend!r}; allowed are {', '.join(get_args(Backend))}")
    device = str(checked_device(device))  # TransformerLens compares it with names
    if not isinstance(name_or_model, (str, Path)):
        if not isinstance(name_or_model, HookedModel):
            raise TypeError(
                f"{type(name_or_model).__name__} is not a model that lrc_tl can use; give a HookedTransformer, a "
                "TransformerBridge, a name or a folder"
            )
        model = name_or_model
    elif str(name_or_model).startswith("packaged:"):
        if name_or_model not in PACKAGED:
            raise ModelError(f"no packaged model {str(name_or_model)!r}; there are {', '.join(PACKAGED)}")
        packaged = PACKAGED[str(name_or_model)]
        listed = packaged.listed_name
        if backend == "hooked_transformer":
            _require_hooked_transformer()
            if listed is None:
                raise ModelError(f"HookedTransformer does not list {packaged.folder}; use backend='bridge'")
        model = _from_folder(packaged_folder(packaged), listed, backend, device, dtype)
    elif Path(name_or_model).is_dir():
        model = _from_folder(Path(name_or_model), None, backend, device, dtype)
    elif Path(name_or_model).suffix == ".gguf" and Path(name_or_model).is_file():
        model = _from_folder(gguf_folder(Path(name_or_model)), None, backend, device, dtype)
    else:
        model = _from_name(str(name_or_model), backend, device, dtype)
    module: Any = model
    module.eval()
    module.requires_grad_(False)
    return model


def checked_device(device: str | torch.device) -> torch.device:
    """The device of this name, on which a tensor can be made.

    Raises:
        ValueError: torch knows no such device, or this machine does not have it.
    """
    try:
        if not isinstance(device, (str, torch.device)):
            raise RuntimeError
        known = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device is {device!r}, which torch does not know; give 'cpu', 'cuda', 'cuda:0' or 'mps'"
        ) from error
    try:
        torch.empty(1, device=known)
    # Each kind of device says in its own way that it is not there.
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        raise ValueError(
            f"device is {str(known)!r}, which this machine or its torch does not have "
            f"({_first_sentence(error)}); give 'cpu', or another"
        ) from error
    return known


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def hooked_transformer() -> Any:
    """The class HookedTransformer, or None where this TransformerLens has none (4.x)."""
    import transformer_lens

    # 4.x removed the class and raises ImportError on touching the name.
    try:
        return transformer_lens.HookedTransformer
    except (ImportError, AttributeError):
        return None


def _require_hooked_transformer() -> Any:
    cls = hooked_transformer()
    if cls is None:
        raise ModelError(
            "this TransformerLens has no HookedTransformer; install transformer-lens 3.9 or use backend='bridge'"
        )
    return cls


def _from_folder(
    folder: Path, name: str | None, backend: Backend, device: str | torch.device, dtype: torch.dtype
) -> HookedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hooked = _require_hooked_transformer() if backend == "hooked_transformer" else None
    if hooked is not None and name is None:
        raise ModelError(
            f"HookedTransformer loads only models that it lists, not the folder {folder}; use backend='bridge'"
        )
    if backend == "auto" and name is not None:
        hooked = hooked_transformer()
    try:
        hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        # HookedTransformer would load a second tokenizer, of 240 MB in Gemma's case, to have one that adds a BOS.
        given = {"add_bos_token": True} if hooked is not None else {}
        tokenizer = AutoTokenizer.from_pretrained(folder, **given)
    # What a damaged file raises depends on the file and on where it is damaged.
    except Exception as error:
        raise _not_a_model(folder, error) from error
    if hooked is not None:
        assert name is not None
        if dtype == torch.float32:
            mapped: HookedModel = mapped_hooked_transformer(
                hooked, folder, name, hf_model=hf_model, tokenizer=tokenizer, device=device
            )
            return mapped
        plain: HookedModel = plain_hooked_transformer(
            hooked, name, hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
        )
        return plain
    from transformer_lens.model_bridge import TransformerBridge

    # A model that is given to it stays where it is, whatever device is named beside it.
    hf_model = hf_model.to(device)
    try:
        adds_bos = bool(tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id])
        bridge: HookedModel = TransformerBridge.boot_transformers(
            str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
        )
    except Exception as error:
        raise _not_a_model(folder, error) from error
    # The Bridge would put a BOS before every text, also where the model's own tokenizer (SmolLM2's) puts none.
    bridge.cfg.default_prepend_bos = adds_bos
    return bridge


def _not_a_model(folder: Path, error: Exception) -> ModelError:
    kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    return ModelError(
        in_one_line(
            f"{folder} is not a Hugging Face folder with a causal language model, or a file in it is damaged: "
            f"{kind}{error}"
        )
    )


def _from_name(name: str, backend: Backend, device: str | torch.device, dtype: torch.dtype) -> HookedModel:
    hooked = _require_hooked_transformer() if backend == "hooked_transformer" else None
    if backend == "auto":
        hooked = hooked_transformer()
    try:
        if hooked is not None:
            try:
                model: HookedModel = hooked.from_pretrained_no_processing(name, device=device, dtype=dtype)
            except ValueError:  # not in its list; the Bridge loads any causal language model
                if backend != "auto":
                    raise
            else:
                store_by_output(model)
                return model
        from transformer_lens.model_bridge import TransformerBridge

        bridge: HookedModel = TransformerBridge.boot_transformers(name, device=device, dtype=dtype)
        return bridge
    except (ValueError, OSError) as error:
        raise ModelError(
            f"could not load {name!r} as a TransformerLens model: {_one_line(error)}. Give a model name that "
            f"TransformerLens lists, a Hugging Face folder, a GGUF file, or one of {', '.join(PACKAGED)}"
        ) from error
