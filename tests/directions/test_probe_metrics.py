"""Metrics are scikit-learn's where it has them; the calibration error is checked by a slower version."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from lrc_tl.directions.probe_metrics import ProbeReport, calibration_error, multiclass_metrics, probe_report


def samples(n=83, seed=0):
    generator = np.random.default_rng(seed)
    probabilities = generator.random(n)
    return probabilities, generator.random(n) < probabilities**2


@pytest.mark.parametrize("n_bins", [1, 5, 7])
def test_the_calibration_error_weighs_scikit_learns_quantile_bins_by_their_samples(n_bins):
    probabilities, positive = samples()
    true, predicted = calibration_curve(positive, probabilities, n_bins=n_bins, strategy="quantile")
    edges = np.quantile(probabilities, np.linspace(0, 1, n_bins + 1))
    counts = [0] * n_bins
    for p in probabilities:
        counts[next(place for place in range(n_bins) if p <= edges[place + 1])] += 1
    expected = sum(n * abs(t - p) for n, t, p in zip(counts, true, predicted, strict=True)) / len(probabilities)
    assert max(counts) - min(counts) <= 1
    assert calibration_error(probabilities, positive, n_bins=n_bins) == pytest.approx(expected, rel=1e-9)


def test_probabilities_that_come_true_have_no_calibration_error_and_order_does_not_matter():
    probabilities = np.repeat([0.25, 0.75], 40)
    positive = np.tile([True, False, False, False], 10).tolist() + np.tile([True, True, True, False], 10).tolist()
    assert calibration_error(probabilities, np.array(positive)) == pytest.approx(0)
    order = np.random.default_rng(0).permutation(80)
    overconfident = np.repeat([0.0, 1.0], 40)
    for one in (np.arange(80), order):
        assert calibration_error(overconfident[one], np.array(positive)[one]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="0 samples in 5 bins"):
        calibration_error(np.zeros(0), np.zeros(0, dtype=bool))


def test_multi_class_metrics_are_those_worked_out_by_hand():
    made = multiclass_metrics(np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]), [0, 2], n_bins=1)
    assert made.accuracy == 0.5
    assert made.brier == pytest.approx((0.25 + 0.09 + 0.04 + 0.01 + 0.36 + 0.49) / 2)
    assert made.log_loss == pytest.approx(-(np.log(0.5) + np.log(0.3)) / 2)
    assert made.calibration_error == pytest.approx(abs(0.55 - 0.5))


def test_a_report_is_made_again_from_its_json_values():
    probabilities, positive = samples()
    objects = ["x" if yes else "other" for yes in positive]
    report = probe_report(
        probabilities[:, None], objects, ["x"], probabilities=[probabilities], multiclass=None, n_bins=5
    )
    assert report.concepts["x"].n_positive == positive.sum()
    assert report.concepts["x"].brier == pytest.approx(((probabilities - positive) ** 2).mean())
    above = (probabilities[positive][:, None] > probabilities[~positive][None]).mean()
    assert report.concepts["x"].auroc == pytest.approx(above)
    assert ProbeReport.from_dict(report.to_dict()) == report
