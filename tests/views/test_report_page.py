"""Pages escape what they are given, name no address, and their tables can be sorted by keys."""

import re
from html.parser import HTMLParser

import pytest

from lrc_tl.views.report_page import SCRIPT, STYLE, Number, drawing, page, pairs, table

EVIL = "</td><script>alert(1)</script>\"'&"


class Parsed(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.values = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values.append(dict(attrs))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize(
    "html",
    [
        table([EVIL], [[EVIL]], caption=EVIL),
        pairs([(EVIL, EVIL)]),
        drawing("<svg></svg>", caption=EVIL, width=100),
        page(title=EVIL, body=[]),
    ],
)
def test_what_is_given_is_text(html):
    parsed = Parsed(html)
    assert parsed.tags.count("script") == (1 if "html" in parsed.tags else 0)
    assert sum(text.strip() == EVIL for text in parsed.texts) + sum(
        value == EVIL for attributes in parsed.values for value in attributes.values()
    )


def test_nothing_of_the_page_names_an_address():
    for text in (SCRIPT, STYLE, page(title="t", body=[])):
        assert not re.search(r"https?:|//|@import|url\(|fetch|XMLHttp|import\(|src=", text.replace("</", ""))
    assert "default-src 'none'" in page(title="t", body=[])


def test_every_head_is_a_button_which_keys_reach():
    html = table(["a", "b"], [["x", Number(1.5)]], caption="c")
    assert re.findall(r'<th scope="col"><button type="button">(\w)</button></th>', html) == ["a", "b"]
    assert 'tabindex="0" role="region" aria-label="c"' in html
    for part in ('querySelectorAll("th button")', "aria-sort", "dataset.value"):
        assert part in SCRIPT


def test_numbers_carry_the_value_that_they_are_sorted_by():
    html = table(
        ["a"] * 5,
        [[Number(0.12345678), Number(1234), Number(None), Number(0.5, "half"), Number(float("nan"))]],
        caption="",
    )
    cells = re.findall(r'<td class="number" data-value="([^"]*)">([^<]*)</td>', html)
    assert cells == [("0.12345678", "0.123"), ("1234", "1,234"), ("", "-"), ("0.5", "half"), ("", "-")]


def test_light_and_dark_follow_the_reader():
    assert "@media (prefers-color-scheme: dark)" in STYLE
    assert "color-scheme: light dark" in STYLE
