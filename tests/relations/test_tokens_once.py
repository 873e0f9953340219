"""How often prompts are tokenised: once in each public call, and anew in the next."""

from collections import Counter

import pytest
import tiny_models

import lrc_tl as lrc
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.relations.prompts import tokens_once

PLACES = {"subject_layer": 0, "object_layer": 2}
PROMPTS = tuple(
    lrc.Prompt(text=f"w{number} w8 w9", subject=f"w{number}", object=f"w{30 + number % 2}") for number in range(6)
)


@pytest.fixture
def asked(word_model, monkeypatch):
    """How often the model was asked for the tokens of each text."""
    texts = Counter()
    plain = type(word_model).to_tokens

    def counting(self, text, *args, **kwargs):
        texts[text] += 1
        return plain(self, text, *args, **kwargs)

    monkeypatch.setattr(type(word_model), "to_tokens", counting)
    return texts


def fit(model, **options):
    return lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **PLACES, progress=False, **options)


CALLS = {
    "filter_known": lambda model: lrc.filter_known(model, PROMPTS, progress=False),
    "prompt_activations": lambda model: lrc.passes.prompt_activations(
        model, PROMPTS, subject_layers=[0], object_layers=[2]
    ),
    "fit": fit,
    "fit_layer_grid": lambda model: lrc.fit_layer_grid(
        model, PROMPTS, subject_layers=[0, 1], object_layers=[2], progress=False
    ),
    "fit_concepts": lambda model: lrc.fit_concepts(model, PROMPTS, method="lrc", rank=3, **PLACES, progress=False),
    "fit_concepts of several passes": lambda model: lrc.fit_concepts(
        model, PROMPTS, method="lrc-combined", rank=3, **PLACES, progress=False
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_public_call_tokenises_each_prompt_once(word_model, asked, call):
    CALLS[call](word_model)
    texts = {prompt.text: asked[prompt.text] for prompt in PROMPTS}
    whole = {f"{prompt.text} {prompt.object}": asked[f"{prompt.text} {prompt.object}"] for prompt in PROMPTS}
    assert set(texts.values()) == set(whole.values()) == {1}


def test_concepts_of_an_lre_tokenise_each_prompt_once(word_model, asked):
    lre = fit(word_model)
    asked.clear()
    lre.concepts(word_model, PROMPTS, rank=3)
    assert {asked[prompt.text] for prompt in PROMPTS} == {1}


def test_dual_concepts_tokenise_prompts_that_are_their_own_zero_shot_form_once(word_model, asked):
    background = [
        lrc.Prompt(text=f"w{other} w{number} w3", subject=f"w{number}", object="w9")
        for number in range(10, 40)
        for other in (1, 4)
    ]
    statistics = SubjectStatistics.fit(word_model, layers=[PLACES["subject_layer"]], background=background)
    assert {asked[prompt.text] for prompt in background} == {1}
    lre = fit(word_model)
    asked.clear()
    lre.concepts(word_model, PROMPTS, prior=statistics, noise=1.0)
    assert {asked[prompt.text] for prompt in PROMPTS} == {1}


def test_nothing_is_remembered_after_a_call(word_model, asked):
    before = lrc.relations.tokenize_prompt(word_model, PROMPTS[0])
    with tokens_once():
        assert lrc.relations.tokenize_prompt(word_model, PROMPTS[0]) == before
        assert lrc.relations.tokenize_prompt(word_model, PROMPTS[0]) is lrc.relations.tokenize_prompt(
            word_model, PROMPTS[0]
        )
    assert asked[PROMPTS[0].text] == 2
    word_model.cfg.default_prepend_bos = False
    try:
        with tokens_once():
            after = lrc.relations.tokenize_prompt(word_model, PROMPTS[0])
    finally:
        word_model.cfg.default_prepend_bos = True
    assert after.text_ids == before.text_ids[1:]


def test_prompts_are_never_read_with_another_models_tokens(word_model, tmp_path):
    other = tiny_models.bridge(tiny_models.word_tokenizer(tmp_path / "tokenizer"), tmp_path / "model")
    other.cfg.default_prepend_bos = False
    with tokens_once():
        own, others = (lrc.relations.tokenize_prompt(model, PROMPTS[1]) for model in (word_model, other))
        assert lrc.relations.tokenize_prompt(word_model, PROMPTS[1]) is own
    assert own.subject_position == others.subject_position + 1


def test_prompts_that_differ_in_one_thing_have_their_own_tokens(word_model):
    with tokens_once():
        ids = {
            lrc.relations.tokenize_prompt(word_model, prompt).object_ids
            for prompt in (PROMPTS[0], lrc.Prompt(text="w0 w8 w9", subject="w0", object="w31"))
        }
    assert len(ids) == 2


def test_a_prompt_whose_position_is_not_found_is_refused_each_time(word_model):
    prompt = lrc.Prompt(text="w2 w1 " * 70 + "w9", subject="w2", object="w30")
    with tokens_once():
        for _ in range(2):
            with pytest.raises(lrc.errors.PositionError, match="context"):
                lrc.relations.tokenize_prompt(word_model, prompt)
