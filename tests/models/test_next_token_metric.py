"""The metric of the next token against the KL divergence of small steps, on both classes of model and norm."""

import pytest
import tiny_models
import torch
from normed_models import KINDS, normed_model

from lrc_tl.errors import ModelError
from lrc_tl.models import next_token_metric as module
from lrc_tl.models.next_token_metric import MOST_RESIDUALS, next_token_metric


@pytest.fixture(scope="module", params=KINDS)
def model(request, one_thread, tmp_path_factory):
    if request.param.startswith("hooked"):
        tiny_models.require_hooked_transformer()
    return normed_model(request.param, tmp_path_factory.mktemp("model"))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl_of_step(model, state, step, cap=None):
    """KL(p(state) || p(state + step)) through the model's own norm and unembedding, in float64 from its logits."""
    logits = model.unembed(model.ln_final(torch.stack([state, state + step])[None]))[0].detach().double()
    if cap is not None:
        logits = cap * (logits / cap).tanh()
    before, after = logits.log_softmax(-1)
    return float((before.exp() * (before - after)).sum())


def test_half_the_square_of_a_small_step_is_the_kl_divergence_that_it_makes(model):
    for seed in range(4):
        state, step = draw(model.cfg.d_model, seed=seed), 0.02 * draw(model.cfg.d_model, seed=10 + seed)
        metric = next_token_metric(model, state[None])
        assert kl_of_step(model, state, step) > 1e-6
        assert float(step.double() @ metric @ step.double()) / 2 == pytest.approx(
            kl_of_step(model, state, step), rel=0.1
        )


def test_a_soft_cap_counts(one_thread, tmp_path):
    tiny_models.require_hooked_transformer()
    capped = normed_model("hooked_transformer RMS", tmp_path, output_logits_soft_cap=1.0)
    state, step = draw(capped.cfg.d_model), 0.02 * draw(capped.cfg.d_model, seed=1)
    found = float(step.double() @ next_token_metric(capped, state[None]) @ step.double()) / 2
    assert found == pytest.approx(kl_of_step(capped, state, step, cap=1.0), rel=0.1)
    assert found != pytest.approx(kl_of_step(capped, state, step), rel=0.3)


def test_it_is_the_mean_over_residuals_symmetric_and_nowhere_below_zero(model):
    states = draw(5, model.cfg.d_model)
    metric = next_token_metric(model, states)
    single = torch.stack([next_token_metric(model, state[None]) for state in states])
    torch.testing.assert_close(metric, single.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(metric, metric.T)
    values = torch.linalg.eigvalsh(metric)
    assert values[0] > -1e-6 * values[-1]
    assert (metric.dtype, metric.device.type) == (torch.float64, "cpu")


def test_the_length_of_a_residual_says_nothing_of_the_next_token(model):
    if model.ln_final.__class__.__name__.startswith("Identity"):
        pytest.skip("a model without norms")
    state = draw(model.cfg.d_model)
    state = state - state.mean()
    metric = next_token_metric(model, state[None])
    along, all_ways = state.double() @ metric @ state.double(), metric.trace() * state.double().square().sum()
    assert float(along) < 1e-4 * float(all_ways)


def test_of_many_residuals_some_at_even_distances_are_taken(model):
    states = draw(3 * MOST_RESIDUALS, model.cfg.d_model)
    rows = torch.linspace(0, len(states) - 1, MOST_RESIDUALS).long()
    assert torch.equal(next_token_metric(model, states), next_token_metric(model, states[rows]))


def test_few_of_the_likeliest_tokens_give_nearly_the_same(model, monkeypatch):
    states = 30 * draw(4, model.cfg.d_model)
    whole = next_token_metric(model, states)
    monkeypatch.setattr(module, "MOST_TOKENS", int(0.9 * model.cfg.d_vocab))
    few = next_token_metric(model, states)
    assert not torch.equal(few, whole)
    assert float((few - whole).norm()) < 0.15 * float(whole.norm())


def test_what_has_no_metric_is_refused(model):
    width = model.cfg.d_model
    with pytest.raises(ValueError, match="no residuals"):
        next_token_metric(model, draw(0, width))
    with pytest.raises(ValueError, match="width 5"):
        next_token_metric(model, draw(2, 5))
    with pytest.raises(ValueError, match="not finite"):
        next_token_metric(model, draw(2, width) / 0)


def test_an_unembedding_that_is_no_matrix_is_refused(model, monkeypatch):
    kind = type(model.unembed)
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda module, hidden: own(module, hidden).square())
    with pytest.raises(ModelError, match="is no matrix in a float dtype"):
        next_token_metric(model, draw(1, model.cfg.d_model))
