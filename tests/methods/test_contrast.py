"""Directions from texts: the difference of means by hand, the checks, and what is refused."""

import warnings

import numpy as np
import pytest
import torch
from shown_objects import seen
from sklearn.decomposition import PCA

import lrc_tl as lrc
from lrc_tl.methods.contrast import no_better_than_chance

POSITIVE = [f"w{n} w{n + 3} w1 w2" for n in range(4, 12)]
NEGATIVE = [f"w{n} w{n + 3} w30 w31" for n in range(4, 12)]


def contrast(model, **given):
    arguments = {"positive": POSITIVE, "negative": NEGATIVE, "layer": 1, **given}
    return lrc.contrast_concepts(model, **{name: value for name, value in arguments.items() if value is not None})


def read(model, texts, **given):
    return lrc.passes.content_activations(model, texts, layer=1, **given)


@pytest.mark.parametrize("at", ["last", "mean", slice(1, 3)])
def test_two_classes_give_the_difference_of_means_and_its_opposite(word_model, at):
    concepts = contrast(word_model, at=at)
    difference = read(word_model, POSITIVE, at=at).mean(0) - read(word_model, NEGATIVE, at=at).mean(0)
    assert list(concepts) == ["positive", "negative"]
    torch.testing.assert_close(concepts["positive"].vector, difference / difference.norm())
    torch.testing.assert_close(concepts["negative"].vector, -concepts["positive"].vector)
    assert concepts["positive"].norm == pytest.approx(float(difference.norm()))
    assert concepts.fingerprint == lrc.models.ModelFingerprint.of(word_model)
    assert concepts.hook_name == "blocks.1.hook_resid_post"


def test_scores_count_from_halfway_between_the_classes(word_model):
    means = torch.stack([read(word_model, texts).mean(0) for texts in (POSITIVE, NEGATIVE[:5])])
    concepts = contrast(word_model, negative=NEGATIVE[:5])
    torch.testing.assert_close(concepts.scores(means.mean(0)), torch.zeros(2).to(means), atol=1e-5, rtol=0)
    assert bool((concepts["positive"].score(read(word_model, POSITIVE)) > 0).all())
    assert bool((concepts["positive"].score(read(word_model, NEGATIVE)) < 0).all())
    plain = contrast(word_model, centre=False)
    assert plain["positive"].offset == 0
    assert plain.settings["centred"] is False


def test_methods_are_the_baselines_on_the_same_activations(word_model):
    acts = torch.cat([read(word_model, POSITIVE), read(word_model, NEGATIVE)])
    objects = ["positive"] * 8 + ["negative"] * 8
    for method in ("logistic", "lda", "mean"):
        made = contrast(word_model, method=method, centre=False)
        expected = lrc.methods.baseline_concepts(acts, objects, method=method, hook_name=made.hook_name)
        torch.testing.assert_close(made.vectors, expected.vectors)
        assert made["positive"].method == method


@pytest.mark.parametrize(("method", "centred"), [("pair-pca", False), ("pair-pca-centred", True)])
def test_the_component_of_pairs_is_that_of_scikit_learn_and_points_along_the_mean_difference(
    word_model, method, centred
):
    concepts = contrast(word_model, method=method, paired=True)
    differences = (read(word_model, POSITIVE) - read(word_model, NEGATIVE)).double().numpy()
    # PCA takes the mean out; of the differences and their opposites it is zero.
    rows = differences if centred else np.concatenate([differences, -differences])
    (axis,) = PCA(n_components=1).fit(rows).components_
    axis *= np.sign(differences.mean(0) @ axis)
    found = concepts["positive"]
    np.testing.assert_allclose(found.vector.numpy(), axis, atol=1e-5)
    torch.testing.assert_close(concepts["negative"].vector, -found.vector)
    assert found.method == concepts.settings["method"] == method
    assert found.norm == pytest.approx(1.0)
    assert float(found.vector.double().numpy() @ differences.mean(0)) > 0


def test_methods_of_pairs_need_pairs_and_unknown_ones_are_met_with_near_names(word_model):
    with pytest.raises(ValueError, match="goes by the differences of pairs; give paired=True"):
        contrast(word_model, method="pair-pca")
    with pytest.raises(ValueError, match="no method 'pair-pcs' of contrasts; did you mean pair-pca"):
        contrast(word_model, method="pair-pcs", paired=True)


def test_several_classes_have_a_direction_each(word_model):
    classes = {"a": POSITIVE, "b": NEGATIVE, "c": [f"w{n} w40 w41" for n in range(8)]}
    concepts = lrc.contrast_concepts(word_model, classes=classes, layer=1, relation="style")
    assert list(concepts) == ["a", "b", "c"]
    assert concepts.relation == "style"
    assert concepts.settings["n_texts"] == {"a": 8, "b": 8, "c": 8}
    assert set(concepts.settings["checks"]) == {"a", "b", "c"}
    named = contrast(word_model, names=("formal", "casual"))
    torch.testing.assert_close(named.vectors, contrast(word_model).vectors)
    assert list(named) == ["formal", "casual"]


