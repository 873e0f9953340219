"""What a terminal is shown: the environment's word, and that of the block."""

import pytest

from lrc_tl.markup.terminal import console, error_console, is_quiet, shown_as


def test_a_block_decides_until_it_ends_also_by_an_error(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)

    def state():
        return is_quiet(), error_console().quiet, console().no_color, error_console().no_color

    plain = (False, False, False, False)
    assert state() == plain
    with shown_as(quiet=True):
        assert state() == (True, True, False, False)
        assert not console().quiet  # results stay
        with shown_as(colours=False):
            assert state() == (True, True, True, True)
        assert state() == (True, True, False, False)
    with pytest.raises(KeyError), shown_as(quiet=True, colours=False):
        raise KeyError
    assert state() == plain


def test_no_color_turns_colours_off(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color
    assert error_console().no_color
