"""Wishes: what controls give is checked, and a wish is the steering and the code that it says."""

import json

import pytest
import torch
from explorer_wishes import OBJECTS, TEXT, WISH, concepts_of

import lrc_tl as lrc
from lrc_tl.views.explorer_wish import Wish, WishError


@pytest.fixture(scope="module")
def concepts(one_word_model):
    return concepts_of(one_word_model)


def wish(concepts, **changed):
    return Wish.of(WISH | changed, concepts, n_layers=3)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("text", "", "Type a text that the model shall go on with."),
        ("text", " \t", "Type a text that the model shall go on with."),
        ("text", None, "Type a text that the model shall go on with."),
        ("subject", "w9", "'w9' is not in the text as a whole word."),
        ("subject", "w", "'w' is not in the text as a whole word."),
        ("remove", "Japan", "There is no concept 'Japan' in the set."),
        ("remove", 3, "There is no concept 3 in the set."),
        ("add", "w30", "w30 is to be removed and added at once; choose two concepts."),
        ("place", "here", "place is 'here'; allowed are subject, prompt, generated, all."),
        ("layers", None, "layers is None; allowed are all, from, own, some."),
        ("view", "map", "view is 'map'; allowed are edit, curve."),
        ("strength", None, "Type a number as the strength, such as 0.01."),
        ("strength", True, "Type a number as the strength, such as 0.01."),
        ("strength", float("inf"), "Type a number as the strength, such as 0.01."),
        ("strength", -0.1, "The strength is -0.1; it must lie from 0 to 10."),
        ("strength", 11, "The strength is 11; it must lie from 0 to 10."),
        ("n_tokens", 0, "0 is outside 1 to 200."),
        ("n_tokens", 2.5, "Type a whole number from 1 to 200."),
        ("n_tokens", None, "Type a whole number from 1 to 200."),
        ("n_tokens", float("nan"), "Type a whole number from 1 to 200."),
        ("last_layer", 3, "3 is outside 0 to 2."),
        ("first_layer", "1", "Type a whole number from 0 to 2."),
    ],
)
def test_what_a_control_does_not_allow_is_refused_and_the_control_is_named(concepts, field, value, said):
    with pytest.raises(WishError) as caught:
        wish(concepts, **{field: value})
    assert (str(caught.value), caught.value.field) == (said, field)


def test_layers_that_are_given_back_to_front_are_refused(concepts):
    with pytest.raises(WishError, match="The first layer, 2, lies behind the last, 1") as caught:
        wish(concepts, layers="some", first_layer=2)
    assert caught.value.field == "first_layer"
    assert wish(concepts, first_layer=2).layers == "all"  # where they do not count


def test_a_text_without_a_word_cannot_do_without_a_subject(concepts):
    with pytest.raises(WishError, match="There is no word in the text") as caught:
        wish(concepts, text="...", subject="")
    assert caught.value.field == "text"


def test_a_space_at_the_end_does_not_count_and_a_line_end_does(concepts):
    assert wish(concepts, text=f"{TEXT}  ").text == TEXT
    assert wish(concepts, text=f"{TEXT}\n").prompt_for("w30").joint == ""
    assert wish(concepts).prompt_for("w30").joint == " "


def test_without_a_subject_the_last_word_is_meant(concepts):
    prompt = wish(concepts, subject="", text="w7 w7").prompt_for("w30")
    assert (prompt.subject, prompt.subject_start) == ("w7", 3)


def test_one_concept_for_another_is_the_sets_own_swap(one_word_model, concepts):
    made = wish(concepts).steering(one_word_model, concepts)
    swap = concepts.swap_steering(one_word_model, remove="w30", add="w31 w32", text=TEXT, subject="w7", beta=0.5)
    assert (made.layers, made.where, made.hook_name) == (swap.layers, swap.where, swap.hook_name)
    h = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(made.operation.shift(h), swap.operation.shift(h))


def test_a_concept_alone_is_added_or_with_minus_the_strength_taken_away(one_word_model, concepts):
    added = wish(concepts, remove="").steering(one_word_model, concepts)
    removed = wish(concepts, add=None).steering(one_word_model, concepts)
    assert (added.operation.amount, removed.operation.amount) == (0.5, -0.5)
    assert torch.equal(added.operation.vector, concepts["w31 w32"].vector)
    assert torch.equal(removed.operation.vector, concepts["w30"].vector)
    assert wish(concepts, remove=None, add="").steering(one_word_model, concepts) is None


@pytest.mark.parametrize(
    ("layers", "names"),
    [("all", [0, 1, 2]), ("from", [1, 2]), ("own", [1]), ("some", [0, 1])],
)
def test_the_layers_are_those_that_the_control_names(one_word_model, concepts, layers, names):
    steering = wish(concepts, layers=layers).steering(one_word_model, concepts)
    assert steering.hook_names(one_word_model) == [f"blocks.{layer}.hook_resid_post" for layer in names]


EDITS = [
    {},
    {"place": "all", "layers": "from"},
    {"place": "generated", "layers": "own", "remove": ""},
    {"add": "", "layers": "some"},
    {"subject": "", "remove": None},
    {"subject": "", "strength": 0.0},
    {"remove": "", "add": ""},
]


@pytest.mark.parametrize("changed", EDITS)
def test_the_code_does_what_the_wish_does(one_word_model, concepts, changed, capsys):
    asked = wish(concepts, **changed)
    exec(asked.code(concepts, 3), {"model": one_word_model, "concepts": concepts, "lrc": lrc})
    ranked, text = capsys.readouterr().out.splitlines()
    steering = asked.steering(one_word_model, concepts)
    (same,) = lrc.generate(one_word_model, TEXT, steering=steering or (), max_new_tokens=4)
    assert text == same.text
    assert sorted(eval(ranked)) == sorted(
        concepts.classify(one_word_model, TEXT, subject=changed.get("subject", "w7") or "w20")
    )


def test_quotes_and_line_ends_in_a_text_stay_text_in_the_code(concepts):
    asked = wish(concepts, text="w5 \"w7\" 'x'\nw20 \\")
    names = {}
    exec(asked.code(concepts, 3).splitlines()[0], names)
    assert names["text"] == asked.text


def test_a_wish_is_json():
    assert json.loads(json.dumps(WISH)) == WISH
    assert set(OBJECTS) >= {WISH["remove"], WISH["add"]}


def test_code_for_a_set_of_one_concept_ranks_nothing_and_runs(one_word_model, concepts, capsys):
    alone = lrc.ConceptSet({"w30": concepts["w30"]})
    asked = wish(alone, remove=None, add="w30")
    exec(asked.code(alone, 3), {"model": one_word_model, "concepts": alone, "lrc": lrc})
    steering = asked.steering(one_word_model, alone)
    (same,) = lrc.generate(one_word_model, TEXT, steering=steering, max_new_tokens=4)
    assert capsys.readouterr().out.splitlines() == [same.text]
