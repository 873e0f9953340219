"""Thresholds are the best that trying every one finds; probabilities are those of independent versions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import lrc_tl as lrc
from lrc_tl.directions.calibration import (
    best_threshold,
    fit_isotonic,
    fit_multiclass,
    fit_platt,
    multiclass_probabilities,
)
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


def test_a_set_is_calibrated_concept_by_concept():
    generator = torch.Generator().manual_seed(0)
    names = ("a", "b", "c")
    centres = torch.eye(12)[:3]
    concepts = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(
                vector=centre, relation="r", object_name=name, hook_name="blocks.1.hook_resid_post"
            )
            for name, centre in zip(names, centres, strict=True)
        },
        settings={"rank": 3},
    )
    objects = [names[row % 3] for row in range(60)]
    acts = torch.stack([centres[names.index(name)] for name in objects])
    acts = acts * 4 + torch.randn(60, 12, generator=generator) * 0.3
    calibrated = concepts.calibrate(acts, objects)
    assert calibrated.settings == {"rank": 3}
    assert torch.equal(calibrated.vectors, concepts.vectors)
    for name, direction in calibrated.items():
        assert direction.predict(acts).tolist() == [other == name for other in objects]
    assert concepts["a"].threshold is None
    with pytest.raises(ValueError, match="59 objects for 60 activations"):
        concepts.calibrate(acts, objects[1:])
    with pytest.raises(ValueError, match="concept 'c': a threshold needs samples of both kinds"):
        concepts.calibrate(acts[:2], objects[:2])


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


def test_a_rate_of_zero_is_kept_however_the_scores_are_rounded():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        made = lrc.ConceptSet(
            {
                name: lrc.ConceptDirection.from_unscaled(
                    torch.randn(640, generator=generator),
                    relation="r",
                    object_name=name,
                    hook_name="blocks.1.hook_resid_post",
                )
                for name in ("a", "b")
            }
        )
        acts = torch.randn(20, 640, generator=generator) * 1000
        objects = [list(made)[row % 2] for row in range(20)]
        for name, direction in made.calibrate(acts, objects, by="false_positive_rate", rate=0.0).items():
            negatives = acts[[other != name for other in objects]]
            assert not direction.predict(negatives).any()
            assert not any(bool(direction.predict(one)) for one in negatives)


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


def test_no_other_temperature_has_less_smoothed_log_loss():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 120)
    scores = (generator.standard_normal((120, 4)) + 1.5 * np.eye(4)[labels]) * 900 + 5e4
    weight, bias = fit_multiclass(scores, labels.tolist(), kind="temperature")
    assert torch.equal(weight, weight[0, 0] * torch.eye(4).double())
    assert not bias.any()

    def loss(inverse):
        shares = torch.tensor(scores * inverse).softmax(-1).numpy()
        target = np.full((120, 4), 1 / 122 / 3)
        target[np.arange(120), labels] = 121 / 122
        return -(target * np.log(shares)).sum()

    best = float(weight[0, 0])
    assert loss(best) < min(loss(best * factor) for factor in (0.5, 0.99, 1.01, 2.0))


def test_a_temperature_stays_above_zero_on_separable_samples():
    scores = np.eye(3)[[0, 1, 2] * 5] * 100
    weight, _ = fit_multiclass(scores, [0, 1, 2] * 5, kind="temperature")
    shares = multiclass_probabilities(torch.tensor(scores), weight, torch.zeros(3).double())
    np.testing.assert_allclose(shares.max(1).values, 16 / 17, rtol=1e-4)


@pytest.mark.parametrize("k", [2, 3])
def test_multinomial_probabilities_are_scikit_learns_on_standardised_scores(k):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, k, 90)
    scores = (generator.standard_normal((90, k)) + np.eye(k)[labels]) * 700 - 2e4
    weight, bias = fit_multiclass(scores, labels.tolist(), kind="multinomial")
    found = multiclass_probabilities(torch.tensor(scores), weight, bias)
    z = (scores - scores.mean(0)) / scores.std(0)
    expected = LogisticRegression(max_iter=5000).fit(z, labels).predict_proba(z)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def noisy_set(dtype=torch.float32):
    """A set of three, and 240 activations of its objects and one that is not in it."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(12, dtype=dtype)[:4]
    concepts = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(
                vector=centre, relation="r", object_name=name, hook_name="blocks.1.hook_resid_post"
            )
            for name, centre in zip("abc", centres, strict=False)
        }
    )
    objects = ["abcd"[row % 4] for row in range(240)]
    acts = centres[torch.arange(240) % 4] + torch.randn(240, 12, generator=generator, dtype=dtype)
    return concepts, acts, objects


@pytest.mark.parametrize("probabilities", ["platt", "isotonic"])
@pytest.mark.parametrize("multiclass", ["temperature", "multinomial"])
def test_a_calibrated_set_comes_back_from_its_file_with_all_its_probabilities(tmp_path, probabilities, multiclass):
    concepts, acts, objects = noisy_set()
    made = concepts.calibrate(
        acts, objects, by="false_positive_rate", rate=0.1, probabilities=probabilities, multiclass=multiclass
    )
    path = tmp_path / "set.safetensors"
    made.save(path)
    loaded = lrc.ConceptSet.load(path)
    assert torch.equal(loaded.probabilities(acts), made.probabilities(acts))
    for name, direction in made.items():
        assert torch.equal(loaded[name].probability(acts), direction.probability(acts))
        assert loaded[name].threshold == direction.threshold
    assert loaded.calibration.report == made.calibration.report
    assert (loaded.calibration.by, loaded.calibration.rate) == ("false_positive_rate", 0.1)
    assert loaded.calibration.multiclass == multiclass


