"""What the benchmark refuses before anything runs."""

from dataclasses import replace

import pytest
from spoken import spoken_relations
from tiny_benchmark import SETTINGS

from lrc_tl.experiments.run import run_protocol


def given(**changes):
    """Options of `run_protocol`: those of the changes that are its own, the others in its settings."""
    own = {name: changes.pop(name) for name in ("methods", "seeds", "resume") if name in changes}
    return {**own, "settings": replace(SETTINGS, **changes)}


@pytest.fixture(scope="module")
def relations(one_word_model):
    return spoken_relations(one_word_model, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("lrc", "svn")}, "no method 'svn'; did you mean svm"),
        ({"methods": ()}, "no methods were given; there are lrc, lrc-final, lrc-first, "),
        ({"methods": ("lrc", "lrc")}, "method 'lrc' was given twice"),
        ({"ranks": 0}, "rank is 0; it must be 1 or more"),
        ({"ranks": 13}, "rank is 13, but the model's residual stream has width 12"),
        ({"ranks": (), "object_layers": ()}, "object_layers, ranks must be given, or chosen on training facts"),
        ({"object_layers": 3}, "layer 3 is outside the model"),
        ({"subject_layers": 2}, "object layer 1 lies below subject layer 2"),
        ({"seeds": (1, 1)}, "seeds: 1 was given 2 times"),
        ({"betas": float("nan")}, "beta is nan; it must be a finite number"),
        ({"betas": ()}, "betas: none were given"),
        ({"max_facts": 1}, "max_facts is 1; it must be 2 or more"),
        ({"resume": True}, "resume needs out"),
        ({"ranks": (2, 2)}, "ranks: 2 was given 2 times"),
        ({"subject_layers": (0, -3)}, "subject_layers: 0 was given 2 times"),
        ({"subject_layers": (1, 2)}, r"lrc: no object layer of \[1\] lies above a subject"),
        ({"ranks": (2, 4), "select": True}, "select chooses one of ranks, so they cannot be swept"),
        (
            {"solver": "low_rank", "methods": ("lrc", "lrc-ridge")},
            "solver is 'low_rank', but lrc-ridge needs all singular values; use solver='exact'",
        ),
        ({"solver": "lowrank"}, "solver is 'lowrank'; allowed are 'exact' or 'low_rank'"),
        ({"n_side_effects": -1}, "n_side_effects is -1; it must be 0 or more"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(one_word_model, relations, monkeypatch, changes, message):
    monkeypatch.setattr("lrc_tl.experiments.run.benchmark_relation", None)
    with pytest.raises(ValueError, match=message):
        run_protocol(one_word_model, relations, **given(**changes))


def test_no_relations_and_two_of_one_name_are_refused(one_word_model, relations):
    with pytest.raises(ValueError, match="relations: none were given"):
        run_protocol(one_word_model, [], settings=SETTINGS)
    with pytest.raises(ValueError, match="relations: 'r0' was given 2 times"):
        run_protocol(one_word_model, [relations[0], relations[0]], settings=SETTINGS)
