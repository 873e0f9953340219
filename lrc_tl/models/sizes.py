"""The sizes of a model, without loading its weights."""

from dataclasses import dataclass
from pathlib import Path

from lrc_tl.errors import ModelError, in_one_line
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.packaged import PACKAGED, gguf_folder, packaged_folder


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """How many layers a model has, and how wide its residual stream is."""

    n_layers: int
    d_model: int


def model_sizes(model: HookedModel | str | Path) -> ModelSizes:
    """The sizes of a model, or of one that `load_model` would load by this name, from its configuration alone.

    Raises:
        ModelError: the name is unknown, or there is no configuration.
    """
    if not isinstance(model, (str, Path)):
        return ModelSizes(n_layers=int(model.cfg.n_layers), d_model=int(model.cfg.d_model))
    from transformers import AutoConfig

    source: str | Path = model
    if str(model).startswith("packaged:"):
        if model not in PACKAGED:
            raise ModelError(f"no packaged model {str(model)!r}; there are {', '.join(PACKAGED)}")
        source = packaged_folder(PACKAGED[str(model)])
    elif Path(model).suffix == ".gguf" and Path(model).is_file():
        source = gguf_folder(Path(model))
    elif not Path(model).is_dir():
        source = _official_name(str(model))
    try:
        config = AutoConfig.from_pretrained(source).get_text_config()
        return ModelSizes(n_layers=int(config.num_hidden_layers), d_model=int(config.hidden_size))
    # What a damaged or missing configuration raises depends on how.
    except Exception as error:
        raise ModelError(in_one_line(f"the sizes of {model} cannot be read: {error}")) from error


def _official_name(name: str) -> str:
    """The name by which the Hub knows a model that TransformerLens lists, or the name as it is."""
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name
    except ImportError:  # TransformerLens 4 takes the Hub's names only
        return name
    try:
        return str(get_official_model_name(name))
    except ValueError:
        return name
