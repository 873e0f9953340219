"""What directions and hidden states say in words."""

import pytest
import tiny_models
import torch
from normed_models import KINDS, final_weights, normed_model
from tiny_directions import FINGERPRINT
from tiny_steering import unit

import lrc_tl as lrc
from lrc_tl.errors import FingerprintMismatch

HOOK = "blocks.1.hook_resid_post"
LAST = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module", params=KINDS)
def model(request, one_thread, tmp_path_factory):
    if request.param.startswith("hooked"):
        tiny_models.require_hooked_transformer()
    return normed_model(request.param, tmp_path_factory.mktemp("model"))


def direction(seed=0, **fields):
    return lrc.ConceptDirection.from_unscaled(
        fields.pop("vector", unit(seed)), relation="said", object_name="w9", hook_name=HOOK, **fields
    )


def numbers(words):
    return [word.token for word in words]


def read_last(model, text):
    kept = []
    with model.hooks(fwd_hooks=[(LAST, lambda residual, hook: kept.append(residual[0, -1].clone()))]):
        logits = model(model.to_tokens(text))[0, -1]
    return kept[0], logits


def test_a_direction_says_the_words_that_its_weighted_unembedding_says(model):
    weight, centred, unembedding = final_weights(model)
    one = direction(3)
    plain = one.vector - one.vector.mean() if centred else one.vector
    expected = (plain * weight.double()) @ unembedding.double().T
    found = one.readout(model, k=48)
    assert numbers(found.top) == expected.argsort(descending=True).tolist()
    assert numbers(found.bottom) == expected.argsort().tolist()
    assert [word.text for word in found.top] == [model.tokenizer.decode([number]) for number in numbers(found.top)]


@pytest.mark.parametrize("seed", range(5))
def test_the_opposite_of_a_direction_exchanges_top_and_bottom(model, seed):
    one, other = direction(seed).readout(model), direction(vector=-unit(seed)).readout(model)
    assert numbers(one.top) == numbers(other.bottom)
    assert numbers(one.bottom) == numbers(other.top)
    assert [word.logit for word in one.top] == [-word.logit for word in other.bottom]
    assert len(one.top) == len(one.bottom) == 10


def test_the_last_hidden_state_says_what_the_model_says(model):
    for text in ("w1 w2 w30", "w4", "w5 w6 w7 w8 w9"):
        state, logits = read_last(model, text)
        found = lrc.directions.readout(model, state, k=48)
        assert numbers(found.top) == logits.argsort(descending=True).tolist()
        assert found.top[0].logit == pytest.approx(float(logits.max()), rel=1e-4)


def test_a_dual_direction_is_read_out_by_either_vector(model):
    dual = direction(vector=unit(0), write_vector=unit(0) + 0.5 * unit(1))
    assert numbers(dual.readout(model).top) == numbers(direction(0).readout(model).top)
    writing = dual.readout(model, writing=True)
    assert numbers(writing.top) == numbers(direction(vector=unit(0) + 0.5 * unit(1)).readout(model).top)
    assert "writing vector" in writing.label


def test_the_words_are_ordered_and_shown_in_three_lines(model):
    found = direction(1).readout(model, k=9)
    assert [word.logit for word in found.top] == sorted((word.logit for word in found.top), reverse=True)
    assert [word.logit for word in found.bottom] == sorted(word.logit for word in found.bottom)
    first, top, bottom = repr(found).splitlines()
    assert first == f"Readout(said: w9 at {HOOK}, logit lens)"
    assert repr(found.top[0].text) in top
    assert "… 3 more" in bottom


def test_a_count_outside_the_vocabulary_is_refused(model):
    for k in (0, 49):
        with pytest.raises(ValueError, match=f"k is {k}; allowed are 1 to 48"):
            direction().readout(model, k=k)


def test_a_direction_of_another_model_is_refused(model):
    with pytest.raises(FingerprintMismatch):
        direction(fingerprint=FINGERPRINT).readout(model)


def test_lens_and_layer_go_together(model):
    with pytest.raises(ValueError, match="together, or neither"):
        lrc.directions.readout(model, unit(0), layer=1)


def test_a_state_of_another_width_is_refused(model):
    with pytest.raises(ValueError, match="width 5, the model 12"):
        lrc.directions.readout(model, torch.ones(5))
