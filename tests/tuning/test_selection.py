"""Settings are chosen on training facts alone, and the choice is the best of what was tried."""

import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.tuning.beta_choice import BETAS, BetaEffect, BetaTrials, search_betas


@pytest.fixture
def relation(word_model):
    return tiny_models.relation_known_by(word_model)


def test_the_choice_is_the_best_row_and_beta_of_what_was_tried(word_model, relation):
    space = lrc.SearchSpace(subject_layers=[0, 1], object_layers=[1, -1], ranks=[2, 4, 400], betas=[0.4, 0.1])
    settings = lrc.select_settings(
        word_model, relation, space=space, shots=0, n_prompts=3, progress=False,
    )  # fmt: skip
    assert len(settings.tried) == 3 * 3  # not from layer 1 to itself
    assert set(settings.tried["rank"]) == {2, 4, 12}  # 400 is cut to the numerical rank
    means = settings.tried.groupby(["subject_layer", "object_layer"]).accuracy.mean()
    assert means[settings.subject_layer, settings.object_layer] == means.max()
    tried = settings.tried_edits
    assert sorted(zip(tried["rank"], tried.beta, strict=True)) == [(r, b) for r in (2, 4, 12) for b in (0.1, 0.4)]
    chosen = tried[(tried["rank"] == settings.rank) & (tried.beta == settings.beta)].iloc[0]
    for name in ("accuracy", "causality", "hard_success", "perplexity_ratio", "within_limits"):
        assert getattr(settings, name) == chosen[name]
    allowed = tried[tried.within_limits] if tried.within_limits.any() else tried[tried.beta == 0.1]
    assert settings.accuracy + settings.hard_success == (allowed.accuracy + allowed.hard_success).max()
    assert settings.validation_shots == 0
    again = lrc.select_settings(
        word_model, relation, space=space, shots=0, n_prompts=3, progress=False,
    )  # fmt: skip
    assert again.to_dict() == settings.to_dict()


def test_too_few_known_facts_are_refused(word_model):
    pairs = [(f"w{n}", f"w{n % 2 + 20} w1 w2 w3") for n in range(12)]
    unknown = lrc.Relation.from_pairs("unknown", pairs, templates=["{} w7"])
    with pytest.raises(ValueError, match="no known prompts"):
        lrc.select_settings(word_model, unknown, shots=0, progress=False)


def test_layers_without_a_pair_are_refused(word_model, relation):
    space = lrc.SearchSpace(subject_layers=[1], object_layers=[1])
    with pytest.raises(ValueError, match=r"no object layer of \[1\] lies above a subject layer of \[1\]"):
        lrc.select_settings(word_model, relation, space=space, shots=0, n_prompts=2, progress=False)


@pytest.mark.parametrize("ranks", [[], [4, 0]], ids=str)
def test_ranks_below_one_or_none_are_refused(ranks):
    with pytest.raises(
        ValueError, match=re.escape(f"ranks are {ranks}; give at least one, each of them 1 or more")
    ):
        lrc.SearchSpace(ranks=ranks)


def test_a_space_keeps_its_lists_as_they_were_given():
    layers = [0, 1]
    space = lrc.SearchSpace(subject_layers=layers, ranks=iter([2, 4]), betas=np.array([0.1]))
    layers.append(2)
    assert (space.subject_layers, space.ranks, space.betas) == ((0, 1), (2, 4), (0.1,))


def test_default_layers_lie_inside_any_model(word_model):
    from lrc_tl.tuning.selection import default_layers

    subject, object_ = default_layers(word_model)
    assert lrc.SearchSpace().layers(word_model) == lrc.SearchSpace(subject_layers=()).layers(word_model)
    assert lrc.SearchSpace().layers(word_model) == (subject, object_)
    assert 0 <= min(subject) <= max(subject) < min(object_) <= max(object_) <= 2


class Planted:
    """Trials whose outcome is a function of beta, and which remember what was asked."""

    def __init__(self, **effects):
        self.effects, self.asked = effects, []

    def measured(self, betas, *, names=None):
        self.asked += betas
        return {name: [self.effects[name](beta) for beta in betas] for name in names or self.effects}


def effect(beta, hard, *, kl=0.1, ratio=1.0, causality=0.5):
    return BetaEffect(
        beta=beta,
        causality=causality,
        hard_success=hard,
        mean_log_odds_change=0.0,
        kl_elsewhere=kl,
        perplexity_ratio=ratio,
    )


