"""The explorer's page in a headless Chromium, with a fake of the widget's model: what is seen and asked for."""

import json
from itertools import pairwise

import pytest
from chromium import browser, chromium
from explorer_page import ANSWER, OFFER, PROMPT, ROOT, WISH, show


@pytest.fixture(scope="module")
def tab():
    with browser(chromium()) as page:
        yield page


@pytest.fixture
def page(tab, tmp_path):
    tab.size(1280, 900)
    tab.dark(False)
    tab.requests.clear()
    tab.problems.clear()
    show(tab, tmp_path, OFFER, WISH, ANSWER)
    yield tab
    assert tab.problems == []


def within(selector):
    return f"document.querySelector({json.dumps(f'{ROOT} {selector}')})"


def seen(page, selector):
    return page.js(f"{within(selector)}.innerText")


def asked(page, *, n):
    """The last wish, once there are `n`."""
    page.until(f"asked.length >= {n}", seconds=5)
    assert page.js("asked.length") == n
    return page.js("asked.at(-1)")


def tell(page, **changed):
    page.js(f"model.set('answer', {{...model.get('answer'), ...{json.dumps(changed)}}})")


def test_it_shows_texts_rankings_and_code_before_and_after(page):
    texts = page.js(f"[...document.querySelectorAll('{ROOT} .x-card')].map((card) => card.innerText)")
    cards = [[line for line in text.split("\n") if line] for text in texts]
    assert cards[0] == ["Without the edit", "<bos>Lyon is in France."]
    assert cards[1][:3] == ["With the edit", "<bos>Lyon is in Japan↵", "<i>"]
    assert cards[1][3].startswith("0.25 nats per token")
    cells = "[...row.cells].map((cell) => cell.textContent)"
    rows = page.js(f"[...document.querySelectorAll('{ROOT} .x-ranking tbody tr')].map((row) => {cells})")
    assert rows[0] == ["Japan (added)", "", "1.0 %", "50 %"]
    assert rows[1][0] == "France (removed)"
    assert cards[3][0] == "What the concepts read at “Lyon”"
    assert "31.3" in texts[3]
    assert "more objects are lower" in texts[3]
    assert page.js(f"{within('pre')}.textContent") == "print(1)"


def test_names_and_tokens_are_text_and_never_markup(page):
    assert page.js(f"document.querySelectorAll('{ROOT} b, {ROOT} .x-text i').length") == 0
    assert "<b>Italy</b>" in seen(page, ".x-ranking")


def test_it_loads_nothing_from_elsewhere(page):
    assert [address for address in page.requests if not address.startswith(("file:", "blob:", "data:"))] == []


def test_the_slider_is_logarithmic_with_nothing_at_its_left_end(page):
    pairs = page.js("[...Array(module.STEPS + 1).keys()].map((step) => [step, module.strengthOf(step)])")
    assert pairs[0] == [0, 0]
    assert pairs[1][1] == 1e-4
    assert pairs[-1][1] == 1
    strengths = [strength for _, strength in pairs[1:]]
    ratios = [later / earlier for earlier, later in pairwise(strengths)]
    assert max(ratios) / min(ratios) < 1.02
    back = page.js(f"{json.dumps([strength for _, strength in pairs])}.map(module.stepOf)")
    assert back == [step for step, _ in pairs]
    assert page.js("[-1, NaN, 1e-9, 50].map(module.stepOf)") == [0, 0, 1, 65]


