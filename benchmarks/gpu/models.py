"""Random Llama-shaped models with a word-level tokenizer, made without a network; and prompts for them."""

import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lrc_tl as lrc

N_WORDS = 1000
CONTEXT = 256
SUBJECT, FOLLOWING, OBJECTS = 2, 5, 8
"""Words of a subject, words between it and the object, and different objects (of two words each)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a model is; the rest is as in Llama 2 7B, where `d_model` is 4096."""

    d_model: int
    n_layers: int

    @property
    def d_head(self) -> int:
        """128 from 1024 on."""
        return 128 if self.d_model >= 1024 else 16

    @property
    def d_mlp(self) -> int:
        """2.6875 times the width, in multiples of 32: 11008 for 4096."""
        return round(2.6875 * self.d_model / 32) * 32


def word_tokenizer(folder: Path) -> Any:
    """`<pad>` 0, `<bos>` 1, `<eos>` 2, `<unk>` 3, then `w0`, `w1` ...; puts `<bos>` before a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number}" for number in range(N_WORDS))]
    plain = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def random_llama(shape: Shape, *, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """A Hugging Face model whose weights do not depend on the dtype, and on the device by its generator alone."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=N_WORDS + 4, hidden_size=shape.d_model, intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers, num_attention_heads=shape.d_model // shape.d_head,
        num_key_value_heads=shape.d_model // shape.d_head, max_position_embeddings=CONTEXT,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
        initializer_range=1.28 * shape.d_model**-0.5,
    )  # fmt: skip
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    generator = torch.Generator(device=device).manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # of norms
            weight.data.fill_(1)
            continue
        # Embeddings as large as the residuals that the blocks write, so that blocks matter and saturate nothing.
        scale = 1.0 if "embed_tokens" in name else config.initializer_range
        drawn = torch.randn(weight.shape, generator=generator, device=device, dtype=torch.float32)
        weight.data.copy_(drawn * scale)
    return model.eval().requires_grad_(False)


def bridge_of(hf_model: Any, folder: Path, *, device: str, dtype: torch.dtype) -> Any:
    """A TransformerBridge around the model, which is moved to this device and dtype: give a copy to keep it."""
    from transformer_lens.model_bridge import TransformerBridge

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = word_tokenizer(folder)
    hf_model.config.save_pretrained(folder)
    hf_model = hf_model.to(device=device, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = TransformerBridge.boot_transformers(
            str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
        )
    model.cfg.default_prepend_bos = True
    config = hf_model.config
    assert (model.cfg.n_layers, model.cfg.d_model) == (config.num_hidden_layers, config.hidden_size)
    return model.eval().requires_grad_(False)


def made_up_prompts(n: int, *, before: int = 40, seed: int = 0) -> list[lrc.Prompt]:
    """Prompts of random words: `before` of them, a subject of two, five more, and one of eight objects."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(N_WORDS)]
    objects = tuple(" ".join(draw.sample(words, 2)) for _ in range(OBJECTS))
    prompts = []
    for number in range(n):
        subject = " ".join(draw.sample(words, SUBJECT))
        text = [*draw.choices(words, k=before), subject, *draw.choices(words, k=FOLLOWING)]
        named = objects[number % OBJECTS]
        prompts.append(lrc.Prompt(text=" ".join(text), subject=subject, object=named, relation="made up"))
    return prompts
