"""Models loaded with the raw residual stream.

Of the whole package only the wing `models`, `prefix_cache` and `lean_reverse` import `transformer_lens` or
`transformers`, and only when a model is loaded or run.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lrc_tl.errors import ModelError, in_one_line
from lrc_tl.models.agreement import (
    own_logits,
    plain_logits,
    probes,
    require_agreement,
    require_causal,
    require_decoder,
    require_known_right,
)
from lrc_tl.models.hooked_model import HookedModel, hooked_transformer
from lrc_tl.models.mapped_weights import (
    folder_hooked_transformer,
    mapped_hooked_transformer,
    plain_hooked_transformer,
    store_by_output,
)
from lrc_tl.models.packaged import PACKAGED, gguf_folder, listed_name, packaged_folder
from lrc_tl.models.weights import require_no_overflow

Backend = Literal["auto", "hooked_transformer", "bridge"]
_LONGEST = 300
"""Characters of another library's error that are shown."""


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
            knows, or a HookedTransformer or TransformerBridge, which stays as it is except for evaluation mode
            and gradients.
        backend: `"auto"` takes HookedTransformer where this TransformerLens has it and lists the model, else
            TransformerBridge.
        device: where the weights are put, e.g. `"cuda:1"`; a model that is given stays where it is.
        dtype: of the weights; bfloat16 halves the memory. Directions and LREs are float32 all the same.

    Raises:
        ModelError: the package with the model is missing or damaged, the name is unknown, or this TransformerLens
            lacks the class asked for.
        TypeError: `name_or_model` is neither a name nor a model.
        NotFiniteError: the model's residuals overflow float16.
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
        # These are compared with transformers by the tests.
        model = _from_folder(packaged_folder(packaged), listed, backend, device, dtype, compared=False)
    elif Path(name_or_model).is_dir():
        model = _from_folder(Path(name_or_model), None, backend, device, dtype)
    elif Path(name_or_model).suffix == ".gguf" and Path(name_or_model).is_file():
        folder = gguf_folder(Path(name_or_model))
        model = _from_folder(folder, listed_name(folder), backend, device, dtype)
    elif _is_path(name_or_model):
        raise ModelError(
            f"there is no folder or GGUF file {str(name_or_model)!r}; give one that exists, or a model's name"
        )
    else:
        model = _from_name(str(name_or_model), backend, device, dtype)
    model.eval()
    model.requires_grad_(False)
    require_no_overflow(model)
    return model


def _is_path(given: str | Path) -> bool:
    """Whether this can only be a path: names of models hold one slash at most."""
    text = str(given)
    return (
        isinstance(given, Path)
        or text.startswith((".", "/", "~"))
        or "\\" in text
        or text.count("/") > 1
        or text.endswith((".gguf", "/"))
    )


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


def _require_hooked_transformer() -> Any:
    cls = hooked_transformer()
    if cls is None:
        raise ModelError(
            "this TransformerLens has no HookedTransformer; install transformer-lens 3.9 or use backend='bridge'"
        )
    return cls


def _from_folder(
    folder: Path,
    name: str | None,
    backend: Backend,
    device: str | torch.device,
    dtype: torch.dtype,
    *,
    compared: bool = True,
) -> HookedModel:
    """The model of a folder; `name` is that under which HookedTransformer lists it, where it does.

    `compared`: whether it is checked against transformers, which takes two short passes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    hooked = _require_hooked_transformer() if backend == "hooked_transformer" else None
    if backend == "auto" and name is not None:
        hooked = hooked_transformer()
    try:
        config = AutoConfig.from_pretrained(folder)
        require_decoder(config, what=str(folder))
        # The fast way of experts knows no float64.
        ways = {"experts_implementation": "eager"} if dtype == torch.float64 else {}
        hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **ways)
        # HookedTransformer would load a second tokenizer, of 240 MB in Gemma's case, to have one that adds a BOS.
        given = {"add_bos_token": True} if hooked is not None else {}
        tokenizer = AutoTokenizer.from_pretrained(folder, **given)
    except ModelError:
        raise
    # What a damaged file raises depends on the file and on where it is damaged.
    except Exception as error:
        raise _not_a_model(folder, error) from error
    if hooked is not None and name is not None:
        if dtype == torch.float32:
            mapped: HookedModel = mapped_hooked_transformer(
                hooked, folder, name, hf_model=hf_model, tokenizer=tokenizer, device=device
            )
            return mapped
        plain: HookedModel = plain_hooked_transformer(
            hooked, name, hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
        )
        return plain
    compared = compared and torch.device(device).type != "meta"  # which holds no numbers
    # A model that is given to the Bridge stays where it is, whatever device is named beside it.
    hf_model = hf_model.to(device)
    what = f"the {type(hf_model).__name__} of {folder}"
    expected: torch.Tensor | None = None
    try:
        # The tokenizer as it is, since one that was told to add a BOS adds one.
        adding = tokenizer if hooked is None else AutoTokenizer.from_pretrained(folder)
        adds_bos = bool(adding("a").input_ids[:1] == [adding.bos_token_id])
        ids = probes(adding)
        expected = plain_logits(hf_model, ids) if compared else None
    except Exception as error:
        raise _not_a_model(folder, error) from error
    if expected is not None:
        require_causal(expected, what=what, dtype=dtype)
    model: HookedModel
    try:
        if hooked is not None:
            model = folder_hooked_transformer(
                hooked, folder, hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
            )
        else:
            from transformer_lens.model_bridge import TransformerBridge

            model = TransformerBridge.boot_transformers(
                str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
            )
        # A BOS would be put before every text, also where the model's own tokenizer (SmolLM2's) puts none.
        model.cfg.default_prepend_bos = adds_bos
        model.eval()
        logits = own_logits(model, ids) if compared else None
    except Exception as error:
        raise _not_taken(what, hooked is not None, error) from error
    if expected is not None and logits is not None:
        require_agreement(logits, expected, what=what, dtype=dtype)
    return model


def _not_a_model(folder: Path, error: Exception) -> ModelError:
    kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    return ModelError(
        in_one_line(
            f"{folder} is not a Hugging Face folder with a causal language model, or a file in it is damaged: "
            f"{kind}{_short(error)}"
        )
    )


def _not_taken(what: str, by_hooked_transformer: bool, error: Exception) -> ModelError:
    cls, other = ("HookedTransformer", "bridge") if by_hooked_transformer else ("TransformerBridge", "")
    advice = f"; use backend='{other}'" if other else ""
    return ModelError(
        in_one_line(
            f"the {cls} of TransformerLens {version('transformer-lens')} does not take {what} "
            f"({type(error).__name__}: {_short(error)}){advice}"
        )
    )


def _short(error: Exception) -> str:
    """The error's text, cut where it lists every model there is."""
    text = _one_line(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


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
    except (ValueError, OSError) as error:
        raise ModelError(
            f"could not load {name!r} as a TransformerLens model: {_one_line(error)}. Give a model name that "
            f"TransformerLens lists, a Hugging Face folder, a GGUF file, or one of {', '.join(PACKAGED)}"
        ) from error
    bridge.eval()
    require_decoder(getattr(bridge.original_model, "config", None), what=name)  # type: ignore[attr-defined]
    require_known_right(bridge, what=name)
    if bridge.tokenizer is not None:
        require_causal(own_logits(bridge, probes(bridge.tokenizer)), what=name, dtype=dtype)
    return bridge
