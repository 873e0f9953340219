"""The metric of the next token, against the KL divergence that a step in the last residual makes in the model."""

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.models import next_token_metric

TEXT = "The city of Lyon is located in the country of"


def test_half_the_square_of_a_small_step_is_the_kl_divergence_of_the_model_s_own_logits(case):
    model, ids = case.model, case.model.to_tokens(TEXT)
    place = lrc.models.hook_name(model, model.cfg.n_layers - 1)
    logits, cache = model.run_with_cache(ids)
    residual = cache[place][0, -1]
    step = torch.randn(residual.shape, generator=torch.Generator().manual_seed(0)).to(residual)
    step = 0.01 * step * residual.norm() / step.norm()

    def moved(residuals, hook):
        residuals = residuals.clone()
        residuals[:, -1] += step
        return residuals

    after = model.run_with_hooks(ids, fwd_hooks=[(place, moved)])
    log_p, log_q = (each[0, -1].double().log_softmax(-1) for each in (logits, after))
    kl = float((log_p.exp() * (log_p - log_q)).sum())
    metric = next_token_metric(model, residual[None])
    assert float(step.double() @ metric @ step.double()) / 2 == pytest.approx(kl, rel=0.1)
