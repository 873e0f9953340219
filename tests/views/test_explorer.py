"""`lrc.explore`: what it begins with, what it refuses, and how wishes and answers travel."""

import asyncio
import re
import subprocess
import sys
import threading

import pytest
from chromium import until
from explorer_page import SCRIPT, STYLE
from explorer_wishes import TEXT, concepts_of

import lrc_tl as lrc
from lrc_tl.markup.fragments import NEGATIVE, POSITIVE, STRONGEST
from lrc_tl.views.explorer_wish import MOST_STRENGTH


@pytest.fixture(scope="module")
def concepts(one_word_model):
    return concepts_of(one_word_model)


@pytest.fixture
def explore(one_word_model, concepts):
    pytest.importorskip("anywidget", reason="needs anywidget, of the extra notebook")

    def made(*, given=concepts, **options):
        widget = lrc.explore(one_word_model, given, max_new_tokens=3, **options)
        assert widget.exploration.wait(60)
        return widget

    return made


def renamed(concepts, relation, names):
    """The same directions under a relation and objects of other names."""
    from dataclasses import replace

    directions = [
        replace(one, relation=relation, object_name=name)
        for one, name in zip(concepts.values(), names, strict=True)
    ]
    return lrc.ConceptSet({one.object_name: one for one in directions})


def test_what_is_given_are_the_first_values_and_they_are_granted_at_once(explore):
    widget = explore(text=TEXT, subject="w7", remove="w30", add="w33", strength=0.25)
    wish = {name: widget.wish[name] for name in ("text", "subject", "remove", "add", "strength", "n_tokens")}
    assert wish == {
        "text": TEXT, "subject": "w7", "remove": "w30", "add": "w33", "strength": 0.25, "n_tokens": 3,
    }  # fmt: skip
    assert (widget.answer["status"], widget.answer["number"]) == ("done", 1)
    assert widget.offer["concepts"] == ["w30", "w31 w32", "w33"]
    assert repr(widget) == "Explorer('said', 3 concepts)"


def test_a_built_in_relation_gives_the_first_text_and_its_own_object_goes(explore, concepts):
    widget = explore(given=renamed(concepts, "City in Country", ["Egypt", "Japan", "France"]))
    prompts = lrc.load_relation("city_in_country").prompts()
    prompt = next(prompt for prompt in prompts if prompt.object in ("Egypt", "Japan", "France"))
    wish = widget.wish
    assert (wish["text"], wish["subject"], wish["remove"]) == (prompt.text, prompt.subject, prompt.object)
    assert wish["add"] == next(name for name in ("Egypt", "Japan", "France") if name != prompt.object)


def test_another_relation_begins_with_an_empty_text_and_nothing_runs(explore):
    widget = explore()
    assert (widget.wish["text"], widget.wish["subject"], widget.wish["remove"]) == ("", "", None)
    assert (widget.answer["status"], widget.answer["number"]) == ("idle", 0)


def test_without_a_strength_it_is_the_sets_own(explore, concepts):
    assert explore().wish["strength"] == concepts.beta
    assert explore(given=concepts.with_beta(0.07)).wish["strength"] == 0.07


def test_what_no_control_allows_is_refused_before_anything_runs(one_word_model, concepts, explore):
    for options, error, said in (
        ({"add": "Japan"}, KeyError, "no concept 'Japan'"),
        ({"text": TEXT, "subject": "w9"}, ValueError, "'w9' is not in the text as a whole word"),
        ({"strength": -1.0}, ValueError, "must lie from 0 to 10"),
        ({"remove": "w30", "add": "w30"}, ValueError, "choose two concepts"),
        ({"strength": True}, TypeError, "a boolean is no number"),
    ):
        with pytest.raises(error, match=said):
            explore(**options)
    with pytest.raises(ValueError, match="201 is outside 1 to 200"):
        lrc.explore(one_word_model, concepts, max_new_tokens=201)


def test_a_model_without_a_tokenizer_or_another_model_is_refused(tiny_model, explore, concepts):
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        lrc.explore(tiny_model, concepts)


def test_without_anywidget_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import lrc_tl as lrc\n"
        "try:\n    lrc.explore(None, None)\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "the explorer needs the package anywidget; install lrc-tl with its extra: lrc-tl[notebook]\n"
    assert done.stdout == said


def test_a_wish_of_the_page_is_granted_and_an_error_travels_back(explore):
    widget = explore(text=TEXT, subject="w7", remove="w30", add="w33")
    widget.wish = {**widget.wish, "strength": 2.0, "number": 5}
    assert widget.exploration.wait(60)
    assert (widget.answer["number"], widget.answer["status"]) == (5, "done")
    widget.wish = {**widget.wish, "subject": "w9", "number": 6}
    assert widget.answer["error"]["field"] == "subject"
    widget.wish = {**widget.wish, "subject": "w7", "number": 7, "stop": True}
    assert widget.exploration.wait(60)
    assert widget.answer["number"] == 6  # to stop is no wish to be granted


def test_answers_are_set_in_the_thread_that_the_notebook_runs_in(explore):
    threads = set()

    async def notebook():
        widget = explore(text=TEXT, subject="w7", remove="w30", add="w33")
        widget.observe(lambda change: threads.add(threading.current_thread()), names="answer")
        widget.wish = {**widget.wish, "number": 9, "strength": 1.0}
        for _ in range(600):
            await asyncio.sleep(0.02)
            if widget.answer["number"] == 9 and widget.answer["status"] == "done":
                return widget
        raise AssertionError("no answer came")

    widget = asyncio.run(notebook())
    assert threads == {threading.current_thread()}
    widget.wish = {**widget.wish, "number": 10}  # its loop is over: nothing fails
    assert widget.exploration.wait(60)
    until(lambda: widget.exploration.answer["status"] == "done", "the end")


@pytest.mark.parametrize("file", [SCRIPT, STYLE])
def test_the_page_names_no_address_and_loads_nothing(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z0-9-]+\.|www\.|\burl\(|@import|\bimport\b|\bfetch\b|XMLHttp|eval\(", text)
    assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b", text)


def test_the_colours_are_those_of_the_other_displays():
    for text in (SCRIPT.read_text(encoding="utf-8"), STYLE.read_text(encoding="utf-8")):
        assert POSITIVE in text
        assert NEGATIVE in text
        assert f"{STRONGEST}"[1:] in text
    assert f"max: {MOST_STRENGTH:g}" in SCRIPT.read_text(encoding="utf-8")


def test_the_package_takes_the_page_along():
    import tomllib
    from pathlib import Path

    root = Path(lrc.__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    # With all that is in it.
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["lrc_tl"]}
    assert {SCRIPT, STYLE} <= set((root / "lrc_tl").rglob("explorer.*"))
