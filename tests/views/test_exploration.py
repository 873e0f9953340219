"""What the explorer answers: the numbers of the library's own calls, piece by piece, and never an error raised."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from chromium import until
from explorer_wishes import OBJECTS, TEXT, WISH, concepts_of
from left_behind import left_on

import lrc_tl as lrc
from lrc_tl.models.hooking import hooks_on
from lrc_tl.tuning.neutral_effects import neutral_effects
from lrc_tl.views import exploration as explorations
from lrc_tl.views.exploration import Exploration, said_of
from lrc_tl.views.explorer_wish import Wish
from lrc_tl.views.text_passes import STRENGTHS

NEUTRAL = ("w1 w2 w3 w4 w5 w6", "w9 w8 w7 w6 w5")


@pytest.fixture(scope="module")
def concepts(word_model):
    return concepts_of(word_model)


@pytest.fixture
def asked(word_model, concepts, monkeypatch):
    """A function that asks for something and gives the last answer; `told` holds all of them."""
    monkeypatch.setattr(explorations, "NEUTRAL_TEXTS", NEUTRAL)
    told = []
    exploration = Exploration(word_model, concepts, told.append)

    def ask(**changed):
        exploration.ask(WISH | changed)
        assert exploration.wait(60)
        return exploration.answer

    ask.exploration, ask.told = exploration, told
    yield ask
    assert left_on(word_model) == {}


def steering_of(model, concepts, **changed):
    return Wish.of(WISH | changed, concepts, n_layers=3).steering(model, concepts)


def chance_by_hand(model, name):
    """The least probable token of an object behind the text, from plain passes of the model."""
    ids, least = model.to_tokens(TEXT), 1.0
    for word in name.split():
        following = model.to_tokens(word)[0, -1]
        least = min(least, float(model(ids)[0, -1].double().softmax(-1)[following]))
        ids = torch.cat([ids, following.view(1, 1)], 1)
    return least


def test_the_ranking_is_that_of_classify_before_and_after_the_edit(word_model, concepts, asked):
    answer = asked()
    assert (answer["status"], answer["error"]) == ("done", None)
    ranked = concepts.classify(word_model, TEXT, subject="w7")
    with concepts.swap(word_model, remove="w30", add="w31 w32", text=TEXT, subject="w7", beta=0.5):
        edited = dict(concepts.classify(word_model, TEXT, subject="w7"))
    shown = answer["before"]["objects"]
    assert [one["name"] for one in shown] == [name for name, _ in ranked]
    assert [one["score"] for one in shown] == pytest.approx([score for _, score in ranked], rel=1e-4)
    assert [one["name"] for one in answer["after"]["objects"]] == [one["name"] for one in shown]
    assert {one["name"]: one["score"] for one in answer["after"]["objects"]} == pytest.approx(edited, rel=1e-4)
    assert edited != pytest.approx(dict(ranked), rel=1e-2)


def test_the_probabilities_are_those_of_the_models_own_passes(word_model, concepts, asked):
    answer = asked()
    by_hand = {name: chance_by_hand(word_model, name) for name in OBJECTS}
    with concepts.swap(word_model, remove="w30", add="w31 w32", text=TEXT, subject="w7", beta=0.5):
        edited = {name: chance_by_hand(word_model, name) for name in OBJECTS}
    for part, expected in (("before", by_hand), ("after", edited)):
        shown = {one["name"]: one["p"] for one in answer[part]["objects"]}
        assert shown == pytest.approx(expected, rel=1e-4)
    assert by_hand != pytest.approx(edited, rel=1e-2)


@pytest.mark.parametrize("place", ["subject", "prompt", "generated", "all"])
def test_the_texts_are_those_that_generate_gives(word_model, concepts, asked, place):
    answer = asked(place=place, strength=1.5)
    steering = steering_of(word_model, concepts, place=place, strength=1.5)
    for part, steerings in (("before_text", ()), ("after_text", steering)):
        (same,) = lrc.generate(word_model, TEXT, steering=steerings, max_new_tokens=4)
        text = answer[part]
        assert (text["new"], text["text"]) == (list(same.tokens), same.text)
        assert text["prompt"] == ["<bos>", "w5", "w7", "w20"]
        assert (text["special"][0], text["read_at"]) == (0, 2)
        assert text["changed"] == [a != b for a, b in zip(same.tokens, same.instead, strict=True)]
        assert "partial" not in text
    assert answer["after_text"]["kl"] == pytest.approx(float(same.kl.mean()), rel=1e-4)
    assert answer["before_text"]["kl"] is None


def test_the_shades_are_the_scores_of_every_token_new_ones_too(word_model, concepts, asked):
    text = asked()["before_text"]
    whole = " ".join([TEXT, *text["new"]])
    if "<" not in whole.removeprefix("<bos>"):
        scores = concepts.read(word_model, whole)
        for name in ("w31 w32", "w30"):
            assert text["shades"][name] == pytest.approx(scores[name].scores.tolist(), rel=1e-4, abs=1e-4)
    assert list(text["shades"]) == ["w31 w32", "w30"]


def test_the_last_prompt_score_of_a_generated_place_is_that_of_the_unedited_text(asked):
    answer = asked(place="generated", strength=1.5)
    before, after = answer["before_text"]["shades"]["w30"], answer["after_text"]["shades"]["w30"]
    assert after[:4] == pytest.approx(before[:4], rel=1e-4)
    assert after[4] != pytest.approx(before[4], rel=1e-2)


def test_the_curve_is_made_of_single_strengths(word_model, concepts, asked):
    curve = asked(view="curve")["curve"]
    assert curve["strengths"] == list(STRENGTHS)
    steering = steering_of(word_model, concepts)
    for place in (0, 8, 16):
        operation = steering.operation.with_amount(STRENGTHS[place])
        single = replace(steering, operation=operation)
        with single.on(word_model):
            for name in ("w30", "w31 w32"):
                assert curve["p"][name][place] == pytest.approx(chance_by_hand(word_model, name), rel=1e-3)
        (text,) = lrc.generate(word_model, TEXT, steering=single, max_new_tokens=4)
        assert curve["says"][place] == (text.text.split()[:2] == ["w31", "w32"])
        effects = neutral_effects(word_model, [single], NEUTRAL, strengths=[STRENGTHS[place]], new_tokens=None)
        by_text = [
            neutral_effects(word_model, [single], [one], strengths=[STRENGTHS[place]], new_tokens=None)[0].kl
            for one in NEUTRAL
        ]
        assert curve["kl"][place] == pytest.approx(sum(by_text) / 2, rel=1e-3, abs=1e-6)
        assert effects[0].kl == pytest.approx(curve["kl"][place], rel=0.5, abs=1e-6)
    for name in ("w30", "w31 w32"):
        assert curve["p_unedited"][name] == pytest.approx(chance_by_hand(word_model, name), rel=1e-3)


def test_success_on_the_curve_is_that_the_model_says_the_object_that_comes_in(word_model, asked):
    said = asked(remove="", add="w33", view="curve", place="all")["curve"]
    gone = asked(remove="w30", add="", view="curve", place="all")["curve"]
    assert list(said["p"]) == ["w33"]
    assert list(gone["p"]) == ["w30"]
    for curve in (said, gone):
        expected = next((s for s, yes in zip(STRENGTHS, curve["says"], strict=True) if yes), None)
        assert curve["first"] == expected
    assert gone["says"][0]  # it says something else without an edit


def test_a_removed_concept_alone_goes_the_other_way(word_model, concepts, asked):
    curve = asked(add="", view="curve")["curve"]
    with steering_of(word_model, concepts, add="", strength=STRENGTHS[-1]).on(word_model):
        assert curve["p"]["w30"][-1] == pytest.approx(chance_by_hand(word_model, "w30"), rel=1e-3)


def test_a_curve_of_nothing_says_what_to_choose(asked):
    answer = asked(remove="", add="", view="curve")
    assert answer["status"] == "failed"
    assert answer["error"]["field"] == "add"
    assert answer["error"]["text"].startswith("Choose a concept to remove or to add")


def test_without_an_edit_there_is_nothing_after_it(asked):
    answer = asked(remove="", add="")
    assert answer["status"] == "done"
    assert answer["after"] is answer["after_text"] is None
    assert list(answer["before_text"]["shades"]) == [answer["before"]["objects"][0]["name"]]


def test_every_answer_is_json_and_grows_part_by_part(asked):
    asked()
    asked(view="curve", number=3)
    for answer in asked.told:
        json.dumps(answer, allow_nan=False)
    first = [answer for answer in asked.told if answer["number"] == 2]
    assert [answer["fresh"] for answer in first][-1] == ["code", "before", "after", "before_text", "after_text"]
    partial = [answer["before_text"]["partial"] for answer in first if "partial" in answer.get("before_text", {})]
    assert partial
    assert all(first[-1]["before_text"]["text"].startswith(text) for text in partial)
    assert {answer["status"] for answer in first} == {"working", "done"}
    assert asked.told[-1]["fresh"] == ["code", "curve"]


def counted(model, work):
    """How many passes `work` makes in any thread's context of this model."""
    passes = []
    handle = model.hook_dict["blocks.0.hook_resid_post"].register_forward_hook(lambda *given: passes.append(1))
    try:
        work()
    finally:
        handle.remove()
    return len(passes)


