"""Models of four layers, for steerings at several of them."""

import pytest
import tiny_models
import torch


@pytest.fixture(scope="module")
def model(class_of_model, tmp_path_factory):
    """Four layers: float64, and the Bridge in float32."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if class_of_model == "bridge":
        model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"), num_hidden_layers=4)
    else:
        model = tiny_models.hooked_transformer(tokenizer, n_layers=4)
    assert (model.cfg.n_layers, model.cfg.d_model) == (4, tiny_models.D_MODEL)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exact(class_of_model, tmp_path_factory):
    """Four layers in float64 for single rows: with padding, Hugging Face's attention has no numbers in float64."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if class_of_model == "bridge":
        model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"), num_hidden_layers=4).to(
            torch.float64
        )
    else:
        model = tiny_models.hooked_transformer(tokenizer, n_layers=4)
    assert {weight.dtype for weight in model.parameters()} == {torch.float64}
    return model.eval().requires_grad_(False)
