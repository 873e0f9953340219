"""Tiny random models of many architectures, as Hugging Face folders with a tokenizer trained here."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

BRIDGE_IS_3 = version("transformer-lens").startswith("3.")
WIDTH, LAYERS, HEADS, CONTEXT = 32, 3, 4, 96
VOCABULARY = 400
_GPT = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT}
_LLAMA = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
_GROUPED = {**_LLAMA, "num_key_value_heads": 2}
_WINDOW = 14
"""Tokens that a sliding window sees: fewer than a prompt has."""
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture: how a tiny model of it is made, and what TransformerLens loads it as."""

    config: str
    """Class of the configuration in transformers."""
    sizes: Mapping[str, Any]
    blocks: str
    """Where its decoder layers lie in the model of transformers."""
    tokenizer: str = "byte-level BPE"
    scale: float = 0.3
    """Standard deviation of the weights: large enough for a Jacobian that depends on the subject."""
    what: str = ""
    """What is special about it."""
    hooked: bool = False
    """Whether HookedTransformer 3.9 loads it from a folder, in float64."""
    step: float = 3e-2
    """Of finite differences: large beside float32, in which most models compute a part whatever their dtype."""
    difference: float = 1e-3
    """Relative, between the Jacobian and those: larger where a function has kinks."""
    without_cache: bool = False
    """Whether generation with a cache cannot be followed, so that steering refuses it."""
    without_logits: bool = False
    """Whether TransformerLens gives no logits with generated tokens, so that `lrc.generate` refuses it."""
    wrong_on_bridge_3: bool = False
    """Whether TransformerLens 3.9 computes something else than transformers, so that loading refuses it."""


