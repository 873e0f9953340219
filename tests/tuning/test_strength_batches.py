"""Strengths that run as rows of a batch, and their effects on neutral texts, are what single passes give."""

import math

import pytest
import torch
from tiny_strength import NEUTRAL, adding, edit

import lrc_tl as lrc
from lrc_tl.tuning.neutral_effects import neutral_effects, repeated_share
from lrc_tl.tuning.strength_batches import map_logits

PLACES = ["all", "prompt", "generated", -1, slice(1, 3), lambda chunk: chunk.index == 2]


@pytest.mark.parametrize("where", PLACES, ids=["all", "prompt", "generated", "last", "slice", "function"])
def test_strengths_as_rows_give_what_they_give_one_at_a_time(word_model, where):
    steering, strengths = adding(where=where), [0.0, 0.2, 0.7]
    long = edit(target="w7 w8")
    together = lrc.tuning.target_beats_object(word_model, long, steering, strengths)
    alone = [lrc.tuning.target_beats_object(word_model, long, steering, [strength])[0] for strength in strengths]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)
    assert together[0] != together[2] or where == "generated"
    rows = neutral_effects(word_model, [steering], NEUTRAL, strengths=strengths)
    for row, strength in zip(rows, strengths, strict=True):
        (single,) = neutral_effects(word_model, [steering], NEUTRAL, strengths=[strength])
        assert row.kl == pytest.approx(single.kl, abs=1e-5)
        assert row.perplexity_ratio == pytest.approx(single.perplexity_ratio, rel=1e-4)
        assert row.repetition == single.repetition
    assert rows[0].kl == pytest.approx(0, abs=1e-6)
    assert rows[0].perplexity_ratio == pytest.approx(1, abs=1e-5)
    assert rows[2].kl > 1e-3


def test_many_strengths_run_in_several_batches_with_their_own_rows(word_model, monkeypatch):
    strengths = [0.1, 0.3, 0.9]
    together = lrc.tuning.target_beats_object(word_model, edit(), adding(), strengths)
    monkeypatch.setattr("lrc_tl.tuning.strength_batches.MAX_LOGIT_POSITIONS", 2)
    apart = lrc.tuning.target_beats_object(word_model, edit(), adding(), strengths)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


def test_object_tokens_count_as_generated_and_the_end_of_the_prompt_stays_where_it_is(word_model):
    """The last of the prompt is the last token of the text, not of the text and all object tokens but one."""
    ids = word_model.to_tokens("w10 w3 w41 w7 w8")[0].tolist()

    def run(where):
        return map_logits(
            word_model, adding(where=where), ids, n_prompt=4, strengths=[0.5], reduce=lambda log_probs: log_probs
        )

    same = {"rtol": 0, "atol": 0}
    torch.testing.assert_close(run(-1), run(3), **same)
    torch.testing.assert_close(run("prompt"), run(slice(1, 4)), **same)
    torch.testing.assert_close(run("generated"), run(slice(4, 6)), **same)
    torch.testing.assert_close(run("all"), run(slice(1, 6)), **same)
    last = [run(where)[0, -1] for where in (-1, "prompt", "generated", "all")]
    assert all((one - other).abs().max() > 1e-3 for place, one in enumerate(last) for other in last[:place])


def test_side_effects_are_those_of_two_plain_passes(word_model):
    steering, strength = adding(where="all"), 0.6
    kl, worse = [], []
    for text in NEUTRAL:
        ids = word_model.to_tokens(text)
        half = ids.shape[1] // 2
        plain = word_model(ids)[0].log_softmax(-1)
        with adding(strength=strength).on(word_model):
            steered = word_model(ids)[0].log_softmax(-1)
        for place in range(half - 1, ids.shape[1] - 1):
            kl.append(float((steered[place].exp() * (steered[place] - plain[place])).sum()))
            worse.append(float((plain[place] - steered[place])[ids[0, place + 1]]))
    (found,) = neutral_effects(word_model, [steering], NEUTRAL, strengths=[strength])
    assert found.kl == pytest.approx(sum(kl) / len(kl), abs=1e-4)
    assert found.perplexity_ratio == pytest.approx(math.exp(sum(worse) / len(worse)), rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "share"), [([1, 2, 3, 4, 5], 0), ([1, 1, 1, 1, 1], 2 / 3), ([1, 2, 3, 1, 2, 3], 1 / 4), ([1, 2], 0)]
)
def test_repetition_is_the_share_of_trigrams_seen_before(tokens, share):
    assert repeated_share(tokens) == pytest.approx(share)