@pytest.mark.parametrize("multiclass", ["temperature", "multinomial"])
def test_probabilities_beat_the_base_rate_on_other_samples(multiclass):
    concepts, acts, objects = noisy_set(torch.float64)
    half = [row for row in range(240) if row % 8 < 4]
    made = concepts.calibrate(acts[half], [objects[row] for row in half], multiclass=multiclass)
    rest = [row for row in range(240) if row % 8 >= 4]
    report = made.report(acts[rest], [objects[row] for row in rest])
    assert report.n_samples == 120
    assert report.multiclass.n_samples == 90
    assert report.multiclass.log_loss < 0.95 * np.log(3)
    assert report.multiclass.brier < 2 / 3
    assert report.macro("brier") < 0.25 * 0.75
    assert report.macro("auroc") > 0.65
    shares = made.probabilities(acts)
    torch.testing.assert_close(shares.sum(-1), torch.ones(240).double())


def test_a_set_without_calibration_has_no_probabilities_and_its_report_says_so():
    concepts, acts, objects = noisy_set()
    with pytest.raises(ValueError, match="the set has no probabilities over its concepts"):
        concepts.probabilities(acts)
    report = concepts.report(acts, objects)
    assert report.multiclass is None
    assert report.macro("brier") is None
    assert report.macro("auroc") > 0.65
    part = concepts.report(acts[:2], objects[:2])
    assert (list(part.concepts), part.left_out) == (["a", "b"], ("c",))
    with pytest.raises(ValueError, match="no concept has samples of both kinds: the 1 samples have the objects"):
        concepts.report(acts[:1], objects[:1])
    with pytest.raises(ValueError, match="no metric 'auc'; there are n_positive"):
        report.macro("auc")


@pytest.mark.parametrize("multiclass", ["temperature", "standardised"])
def test_concepts_without_samples_are_left_uncalibrated_only_when_asked_and_are_listed(tmp_path, multiclass):
    concepts, acts, objects = noisy_set()
    rows = [row for row in range(240) if objects[row] != "c"]
    few, names = acts[rows], [objects[row] for row in rows]
    with pytest.raises(ValueError, match="concept 'c': a threshold needs samples of both kinds"):
        concepts.calibrate(few, names, multiclass=multiclass)
    made = concepts.calibrate(few, names, multiclass=multiclass, missing="skip")
    assert made.calibration.report.left_out == ("c",)
    whole = concepts.calibrate(acts, objects, multiclass=multiclass)
    assert whole["c"].threshold is not None
    assert whole.calibrate(few, names, multiclass=multiclass, missing="skip")["c"].threshold is None
    with pytest.raises(ValueError, match="threshold"):
        made["c"].predict(acts)
    assert made.probabilities(acts).shape == (240, 3)
    assert made.report(acts, objects).multiclass.log_loss < 0.95 * np.log(3)
    made.save(tmp_path / "set.safetensors")
    loaded = lrc.ConceptSet.load(tmp_path / "set.safetensors")
    assert loaded["c"].threshold is None
    assert loaded.calibration.report == made.calibration.report
    with pytest.raises(ValueError, match="multiclass='multinomial' needs samples of every concept"):
        concepts.calibrate(few, names, multiclass="multinomial", missing="skip")


@pytest.mark.parametrize(
    "option", [{"by": "accuracy"}, {"probabilities": "plat"}, {"multiclass": "temp"}, {"missing": "drop"}]
)
def test_a_mistyped_option_is_refused_with_what_is_allowed(option):
    concepts, acts, objects = noisy_set()
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name} is '{value}'; allowed are"):
        concepts.calibrate(acts, objects, **option)


@pytest.mark.parametrize("probabilities", ["platt", "isotonic"])
def test_activations_may_carry_gradients(probabilities):
    concepts, acts, objects = noisy_set()
    expected = concepts.calibrate(acts, objects, probabilities=probabilities)
    found = concepts.calibrate(acts.requires_grad_(), objects, probabilities=probabilities)
    assert found.calibration.report == expected.calibration.report == found.report(acts, objects)


def test_standardised_probabilities_ignore_what_shifts_or_stretches_one_concepts_scores():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 90)
    scores = generator.standard_normal((90, 3)) + np.eye(3)[labels]
    shifted = scores * np.array([1.0, 20.0, 0.3]) + np.array([0.0, -500.0, 90.0])
    made = []
    for one in (scores, shifted):
        weight, bias = fit_multiclass(one, labels.tolist(), kind="standardised")
        made.append(multiclass_probabilities(torch.tensor(one), weight, bias).numpy())
    np.testing.assert_allclose(made[0], made[1], atol=1e-6)
    assert log_loss(labels, made[0]) < 0.95 * np.log(3)


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
