"""Residuals that a pass made for something else has read are those of a pass of their own."""

import pytest
import torch
from test_activations import random_prompts
from tiny_steering import adding

import lrc_tl as lrc
from lrc_tl.passes.known_prompts import known_and_read
from lrc_tl.passes.residuals import PromptResiduals

SUBJECT_LAYERS, OBJECTS = (0, -1), ((1, "mean"), (2, "mean"), (2, "first_token"))


def residuals_of(model):
    return PromptResiduals(model, subject_layers=SUBJECT_LAYERS, objects=OBJECTS)


@pytest.fixture
def passes(monkeypatch):
    """The number of rows of each pass that only reads."""
    run, rows = lrc.passes.residuals.run, []

    def counted(model, ids, **options):
        rows.append(len(ids))
        return run(model, ids, **options)

    monkeypatch.setattr("lrc_tl.passes.residuals.run", counted)
    return rows


@pytest.mark.parametrize("max_tokens", [30, 4096])
def test_the_pass_that_finds_known_prompts_reads_what_a_pass_of_its_own_reads(
    word_model, passes, monkeypatch, max_tokens
):
    prompts = random_prompts(20)
    said = lrc.filter_known(word_model, prompts, progress=False).dropped
    # Prompts that the model answers, some of two tokens, among others that it does not.
    prompts += [
        lrc.Prompt(text=one.prompt.text, subject=one.prompt.subject, object=" ".join(one.answer.split()[:n]))
        for n, one in enumerate(said, start=1)
        if len(one.answer.split()) > n
    ]
    residuals = residuals_of(word_model)
    monkeypatch.setattr("lrc_tl.passes.known_prompts.MAX_TOKENS", max_tokens)
    known = known_and_read(word_model, prompts, residuals, seed=3)
    assert known == lrc.filter_known(word_model, prompts, seed=3, whole_answers=False)
    residuals.read(prompts)
    assert passes == []
    own = residuals_of(word_model)
    own.read(prompts)
    assert sum(passes) == len(set(prompts))
    for key in [*((layer, "subject") for layer in SUBJECT_LAYERS), *OBJECTS]:
        torch.testing.assert_close(residuals.of(prompts, *key), own.of(prompts, *key), rtol=1e-4, atol=1e-4)


def test_a_prompt_is_read_once_and_rows_stand_in_the_order_asked_for(word_model, passes):
    first, second = random_prompts(2)
    residuals = residuals_of(word_model)
    residuals.read([first, first])
    residuals.read([second, first, second])
    assert passes == [1, 1]
    rows = residuals.of([second, first, second], 1, "mean")
    torch.testing.assert_close(rows[0], rows[2], rtol=0, atol=0)
    expected = lrc.passes.object_activations(word_model, [second, first], layer=1)
    torch.testing.assert_close(rows[:2], expected, rtol=1e-4, atol=1e-4)


def test_under_a_steering_prompts_are_read_apart(word_model, passes):
    """Its position may count from the end of the text, which has the object behind it in the other pass."""
    prompts = random_prompts(4)
    residuals = residuals_of(word_model)
    with lrc.steer(word_model, [adding(where=-1)]):
        known_and_read(word_model, prompts, residuals, seed=0)
        assert passes == []
        residuals.read(prompts)
        assert sum(passes) == 4
        own = lrc.passes.object_activations(word_model, prompts, layer=1)
    torch.testing.assert_close(residuals.of(prompts, 1, "mean"), own, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(own, lrc.passes.object_activations(word_model, prompts, layer=1))
