"""A model that drops activations at random is refused: what it gives once it does not give again."""

import pytest
import tiny_models
import torch
from tiny_steering import adding

import lrc_tl as lrc

PROMPTS = [
    lrc.Prompt(text=f"w{number} w2", subject=f"w{number}", object=f"w{number % 2}") for number in range(3, 9)
]
CALLS = {
    "mean_concepts": lambda model: lrc.mean_concepts(model, PROMPTS, layer=1),
    "prompt_activations": lambda model: lrc.passes.prompt_activations(model, PROMPTS, subject_layers=[1]),
    "filter_known": lambda model: lrc.filter_known(model, PROMPTS, progress=False),
    "fit": lambda model: lrc.LinearRelationalEmbedding.fit(
        model, PROMPTS, subject_layer=0, object_layer=2, progress=False
    ),
    "generate": lambda model: lrc.generate(model, "w1 w2", max_new_tokens=2),
    "generate, steered": lambda model: lrc.generate(model, "w1 w2", steering=adding(), max_new_tokens=2),
    "fingerprint": lambda model: lrc.models.ModelFingerprint.of(model),
}


def made(name, tmp_path):
    tokenizer = tiny_models.word_tokenizer(tmp_path / "tokenizer")
    return tiny_models.bridge(tokenizer, tmp_path / "model", name).eval()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("part", ["model", "original_model"])
def test_a_model_with_dropout_is_refused_in_training_mode(tmp_path, call, part):
    model = made("GPT-2", tmp_path)
    (model if part == "model" else model.original_model).train()
    with pytest.raises(lrc.errors.ModelError, match=r"training mode.*Dropout.*0\.1.*call model\.eval\(\)"):
        call(model)
    model.eval()
    call(model)


def test_dropout_that_attention_code_keeps_as_a_number_is_seen(tmp_path):
    model = made("Llama", tmp_path)
    model.train()
    lrc.generate(model, "w1 w2", max_new_tokens=2)  # a Llama drops nothing
    attention = next(part for part in model.original_model.modules() if hasattr(part, "attention_dropout"))
    attention.attention_dropout = 0.25
    with pytest.raises(lrc.errors.ModelError, match=r"a share of 0\.25"):
        lrc.generate(model, "w1 w2", max_new_tokens=2)


def test_a_model_without_dropout_gives_the_same_in_both_modes(class_of_model, tmp_path):
    model = tiny_models.model_with(class_of_model, "own pad token", tmp_path)
    expected = lrc.mean_concepts(model, PROMPTS, layer=1).vectors
    assert torch.equal(lrc.mean_concepts(model.train(), PROMPTS, layer=1).vectors, expected)
