"""Names and places of the benchmark's methods."""

import pytest

from lrc_tl.method_variants import method_variants

PLACE = {"n_layers": 6, "subject_layers": (1,), "object_layers": (3,), "ranks": (8,)}


def places(*methods, **changes):
    found = method_variants(methods, **{**PLACE, **changes})
    return {one.name: (one.subject_layer, one.object_layer, one.rank) for one in found}


def test_without_a_sweep_methods_keep_their_names():
    assert places("lrc", "lrc-final", "lrc-first", "mean") == {
        "lrc": (1, 3, 8),
        "lrc-final": (1, 5, 8),
        "lrc-first": (1, 3, 8),
        "mean": (1, None, None),
    }


def test_only_what_a_method_has_is_swept_for_it():
    assert places("lrc", "lrc-final", "svm", object_layers=(2, 4)) == {
        "lrc@object=2": (1, 2, 8),
        "lrc@object=4": (1, 4, 8),
        "lrc-final": (1, 5, 8),
        "svm": (1, None, None),
    }
    assert places("lrc", "svm", subject_layers=(0, 3), ranks=(4, 8)) == {
        "lrc@subject=0,rank=4": (0, 3, 4),
        "lrc@subject=0,rank=8": (0, 3, 8),
        "svm@subject=0": (0, None, None),
        "svm@subject=3": (3, None, None),
    }


def test_the_first_token_is_read_by_the_methods_that_say_so():
    found = method_variants(("lrc", "lrc-final", "lrc-first", "lrc-same-object"), **PLACE)
    assert [one.aggregation for one in found] == ["mean", "first_token", "first_token", "mean"]


def test_a_sweep_without_a_pair_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"lrc: no object layer of \[1, 2\] lies above a subject layer of \[4\]"):
        places("mean", "lrc", subject_layers=(4,), object_layers=(1, 2))


def test_the_combined_method_is_made_of_the_two_that_it_combines():
    (found,) = method_variants(("lrc-combined",), **PLACE)
    assert (found.name, found.object_layer, found.rank) == ("lrc-combined", 3, 8)
    parts = found.components(6)
    assert [(one.method, one.object_layer, one.aggregation) for one in parts] == [
        ("lrc", 3, "mean"),
        ("lrc-final", 5, "first_token"),
    ]
    (plain,) = method_variants(("lrc",), **PLACE)
    assert plain.components(6) == (plain,)
