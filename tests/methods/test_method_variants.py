"""Names and places of the benchmark's methods."""

import pytest

from lrc_tl.methods.method import method_variants

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
    assert [one.method.aggregation for one in found] == ["mean", "first_token", "first_token", "mean"]


def test_a_sweep_without_a_pair_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"lrc: no object layer of \[1, 2\] lies above a subject layer of \[4\]"):
        places("mean", "lrc", subject_layers=(4,), object_layers=(1, 2))


def test_the_combined_method_is_made_of_three_with_a_ridge():
    (found,) = method_variants(("lrc-combined",), **{**PLACE, "ranks": (8, 16)})
    assert (found.name, found.object_layer, found.rank, found.ridge) == ("lrc-combined", 3, None, 0.2)
    parts = found.components(6)
    assert [(one.method.name, one.object_layer, one.method.aggregation, one.ridge) for one in parts] == [
        ("lrc-ridge", 2, "mean", 0.2),
        ("lrc-ridge", 3, "mean", 0.2),
        ("lrc-final", 5, "first_token", 0.2),
    ]
    (near,) = method_variants(("lrc-combined",), **{**PLACE, "object_layers": (2,)})
    assert [one.object_layer for one in near.components(6)] == [2, 5]
    (plain,) = method_variants(("lrc",), **PLACE)
    assert plain.components(6) == (plain,)
