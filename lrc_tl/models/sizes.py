"""The sizes of a model, without loading its weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_tl.errors import ModelError, in_one_line
from lrc_tl.models.hooked_model import HookedModel, hooked_transformer, is_hooked_transformer
from lrc_tl.models.packaged import PACKAGED, gguf_folder, listed_name, packaged_folder

_TOKENS_READING = 28
"""Tokens whose products take as long as reading the weights does: the rate of products times the bytes of a
weight, over twice the rate of memory. Chosen to fit what one CPU core took at d_model 4096 in float32 and in
bfloat16 (`benchmarks/results/robustness.md`)."""


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """What a model's passes take depends on these."""

    n_layers: int
    d_model: int
    """Width of the residual stream."""
    d_mlp: int
    d_heads: int
    """Width of all attention heads together."""
    d_vocab: int
    layer_weights: int
    """In the matrices of a layer, on average: of each a token takes two floating-point operations. In a mixture of
    experts all of them are counted."""
    mlp_weights: int
    """Those of the MLP among them."""
    itemsize: int
    """Bytes of a weight and of an activation."""
    is_hooked: bool
    """Whether it is a HookedTransformer, where fits may take the Jacobians of MLPs in place of the MLPs, and go
    without the positions of the first and the last layer that are not needed."""

    @property
    def weight_bytes(self) -> int:
        """Of the matrices, with embedding and unembedding counted apart."""
        return self.itemsize * (self.n_layers * self.layer_weights + 2 * self.d_vocab * self.d_model)

    def reading_operations(self, *, n_passes: int, n_layers: int | None = None) -> int:
        """What reading the weights takes in passes through some of the layers (None: all), as operations.

        A pass over few tokens takes hardly less time than one over some dozens: it waits for the weights.
        """
        return self.pass_operations(n_tokens=_TOKENS_READING * n_passes, n_layers=n_layers)

    def pass_operations(self, *, n_tokens: int, n_logits: int = 0, n_layers: int | None = None) -> int:
        """Of tokens that go forward through some of the layers (None: all), with logits at some positions."""
        n_layers = self.n_layers if n_layers is None else n_layers
        return 2 * (n_tokens * n_layers * self.layer_weights + n_logits * self.d_model * self.d_vocab)

    def pass_bytes(self, *, n_tokens: int, n_logits: int = 0) -> int:
        """Of a pass without gradients: activations of one layer, and logits with their softmax in float32."""
        activations = n_tokens * (4 * self.d_mlp + 8 * self.d_model) * self.itemsize
        return activations + 3 * n_logits * self.d_vocab * torch.float32.itemsize


def model_sizes(model: HookedModel | str | Path) -> ModelSizes:
    """The sizes of a model, or of one that `load_model` would load by this name, from its configuration alone.

    Of a name the weights are taken for float32, as `load_model` loads them.

    Raises:
        ModelError: the name is unknown, or there is no configuration.
    """
    if not isinstance(model, (str, Path)):
        return _of_model(model)
    source, listed = _source(model)
    try:
        return _of_configuration(source, is_hooked=listed is not None and hooked_transformer() is not None)
    # What a damaged or missing configuration raises depends on how.
    except Exception as error:
        raise ModelError(in_one_line(f"the sizes of {model} cannot be read: {error}")) from error


def token_counter(model: HookedModel | str | Path) -> Callable[[str], int]:
    """Counts the tokens of a text without those that begin or end it, for a model or one that is named.

    Raises:
        ModelError: the name is unknown, or there is no tokenizer.
    """
    if isinstance(model, (str, Path)):
        from transformers import AutoTokenizer

        source, _ = _source(model)
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(source)
        # As for the configuration.
        except Exception as error:
            raise ModelError(in_one_line(f"the tokenizer of {model} cannot be read: {error}")) from error
    else:
        tokenizer = model.tokenizer

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def _source(model: str | Path) -> tuple[str | Path, str | None]:
    """Where configuration and tokenizer of a named model are, and the name by which HookedTransformer lists it.

    Raises:
        ModelError: there is no packaged model of this name.
    """
    if str(model).startswith("packaged:"):
        if model not in PACKAGED:
            raise ModelError(f"no packaged model {str(model)!r}; there are {', '.join(PACKAGED)}")
        return packaged_folder(PACKAGED[str(model)]), PACKAGED[str(model)].listed_name
    if Path(model).suffix == ".gguf" and Path(model).is_file():
        folder = gguf_folder(Path(model))
        return folder, listed_name(folder)
    if Path(model).is_dir():
        return model, None
    listed = _listed_name(str(model))
    return listed or model, listed


def _of_model(model: HookedModel) -> ModelSizes:
    parts: Any = model
    cfg, blocks = parts.cfg, parts.blocks
    n_layers, d_model = int(cfg.n_layers), int(cfg.d_model)
    return ModelSizes(
        n_layers=n_layers,
        d_model=d_model,
        d_mlp=int(getattr(cfg, "d_mlp", None) or 4 * d_model),
        d_heads=int(cfg.n_heads) * int(cfg.d_head),
        d_vocab=int(cfg.d_vocab),
        layer_weights=_in_matrices(blocks.parameters()) // n_layers,
        mlp_weights=sum(_in_matrices(block.mlp.parameters()) for block in blocks if hasattr(block, "mlp"))
        // n_layers,
        itemsize=max(parameter.element_size() for parameter in model.parameters()),
        is_hooked=is_hooked_transformer(model),
    )


def _of_configuration(source: str | Path, *, is_hooked: bool) -> ModelSizes:
    """From a model of this configuration whose weights take no memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source).get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    at_the_ends = {id(weight) for part in ends if part is not None for weight in part.parameters()}
    named = [(name, weight) for name, weight in model.named_parameters() if id(weight) not in at_the_ends]
    n_layers, d_model = int(config.num_hidden_layers), int(config.hidden_size)
    n_heads = int(config.num_attention_heads)
    d_head = int(getattr(config, "head_dim", None) or d_model // n_heads)
    return ModelSizes(
        n_layers=n_layers,
        d_model=d_model,
        d_mlp=int(getattr(config, "intermediate_size", None) or 4 * d_model),
        d_heads=n_heads * d_head,
        d_vocab=int(config.vocab_size),
        layer_weights=_in_matrices(weight for _, weight in named) // n_layers,
        mlp_weights=_in_matrices(weight for name, weight in named if "mlp" in name) // n_layers,
        itemsize=torch.float32.itemsize,
        is_hooked=is_hooked,
    )


def _in_matrices(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights if weight.ndim > 1)


def _listed_name(name: str) -> str | None:
    """The name by which the Hub knows a model that TransformerLens lists; None where it does not."""
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name
    except ImportError:  # TransformerLens 4 takes the Hub's names only
        return None
    try:
        return str(get_official_model_name(name))
    except ValueError:
        return None