def test_a_contrast_is_kept_calibrated_steered_and_shown_as_any_set(word_model, tmp_path):
    concepts = contrast(word_model, at=slice(-1, None), paired=True)
    concepts.save(tmp_path / "c.safetensors")
    again = lrc.ConceptSet.load(tmp_path / "c.safetensors", model=word_model)
    assert again.settings == concepts.settings
    torch.testing.assert_close(again.vectors, concepts.vectors, rtol=0, atol=0)
    acts = torch.cat([read(word_model, POSITIVE), read(word_model, NEGATIVE)])
    sure = again.calibrate(acts, ["positive"] * 8 + ["negative"] * 8)
    assert sure["positive"].predict(acts).tolist() == [True] * 8 + [False] * 8
    with concepts["positive"].steer(word_model, strength=0.5):
        assert word_model(word_model.to_tokens("w1 w2")) is not None
    assert "positive" in concepts._repr_html_()


def test_texts_that_differ_pass_the_checks_without_a_warning(word_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        concepts = contrast(word_model, paired=True)
    checks = concepts.settings["checks"]
    assert checks["positive"]["n"] == 16
    assert checks["positive"]["n_right"] >= 15
    assert checks["n_agreeing"] == 8
    differences = read(word_model, POSITIVE) - read(word_model, NEGATIVE)
    assert checks["agreement"] == pytest.approx(float(lrc.numerics.pair_agreement(differences).mean()))


def test_few_texts_that_all_agree_are_not_warned_about_and_others_are():
    assert not any(map(no_better_than_chance, (2, 4, 5, 9), (2, 4, 5, 10)))
    assert all(map(no_better_than_chance, (1, 3, 4, 7), (2, 4, 5, 10)))


def test_what_is_no_better_than_chance_is_warned_about_at_the_users_line(word_model):
    mixed = POSITIVE + NEGATIVE
    first, second = mixed[::2], mixed[1::2]
    with pytest.warns(UserWarning, match=r"not to be trusted: .* of 16 on their own side, no better") as caught:
        contrast(word_model, positive=first, negative=second)
    assert caught[0].filename == __file__
    crossed = [POSITIVE[:4] + NEGATIVE[4:], NEGATIVE[:4] + POSITIVE[4:]]
    with pytest.warns(UserWarning, match="the pairs do not agree: the differences of . of 8 point along"):
        contrast(word_model, positive=crossed[0], negative=crossed[1], paired=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"negative": None}, "give positive and negative texts, or classes="),
        ({"classes": {"a": POSITIVE, "b": NEGATIVE}}, "classes is given with positive, negative or names"),
        ({"positive": []}, "class 'positive' has 0 texts; give two or more"),
        ({"negative": ["w1"]}, "class 'negative' has 1 text; give two or more"),
        ({"positive": [*POSITIVE, NEGATIVE[0]]}, "'w4 w7 w30 w31' is in the classes 'positive' and 'negative'"),
        ({"positive": POSITIVE[1:], "paired": True}, "paired=True with classes of 7, 8 texts"),
        ({"positive": [*POSITIVE, " "]}, "a text is empty"),
        ({"names": ("a", "a")}, "names is .*; give two different ones"),
        ({"method": "svn"}, "no method 'svn' of contrasts; did you mean svm"),
        ({"at": "first"}, "at is 'first'; allowed are"),
        ({"layer": 9}, "layer"),
    ],
)
def test_bad_input_is_refused(word_model, given, message):
    with pytest.raises(ValueError, match=message):
        contrast(word_model, **given)


def test_bad_classes_are_refused(word_model):
    for classes, message in (
        ({"a": POSITIVE}, "classes must name two classes or more"),
        ({"a": POSITIVE, "b": NEGATIVE[:1]}, "class 'b' has 1 text"),
    ):
        with pytest.raises(ValueError, match=message):
            lrc.contrast_concepts(word_model, classes=classes, layer=1)
    with pytest.raises(TypeError, match="positive is one string, 'w1 w2'"):
        contrast(word_model, positive="w1 w2")


def test_a_set_from_texts_shows_what_holding_out_found(word_model):
    shown = seen(contrast(word_model, paired=True)).whole
    checks = contrast(word_model, paired=True).settings["checks"]
    assert f"held out{checks['positive']['n_right']} of 16" in shown
    assert f"same way{checks['n_agreeing']} of 8, mean cosine {checks['agreement']:.2f}" in shown
    classes = {"a": POSITIVE, "b": NEGATIVE, "c": [f"w{n} w40 w41" for n in range(8)]}
    several = lrc.contrast_concepts(word_model, classes=classes, layer=1)
    sides = [f"{name}: {found['n_right']} of 24" for name, found in several.settings["checks"].items()]
    assert f"held out{'; '.join(sides)}" in seen(several).whole
    assert "same way" not in seen(several).whole
    assert "held out" not in seen(lrc.ConceptSet(dict(several))).whole
