"""Sets are calibrated concept by concept; probabilities over the concepts are those of independent versions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tiny_directions import named

import lrc_tl as lrc
from lrc_tl.directions.calibration import fit_multiclass, multiclass_probabilities


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


def set_of_one():
    """A set of one concept, and samples in which it is there and not."""
    acts = torch.randn(40, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    concepts = lrc.ConceptSet({"a": named(0, "a")})
    acts[:20] += 3 * concepts["a"].vector
    return concepts, acts, ["a"] * 20 + ["b"] * 20


def test_a_set_of_one_is_calibrated_without_probabilities_over_concepts_and_comes_back_from_its_file(tmp_path):
    concepts, acts, objects = set_of_one()
    calibrated = concepts.calibrate(acts, objects)
    assert (calibrated.calibration.weight, calibrated.calibration.bias) == (None, None)
    calibrated.save(tmp_path / "one.safetensors")
    loaded = lrc.ConceptSet.load(tmp_path / "one.safetensors")
    assert loaded.calibration.report == calibrated.calibration.report
    assert loaded.calibration.weight is None
    assert loaded["a"].threshold == calibrated["a"].threshold
    assert torch.equal(loaded["a"].probability(acts), calibrated["a"].probability(acts))
    with pytest.raises(ValueError, match=r"no probabilities over its concepts; use .* on a set of two or more"):
        loaded.probabilities(acts)


def test_samples_of_which_none_has_an_object_of_the_set_are_refused():
    one, acts, _ = set_of_one()
    two = lrc.ConceptSet({"a": named(0, "a"), "b": named(1, "b")})
    with pytest.raises(ValueError, match="no sample has an object of the set; give samples of its concepts"):
        two.calibrate(acts, ["x"] * 40, missing="skip")
    with pytest.raises(ValueError, match=r"no concept has samples of both kinds: .* the concepts are \['a'\]"):
        one.calibrate(acts, ["x"] * 40, missing="skip")


def test_a_calibration_that_does_not_fit_its_set_or_is_not_finite_is_refused():
    _, acts, objects = set_of_one()
    two = lrc.ConceptSet({"a": named(0, "a"), "b": named(1, "b")}).calibrate(acts, objects)
    with pytest.raises(ValueError, match="the calibration is for 2 concepts, and the set has 1"):
        lrc.ConceptSet({"a": named(0, "a")}, calibration=two.calibration)
    with pytest.raises(ValueError, match="the bias of the calibration is not finite; calibrate again"):
        replace(two.calibration, bias=torch.tensor([0.0, float("nan")]).double())