def test_numbers_are_short(page):
    assert page.js("[0.123456, -2, null, 1e-7, 1234.5].map((x) => module.said(x))") == [
        "0.123", "\u22122", "\u2013", "1e-7", "1230",
    ]  # fmt: skip
    assert page.js("[null, 0, 0.0123, 0.5].map((x) => module.percent(x))") == [
        "\u2013", "< 0.1 %", "1.2 %", "50 %",
    ]  # fmt: skip
    assert page.js("[123.4, -0.5, null].map(module.alike([123.4, -0.5]))") == [
        "123", "\u22121", "\u2013",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("root", "body", "system", "theme"),
    [
        ({}, {}, False, "light"),
        ({}, {}, True, "dark"),
        ({}, {"data-jp-theme-light": "false"}, False, "dark"),
        ({}, {"data-jp-theme-light": "true"}, True, "light"),
        ({}, {"class": "vscode-dark"}, False, "dark"),
        ({}, {"class": "x vscode-light"}, True, "light"),
        ({}, {"class": "vscode-high-contrast"}, False, "dark"),
        ({}, {"class": "vscode-high-contrast vscode-high-contrast-light"}, True, "light"),
        ({"class": "dark"}, {}, False, "dark"),
        ({"data-theme": "dark"}, {}, False, "dark"),
        ({}, {"data-theme": "auto"}, True, "dark"),
        ({"theme": "dark"}, {}, False, "dark"),
    ],
)
def test_the_theme_is_the_notebooks_or_else_the_systems(page, root, body, system, theme):
    page.dark(system)
    for node, given in (("documentElement", root), ("body", body)):
        for name, value in given.items():
            page.js(f"document.{node}.setAttribute({json.dumps(name)}, {json.dumps(value)})")
    page.until(f"{within('')}.dataset.theme === '{theme}'", seconds=5)


