"""Every figure on a model whose answers are planted, where it can be worked out on paper.

The residual stream goes through unchanged: a subject's embedding is the unit vector of its object, and an
object's logit is the coefficient of that vector. So directions are those vectors, and a swap of size beta at one
layer takes (1, 0) on the two objects to (1 - beta, beta).
"""

import math

import pytest
import tiny_models
import torch

import lrc_tl as lrc

OBJECTS = ("w1", "w2", "w3", "w4")
PAIRS = [(f"w{5 + number}", OBJECTS[number % 4]) for number in range(12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tiny_models.require_hooked_transformer()
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made = tiny_models.hooked_transformer(tokenizer).eval().requires_grad_(False)
    unit = torch.eye(tiny_models.D_MODEL, dtype=torch.float64)
    ids = {f"w{number}": number + 4 for number in range(44)}
    for block in made.blocks:
        for weight in (block.attn.W_O, block.attn.b_O, block.mlp.W_out, block.mlp.b_out):
            weight.zero_()
    made.embed.W_E.zero_()
    made.unembed.W_U.zero_()
    made.unembed.b_U.zero_()
    for place, name in enumerate(OBJECTS):
        made.unembed.W_U[:, ids[name]] = unit[place]
    for subject, name in PAIRS:
        made.embed.W_E[ids[subject]] = unit[OBJECTS.index(name)]
    return made


@pytest.fixture(scope="module")
def halves():
    return lrc.Relation.from_pairs("planted", PAIRS, templates=["{}"]).split(seed=0)


@pytest.fixture(scope="module")
def known(model, halves):
    known = [lrc.filter_known(model, half.prompts()) for half in halves]
    assert [len(one.dropped) for one in known] == [0, 0]
    return [one.prompts for one in known]


@pytest.fixture(scope="module", params=["lrc", "lrc-final", "lrc-ridge", "lrc-combined", "mean", "svm"])
def concepts(request, model, known):
    return lrc.fit_concepts(
        model, known[0], method=request.param, subject_layer=0, object_layer=1, rank=tiny_models.D_MODEL
    )


def test_directions_are_the_planted_ones_and_classify_all(model, known, concepts):
    found = lrc.evaluate(model, concepts, known[1], beta=0.6)
    assert (found.accuracy, found.causality) == (1.0, 1.0)
    if concepts["w1"].method in ("lrc", "lrc-final", "lrc-ridge", "mean"):
        expected = torch.eye(tiny_models.D_MODEL, dtype=torch.float64)[: len(OBJECTS)]
        found = torch.stack([concepts[name].vector for name in OBJECTS]).double()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def log_odds(own, other, eps):
    """Of the other object against the own one, behind the final norm."""
    return (other - own) / math.sqrt((own**2 + other**2) / tiny_models.D_MODEL + eps)


def planted_edits(model, known):
    edits = lrc.evaluation.counterfactual_edits(known[1], seed=0)
    unit = torch.eye(tiny_models.D_MODEL, dtype=torch.float64)
    rows = [unit[OBJECTS.index(edit.target)] - unit[OBJECTS.index(edit.prompt.object)] for edit in edits]
    return edits, torch.stack(rows)


def test_at_one_layer_half_is_a_tie_which_is_no_success(model, known):
    edits, differences = planted_edits(model, known)
    betas = [0.25, 0.5, 0.75, -0.5]  # exact in binary
    results = lrc.evaluation.causality_curve(model, edits, differences, betas=betas, layers=[1], generated=True)
    assert [result.causality for result in results] == [0.0, 0.0, 1.0, 0.0]
    assert results[2].hard_causality == 1.0
    assert results[0].hard_causality == 0.0
    assert [result.wrong_way for result in results] == [0.0, 0.0, 0.0, 1.0]
    for result in results:
        change = log_odds(1 - result.beta, result.beta, model.cfg.eps) - log_odds(1, 0, model.cfg.eps)
        assert result.log_odds_change.tolist() == pytest.approx([change] * len(edits))
        assert result.edit_share == pytest.approx(abs(result.beta) * math.sqrt(2))


@pytest.mark.parametrize("beta", [0.1, 0.2, 0.4])
def test_at_all_layers_every_edit_adds_a_share_of_the_edited_norm(model, known, beta):
    edits, differences = planted_edits(model, known)
    (result,) = lrc.evaluation.causality_curve(model, edits, differences, betas=[beta])
    own, other = 1.0, 0.0
    for _ in range(int(model.cfg.n_layers)):
        length = math.hypot(own, other)
        own, other = own - beta * length, other + beta * length
    assert result.causality == float(other > own)
    change = log_odds(own, other, model.cfg.eps) - log_odds(1, 0, model.cfg.eps)
    assert result.log_odds_change.tolist() == pytest.approx([change] * len(edits))


def test_what_no_logit_reads_changes_nothing_but_the_norm(model, known):
    edits, _ = planted_edits(model, known)
    apart = torch.zeros(len(edits), tiny_models.D_MODEL, dtype=torch.float64)
    apart[:, -1] = 1.0
    (result,) = lrc.evaluation.causality_curve(model, edits, apart, betas=[0.3], layers=[1], generated=True)
    assert (result.causality, result.hard_causality, result.wrong_way) == (0.0, 0.0, 0.0)
    (beside,) = lrc.evaluation.side_effects(model, [(0, known[1][0])], {"m": 0 * apart}, betas=[0.3])["m"]
    assert (float(beside.kl), beside.share_kept) == (0.0, 1.0)


def test_an_lre_from_a_layer_to_the_next_is_the_identity(model, known):
    lre = lrc.LinearRelationalEmbedding.fit(model, known[0], subject_layer=0, object_layer=1, progress=False)
    torch.testing.assert_close(lre.weight, torch.eye(tiny_models.D_MODEL).to(lre.weight), atol=1e-6, rtol=0)
    assert float(lre.bias.abs().max()) < 1e-6