def peak(at, **side):
    """Hard success that falls off on both sides of a size."""
    return lambda beta: effect(beta, 1 / (1 + abs(math.log(beta / at))), **side)


@pytest.mark.parametrize("at", [3e-5, 4e-4, 0.0025, 0.02, 0.4])
def test_the_search_finds_the_size_wherever_it_lies(at):
    effects, name, chosen = search_betas(Planted(a=peak(at)), {"a": 1.0})
    assert name == "a"
    assert abs(math.log(chosen.beta / at)) < math.log(10) / 8
    tried = [one.beta for one in effects["a"]]
    assert tried == sorted(set(tried))
    assert tried[0] < chosen.beta < tried[-1]


@pytest.mark.parametrize(("hard", "end"), [(lambda beta: beta, 1.0), (lambda beta: 1 - beta, 1e-5)])
def test_the_search_is_bounded(hard, end):
    _, _, chosen = search_betas(Planted(a=lambda beta: effect(beta, hard(beta))), {"a": 1.0})
    assert chosen.beta == end


def test_what_exceeds_a_limit_is_not_taken_however_well_it_works():
    for broken in (
        lambda beta: effect(beta, beta, kl=100 * beta),
        lambda beta: effect(beta, beta, ratio=1 + 100 * beta / 1.4),
        lambda beta: effect(beta, beta, kl=None, ratio=1 + 100 * beta / 1.4),
        lambda beta: effect(beta, beta, kl=math.nan if beta > 0.007 else 0.0),
    ):
        _, _, chosen = search_betas(Planted(a=broken), {"a": 1.0})
        assert 0.005 < chosen.beta <= 0.0071
        assert chosen.within_limits


def test_the_given_betas_are_tried_and_no_others():
    trials = Planted(a=peak(0.002))
    _, _, chosen = search_betas(trials, {"a": 1.0}, [0.5, 0.1])
    assert (chosen.beta, trials.asked) == (0.1, [0.1, 0.5])
    _, _, outside = search_betas(Planted(a=peak(0.5, kl=9.0)), {"a": 1.0}, [0.5, 0.1])
    assert (outside.beta, outside.within_limits) == (0.1, False)


def test_the_set_with_the_best_sum_of_accuracy_and_hard_success_is_taken_and_searched_alone():
    trials = Planted(a=peak(0.01), b=lambda beta: effect(beta, 0.2))
    effects, name, _ = search_betas(trials, {"a": 0.5, "b": 0.9})
    assert name == "a"
    assert len(effects["a"]) > len(effects["b"]) == len(BETAS)
    assert search_betas(trials, {"a": 0.1, "b": 0.95})[1] == "b"


def test_of_sizes_that_do_the_same_the_one_with_more_causality_then_the_smaller_is_taken():
    _, _, chosen = search_betas(Planted(a=lambda beta: effect(beta, 0.0, causality=min(beta, 0.05))), {"a": 1.0})
    assert 0.05 <= chosen.beta < 0.06


def test_where_no_edit_succeeds_the_one_that_moves_the_odds_most_within_limits_is_taken():
    def nothing(beta):
        return replace(effect(beta, 0.0, causality=0.0, kl=beta * 10), mean_log_odds_change=beta)

    _, _, chosen = search_betas(Planted(a=nothing), {"a": 1.0})
    assert 0.05 < chosen.beta <= 0.07


def test_where_edits_only_do_harm_the_search_does_not_run_down_to_nothing():
    def harm(beta):
        return replace(effect(beta, 0.0, causality=0.0), mean_log_odds_change=-beta)

    assert search_betas(Planted(a=harm), {"a": 1.0})[2].beta == BETAS[0]


