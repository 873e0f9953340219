"""Settings of an experiment: one value or several, kept in one form and checked when they are made."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from lrc_tl.experiments.settings import ExperimentSettings


@pytest.mark.parametrize(
    "given", [3, np.int64(3), torch.tensor(3), [3], (3,), range(3, 4), np.array([3])], ids=repr
)
def test_one_value_and_a_list_of_one_are_the_same_setting(given):
    settings = ExperimentSettings(subject_layers=given, object_layers=given, ranks=given)
    assert settings == ExperimentSettings(subject_layers=3, object_layers=3, ranks=3)
    assert settings.ranks == (3,)
    assert type(settings.ranks[0]) is int
    assert settings.swept == settings.missing_for(["lrc"]) == ()


@pytest.mark.parametrize(
    "given", [0.5, np.float64(0.5), torch.tensor(0.5), [0.5], iter([0.5])], ids=lambda given: type(given).__name__
)
def test_one_beta_and_a_list_of_one_are_the_same_setting(given):
    betas = ExperimentSettings(betas=given).betas
    assert betas == (0.5,)
    assert type(betas[0]) is float


def test_several_values_are_a_sweep_and_none_are_missing():
    settings = ExperimentSettings(subject_layers=range(4, 7), ranks=64)
    assert settings.subject_layers == (4, 5, 6)
    assert settings.swept == ("subject_layers",)
    assert settings.missing_for(["svm", "lrc"]) == ("object_layers",)


def test_only_what_the_methods_have_is_missing():
    nothing = ExperimentSettings()
    assert nothing.missing_for(["lrc", "svm"]) == ("subject_layers", "object_layers", "ranks")
    assert nothing.missing_for(["lrc-ridge"]) == ("subject_layers", "object_layers")
    assert nothing.missing_for(["svm", "mean"]) == ("subject_layers",)


def test_variants_are_made_by_replacing():
    settings = ExperimentSettings(subject_layers=(4, 5), ranks=64, betas=0.1)
    more = replace(settings, subject_layers=4, max_facts=60)
    assert (more.subject_layers, more.ranks, more.betas, more.max_facts) == ((4,), (64,), (0.1,), 60)
    assert settings.subject_layers == (4, 5)
    assert replace(more) == more
    assert hash(replace(more)) == hash(more)


def test_the_fields_that_stored_records_are_compared_by_stay():
    """A run that was begun before is gone on with only if these names and defaults are as they were then."""
    assert ExperimentSettings().to_dict() == {
        "subject_layers": (), "object_layers": (), "ranks": (), "betas": None, "max_lre_prompts": 20,
        "max_facts": None, "shots": 4, "select": False, "single_layer": False, "random_model": False,
        "n_side_effects": 16, "fit_method": "exact", "split_seed": None,
    }  # fmt: skip


def test_what_only_dual_directions_have_is_stored_where_it_is_given():
    given = ExperimentSettings(noise=3.0, keep_test_subjects=True).to_dict()
    assert {name: given[name] for name in given if name not in ExperimentSettings().to_dict()} == {
        "noise": 3.0, "keep_test_subjects": True,
    }  # fmt: skip


def test_settings_do_not_change():
    settings = ExperimentSettings(ranks=4)
    for name, value in (("ranks", 5), ("betas", 0.1), ("shots", 2)):
        with pytest.raises(FrozenInstanceError):
            setattr(settings, name, value)
    assert settings.ranks == (4,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subject_layers": "12"}, "subject_layers is one string, '12'"),
        ({"subject_layers": None}, "subject_layers is of the type NoneType"),
        ({"object_layers": 1.5}, "object_layers is of the type float"),
        ({"ranks": [2, 0.5]}, r"ranks\[1\] is 0.5 .*give a whole number"),
        ({"ranks": True}, "ranks is True, but a boolean is no number"),
        ({"betas": ["0.1"]}, r"betas\[0\] is '0.1'"),
        ({"shots": 2.0}, "shots is 2.0 .*give a whole number"),
    ],
)
def test_what_is_no_number_is_refused(given, message):
    with pytest.raises(TypeError, match=message):
        ExperimentSettings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ranks": 0}, "rank is 0; it must be 1 or more"),
        ({"subject_layers": (4, 4)}, "subject_layers: 4 was given 2 times; give each once"),
        ({"betas": (0.1, 0.1)}, "betas: 0.1 was given 2 times"),
        ({"betas": float("inf")}, "beta is inf; it must be a finite number"),
        ({"max_lre_prompts": 0}, "max_lre_prompts is 0; it must be 1 or more"),
        ({"noise": 0}, "noise is 0; it must be above 0, or None to have it chosen"),
        ({"shots": -1}, "shots is -1; it must be 0 or more"),
    ],
)
def test_numbers_outside_what_is_allowed_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ExperimentSettings(**given)
