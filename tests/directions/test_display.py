"""What is shown of a reading."""

import re

import pytest
import torch

from lrc_tl.directions.token_scores import TokenScores


def scores(*values, tokens=None, special=()):
    tokens = tokens or tuple(f" t{place}" for place in range(len(values)))
    return TokenScores(label="r: <x> & y", tokens=tokens, scores=torch.tensor(values), special=special)


def opacities(html):
    return [float(share) for share in re.findall(r"rgba\([^)]*, ([\d.]+)\)", html)]


def test_markup_in_tokens_is_shown_and_not_run():
    html = scores(1.0, 2.0, tokens=("<script>alert(1)</script>", "\"'&"))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "r: &lt;x&gt; &amp; y" in html


def test_the_special_token_does_not_wash_out_the_others():
    read = scores(-9000.0, 1.0, -2.0, special=(0,))
    assert read.scale == 2.0
    assert opacities(read._repr_html_()) == [0.0, 0.5, 1.0]


def test_signs_have_their_own_colours():
    html = scores(1.0, -1.0)._repr_html_()
    first, second = re.findall(r"rgba\((\d+, \d+, \d+),", html)
    assert first != second


def test_text_shows_each_token_with_its_score():
    lines = repr(scores(1.25, -3.0)).splitlines()
    assert lines[0] == "r: <x> & y"
    assert lines[1].split() == ["'", "t0'", "+1.25"]
    assert lines[2].split() == ["'", "t1'", "-3"]


def test_nothing_and_zeros_are_shown_too():
    assert opacities(scores(0.0, 0.0)._repr_html_()) == [0.0, 0.0]
    assert scores(5.0, special=(0,)).scale == 0.0
    with pytest.raises(ValueError, match="1 tokens but 2 scores"):
        scores(1.0, 2.0, tokens=("a",))