def test_another_strength_runs_nothing_unedited_again(word_model, asked):
    whole = counted(word_model, asked)
    again = counted(word_model, lambda: asked(strength=0.7))
    assert again < 0.75 * whole
    assert counted(word_model, lambda: asked(view="curve")) > 0
    assert counted(word_model, lambda: asked(view="curve", strength=0.1)) == 0


class Slow:
    """Every pass of the model waits for a moment, and no text ends by itself."""

    def __init__(self, model):
        self.seen, self.open = 0, threading.Event()
        points, end = model.hook_dict, model.tokenizer.eos_token_id
        self._handles = [
            points["blocks.0.hook_resid_post"].register_forward_hook(self._wait),
            points["unembed.hook_out"].register_forward_hook(
                lambda module, given, logits: logits.index_fill(-1, torch.tensor([end]), -1e4)
            ),
        ]

    def _wait(self, *given):
        self.seen += 1
        self.open.wait(0.05)

    def end(self):
        self.open.set()
        for handle in self._handles:
            handle.remove()


@pytest.fixture
def slow(word_model):
    made = Slow(word_model)
    yield made
    made.end()


def test_a_newer_wish_ends_a_long_text_between_two_tokens(asked, slow):
    exploration = asked.exploration
    exploration.ask(WISH | {"n_tokens": 50, "number": 2})
    until(lambda: (exploration.answer.get("before_text") or {}).get("partial"), "a token")
    before = slow.seen
    exploration.ask(WISH | {"n_tokens": 2, "number": 3, "remove": "", "add": ""})
    until(lambda: exploration.answer["number"] == 3, "the newer wish")
    assert slow.seen - before < 8  # of some 50
    slow.open.set()
    assert exploration.wait(60)
    assert exploration.answer["status"] == "done"
    assert len(exploration.answer["before_text"]["new"]) <= 2
    assert "Writing without an edit: 1 of 50 tokens" in [answer["doing"] for answer in asked.told]


