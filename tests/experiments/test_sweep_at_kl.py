"""Methods at one KL elsewhere, on made-up records whose answers are known."""

import json
from dataclasses import replace

import pytest
from tiny_sweep import SETTINGS

from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.experiments.sweep_at_kl import difference_at_kl
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_record import CellRecord, EditScores, ShotsRecord, SweepRecord
from lrc_tl.experiments.sweep_result import SweepResult

N = 20
EDITS = tuple(AskedEdit(f"s{n}", f"o{n % 4}", f"o{(n + 1) % 4}") for n in range(N))
READINGS = ("plain", "centred", "calibrated")


def outcomes(share):
    return tuple(n < round(N * share) for n in range(N))


def curve(place, points):
    """Scores of the betas .1, .2 and so on, from (share, KL) pairs; soft success is .1 above the share."""
    return tuple(
        EditScores(
            beta=(number + 1) / 10, place=place, success=outcomes(share + 0.1), hard_success=outcomes(share),
            edit_share=0.1, kl_elsewhere=kl,
        )
        for number, (share, kl) in enumerate(points)
    )  # fmt: skip


def measured(method, *, validation, test):
    """A cell whose curves are given by place."""
    cell = SweepCell(method=method, subject_layer=0, shots=0)
    places = dict.fromkeys(READINGS, (1,) * N)
    return CellRecord(
        cell=cell, places=places, validation_places=places,
        edits=tuple(score for place, points in test.items() for score in curve(place, points)),
        validation_edits=tuple(score for place, points in validation.items() for score in curve(place, points)),
    )  # fmt: skip


def sweep_of(*cells, relations=("r0", "r1"), seeds=(1, 2)):
    shared = ShotsRecord(shots=0, n_known_train=9, edits=EDITS, validation_edits=EDITS)
    prompts = tuple(AskedPrompt("", f"s{n}", f"o{n % 4}") for n in range(N))
    records = [
        SweepRecord(
            relation=relation, seed=seed, n_facts=90, test_prompts=prompts, validation_prompts=prompts,
            by_shots=(shared,), seconds={}, cells=cells,
        )
        for relation in relations
        for seed in seeds
    ]  # fmt: skip
    return SweepResult.of(records, settings=SETTINGS, model={"name": "made-up"})


BETTER_ON_VALIDATION = {"all": [(0.0, 0.1), (0.9, 1.3)], "subject": [(0.0, 0.1), (0.2, 1.3)]}
ON_TEST = {"all": [(0.0, 0.1), (0.4, 1.3)], "subject": [(0.0, 0.1), (0.8, 1.3)]}


@pytest.fixture(scope="module")
def result():
    svm = {"all": [(0.1, 0.2), (0.2, 0.4)]}
    return sweep_of(
        measured("lrc", validation=BETTER_ON_VALIDATION, test=ON_TEST),
        measured("svm", validation=svm, test=svm),
    )


def test_the_place_is_chosen_on_validation_edits_and_judged_on_test_edits(result):
    lrc, svm = result.at_kl(0.7)
    assert (lrc.place, lrc.n_chosen_from) == ("all", 2)  # the worse one on test edits
    assert lrc.validation == pytest.approx(0.45)
    assert (lrc.hard, lrc.soft) == (pytest.approx(0.2), pytest.approx(0.3))
    assert (lrc.reached, lrc.kl, lrc.betas) == (True, pytest.approx(0.7), (0.1, 0.2))
    assert lrc.weights == pytest.approx((0.5, 0.5))
    assert (svm.reached, svm.hard, svm.kl) == (False, pytest.approx(0.2), pytest.approx(0.4))


def test_differences_are_paired_by_edit(result):
    lrc, svm = result.at_kl(0.7)
    difference = difference_at_kl(lrc, svm)
    assert difference.difference == pytest.approx(0.0)
    assert difference.n_edits == 2 * 2 * N
    assert difference.n_relations == 2
    low, high = difference.over_facts
    assert low < 0 < high
    assert difference.over_relations == (pytest.approx(0.0), pytest.approx(0.0))  # both relations are alike
    soft = difference_at_kl(lrc, svm, metric="causality")
    assert soft.difference == pytest.approx(lrc.soft - svm.soft)


def test_a_method_against_itself_differs_by_nothing(result):
    (lrc,) = result.at_kl(0.7, methods=["lrc"])
    difference = difference_at_kl(lrc, lrc)
    assert (difference.difference, difference.over_facts) == (0.0, (0.0, 0.0))


def test_what_cannot_be_compared_is_refused(result):
    (lrc, _), (other, _) = result.at_kl(0.7), result.at_kl(0.4)
    with pytest.raises(ValueError, match=r"0\.7 nats and b at 0\.4"):
        difference_at_kl(lrc, other)
    with pytest.raises(ValueError, match="allowed are"):
        difference_at_kl(lrc, lrc, metric="accuracy")
    with pytest.raises(ValueError, match="run smaller sizes too"):
        result.at_kl(0.05)


def test_a_sweep_without_kl_of_validation_edits_says_how_to_run_it():
    points = {"all": [(0.1, None)]}
    bare = sweep_of(measured("lrc", validation=points, test=points))
    with pytest.raises(ValueError, match=r"validation_kl_elsewhere; run it with .* validation_edits above 0"):
        bare.at_kl()


def test_methods_that_the_sweep_has_not_are_refused_with_those_that_it_has(result):
    with pytest.raises(ValueError, match="the sweep has no method 'svn'; did you mean svm"):
        result.at_kl(0.7, methods=["lrc", "svn"])
    with pytest.raises(TypeError, match="methods"):
        result.at_kl(0.7, methods="svm")
    assert [of.method for of in result.at_kl(0.7, methods=["svm"])] == ["svm"]


def test_a_cell_without_test_edits_is_refused_and_the_advice_is_to_have_more_facts():
    chosen_without = sweep_of(
        measured("lrc", validation=BETTER_ON_VALIDATION, test={"subject": [(0.1, 0.2)]}),
        measured("svm", validation={}, test=ON_TEST),
    )
    with pytest.raises(
        ValueError, match=r"lrc: validation edits choose a cell \(place 'all'\) without .* more facts"
    ):
        chosen_without.at_kl(0.7)
    with pytest.raises(ValueError, match="svm: there is no curve of validation edits to choose by"):
        chosen_without.at_kl(0.7, methods=["svm"])


def test_readings_and_differences_are_plain_json_without_single_outcomes(result):
    readings = result.at_kl(0.7)
    for reading in readings:
        plain = json.loads(json.dumps(reading.to_dict()))
        assert not [name for name in plain if "outcomes" in name]
        assert (plain["method"], plain["hard"], plain["betas"]) == (
            reading.method, reading.hard, list(reading.betas),
        )  # fmt: skip
    difference = difference_at_kl(*readings)
    plain = json.loads(json.dumps(difference.to_dict()))
    assert (plain["a"], plain["b"], plain["over_facts"]) == ("lrc", "svm", list(difference.over_facts))


def test_readings_on_other_edits_pair_nothing(result):
    lrc, svm = result.at_kl(0.7)
    others = {("r9", *trial[1:]): outcome for trial, outcome in svm.hard_outcomes.items()}
    with pytest.raises(ValueError, match="no edit in common, so nothing pairs them"):
        difference_at_kl(lrc, replace(svm, hard_outcomes=others))