def test_every_figure_is_that_of_its_own_function(word_model, relation):
    """Causality, hard success, KL elsewhere and perplexity of one trial, each measured apart."""
    prompts = lrc.filter_known(word_model, relation.prompts(), progress=False).prompts
    generator = torch.Generator().manual_seed(0)
    concepts = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(D_MODEL, generator=generator), relation="r", object_name=name,
                hook_name="blocks.1.hook_resid_post",
            )
            for name in sorted({prompt.object for prompt in prompts})
        }
    )  # fmt: skip
    edits = lrc.evaluation.counterfactual_edits(prompts, per_object=2)
    elsewhere = [lrc.Prompt(text="w30 w2 w31", subject="w30 w2", object="w6")]
    betas = [0.05, 0.4]
    trials = BetaTrials(word_model, {"": concepts}, edits, elsewhere, seed=0, progress=False)
    for measured in (trials.measured(betas)[""], trials.measured(betas)[""]):  # the second takes the clean run
        for beta, found in zip(betas, measured, strict=True):
            expected = lrc.evaluate(
                word_model, concepts, prompts, beta=beta, edits_per_object=2, elsewhere=elsewhere
            )
            assert (found.beta, found.causality) == (beta, expected.causality)
            assert found.hard_success == expected.hard_success
            assert found.mean_log_odds_change == pytest.approx(
                float(expected.causality_result.log_odds_change.mean())
            )
            assert expected.elsewhere.n_statements == min(60, len(edits))
            kl = expected.elsewhere.kl[:30].mean()
            assert found.kl_elsewhere == pytest.approx(float(kl), abs=1e-6)
            assert found.perplexity_ratio != 1
    none = BetaTrials(word_model, {"": concepts}, edits, [], seed=0, progress=False).measured([0.4])[""][0]
    assert none.kl_elsewhere is None


def test_settings_carry_into_the_concepts(word_model, relation):
    settings = lrc.select_settings(
        word_model, relation, space=lrc.SearchSpace(subject_layers=[0], object_layers=[-1], ranks=[4]), shots=0,
        n_prompts=2, progress=False, others=[],
    )  # fmt: skip
    assert settings.kl_elsewhere is None
    assert settings.n_statements == 0
    assert settings.perplexity_ratio <= 1.5
    assert settings.within_limits
    assert 1e-5 < settings.beta <= 1
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, relation.prompts()[:2], subject_layer=settings.subject_layer,
        object_layer=settings.object_layer, progress=False,
    )  # fmt: skip
    concepts = lre.concepts(word_model, relation.prompts(), rank=settings.rank).with_beta(settings.beta)
    assert concepts.beta == settings.beta


def test_known_statements_have_nothing_to_do_with_the_relation_and_are_known(word_model, relation):
    asked = lrc.Relation.from_pairs(
        "other", [(f"w{n} w{n + 1}", "w3") for n in range(10, 30)], templates=["{} w7"]
    )
    said = lrc.filter_known(word_model, asked.prompts(), progress=False)
    pairs = [(d.prompt.subject, d.answer.split()[0]) for d in said.dropped if d.answer.startswith("w")]
    names = {name for fact in relation.facts for name in (fact.subject, fact.object)}
    pairs = [pair for pair in pairs if not names & set(pair)]
    assert pairs
    other = lrc.Relation.from_pairs("other", [*pairs, ("w1 w1", relation.facts[0].object)], templates=["{} w7"])
    same_name = lrc.Relation.from_pairs("SAID", pairs, templates=["{} w7"])
    found = lrc.known_statements(word_model, relation, others=[other, same_name], progress=False)
    assert found
    assert set(found) <= set(other.prompts())
    assert not names & {name for prompt in found for name in (prompt.subject, prompt.object)}
    assert len(lrc.filter_known(word_model, found, progress=False).prompts) == len(found) <= 4
    assert lrc.known_statements(word_model, relation, n=1, others=[other, same_name], progress=False) == found[:1]
    assert lrc.known_statements(word_model, relation, others=[same_name], progress=False) == ()
    with pytest.raises(ValueError, match="n is 0"):
        lrc.known_statements(word_model, relation, n=0)


def test_without_prompts_or_with_too_few_facts_to_choose_by_nothing_is_chosen(word_model, relation):
    with pytest.raises(ValueError, match="n_prompts is 0; it must be 1 or more"):
        lrc.select_settings(word_model, relation, n_prompts=0, progress=False)
    few = replace(relation, facts=tuple(facts_of_two_objects(relation, n=4)))
    with pytest.raises(
        ValueError, match=r"knows only [0-4] of the 4 facts held out .* 5 of two objects are needed"
    ):
        lrc.select_settings(word_model, few, shots=0, n_prompts=1, progress=False)


def facts_of_two_objects(relation, *, n):
    """The first `n` facts of each of the two commonest objects."""
    (first, _), (second, _) = Counter(fact.object for fact in relation.facts).most_common(2)
    for name in (first, second):
        yield from [fact for fact in relation.facts if fact.object == name][:n]
