"""Final norm and unembedding of both classes of model, with both kinds of norm."""

from types import SimpleNamespace

import pytest
import tiny_models
import torch
from normed_models import KINDS, final_weights, normed_model

from lrc_tl.errors import ModelError
from lrc_tl.models.unembedding import lens_logits, linear_logits, require_unembedding

TEXT = "w1 w2 w30 w31 w7"


@pytest.fixture(scope="module", params=KINDS)
def model(request, one_thread, tmp_path_factory):
    if request.param.startswith("hooked"):
        tiny_models.require_hooked_transformer()
    return normed_model(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture
def vectors(model):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, model.cfg.d_model, generator=generator, dtype=torch.float64)


def all_logits(model, states):
    return torch.cat([logits for _, logits in lens_logits(model, states)])


def last_residual(model, text=TEXT):
    kept = []
    name = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    with model.hooks(fwd_hooks=[(name, lambda residual, hook: kept.append(residual[0].clone()))]):
        logits = model(model.to_tokens(text))[0]
    return kept[0], logits


def test_the_last_residual_gives_the_models_own_logits(model):
    residual, own = last_residual(model)
    torch.testing.assert_close(all_logits(model, residual), own, rtol=1e-5, atol=1e-5)


def test_the_linear_readout_is_the_unembedding_of_the_weighted_vector(model, vectors):
    weight, centred, unembedding = final_weights(model)
    assert float(weight.std()) > 0.1  # a norm of ones would show nothing
    plain = vectors - vectors.mean(-1, keepdim=True) if centred else vectors
    expected = plain / plain.pow(2).mean(-1, keepdim=True).sqrt() * weight.double() @ unembedding.double().T
    torch.testing.assert_close(linear_logits(model, vectors).double(), expected, rtol=1e-3, atol=1e-3)


def test_the_linear_readout_of_the_opposite_is_exactly_the_opposite(model, vectors):
    assert torch.equal(linear_logits(model, -vectors), -linear_logits(model, vectors))


def test_the_linear_readout_knows_no_length(model, vectors):
    short = linear_logits(model, 1e-4 * vectors)
    torch.testing.assert_close(short, linear_logits(model, 1e4 * vectors), rtol=1e-4, atol=1e-4)


def test_batches_of_rows_have_their_places(model, vectors):
    whole = all_logits(model, vectors)
    for rows, logits in lens_logits(model, vectors):
        assert torch.equal(logits, whole[rows])
    torch.testing.assert_close(whole[37:38], all_logits(model, vectors[37:38]))


def test_vectors_of_another_width_are_refused(model):
    with pytest.raises(ValueError, match="width 5, the model 12"):
        all_logits(model, torch.ones(1, 5))


def test_numbers_that_are_not_finite_are_refused(model, vectors):
    with pytest.raises(ValueError, match="not finite; load the model in float32"):
        linear_logits(model, vectors.index_fill(1, torch.tensor([3]), float("nan")))


def test_the_zero_vector_is_refused(model):
    with pytest.raises(ValueError, match="a vector is zero"):
        linear_logits(model, torch.zeros(1, model.cfg.d_model))


def test_a_soft_cap_is_left_out_and_changes_no_order(one_thread, tmp_path):
    tiny_models.require_hooked_transformer()
    capped = normed_model("hooked_transformer RMS", tmp_path, output_logits_soft_cap=10.0)
    residual, own = last_residual(capped)
    logits = all_logits(capped, residual)
    assert float((logits - own).abs().max()) > 0.1
    assert torch.equal(logits.argsort(-1), own.argsort(-1))


def test_a_model_without_a_final_norm_is_refused():
    headless = SimpleNamespace(cfg=SimpleNamespace(d_model=3), unembed=torch.nn.Linear(3, 4))
    with pytest.raises(ModelError, match="has no ln_final"):
        require_unembedding(headless, torch.ones(1, 3))