FAMILIES = {
    "GPT-2": Family(
        config="GPT2Config", sizes={**_GPT, "n_ctx": CONTEXT}, blocks="transformer.h", what="learned positions",
        hooked=True,
    ),
    "GPT-Neo": Family(
        config="GPTNeoConfig", blocks="transformer.h", what="unscaled attention, local layers", hooked=True,
        sizes={
            "hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "max_position_embeddings": CONTEXT,
            "attention_types": [[["global", "local", "global"], 1]], "window_size": _WINDOW,
        },
    ),
    "GPT-J": Family(
        config="GPTJConfig", sizes={**_GPT, "rotary_dim": 4}, blocks="transformer.h", hooked=True,
        what="parallel blocks, partial rotary in adjacent pairs",
    ),
    "GPT-NeoX": Family(
        config="GPTNeoXConfig", sizes=_LLAMA, blocks="gpt_neox.layers", hooked=True,
        what="parallel blocks, partial rotary",
    ),
    "GPT-BigCode": Family(
        config="GPTBigCodeConfig", sizes=_GPT, blocks="transformer.h", what="one key-value head",
    ),
    "Llama": Family(
        config="LlamaConfig", sizes=_GROUPED, blocks="model.layers", tokenizer="unigram", hooked=True,
        what="grouped queries",
    ),
    "Gemma": Family(
        config="GemmaConfig", sizes={**_GROUPED, "head_dim": 8}, blocks="model.layers", tokenizer="unigram",
        what="scaled embedding",
    ),
    "Gemma 2": Family(
        config="Gemma2Config", blocks="model.layers", tokenizer="unigram", what="soft caps, sliding windows",
        sizes={
            **_GROUPED, "head_dim": 8, "sliding_window": _WINDOW, "layer_types": _MIXED,
            "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0, "query_pre_attn_scalar": 8,
        },
    ),
    "Gemma 3": Family(
        config="Gemma3TextConfig", blocks="model.layers", tokenizer="unigram",
        what="query-key norms, sliding windows",
        sizes={
            **_GROUPED, "head_dim": 8, "sliding_window": _WINDOW, "layer_types": _MIXED,
            "query_pre_attn_scalar": 8,
        },
    ),
    "Qwen 2": Family(
        config="Qwen2Config", sizes=_GROUPED, blocks="model.layers", what="biases of queries and keys", hooked=True
    ),
    "Qwen 3": Family(
        config="Qwen3Config", sizes={**_GROUPED, "head_dim": 8}, blocks="model.layers", what="query-key norms",
        hooked=True,
    ),
    "Mistral": Family(
        config="MistralConfig", sizes={**_GROUPED, "sliding_window": _WINDOW}, blocks="model.layers",
        tokenizer="unigram", what="sliding windows", hooked=True,
    ),
    "Mixtral": Family(
        config="MixtralConfig", sizes={**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        blocks="model.layers", tokenizer="unigram", what="mixture of experts",
    ),
    "Phi": Family(
        config="PhiConfig", sizes={**_LLAMA, "partial_rotary_factor": 0.5}, blocks="model.layers",
        what="parallel blocks with one norm, partial rotary",
    ),
    "Phi 3": Family(
        config="Phi3Config", sizes=_GROUPED, blocks="model.layers", tokenizer="unigram", hooked=True,
        what="joined projections",
    ),
    "OPT": Family(
        config="OPTConfig", step=1e-3, difference=1e-2, blocks="model.decoder.layers",
        tokenizer="byte-level BPE with BOS", what="learned positions with an offset, ReLU", hooked=True,
        sizes={
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "ffn_dim": 48,
            "max_position_embeddings": CONTEXT, "word_embed_proj_dim": WIDTH,
        },
    ),
    "Bloom": Family(
        config="BloomConfig", sizes={"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
        blocks="transformer.h", what="ALiBi", hooked=True,
    ),
    "Falcon": Family(
        config="FalconConfig", blocks="transformer.h", what="parallel blocks, one key-value head",
        sizes={
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "multi_query": True,
            "parallel_attn": True, "new_decoder_architecture": False, "alibi": False,
        },
    ),
    "OLMo": Family(config="OlmoConfig", sizes=_GROUPED, blocks="model.layers", what="norms without weights"),
    "OLMo 2": Family(config="Olmo2Config", sizes=_GROUPED, blocks="model.layers", what="norms after the parts"),
    "StableLM": Family(
        config="StableLmConfig", sizes={**_GROUPED, "partial_rotary_factor": 0.25}, blocks="model.layers",
        what="partial rotary, LayerNorm",
    ),
    "Cohere": Family(
        config="CohereConfig", sizes=_GROUPED, blocks="model.layers", tokenizer="byte-level BPE with BOS",
        what="parallel blocks, scaled logits", wrong_on_bridge_3=True,
    ),
    "Granite": Family(
        config="GraniteConfig", blocks="model.layers", what="multipliers of residuals, embedding and logits",
        sizes={
            **_GROUPED, "residual_multiplier": 0.5, "embedding_multiplier": 3.0, "logits_scaling": 2.0,
            "attention_multiplier": 0.3,
        },
    ),
    "Qwen 3 MoE": Family(
        config="Qwen3MoeConfig", blocks="model.layers", what="mixture of experts, query-key norms",
        sizes={
            **_GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        },
    ),
    "GPT-OSS": Family(
        config="GptOssConfig", hooked=True, blocks="model.layers",
        what="mixture of experts, attention sinks, sliding windows",
        tokenizer="byte-level BPE with BOS",
        sizes={
            **_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": _WINDOW,
            "layer_types": _MIXED,
        },
    ),
    "Qwen 3 Next": Family(
        config="Qwen3NextConfig", blocks="model.layers", what="linear attention in every second layer, experts",
        sizes={
            **_GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        },
    ),
    "Mamba": Family(
        config="MambaConfig", step=1e-1, blocks="backbone.layers", what="no attention",
        without_cache=True, without_logits=True,
        sizes={"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 4},
    ),
    "MPT": Family(
        config="MptConfig", blocks="transformer.blocks", what="ALiBi, no biases", without_cache=True,
        sizes={
            "d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": CONTEXT, "expansion_ratio": 4,
        },
    ),
}  # fmt: skip
"""Every family that the toolkit is tried on, by the name that reports give it."""


def corpus():
    """Texts of the built-in relations."""
    from lrc_tl.relations import data

    texts = []
    for path in sorted(Path(next(iter(data.__path__))).glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        texts += [f"{sample['subject']} {sample['object']}" for sample in stored["samples"]]
        texts += [text.replace("{}", "it") for text in stored["prompt_templates"]]
    return texts


def trained_tokenizer(kind):
    """A tokenizer of `VOCABULARY` tokens, trained on `corpus`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    if kind == "unigram":
        plain = Tokenizer(models.Unigram())
        plain.normalizer = normalizers.Replace(" ", "▁")
        plain.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        plain.decoder = decoders.Metaspace(prepend_scheme="never")
        trainer = trainers.UnigramTrainer(
            vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False,
            initial_alphabet=list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;é?"),
        )  # fmt: skip
    else:
        plain = Tokenizer(models.BPE())
        plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        plain.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    plain.train_from_iterator(corpus(), trainer)
    if kind != "byte-level BPE":
        plain.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def write_model(family: Family, folder: Path, tokenizer: Any) -> None:
    """A random model of the family and its tokenizer, in float32, as a Hugging Face folder."""
    import transformers

    made = getattr(transformers, family.config)(
        vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0, **family.sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager")
        for name, weight in model.named_parameters():
            # Norms near one, all else random: a bias of zeros would hide that it is left out.
            with torch.no_grad():
                noise = torch.randn_like(weight) * family.scale
                weight.copy_(weight + noise * 0.3 if "norm" in name or "ln_" in name else noise)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def blocks_of(model: Any, family: Family) -> Any:
    """The decoder layers of the model of transformers."""
    found = model
    for part in family.blocks.split("."):
        found = getattr(found, part)
    return found


def some_prompts(n=6, seed=0):
    """Prompts of a built-in relation, with subjects of several tokens."""
    import lrc_tl as lrc

    prompts = list(lrc.load_relation("city_in_country").prompts(shots=0, seed=seed))
    random.Random(seed).shuffle(prompts)
    return prompts[:n]
