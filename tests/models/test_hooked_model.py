"""The protocol of models, and the names of their hook points."""

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.models.hooked_model import block_hook, hook_layer, is_bridge, is_hooked_transformer, layer_and_point

ASKED_OF_A_MODEL = [name for name in dir(lrc.models.HookedModel) if not name.startswith("_")]


def test_each_class_of_models_satisfies_the_protocol_and_is_told_from_the_other(word_model):
    assert isinstance(word_model, lrc.models.HookedModel)
    assert is_bridge(word_model) is (type(word_model).__name__ == "TransformerBridge")
    assert is_hooked_transformer(word_model) is not is_bridge(word_model)


def test_a_module_is_no_model_as_long_as_anything_is_missing():
    class Module(torch.nn.Module):
        cfg = tokenizer = None
        hook_dict = {}  # noqa: RUF012

    def nothing(self, *args, **kwargs):
        pass

    assert {"parameters", "modules", "eval"} <= set(ASKED_OF_A_MODEL)
    added = ("to_tokens", "hooks", "run_with_cache", "generate")
    for name in added:
        assert not isinstance(Module(), lrc.models.HookedModel)
        setattr(Module, name, nothing)
    assert isinstance(Module(), lrc.models.HookedModel)


@pytest.mark.parametrize("missing", ["__call__", "parameters", "named_parameters", "modules", "training"])
def test_what_cannot_be_called_or_has_no_weights_is_no_model(missing):
    names = {*ASKED_OF_A_MODEL, "__call__", "cfg", "tokenizer", "training"}
    whole = type("Whole", (), {name: lambda self: None for name in names})
    lacking = type("Lacking", (), {name: lambda self: None for name in names - {missing}})
    assert isinstance(whole(), lrc.models.HookedModel)
    assert not isinstance(lacking(), lrc.models.HookedModel)
    with pytest.raises(TypeError, match="Lacking is not a model that lrc_tl can use"):
        lrc.load_model(lacking())


@pytest.mark.parametrize("layer", [0, 7, 123])
@pytest.mark.parametrize("point", ["hook_resid_post", "hook_resid_mid", "attn.hook_z"])
def test_a_name_is_read_back_as_the_layer_and_the_point_that_made_it(layer, point):
    assert layer_and_point(block_hook(layer, point)) == (layer, point)
    assert hook_layer(block_hook(layer, point)) == layer


def test_the_name_made_for_a_layer_is_one_of_the_models(word_model):
    for layer in range(3):
        assert block_hook(layer) in word_model.hook_dict
        assert lrc.models.hook_name(word_model, layer) == block_hook(layer)


@pytest.mark.parametrize(
    "name", ["hook_embed", "blocks.hook_resid_post", "blocks.-1.hook_out", "x.blocks.1.hook_out"]
)
def test_a_name_outside_the_blocks_has_no_layer(name):
    with pytest.raises(ValueError, match=r"is not in a block; give one such as 'blocks\.6\.hook_resid_post'"):
        hook_layer(name)
