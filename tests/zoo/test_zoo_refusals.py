"""What is not supported says so when it is loaded, by name."""

import pytest
import torch
import transformers
from zoo_families import BRIDGE_IS_3, FAMILIES, VOCABULARY, WIDTH

import lrc_tl as lrc
from lrc_tl.models import agreement
from lrc_tl.models.hooked_model import hooked_transformer

OTHERS = [name for name, family in FAMILIES.items() if not family.hooked]
_SIZES = {"vocab_size": VOCABULARY, "pad_token_id": 0}


@pytest.mark.parametrize("name", OTHERS)
def test_what_hooked_transformer_does_not_take_is_said_by_name_with_the_class_that_does(zoo, name):
    if hooked_transformer() is None:
        pytest.skip("this TransformerLens has no HookedTransformer")
    kind = type(zoo.plain(name, torch.float32)).__name__
    with pytest.raises(lrc.errors.ModelError, match=f"does not take the {kind} of .*use backend='bridge'"):
        lrc.load_model(zoo.folder(name), backend="hooked_transformer", dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.wrong_on_bridge_3])
def test_what_the_bridge_computes_otherwise_than_transformers_is_refused(zoo, name):
    if not BRIDGE_IS_3:
        assert lrc.load_model(zoo.folder(name)).cfg.n_layers == 3
        return
    with pytest.raises(
        lrc.errors.ModelError, match=r"computes other logits for the CohereForCausalLM of .*than tr"
    ):
        lrc.load_model(zoo.folder(name))


def test_what_is_known_wrong_by_name_is_what_the_zoo_finds_wrong(zoo):
    wrong = [name for name, family in FAMILIES.items() if family.wrong_on_bridge_3]
    kinds = {type(zoo.plain(name, torch.float32)).__name__ for name in wrong}
    assert kinds == {*agreement._WRONG_IN_TRANSFORMER_LENS_3}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.wrong_on_bridge_3])
def test_a_model_that_is_loaded_by_its_name_alone_is_refused_by_its_architecture(zoo, name, monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    folder = zoo.folder(name)
    # Without the model of transformers beside it there is nothing to compare with; stands for a name of the Hub.
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
    monkeypatch.setattr(agreement, "version", lambda package: "3.9.0")
    kind = type(bridge.original_model).__name__
    message = (
        rf"TransformerLens 3\.9\.0 computes {kind} \(some/name\) otherwise than .*install transformer-lens 4\.3"
    )
    with pytest.raises(lrc.errors.ModelError, match=message):
        agreement.require_known_right(bridge, what="some/name")
    agreement.require_known_right(zoo.model("Llama", "bridge", torch.float32), what="some/name")
    monkeypatch.setattr(agreement, "version", lambda package: "4.3.0")
    agreement.require_known_right(bridge, what="some/name")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: transformers.BertLMHeadModel(
                transformers.BertConfig(
                    **_SIZES, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
                )
            ),
            "the BertLMHeadModel of .* is not causal: what it holds at a token depends on the tokens behind it",
        ),
        (
            lambda: transformers.T5ForConditionalGeneration(
                transformers.T5Config(**_SIZES, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
            ),
            "is a T5ForConditionalGeneration, which has an encoder; load a causal language model",
        ),
        (
            lambda: transformers.CTRLLMHeadModel(
                transformers.CTRLConfig(**_SIZES, n_embd=WIDTH, n_layer=2, n_head=4, dff=48)
            ),
            "the TransformerBridge of TransformerLens .* does not take the CTRLLMHeadModel of .*",
        ),
    ],
    ids=["BERT", "T5", "CTRL"],
)
def test_what_is_no_causal_language_model_or_unknown_is_refused_by_name_in_one_short_line(
    zoo, tmp_path, model, message
):
    model().save_pretrained(tmp_path)
    zoo.own_tokenizer("GPT-2").save_pretrained(tmp_path)
    with pytest.raises(lrc.errors.ModelError, match=message) as raised:
        lrc.load_model(tmp_path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
