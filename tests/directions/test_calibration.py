"""Thresholds are the best that trying every one finds; probabilities are those of independent versions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

import lrc_tl as lrc
from lrc_tl.directions.calibration import best_threshold, fit_isotonic, fit_platt
from lrc_tl.storage.artifacts import read_artifact, write_artifact


def quality(scores, positive, threshold, by):
    said = [score > threshold for score in scores.tolist()]
    pairs = list(zip(said, positive.tolist(), strict=True))
    hits = sum(yes and is_ for yes, is_ in pairs)
    false = sum(yes and not is_ for yes, is_ in pairs)
    n = sum(positive.tolist())
    if by == "f1":
        return 2 * hits / (hits + false + n)
    return (hits / n + 1 - false / (len(pairs) - n)) / 2


@pytest.mark.parametrize("by", ["balanced_accuracy", "f1"])
@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_is_better(seed, by):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(40, generator=generator) < 0.3
    # Rounded, so that equal scores of both kinds occur.
    scores = (torch.randn(40, generator=generator) + positive).mul(4).round() / 4
    found = best_threshold(scores, positive, by=by)
    values = sorted(set(scores.tolist()))
    middles = [(low + high) / 2 for low, high in pairwise(values)]
    assert found in middles
    assert quality(scores, positive, found, by) == pytest.approx(
        max(quality(scores, positive, t, by) for t in middles)
    )


def test_separable_scores_are_separated_in_the_middle():
    assert best_threshold(torch.tensor([1.0, 2.0, 5.0, 9.0]), torch.tensor([False, False, True, True])) == 3.5


def test_scaling_and_shifting_the_scores_does_so_to_the_threshold():
    generator = torch.Generator().manual_seed(0)
    scores, positive = torch.randn(30, generator=generator), torch.rand(30, generator=generator) < 0.5
    threshold = best_threshold(scores, positive)
    assert best_threshold(6500 * scores - 3, positive) == pytest.approx(6500 * threshold - 3, rel=1e-5)


def test_samples_that_decide_nothing_are_refused():
    both = torch.tensor([True, False])
    with pytest.raises(ValueError, match="given are 2 positive and 0 negative"):
        best_threshold(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="all 2 scores are equal"):
        best_threshold(torch.ones(2), both)
    with pytest.raises(ValueError, match="a score is not finite"):
        best_threshold(torch.tensor([float("nan"), 1.0]), both)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.37])
@pytest.mark.parametrize("seed", range(4))
def test_a_fixed_false_positive_rate_is_kept_and_no_threshold_that_keeps_it_finds_more(seed, rate):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(40, generator=generator) < 0.3
    scores = (torch.randn(40, generator=generator) + positive).mul(4).round() / 4
    found = best_threshold(scores, positive, by="false_positive_rate", rate=rate)

    def rates(threshold):
        said = scores > threshold
        return float((said & positive).sum()), float((said & ~positive).sum() / (~positive).sum())

    hits, false = rates(found)
    assert false <= rate
    assert hits == max(rates(t)[0] for t in scores.tolist() if rates(t)[1] <= rate)


def test_where_the_highest_score_is_a_negative_a_rate_of_zero_lets_nothing_fire():
    scores, positive = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([False, True, False])
    assert best_threshold(scores, positive, by="false_positive_rate", rate=0.0) == 3.5


@pytest.mark.parametrize(
    ("by", "rate"), [("f1", 0.1), ("false_positive_rate", None), ("false_positive_rate", 1.0)]
)
def test_a_rate_goes_with_its_criterion(by, rate):
    with pytest.raises(ValueError, match=f"rate is {rate} for by='{by}'; by='false_positive_rate' needs one"):
        best_threshold(torch.tensor([1.0, 2.0]), torch.tensor([True, False]), by=by, rate=rate)


def noisy(n, seed=0, scale=6500.0):
    generator = np.random.default_rng(seed)
    positive = generator.random(n) < 0.3
    return (generator.standard_normal(n) + positive) * scale - 3 * scale, positive


@pytest.mark.parametrize("separable", [False, True])
def test_platts_map_is_where_the_gradient_of_his_loss_is_zero(separable):
    scores, positive = noisy(80)
    if separable:
        scores = scores + 1e6 * positive
    slope, intercept = fit_platt(scores, positive)
    assert slope > 0
    n = positive.sum()
    target = np.where(positive, (n + 1) / (n + 2), 1 / (80 - n + 2))
    z = (scores - scores.mean()) / scores.std()
    error = 1 / (1 + np.exp(-(slope * scores + intercept))) - target
    assert abs(error.mean()) < 1e-6
    assert abs((error * z).mean()) < 1e-6


def test_isotonic_probabilities_are_scikit_learns_and_never_fall():
    scores, positive = noisy(250)
    knots = fit_isotonic(scores, positive)
    direction = lrc.ConceptDirection(
        vector=torch.eye(4)[0].double(), relation="r", object_name="x", hook_name="blocks.1.hook_resid_post"
    ).calibrated(threshold=0.0, knots=knots)
    grid = np.linspace(scores.min() - 1e4, scores.max() + 1e4, 400)
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, positive).predict(grid)
    found = direction.probability(torch.eye(4)[0].double() * torch.tensor(grid)[:, None])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert bool((found.diff() >= 0).all())


def test_isotonic_regression_is_refused_below_two_hundred_samples():
    scores, positive = noisy(199)
    with pytest.raises(ValueError, match="isotonic regression needs 200 samples or more, and 199 are given"):
        fit_isotonic(scores, positive)


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        ((), "must be pairs of growing"),
        (((1.0, 0.2), (1.0, 0.3)), "must be pairs of growing"),
        (((1.0, 0.2), (2.0, 1.3)), "probabilities from 0 to 1"),
        (((float("nan"), 0.2),), "finite scores"),
    ],
)
def test_knots_that_are_no_probabilities_are_refused(knots, message):
    direction = lrc.ConceptDirection(
        vector=torch.eye(4)[0], relation="r", object_name="x", hook_name="blocks.1.hook_resid_post"
    )
    with pytest.raises(ValueError, match=message):
        direction.calibrated(threshold=0.0, knots=knots)
    with pytest.raises(ValueError, match="either slope and intercept, or knots"):
        direction.calibrated(threshold=0.0, knots=((1.0, 0.2),), slope=1.0, intercept=0.0)


def test_the_calibration_of_a_direction_is_one_object_and_its_threshold_can_be_read(tmp_path):
    plain = lrc.ConceptDirection(
        vector=torch.eye(4)[0], relation="r", object_name="x", hook_name="blocks.1.hook_resid_post"
    )
    assert (plain.calibration, plain.threshold) == (None, None)
    knots = ((0.0, 0.1), (2.0, 0.9))
    for options in ({}, {"slope": 2.0, "intercept": -1.0}, {"knots": knots}):
        calibration = lrc.directions.ScoreCalibration(threshold=0.5, **options)
        direction = plain.calibrated(threshold=0.5, **options)
        assert (direction.calibration, direction.threshold) == (calibration, 0.5)
        assert calibration.has_probability == bool(options)
        lrc.ConceptSet({"x": direction}).save(tmp_path / "set.safetensors")
        assert lrc.ConceptSet.load(tmp_path / "set.safetensors")["x"].calibration == calibration


def test_a_threshold_alone_says_yes_or_no_and_gives_no_probability():
    scores = torch.tensor([[0.0, 0.5], [0.6, 3.0]])
    calibration = lrc.directions.ScoreCalibration(threshold=0.5)
    assert calibration.fires(scores).tolist() == [[False, False], [True, True]]
    with pytest.raises(ValueError, match="a threshold only, and neither slope and intercept nor knots"):
        calibration.probability(scores)
    platt = lrc.directions.ScoreCalibration(threshold=0.5, slope=2.0, intercept=-1.0)
    torch.testing.assert_close(platt.probability(scores), torch.sigmoid(2 * scores - 1), rtol=0, atol=0)


def test_numbers_of_a_calibration_without_its_threshold_are_refused_in_a_file(tmp_path):
    path = tmp_path / "set.safetensors"
    direction = lrc.ConceptDirection(
        vector=torch.eye(4)[0], relation="r", object_name="x", hook_name="blocks.1.hook_resid_post"
    ).calibrated(threshold=0.5, slope=2.0, intercept=-1.0)
    lrc.ConceptSet({"x": direction}).save(path)
    tensors, header = read_artifact(path, kind="concepts")
    header["objects"][0]["threshold"] = None
    write_artifact(path, kind="concepts", tensors=tensors, header=header)
    with pytest.raises(lrc.errors.ArtifactError, match="the calibration of 'x' has no threshold"):
        lrc.ConceptSet.load(path)
