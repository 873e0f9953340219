"""Tiny random models of both classes with one word-level tokenizer: `<pad>` 0, `<bos>` 1, then `w0`, `w1` ..."""

import warnings
from collections import Counter

import pytest
import torch

D_MODEL = 12


# How tokenizers differ in what they put before a text and pad with: words of `word_tokenizer`.
TOKENIZERS = {
    "own pad token": {},
    "pads with its end token": {"pad": "<eos>"},
    "pads with its beginning token": {"pad": "<bos>"},
    "no beginning token": {"bos": False},
    "no beginning token, pads with its end token": {"bos": False, "pad": "<eos>"},
}


def word_tokenizer(folder, *, pad="<pad>", bos=True):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number}" for number in range(44))]
    plain = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<eos>", pad_token=pad, unk_token="<unk>",
        **({"bos_token": "<bos>"} if bos else {}),
    )  # fmt: skip
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def require_hooked_transformer():
    """The class, or skip the test: TransformerLens 4 has none."""
    import transformer_lens

    try:
        return transformer_lens.HookedTransformer
    except (ImportError, AttributeError):
        pytest.skip("needs the class HookedTransformer, which this TransformerLens has not")


def hooked_transformer(tokenizer, *, n_layers=3, positions="rotary", normalization="RMS", **options):
    import transformer_lens

    cls = require_hooked_transformer()
    config = transformer_lens.HookedTransformerConfig(
        n_layers=n_layers, d_model=D_MODEL, n_ctx=64, d_head=6, n_heads=2, d_mlp=20, d_vocab=48, act_fn="gelu",
        seed=3, positional_embedding_type=positions, rotary_dim=6, normalization_type=normalization,
        dtype=torch.float64, device="cpu", initializer_range=0.6, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return cls(config, tokenizer=tokenizer)


def hugging_face_models():
    """The causal language models of other shapes than Llama's, by name: their configuration, to be made tiny."""
    import transformers

    gpt2 = {"n_embd": D_MODEL, "n_layer": 3, "n_head": 2, "n_positions": 64}
    neox = {
        "hidden_size": D_MODEL, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    return {
        "GPT-2": (transformers.GPT2Config, {**gpt2, "n_inner": 20}),
        "GPT-J": (transformers.GPTJConfig, {**gpt2, "n_inner": 20, "rotary_dim": 6}),
        "GPT-Neo": (
            transformers.GPTNeoConfig,
            {
                "hidden_size": D_MODEL, "num_layers": 3, "num_heads": 2, "intermediate_size": 20,
                "max_position_embeddings": 64, "attention_types": [[["global"], 3]],
            },
        ),
        "GPT-BigCode": (transformers.GPTBigCodeConfig, {**gpt2, "n_inner": 20}),
        "GPT-NeoX": (transformers.GPTNeoXConfig, {**neox, "intermediate_size": 20}),
        "Llama": (transformers.LlamaConfig, {**neox, "intermediate_size": 20}),
    }  # fmt: skip


def hugging_face(name="Llama", **sizes_given):
    """A random model of one of `hugging_face_models`, for `word_tokenizer`."""
    from transformers import AutoModelForCausalLM

    config_of, usual_sizes = hugging_face_models()[name]
    sizes = {**usual_sizes, **sizes_given}
    config = config_of(
        vocab_size=48, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.6, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        # float64 with left padding is NaN in Hugging Face's eager attention
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def bridge(tokenizer, folder, name="Llama", **sizes):
    from transformer_lens.model_bridge import TransformerBridge

    hf_model = hugging_face(name, **sizes)
    hf_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TransformerBridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )


def model_with(kind, tokenizer_kind, folder):
    """A tiny model of the class "hooked_transformer" or "bridge" with a tokenizer of `TOKENIZERS`."""
    options = TOKENIZERS[tokenizer_kind]
    tokenizer = word_tokenizer(folder / "tokenizer", **options)
    model = bridge(tokenizer, folder / "model") if kind == "bridge" else hooked_transformer(tokenizer)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, D_MODEL)
    model.cfg.default_prepend_bos = options.get("bos", True)
    return model.eval().requires_grad_(False)


def relation_known_by(model):
    """Facts that the random model knows by definition: the object is what it says."""
    import lrc_tl as lrc

    for last in range(44):
        pairs = []
        for number in range(44):
            ids = model.to_tokens(f"w{number} w{last}")
            answer = model.tokenizer.decode([int(model(ids)[0, -1].argmax())])
            if answer.startswith("w"):
                pairs.append((f"w{number}", answer))
        counts = Counter(name for _, name in pairs)
        pairs = [pair for pair in pairs if counts[pair[1]] >= 6]
        if len({name for _, name in pairs}) >= 2:
            return lrc.Relation.from_pairs("said", pairs, templates=[f"{{}} w{last}"])
    raise AssertionError("the random model says the same to everything")
