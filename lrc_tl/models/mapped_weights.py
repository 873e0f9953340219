"""A HookedTransformer whose weights stay in files and come into memory as they are used.

TransformerLens converts a Hugging Face model in memory, which holds most weights two or three times meanwhile, and
the embedding twice ever after (Gemma's is rescaled, and its transpose is the unembedding). Here it converts once;
the result is kept beside the Hugging Face folder and mapped into memory on every later load. The unembedding is
mapped from the Hugging Face file itself. A fit then holds only the layers that it goes through and the embeddings
of its own tokens. Values and layouts are those of the plain way, and so are all results, to the last bit.
"""

import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lrc_tl.errors import ArtifactError, in_one_line
from lrc_tl.markup.terminal import error_console
from lrc_tl.numerics.precision import HOST
from lrc_tl.storage.stored_hashes import damage, write_hashes
from lrc_tl.storage.whole_file import whole_file

MAPPED = "hooked_transformer-"
"""How the names of the files begin that are kept beside a converted folder."""
_UNEMBEDDING = "unembed.W_U"
_GATED = (".mlp.W_gate", ".mlp.W_in", ".mlp.W_out")
_ALIGNMENT = 64
"""Bytes; where a tensor starts must not change how fast, or in which order, products with it are summed."""


def mapped_hooked_transformer(
    cls: Any, folder: Path, name: str, *, hf_model: Any, tokenizer: Any, device: str | torch.device
) -> Any:
    """The float32 HookedTransformer of a converted folder, without weight processing, mapped from files.

    Converts on first use (a gigabyte beside the folder for Gemma 3 270M, and a second model in memory meanwhile),
    and again where the file is no longer what was written. Where the folder cannot be written to, it warns and
    returns a model that is wholly in memory.
    """
    from filelock import FileLock
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"{MAPPED}{version('transformer-lens')}.safetensors"
    if (wrong := _damage(path)) is not None:
        if path.exists():
            say(f"{path}: the stored weights are damaged ({wrong}); they are made anew")
        plain = plain_hooked_transformer(cls, name, hf_model=hf_model, tokenizer=tokenizer, device=str(HOST))
        try:
            with FileLock(folder.parent / f"{folder.name}.lock"):
                # Nobody else holds the lock, so these are what a killed process left behind.
                for left_over in folder.glob(f".{MAPPED}*.partial"):
                    left_over.unlink()
                if _damage(path) is not None:  # no other process made it while this one waited
                    _write(plain, path)
        except (OSError, SafetensorError, ArtifactError) as error:
            warnings.warn(
                f"{path} could not be written ({' '.join(str(error).split())}), so {name} takes more memory than "
                "it needs",
                stacklevel=2,
            )
            return plain.to(device)
        del plain
    with warnings.catch_warnings():
        # 3.9 is the last TransformerLens with this class and says so; who asks for a HookedTransformer knows.
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        model = cls(_config(name, hf_model, device), tokenizer, move_to_device=False)
    weights = {key: value.T if _used_transposed(model, key) else value for key, value in load_file(path).items()}
    weights[_UNEMBEDDING] = hf_model.get_output_embeddings().weight.detach().T
    expected = {key: value.shape for key, value in model.named_parameters()}
    if {key: value.shape for key, value in weights.items()} != expected:
        raise RuntimeError(f"{path} does not hold the weights of {name}; delete it, and it is made anew")
    model.load_state_dict(weights, strict=False, assign=True)
    model.move_model_modules_to_device()
    return model


def plain_hooked_transformer(
    cls: Any,
    name: str,
    *,
    hf_model: Any,
    tokenizer: Any,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The HookedTransformer of a Hugging Face model as TransformerLens makes it, all in memory."""
    model = cls.from_pretrained_no_processing(
        name, hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
    )
    store_by_output(model)
    return model


def folder_hooked_transformer(
    cls: Any, folder: Path, *, hf_model: Any, tokenizer: Any, device: str | torch.device, dtype: torch.dtype
) -> Any:
    """The HookedTransformer of a folder that it does not list, all in memory.

    TransformerLens reads the sizes from the configuration in a folder; only its `from_pretrained` wants a name.
    """
    from transformer_lens import loading_from_pretrained as loading

    # It takes any path that has "llama" or "gemma" in it for one of those models' names.
    with tempfile.TemporaryDirectory() as neutral:
        hf_model.config.save_pretrained(neutral)
        config = loading.get_pretrained_model_config(
            neutral, hf_cfg=hf_model.config.to_dict(), fold_ln=False, device=device, n_devices=1, dtype=dtype
        )
        weights = loading.get_pretrained_state_dict(neutral, config, hf_model, dtype=dtype)
    config.model_name = folder.name
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        model = cls(config, tokenizer, move_to_device=False)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    model.move_model_modules_to_device()
    store_by_output(model)
    return model


def store_by_output(model: Any) -> None:
    """Keep the weights that HookedTransformer uses transposed as Hugging Face does, one output after another.

    It takes `W.T.contiguous()` of them in every forward pass and copies what is not stored so: 670 MB of Gemma's
    unembedding, and its MLPs. Values and shapes stay.
    """
    for key, value in model.named_parameters():
        if _used_transposed(model, key):
            value.data = value.data.T.contiguous().T


def _used_transposed(model: Any, key: str) -> bool:
    return key == _UNEMBEDDING or (bool(model.cfg.gated_mlp) and key.endswith(_GATED))


def _config(name: str, hf_model: Any, device: str | torch.device) -> Any:
    """As `from_pretrained_no_processing` makes it."""
    from transformer_lens import loading_from_pretrained as loading

    return loading.get_pretrained_model_config(
        loading.get_official_model_name(name),
        hf_cfg=hf_model.config.to_dict(),
        fold_ln=False,
        device=device,
        n_devices=1,
        default_prepend_bos=None,
        dtype=torch.float32,
    )


def _write(model: Any, path: Path) -> None:
    """All parameters but the unembedding, as they are used, in a file that appears whole or not at all."""
    from safetensors.torch import save_file

    weights = {
        key: (value.detach().T if _used_transposed(model, key) else value.detach()).contiguous()
        for key, value in model.named_parameters()
        if key != _UNEMBEDDING
    }
    with whole_file(path) as partial:
        save_file(weights, partial, metadata={"padding": ""})
        # The header's length decides where the tensors start; it is known only when it was written once.
        start = 8 + int.from_bytes(_first_bytes(partial), "little")
        if start % _ALIGNMENT:
            save_file(weights, partial, metadata={"padding": " " * (_ALIGNMENT - start % _ALIGNMENT)})
    write_hashes(_record(path), belongs=lambda name: name == path.name)


def say(message: str) -> None:
    """One line on stderr, as it stands; none where no notes are wanted."""
    error_console().print(in_one_line(message), markup=False, highlight=False, soft_wrap=True)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _damage(path: Path) -> str | None:
    """What is wrong with the file; None: nothing."""
    return damage(_record(path), belongs=lambda name: name == path.name)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)
