"""Control tasks: near chance where there is nothing to find, and the model as it was before."""

import pytest
import torch
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.evaluation.control_tasks import with_shuffled_objects

LAYER = 0


def prompts_by_word(count, *, texts):
    """The object follows from the subject's own word alone, so a probe of the subject finds it."""
    return [
        lrc.Prompt(text=f"{text} w{number % 4}", subject=f"w{number % 4}", object=f"w{20 + number % 4}")
        for number, text in zip(range(count), texts * count, strict=False)
    ]


@pytest.fixture
def train():
    return prompts_by_word(24, texts=["w5", "w6 w7", "w8"])


@pytest.fixture
def tested_prompts():
    return prompts_by_word(20, texts=["w9", "w10 w11", "w12 w13 w14"])


def make(method):
    def concepts(model, prompts):
        return lrc.fit_baselines(model, prompts, layer=LAYER, methods=(method,))[method]

    return concepts


def test_what_there_is_to_find_is_found_and_the_controls_are_near_chance(word_model, train, tested_prompts):
    found = [
        lrc.evaluation.selectivity(word_model, train, tested_prompts, make("svm"), seed=seed) for seed in range(6)
    ]
    assert found[0].chance == 0.25
    assert found[0].accuracy > 2 * found[0].chance
    assert len({one.accuracy for one in found}) == 1
    for control in ("shuffled_labels", "random_directions"):
        assert sum(getattr(one, control) for one in found) / 6 == pytest.approx(0.25, abs=0.2)
    assert found[0].selectivity == found[0].accuracy - found[0].shuffled_labels
    assert found[0].to_dict()["n_prompts"] == 20


def test_an_untrained_model_holds_the_words_too(word_model, train, tested_prompts):
    """The control that a probe of the words themselves cannot pass: random weights keep them apart."""
    found = lrc.evaluation.selectivity(word_model, train, tested_prompts, make("centred-mean"))
    assert found.random_model > found.chance


def compare(drawn, before):
    large = [(new, old) for new, old in zip(drawn, before, strict=True) if old.numel() > 100]
    assert len(large) > 5
    for new, old in large:
        assert not torch.equal(new, old)
        assert float(new.std()) == pytest.approx(float(old.std()), rel=0.3)
    raise ArithmeticError


def test_random_weights_keep_the_scale_and_are_gone_afterwards(word_model):
    before = [parameter.clone() for parameter in word_model.parameters()]
    fingerprint = lrc.models.ModelFingerprint.of(word_model)
    with pytest.raises(ArithmeticError), lrc.evaluation.random_weights(word_model, seed=1):
        compare(list(word_model.parameters()), before)
    assert all(torch.equal(a, b) for a, b in zip(word_model.parameters(), before, strict=True))
    lrc.models.ModelFingerprint.of(word_model).require_match(fingerprint)


def test_random_directions_are_unit_vectors_at_the_same_place(word_model, train):
    real = make("mean")(word_model, train)
    drawn = lrc.evaluation.random_concepts(real, seed=0)
    assert list(drawn) == list(real)
    assert drawn.hook_name == real.hook_name
    torch.testing.assert_close(drawn.vectors.norm(dim=-1), real.vectors.norm(dim=-1))
    assert torch.equal(drawn.vectors, lrc.evaluation.random_concepts(real, seed=0).vectors)
    assert drawn.vectors.shape == (4, D_MODEL)
    assert (drawn.vectors @ real.vectors.T).abs().max() < 0.95


def test_shuffling_keeps_every_object_as_often_as_it_was(train):
    shuffled = with_shuffled_objects(train, seed=3)
    assert sorted(p.object for p in shuffled) == sorted(p.object for p in train)
    assert [p.text for p in shuffled] == [p.text for p in train]
    assert shuffled != tuple(train)
    assert shuffled == with_shuffled_objects(train, seed=3)


def test_no_prompts_are_refused(word_model, train):
    with pytest.raises(ValueError, match="24 training and 0 test prompts were given"):
        lrc.evaluation.selectivity(word_model, train, [], make("mean"))
