"""The explorer in a real JupyterLab, driven by keys and clicks: it moves, says what is wrong, never freezes."""

import json
import sys
from pathlib import Path

import pytest
from chromium import chromium
from jupyter_lab import ROOT, done, notebook, outputs, theme

TESTS = Path(__file__).parent.parent
_MODEL = f"""
import sys, tempfile, time
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / "views")!r}, {str(TESTS.parent)!r}]
import torch, tiny_models
torch.set_num_threads(1)
from explorer_wishes import concepts_of
import lrc_tl as lrc
tokenizer = tiny_models.word_tokenizer(tempfile.mkdtemp())
model = tiny_models.bridge(tokenizer, tempfile.mkdtemp()).eval().requires_grad_(False)
concepts = concepts_of(model)
pause = [0.0]
model.hook_dict["blocks.0.hook_resid_post"].register_forward_hook(lambda *given: time.sleep(pause[0]))
"""
_SHOW = 'lrc.explore(model, concepts, text="w5 w7 w20", subject="w7", remove="w30", add="w33", max_new_tokens=6)'


@pytest.fixture(scope="module")
def lab():
    for package in ("jupyterlab", "anywidget"):
        pytest.importorskip(package, reason="needs the extra notebook")
    if sys.platform == "win32":
        pytest.skip("the server is ended by a signal")
    with notebook(chromium(), [_MODEL, _SHOW]) as page:
        page.until(f"document.querySelector('{ROOT}')", seconds=120)
        done(page)
        yield page
    assert page.problems == []


def one(selector):
    return f"document.querySelector({json.dumps(f'{ROOT} {selector}')})"


def in_kernel(page, code):
    """How a cell that runs this code ends."""
    kernel = "panel.sessionContext.session.kernel"
    return page.js(f"{kernel}.requestExecute({{code: {json.dumps(code)}}}).done.then((m) => m.content.status)")


def after(page):
    """The text with the edit."""
    return page.js(f"document.querySelectorAll('{ROOT} .x-card')[1].innerText")


def test_a_concept_is_chosen_and_the_slider_moved_and_the_text_changes(lab):
    before = after(lab)
    lab.js(f"{one('input[type=range]')}.focus()")
    lab.key("End")  # the strongest
    lab.until(f"document.querySelectorAll('{ROOT} .x-card')[1].innerText !== {json.dumps(before)}")
    done(lab)
    strong = after(lab)
    lab.js(f"{one('select.x-add')}.focus()")
    lab.key("w")
    lab.key("3")
    lab.key("1")  # types ahead to "w31 w32"
    lab.until(f"document.querySelectorAll('{ROOT} .x-card')[1].innerText !== {json.dumps(strong)}")
    done(lab)
    assert lab.js(f"{one('select.x-add')}.value") == "w31 w32"
    assert lab.js(f"{one('tr[data-kind=add]')}.textContent").startswith("w31 w32 (added)")


def test_an_error_is_shown_in_the_explorer_and_no_traceback_anywhere(lab):
    lab.click(f"{ROOT} input[id$=subject]")
    lab.key("End")
    lab.type("x")
    lab.until(f"!{one('.x-error')}.hidden")
    assert "'w7x' is not in the text as a whole word." in lab.js(f"{one('.x-error')}.innerText")
    lab.key("Backspace")
    lab.until(f"{one('.x-error')}.hidden")
    done(lab)
    assert "Traceback" not in outputs(lab)


def test_the_keyboard_alone_opens_the_curve_and_no_key_reaches_the_notebook(lab):
    cells = "panel.content.widgets.length"
    n_cells = lab.js(cells)
    lab.js(f"{one('[role=tab]')}.focus()")
    lab.type("bad")  # what in JupyterLab's command mode would insert cells
    lab.key("ArrowRight")
    lab.until(f"{one('svg')}")
    done(lab)
    lab.until(f"{one('.x-verdict')}")
    assert lab.js(f"document.querySelectorAll('{ROOT} .x-numbers tbody tr').length") == 17
    assert lab.js(cells) == n_cells
    lab.key("Home")
    lab.until(f"!{one('.x-cards')}.closest('[hidden]')")
    done(lab)
    for label in ("Without the edit", "With the edit"):
        assert label in lab.js(f"document.querySelector('{ROOT}').innerText")
    lab.key("Tab")
    assert lab.js(f"document.activeElement.closest('{ROOT}') !== null")


def test_it_is_light_and_dark_as_jupyterlab_is(lab):
    colours = []
    for name in ("Dark", "Light"):
        theme(lab, name)
        lab.until(f"document.querySelector('{ROOT}').dataset.theme === '{name.lower()}'")
        colours.append(lab.js(f"getComputedStyle(document.querySelector('{ROOT}')).backgroundColor"))
    assert colours == ["rgb(21, 24, 29)", "rgb(255, 255, 255)"]


def test_a_slow_model_shows_what_is_under_way_and_a_newer_wish_replaces_an_older_one(lab):
    assert in_kernel(lab, "pause[0] = 0.4") == "ok"
    lab.js(f"{one('textarea')}.focus()")
    lab.js(f"{one('textarea')}.select()")
    lab.type("w7 w9")
    lab.until(f"{one('.x-doing')}.innerText.includes('ing')")
    assert lab.js(f"document.querySelector('{ROOT}').dataset.busy") == "true"
    assert in_kernel(lab, "1 + 1") == "ok"  # the kernel is free, and so is the page
    lab.js(f"{one('input[type=range]')}.focus()")
    for key in ("Home", "End", "Home"):
        lab.key(key)
    assert in_kernel(lab, "pause[0] = 0.0") == "ok"
    done(lab)
    assert lab.js(f"{one('.x-strength input[type=number]')}.value") == "0"
    texts = lab.js(f"[...document.querySelectorAll('{ROOT} .x-text')].map((text) => text.innerText)")
    assert texts[0] == texts[1]  # at strength 0
    assert "w7w9" in texts[0]  # as the tokenizer decodes


def test_stop_ends_a_slow_wish(lab):
    assert in_kernel(lab, "pause[0] = 0.4") == "ok"
    lab.js(f"{one('textarea')}.focus()")
    lab.key("End")
    lab.type(" w11")
    lab.until(f"{one('.x-doing')}.innerText.includes('Writing')")
    lab.click(f"{ROOT} .x-stop")
    lab.until(f"{one('.x-doing')}.innerText === 'Stopped'")
    assert in_kernel(lab, "pause[0] = 0.0") == "ok"


def test_nothing_comes_from_another_machine(lab):
    assert [a for a in lab.requests if not a.startswith(("http://127.0.0.1:", "ws:", "data:", "blob:"))] == []
