"""Names from elsewhere are safe in figures and pages."""

import pytest

from lrc_tl.views.text import shown


@pytest.mark.parametrize(
    ("text", "on_page", "in_figure"),
    [
        ("a < b & c", "a &lt; b &amp; c", "a < b & c"),
        ("two\nlines\tand  space", "two lines and space", "two lines and space"),
        ("red\x1b[31m", "red\\x1b[31m", "red\\x1b[31m"),
        ("turn \u202e back", "turn \\u202e back", "turn \\u202e back"),
    ],
)
def test_text_is_one_line_without_control_characters(text, on_page, in_figure):
    assert shown(text) == on_page
    assert shown(text, html=False) == in_figure


def test_quotes_are_escaped_in_attributes():
    assert shown("\"a\" 'b'", quoted=True) == "&quot;a&quot; &#x27;b&#x27;"
    assert shown('"a"') == '"a"'
