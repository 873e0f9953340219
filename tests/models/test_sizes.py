"""The sizes of a model are those of the model, whether it is there or only its configuration."""

import warnings
from dataclasses import replace

import pytest
import tiny_models

from lrc_tl.errors import ModelError
from lrc_tl.models import sizes as sizes_of_names
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.models.sizes import model_sizes, token_counter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tokenizer = tiny_models.word_tokenizer(place / "tokenizer")
    return place / "model", tiny_models.bridge(tokenizer, place / "model")


def test_a_folder_has_the_sizes_of_its_model(folder):
    path, model = folder
    of_model, of_folder = model_sizes(model), model_sizes(path)
    assert of_folder == of_model
    assert (of_model.n_layers, of_model.d_model, of_model.itemsize) == (3, 12, 4)
    matrices = [w for block in model.blocks for w in block.parameters() if w.ndim > 1]
    assert of_model.layer_weights == sum(w.numel() for w in matrices) // 3
    assert of_model.mlp_weights == 3 * of_model.d_mlp * of_model.d_model
    assert 0 < of_model.mlp_weights < of_model.layer_weights


def test_both_classes_have_the_same_sizes_but_for_what_the_class_does():
    tiny_models.require_hooked_transformer()
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=32, d_head=8, n_heads=2, d_mlp=24, d_vocab=30, act_fn="silu", gated_mlp=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sizes = model_sizes(HookedTransformer(config))
    assert sizes.mlp_weights == 3 * 16 * 24
    assert sizes.layer_weights == 4 * 16 * 16 + sizes.mlp_weights + 3 * 2 * 8  # biases by head have two axes
    assert sizes.is_hooked
    assert not replace(sizes, is_hooked=False).is_hooked


def test_passes_take_two_operations_for_each_weight_and_token(folder):
    sizes = model_sizes(folder[1])
    of_layer = 2 * 5 * sizes.layer_weights
    assert sizes.pass_operations(n_tokens=5, n_layers=1) == of_layer
    assert sizes.pass_operations(n_tokens=5, n_logits=2) == 3 * of_layer + 4 * sizes.d_model * sizes.d_vocab
    assert sizes.weight_bytes == 4 * (3 * sizes.layer_weights + 2 * sizes.d_model * sizes.d_vocab)
    assert sizes.pass_bytes(n_tokens=2) == 2 * sizes.pass_bytes(n_tokens=1) > 0


def test_tokens_are_counted_alike_by_model_and_folder_without_those_at_the_ends(folder):
    path, model = folder
    for count in (token_counter(path), token_counter(model)):
        assert [count("w1"), count("w1 w2 w3")] == [1, 3]


@pytest.mark.parametrize("reading", [model_sizes, token_counter])
def test_what_is_not_there_is_said_in_one_line(reading, tmp_path):
    with pytest.raises(ModelError, match="no packaged model 'packaged:x'; there are packaged:"):
        reading("packaged:x")
    with pytest.raises(ModelError, match="cannot be read: ") as caught:
        reading(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("listed", [None, "google/gemma-3-270m"])
def test_a_gguf_file_has_the_class_with_which_it_is_loaded(folder, listed, tmp_path, monkeypatch):
    (tmp_path / "m.gguf").touch()
    monkeypatch.setattr(sizes_of_names, "gguf_folder", lambda path: folder[0])
    monkeypatch.setattr(sizes_of_names, "listed_name", lambda given: listed if given == folder[0] else "wrong")
    sizes = model_sizes(tmp_path / "m.gguf")
    assert sizes.is_hooked == (listed is not None and hooked_transformer() is not None)
    assert replace(sizes, is_hooked=False) == model_sizes(folder[0])
