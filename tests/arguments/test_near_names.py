"""Near names for what was mistyped."""

from lrc_tl.arguments.near_names import did_you_mean, near_names

NAMES = ["France", "Greece", "Japan", "Jordan"]


def test_near_names_come_nearest_first_and_no_more_than_asked_for():
    assert near_names("lrc-combind", ["lrc", "lrc-combine", "lrc-combined"]) == ["lrc-combined", "lrc-combine"]
    assert near_names("lrc-combind", ["lrc", "lrc-combine", "lrc-combined"], n=1) == ["lrc-combined"]
    assert near_names("Peru", NAMES) == []


def test_what_is_no_text_is_compared_as_it_is_written():
    assert near_names(1235, ["1234", "France"]) == ["1234"]


def test_the_hint_names_near_names_and_else_all_of_them():
    assert did_you_mean("Farnce", NAMES) == "did you mean France?"
    assert did_you_mean("Joran", ["Jordan", "Joran-Sea"]) == "did you mean Jordan or Joran-Sea?"
    assert did_you_mean("Peru", NAMES) == "there are France, Greece, Japan, Jordan"
    assert did_you_mean("Peru", iter(NAMES), otherwise="built in are") == f"built in are {', '.join(NAMES)}"
    assert did_you_mean("Peru", []) == "there are none"
