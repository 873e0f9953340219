"""Tiny models of both classes with a final RMS norm or LayerNorm, every weight and bias of a norm random."""

import tiny_models
import torch

KINDS = ("hooked_transformer RMS", "hooked_transformer LN", "bridge RMS", "bridge LN")


def normed_model(kind, folder, **options):
    """One of `KINDS`; `options` are of `tiny_models.hooked_transformer` and `tiny_models.hugging_face`."""
    cls, norm = kind.split()
    tokenizer = tiny_models.word_tokenizer(folder / "tokenizer")
    if cls == "bridge":
        model = tiny_models.bridge(tokenizer, folder / "model", {"RMS": "Llama", "LN": "GPT-2"}[norm], **options)
    else:
        model = tiny_models.hooked_transformer(tokenizer, normalization=norm, **options)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, tiny_models.D_MODEL)
    return model.eval().requires_grad_(False)


def final_weights(model):
    """By name alone: the final norm's weight, whether it is a LayerNorm, and the unembedding (words by width)."""
    if not hasattr(type(model), "original_model"):
        return model.ln_final.w, hasattr(model.ln_final, "b"), model.unembed.W_U.T
    inner = model.original_model
    norm = inner.transformer.ln_f if hasattr(inner, "transformer") else inner.model.norm
    plain = getattr(norm, "original_component", norm)
    head = getattr(inner.lm_head, "original_component", inner.lm_head)
    return plain.weight, isinstance(plain, torch.nn.LayerNorm), head.weight
