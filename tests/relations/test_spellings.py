"""One object in two spellings is one object: accents as letters or as marks of their own, white space around."""

import pytest
import torch
from tiny_steering import HOOK, unit

import lrc_tl as lrc

LETTER, MARK = "S\u00e3o", "Sa\u0303o"
SPELLINGS = [MARK, f" {LETTER}", f"{LETTER} ", f" {MARK}\t"]


def prompt(number, name, **given):
    return lrc.Prompt(text=f"w{number} w2", subject=f"w{number}", object=name, **given)


def concepts(*names):
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(unit(seed), relation="r", object_name=name, hook_name=HOOK)
            for seed, name in enumerate(names)
        }
    )


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_a_prompt_and_an_edit_name_their_object_in_one_way(spelling):
    assert prompt(1, spelling) == prompt(1, LETTER)
    assert lrc.evaluation.Edit(prompt=prompt(1, "w5"), target=spelling) == lrc.evaluation.Edit(
        prompt=prompt(1, "w5"), target=LETTER
    )
    with pytest.raises(ValueError, match="none of the 1 prompts has another object"):
        lrc.edits_towards([prompt(1, LETTER)], spelling)


def test_white_space_before_the_object_of_a_final_text_is_the_objects_own():
    assert prompt(1, f" {MARK} ", joint="").object == f" {LETTER}"


def test_prompts_with_an_object_in_two_spellings_make_one_direction(word_model):
    same = [prompt(number, LETTER) for number in range(3, 6)]
    mixed = [prompt(number, name) for number, name in zip(range(3, 6), (LETTER, *SPELLINGS), strict=False)]
    others = [prompt(number, "w5") for number in range(6, 9)]
    expected = lrc.mean_concepts(word_model, [*same, *others], layer=1)
    found = lrc.mean_concepts(word_model, [*mixed, *others], layer=1)
    assert list(found) == list(expected) == [LETTER, "w5"]
    assert torch.equal(found.vectors, expected.vectors)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_a_set_knows_its_objects_in_every_spelling(spelling):
    found = concepts(LETTER, "w5")
    assert found[spelling] is found[LETTER]
    assert spelling in found
    assert list(found) == [LETTER, "w5"]
    assert concepts(MARK, "w5")[spelling].object_name == MARK
    with pytest.raises(KeyError, match="no concept 'Sao'"):
        found["Sao"]
    assert 3 not in found


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_right_objects_in_another_spelling_are_the_right_ones(spelling):
    found = concepts(LETTER, "w5", "w6")
    activations, right = torch.stack([unit(seed) for seed in (0, 1, 2, 0, 1, 2)]), [LETTER, "w5", "w6"] * 2
    spelt = [spelling if name == LETTER else f"{name} " for name in right]
    assert lrc.evaluation.classify_activations(found, activations, spelt).actual == tuple(right)
    assert lrc.evaluation.classify_activations(found, activations, spelt).accuracy == 1
    one, other = found.calibrate(activations, spelt), found.calibrate(activations, right)
    assert one.report(activations, spelt) == other.report(activations, right)
    assert [d.threshold for d in one.values()] == [d.threshold for d in other.values()]


def test_two_directions_of_one_object_are_refused():
    with pytest.raises(ValueError, match="one object in two spellings"):
        concepts(LETTER, MARK)
    with pytest.raises(ValueError, match="one object in two spellings"):
        concepts("w5", "w5 ")
