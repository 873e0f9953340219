"""Tiny random models of both classes with one word-level tokenizer: fast, offline, and small on purpose."""

import warnings

import pytest
import torch

D_MODEL = 12
N_LAYERS = 3
N_WORDS = 44


def word_tokenizer(folder):
    """`<bos>` is put first; every white-space separated word `w0` to `w43` is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number}" for number in range(N_WORDS))]
    plain = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def hooked_transformer(tokenizer, *, seed=3):
    """A rotary HookedTransformer in float64; the test is skipped where the class is gone."""
    import transformer_lens

    try:
        cls = transformer_lens.HookedTransformer
    except (ImportError, AttributeError):
        pytest.skip("this TransformerLens has no HookedTransformer")
    config = transformer_lens.HookedTransformerConfig(
        n_layers=N_LAYERS, d_model=D_MODEL, n_ctx=64, d_head=6, n_heads=2, d_mlp=20, d_vocab=N_WORDS + 4,
        act_fn="gelu", seed=seed, positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS",
        dtype=torch.float64, device="cpu", initializer_range=0.6,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return checked(cls(config, tokenizer=tokenizer))


def bridge(tokenizer, folder):
    """A Bridge on a Llama of the same size in float32: its left-padded attention is NaN in float64."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=D_MODEL, intermediate_size=20, num_hidden_layers=N_LAYERS, num_attention_heads=2,
        vocab_size=N_WORDS + 4, max_position_embeddings=64, attn_implementation="eager", bos_token_id=1,
        eos_token_id=2, pad_token_id=0, initializer_range=0.6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        hf_model = LlamaForCausalLM(config)
    hf_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return checked(
        TransformerBridge.boot_transformers(
            str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )
    )


def checked(model):
    """The model for use; unknown config keys are often ignored, so its size is looked at."""
    assert (model.cfg.n_layers, model.cfg.d_model) == (N_LAYERS, D_MODEL)
    return model.eval().requires_grad_(False)