def contrast(page, selector):
    """The contrast of a text with the page of the explorer (WCAG 2)."""
    return page.js(
        """((text, paper) => {
          const channels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255);
          const light = (colour) => { const [r, g, b] = channels(colour).map((c) =>
            (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)); return .2126 * r + .7152 * g + .0722 * b; };
          const [a, b] = [light(text), light(paper)]; return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        })"""
        f"(getComputedStyle({within(selector)}).color, getComputedStyle({within('')}).backgroundColor)"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read_in_light_and_dark(page, dark):
    page.dark(dark)
    page.until(f"{within('')}.dataset.theme === '{'dark' if dark else 'light'}'", seconds=5)
    selectors = (
        "h3",
        "header p",
        ".x-hint",
        ".x-note",
        ".x-old",
        "tr[data-kind=add] th",
        "tr[data-kind=remove] th",
    )
    for selector in selectors:
        assert contrast(page, selector) >= 4.5, selector


def test_a_choice_is_asked_for_at_once_and_a_number_grows(page):
    page.js(f"{within('select.x-add')}.value = '<b>Italy</b>'")
    page.js(f"{within('select.x-add')}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    wish = asked(page, n=1)
    assert wish == {**WISH, "add": "<b>Italy</b>", "number": 2}


def test_many_moves_of_the_slider_are_one_wish_and_it_shows_the_strength(page):
    page.js(f"{within('input[type=range]')}.focus()")
    page.key("ArrowRight", times=6)
    wish = asked(page, n=1)
    step = page.js("module.stepOf(0.005)") + 6
    assert wish["strength"] == page.js(f"module.strengthOf({step})")
    assert page.js(f"Number({within('.x-strength input[type=number]')}.value)") == wish["strength"]
    assert page.js(f"{within('input[type=range]')}.getAttribute('aria-valuetext')") == f"{wish['strength']:.3g}"
    page.key("Home")
    assert asked(page, n=2)["strength"] == 0


def test_typing_waits_for_a_pause(page):
    page.click(f"{ROOT} textarea")
    page.key("End")
    page.type(" the")
    assert asked(page, n=1)["text"].startswith("Lyon is in")
    assert " the" in page.js("asked[0].text")


def test_a_number_that_is_no_number_is_asked_for_as_none(page):
    page.js(f"{within('.x-strength input[type=number]')}.value = ''")
    page.js(f"{within('.x-strength input[type=number]')}.dispatchEvent(new Event('input'))")
    assert asked(page, n=1)["strength"] is None


def test_layers_of_ones_own_choice_have_two_more_controls(page):
    shown = "getComputedStyle(document.querySelector('.lrc-explorer .x-pair')).display !== 'none'"
    assert not page.js(shown)
    page.js(f"{within('select[id$=layers]')}.value = 'some'")
    page.js(f"{within('select[id$=layers]')}.dispatchEvent(new Event('change'))")
    assert page.js(shown)
    assert asked(page, n=1)["layers"] == "some"


def test_an_error_is_said_at_once_beside_its_control_and_goes_away(page):
    tell(page, number=1, status="failed", error={"text": "'Lyon' is <b>not</b> in the text.", "field": "subject"})
    box = within(".x-error")
    assert page.js(f"{box}.getAttribute('role')") == "alert"
    assert seen(page, ".x-error") == "'Lyon' is <b>not</b> in the text."
    subject = within("input[id$=subject]")
    assert page.js(f"{subject}.getAttribute('aria-invalid')") == "true"
    assert page.js(f"{subject}.getAttribute('aria-errormessage') === {box}.id")
    assert seen(page, ".x-card .x-text").startswith("<bos>Lyon")  # what was there stays
    tell(page, status="done", error=None)
    assert page.js(f"{box}.hidden")
    assert page.js(f"{subject}.hasAttribute('aria-invalid')") is False


def test_what_is_under_way_is_shown_and_can_be_stopped(page):
    partial = {"prompt": PROMPT, "special": [0], "read_at": 1, "partial": " Tokyo is"}
    doing = "Writing with the edit: 2 of 5 tokens"
    tell(page, status="working", doing=doing, after_text=partial, fresh=["before"])
    assert seen(page, ".x-doing") == f"{doing} …"
    assert page.js(f"{within('')}.getAttribute('aria-busy')") == "true"
    assert page.js(f"{within('[aria-live=polite]')}.textContent") == "Working"
    assert "<bos>Lyon is in Tokyo is" in page.js(f"document.querySelectorAll('{ROOT} .x-text')[1].innerText")
    assert page.js(f"document.querySelectorAll('{ROOT} [data-stale]').length") > 0
    page.click(f"{ROOT} .x-stop")
    assert asked(page, n=1)["stop"] is True
    tell(page, status="stopped", doing="")
    assert seen(page, ".x-doing") == "Stopped"
    assert page.js(f"{within('.x-stop')}.hidden")


def test_what_is_shown_is_pale_until_the_newer_wish_is_answered(page):
    assert page.js(f"document.querySelectorAll('{ROOT} [data-stale]').length") == 0
    page.click(f"{ROOT} .x-exchange")
    wish = asked(page, n=1)
    assert (wish["remove"], wish["add"]) == ("Japan", "France")
    assert seen(page, ".x-doing") == "Waiting for the model …"
    tell(page, number=1, status="done")  # an answer to the wish before
    assert page.js(f"document.querySelectorAll('{ROOT} [data-stale]').length") == 4
    tell(page, number=wish["number"], status="done")
    assert page.js(f"document.querySelectorAll('{ROOT} [data-stale]').length") == 0


def test_the_colours_are_of_the_concept_that_is_chosen(page):
    colour = f"document.querySelectorAll('{ROOT} .x-text')[0].children[1].style.background"
    blue = page.js(colour)
    assert blue == "rgba(64, 128, 255, 0.3)"  # -2 of 4
    page.click(f"{ROOT} .x-shades input[value=France]")
    assert page.js(colour) == "rgba(224, 112, 0, 0.6)"  # 8 of 8: the special token's 900 does not count
    assert page.js("asked.length") == 0
    assert page.js("document.activeElement.value") == "France"


def test_the_curve_says_from_where_on_and_its_button_takes_that_strength(page):
    page.click(f"{ROOT} [role=tab]:nth-child(2)")
    assert asked(page, n=1)["view"] == "curve"
    said = "From a strength of 0.01 the model itself says Japan, where other texts move by 0.2 nats per token."
    assert seen(page, ".x-verdict").startswith(said)
    rows = page.js(f"[...document.querySelectorAll('{ROOT} .x-numbers tbody tr')].map((row) => row.textContent)")
    assert len(rows) == 17
    assert rows[8].startswith("0.01")
    assert "yes" in rows[8]
    page.click(f"{ROOT} .x-verdict button")
    assert asked(page, n=2)["strength"] == 0.01
    box = page.js(f"(() => {{ const r = {within('svg')}.getBoundingClientRect(); return [r.x, r.width]; }})()")
    assert box[1] > 500


def test_a_page_is_drawn_as_soon_as_its_tab_is_chosen_and_not_drawn_twice(page):
    tab, drawing = within("[role=tab]:nth-child(2)"), within(".x-verdict")
    assert page.js(f"({tab}.click(), window.drawn = {drawing}, drawn !== null)")
    page.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.js(f"drawn === {drawing}"), "a drawing that is replaced between press and release loses the click"


def test_the_keyboard_alone_reaches_every_control_in_the_order_seen(page):
    page.js("document.body.focus()")
    reached = []
    for _ in range(30):
        page.key("Tab")
        reached.append(
            page.js(
                "(() => { const a = document.activeElement, s = getComputedStyle(a);"
                "return {tag: a.tagName, label: a.getAttribute('aria-label') || a.labels?.[0]?.innerText ||"
                "a.innerText, ring: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1, inside:"
                f"Boolean(a.closest('{ROOT}'))}}; }})()"
            )
        )
        if not reached[-1]["inside"]:
            break
    inside = [one for one in reached if one["inside"]]
    assert [one["label"] for one in inside] == [
        "Text", "Subject in the text", "Remove", "Exchange the two concepts", "Add", "Strength", "Strength",
        "Where", "Layers", "Tokens to write", "Before and after", "Japan", "The same in Python",
    ]  # fmt: skip
    assert all(one["ring"] for one in inside)
    page.key("Tab", shift=True, times=1)  # back inside, so nothing holds the focus


def test_arrows_move_between_the_tabs(page):
    page.js(f"{within('[role=tab]')}.focus()")
    page.key("ArrowRight")
    assert asked(page, n=1)["view"] == "curve"
    selected = (
        f"[...document.querySelectorAll('{ROOT} [role=tab]')].map((tab) => [tab.ariaSelected, tab.tabIndex])"
    )
    assert page.js(selected) == [["false", -1], ["true", 0]]
    assert page.js("document.activeElement.innerText") == "Strength curve"
    panel = "document.getElementById(document.activeElement.getAttribute('aria-controls'))"
    assert page.js(f"{panel}.role") == "tabpanel"
    assert not page.js(f"{panel}.hidden")
    page.key("Home")
    assert asked(page, n=2)["view"] == "edit"


def test_escape_stops_while_something_is_under_way(page):
    page.js(f"{within('textarea')}.focus()")
    page.key("Escape")
    assert page.js("asked.length") == 0
    tell(page, status="working", doing="Reading")
    page.key("Escape")
    assert asked(page, n=1)["stop"] is True


def test_keys_stay_in_the_explorer(page):
    page.js("window.heard = 0; document.addEventListener('keydown', () => window.heard += 1)")
    page.js(f"{within('select')}.focus()")
    page.key("b")
    assert page.js("window.heard") == 0
    assert page.js(f"{within('')}.hasAttribute('data-lm-suppress-shortcuts')")  # what JupyterLab goes by


def test_every_control_has_a_label_and_every_id_is_there_once(page):
    page.js("module.default.render({ model, el: document.body.appendChild(document.createElement('div')) })")
    unlabelled = page.js(
        "[...document.querySelectorAll('input, select, textarea, button')].filter((c) => !(c.labels?.length ||"
        "c.ariaLabel || c.innerText.trim())).length"
    )
    assert unlabelled == 0
    ids = page.js("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_a_wish_from_elsewhere_moves_the_controls(page):
    page.js(f"model.set('wish', {json.dumps({**WISH, 'number': 7, 'text': 'Oslo is in', 'view': 'curve'})})")
    assert page.js(f"{within('textarea')}.value") == "Oslo is in"
    assert page.js(f"{within('[role=tab][aria-selected=true]')}.innerText") == "Strength curve"
    page.click(f"{ROOT} .x-exchange")
    assert asked(page, n=1)["number"] == 8


def test_leaving_takes_every_listener_along(page):
    assert page.js("count()") == 2
    page.js("leave()")
    assert page.js("count()") == 0


@pytest.mark.parametrize("view", ["edit", "curve"])
@pytest.mark.parametrize("width", [1280, 768, 390, 290, 240])
def test_nothing_is_cut_off_at_any_width(tab, tmp_path, width, view):
    tab.size(width, 900)
    show(tab, tmp_path, OFFER, {**WISH, "view": view}, ANSWER)
    assert tab.js("document.documentElement.scrollWidth") <= width
    wider = (
        f"[...document.querySelectorAll('{ROOT} *')].filter((e) => e.scrollWidth > e.clientWidth + 1 &&"
        "e.clientWidth && !['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)"
        "&& !['SPAN', 'TR', 'TH', 'U'].includes(e.tagName)).map((e) => e.className || e.tagName)"
    )
    assert tab.js(wider) == []