def test_stop_keeps_what_is_there_and_says_so(asked, slow):
    exploration = asked.exploration
    exploration.ask(WISH | {"n_tokens": 50})
    until(lambda: (exploration.answer.get("before_text") or {}).get("partial"), "a token")
    exploration.stop()
    assert exploration.wait(20)
    assert (exploration.answer["status"], exploration.answer["doing"]) == ("stopped", "")
    assert exploration.answer["before"]["objects"]
    assert "after_text" not in exploration.answer


def test_asking_does_not_wait_for_the_model(asked, slow):
    done = threading.Event()
    threading.Thread(target=lambda: (asked.exploration.ask(WISH), done.set()), daemon=True).start()
    assert done.wait(5)
    asked.exploration.stop()
    assert asked.exploration.wait(20)


def test_what_cannot_be_granted_is_said_and_the_next_wish_is_granted(asked):
    asked()
    answer = asked(subject="w9", number=3)
    assert answer["error"] == {"text": "'w9' is not in the text as a whole word.", "field": "subject"}
    assert (answer["status"], answer["number"]) == ("failed", 3)
    assert answer["before"]["objects"]  # what was there stays
    assert asked(number=4)["status"] == "done"


def test_a_text_longer_than_the_context_is_an_error_in_words(asked):
    answer = asked(text=" ".join(["w1"] * 80), subject="")
    assert answer["status"] == "failed"
    assert "context of 64" in answer["error"]["text"]
    assert answer["error"]["field"] == "text"


@pytest.mark.parametrize("given", [{}, {"number": "x"}, {"text": 3}, {"text": TEXT, "subject": ["w7"]}])
def test_a_wish_of_another_form_is_an_error_in_words_too(asked, given):
    asked.exploration.ask(given)
    assert asked.exploration.wait(20)
    assert asked.exploration.answer["status"] == "failed"
    assert "Traceback" not in asked.exploration.answer["error"]["text"]


def test_an_edit_that_breaks_the_model_is_an_error_in_words(word_model, asked):
    def broken(residual, hook):
        raise ArithmeticError

    point = word_model.hook_dict["blocks.2.hook_resid_post"]
    handle = point.register_forward_hook(lambda *given: broken(*given[:2]))
    try:
        answer = asked()
    finally:
        handle.remove()
    assert answer["status"] == "failed"
    assert answer["error"]["text"] == "ArithmeticError:"


def test_a_steering_that_is_on_in_the_readers_own_thread_is_not_seen(word_model, concepts, asked):
    plain = asked()["before"]
    with concepts["w33"].steer(word_model, 2.0):
        assert asked(text=f"{TEXT} ")["before"] == plain
        with hooks_on(word_model, []):
            asked.exploration._kept.clear()
            assert asked()["before"] == plain


def test_what_an_error_says_is_short_and_printable():
    assert said_of(KeyError("no concept")) == "no concept"
    assert said_of(ValueError("a\nb\x1b")) == "a b\\x1b"
    assert said_of(OSError("gone")) == "OSError: gone"
    assert said_of(ValueError("")) == "ValueError:"
    assert len(said_of(ValueError("x" * 5000))) == 601
