"""Success while a strength is chosen: an object is named in free text, or a target beats another."""

from dataclasses import replace

import pytest
from tiny_strength import NEUTRAL, NO_LIMITS, adding, calibrate, edit

import lrc_tl as lrc


def test_free_text_succeeds_when_the_object_is_named_in_time_as_a_whole_word(word_model):
    texts = [f"w{number} w2" for number in range(20)]
    made = next(one for one in lrc.generate(word_model, texts, max_new_tokens=4) if min(one.token_ids) > 3)
    text, words = made.prompt, made.text.split()
    steering = adding()
    for place, word in enumerate(words):
        first = words.index(word)
        (free,) = lrc.free_text_edits([text], word)
        assert lrc.tuning.object_named(within=first + 1)(word_model, free, steering, [0.0]).tolist() == [1.0]
        if first == place > 0:
            assert lrc.tuning.object_named(within=place)(word_model, free, steering, [0.0]).tolist() == [-1.0]
    part = words[0][:-1]  # of a word, which is not the word
    assert part
    assert part not in words
    (free,) = lrc.free_text_edits([text], part)
    assert lrc.tuning.object_named(within=1)(word_model, free, steering, [0.0]).tolist() == [-1.0]
    also = lrc.tuning.object_named(within=1, words={part: [words[0]]})
    assert also(word_model, free, steering, [0.0]).tolist() == [1.0]
    known = replace(free.prompt, relation_aliases=((part, (words[0],)),))
    by_alias = replace(free, prompt=known)
    assert lrc.tuning.object_named(within=1)(word_model, by_alias, steering, [0.0]).tolist() == [1.0]
    found = calibrate(word_model, also, edits=[free], strengths=[1e-9])
    assert found.strength == 1e-9
    assert found.success == "object_named(within=1)"


def test_free_texts_are_judged_by_what_the_model_says_unless_told_otherwise(word_model):
    made = lrc.generate(word_model, [f"w{number} w2" for number in range(20)], max_new_tokens=4)
    said = next(one for one in made if min(one.token_ids) > 3)
    found = lrc.calibrate_strength(
        word_model,
        adding(),
        lrc.free_text_edits([said.prompt], said.text.split()[0]),
        limits=NO_LIMITS,
        neutral_texts=NEUTRAL,
        strengths=[1e-9],
    )
    assert found.success == "object_named(within=12)"
    assert found.strength == 1e-9
    others = lrc.calibrate_strength(
        word_model, adding(), [edit()], limits=NO_LIMITS, neutral_texts=NEUTRAL, strengths=[1e-9], refinements=0
    )
    assert others.success == "target_beats_object"


@pytest.mark.parametrize("success", [None, lrc.tuning.target_beats_object])
def test_targets_that_are_to_beat_themselves_are_refused_before_any_pass(success):
    edits = [edit(), *lrc.free_text_edits(["w1 w2"], "w7")]
    with pytest.raises(ValueError, match=r"1 of 2 edits have .* 'w7' for 'w1 w2', and cannot beat it; give"):
        lrc.calibrate_strength(NoModel(), adding(), edits, success=success)
    with pytest.raises(ValueError, match="cannot beat it"):
        lrc.calibrate_strength(NoModel(), adding(), [edit(target=" w5 ")], success=lrc.tuning.target_beats_object)


class NoModel:
    """Whatever is asked of it fails."""

    def __getattr__(self, name):
        raise AssertionError(f"the model was asked for {name}")


def test_a_name_that_is_longer_than_what_is_generated_is_refused(word_model):
    (free,) = lrc.free_text_edits(["w1 w2"], "w7 w8 w9")
    with pytest.raises(ValueError, match="'w7 w8 w9' has 3 tokens and can never be named within 2"):
        lrc.tuning.object_named(within=2)(word_model, free, adding(), [0.0])
    lrc.tuning.object_named(within=2, words={"w7 w8 w9": ["w7"]})(word_model, free, adding(), [0.0])
