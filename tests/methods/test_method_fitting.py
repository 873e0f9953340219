"""Directions by the name of a method are those that its pieces give."""

import warnings
from dataclasses import replace

import pytest
import torch
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.methods import lre_grids
from lrc_tl.methods.fitting import fit_methods
from lrc_tl.methods.lre_grids import lre_prompts
from lrc_tl.methods.method import METHODS, MethodVariant
from lrc_tl.methods.training_activations import training_activations

PLACE = {"subject_layer": 0, "object_layer": -2}
FOUR = lrc.FitSettings(max_lre_prompts=4)


@pytest.fixture(scope="module")
def prompts(word_model):
    (relation, *_) = spoken_relations(word_model, 1)
    return lrc.filter_known(word_model, relation.prompts(seed=0)).prompts


def fitted(model, prompts, object_layer, aggregation):
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    return lrc.LinearRelationalEmbedding.fit(
        model, known.sample(4, seed=3), subject_layer=0, object_layer=object_layer,
        object_aggregation=aggregation, progress=False,
    )  # fmt: skip


def assert_same(one, other):
    assert list(one) == list(other)
    torch.testing.assert_close(one.vectors, other.vectors)


@pytest.mark.parametrize(
    ("method", "object_layer", "aggregation"), [("lrc", -2, "mean"), ("lrc-final", -1, "first_token")]
)
def test_an_lrc_is_its_lre_inverted_at_the_rank(word_model, prompts, method, object_layer, aggregation):
    found = lrc.fit_concepts(word_model, prompts, method=method, **PLACE, rank=3, seed=3, settings=FOUR)
    assert_same(
        found, fitted(word_model, prompts, object_layer, aggregation).concepts(word_model, prompts, rank=3)
    )


def test_lrc_combined_joins_ridge_inverses_of_two_readings(word_model, prompts):
    found = lrc.fit_concepts(word_model, prompts, method="lrc-combined", **PLACE, seed=3, settings=FOUR)
    # Subject layer 0, object layer 1 of 3: there is no layer half way.
    parts = [
        fitted(word_model, prompts, layer, how).concepts(word_model, prompts, ridge=0.2)
        for layer, how in ((-2, "mean"), (-1, "first_token"))
    ]
    assert_same(found, lrc.combine_concepts(parts))


def test_the_default_joins_duals_and_class_means(word_model, prompts):
    background = lrc.SubjectStatistics.fit(
        word_model, background=[f"w{first} w{second} w3" for first in range(12) for second in (1, 4, 6)]
    )
    settings = replace(FOUR, background=background)
    found = lrc.fit_concepts(word_model, prompts, **PLACE, seed=3, settings=settings)
    named = lrc.fit_concepts(word_model, prompts, method="lrc-map-combined", **PLACE, seed=3, settings=settings)
    assert_same(found, named)
    assert found.settings["method"] == "lrc-map-combined"


def test_the_default_with_a_rank_is_the_paper_s(word_model, prompts):
    found = lrc.fit_concepts(word_model, prompts, **PLACE, rank=3, seed=3, settings=FOUR)
    assert_same(found, fitted(word_model, prompts, -2, "mean").concepts(word_model, prompts, rank=3))


@pytest.mark.parametrize(
    ("method", "ignored", "message"),
    [
        ("svm", {"object_layer": 99}, "svm takes no object layer 99; it is ignored"),
        ("svm", {"rank": 99}, "svm takes no rank 99; it is ignored"),
        ("svm", {"object_layer": 99, "rank": 99}, "svm takes no object layer 99 and no rank 99; they are ignored"),
        ("lrc-ridge", {"rank": 99}, "lrc-ridge takes no rank 99; it is ignored"),
        ("lrc-final", {"object_layer": 99}, "lrc-final takes no object layer 99; it is ignored"),
    ],
)
def test_what_a_method_does_not_have_is_ignored_with_a_warning(word_model, prompts, method, ignored, message):
    needed = {"svm": {}, "lrc-ridge": {"object_layer": -2}, "lrc-final": {"rank": 3}}[method]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = lrc.fit_concepts(word_model, prompts, method=method, subject_layer=0, **needed)
    with pytest.warns(UserWarning, match=message):
        found = lrc.fit_concepts(word_model, prompts, method=method, subject_layer=0, **needed, **ignored)
    assert_same(found, expected)


def test_a_baseline_by_name_is_that_of_fit_baselines(word_model, prompts):
    found = lrc.fit_concepts(word_model, prompts, method="svm", subject_layer=0)
    assert_same(found, lrc.fit_baselines(word_model, prompts, layer=0, methods=["svm"])["svm"])


def test_a_low_rank_solver_is_made_for_the_rank_of_the_method(word_model, prompts):
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, known.sample(4, seed=3), **PLACE, solver=lrc.LowRank(rank=2, oversample=1), progress=False
    )
    assert lre.solver == "low_rank"
    for solver in (lrc.LowRank(oversample=1), lrc.LowRank(rank=2, oversample=1)):
        settings = lrc.FitSettings(max_lre_prompts=4, solver=solver)
        found = lrc.fit_concepts(word_model, prompts, **PLACE, rank=2, seed=3, settings=settings)
        assert_same(found, lre.concepts(word_model, prompts, rank=2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_lre_prompts": 0}, ValueError, "max_lre_prompts is 0; it must be 1 or more"),
        ({"max_lre_prompts": True}, TypeError, "max_lre_prompts is True"),
        ({"noise": 0.0}, ValueError, "noise is 0.0; it must be above 0, or None to have it chosen"),
        ({"noise": float("inf")}, ValueError, "noise is inf; it must be above 0"),
        ({"noise": True}, TypeError, "noise is True"),
        ({"solver": "lowrank"}, ValueError, r"solver is 'lowrank'; allowed are 'exact' and LowRank\(rank=...\)"),
    ],
)
def test_bad_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        lrc.FitSettings(**options)


def test_prompts_of_one_object_have_no_others_to_fit_on(word_model, prompts):
    alone = [prompt for prompt in prompts if prompt.object == prompts[0].object]
    with pytest.raises(ValueError, match="lrc-other-objects: no LREs to combine"):
        lrc.fit_concepts(word_model, alone, method="lrc-other-objects", rank=2, **PLACE)


def test_the_prompts_of_lres_are_balanced_and_one_of_each_object_where_each_has_its_own(word_model, prompts):
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    objects = {prompt.object for prompt in prompts}
    assert lre_prompts(known, METHODS["svm"], most=4, seed=3) == ()
    assert lre_prompts(known, METHODS["lrc"], most=1, seed=3) == known.sample(1, seed=3)
    assert {prompt.object for prompt in lre_prompts(known, METHODS["lrc-same-object"], most=1, seed=3)} == objects


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lrc"}, "lrc needs a rank; give one, such as 64, or take lrc-ridge, which has none"),
        ({"method": "lcr", "rank": 2}, "no method 'lcr'; did you mean lrc"),
        ({"method": "lrc", "rank": 500}, "rank is 500; the model.s residual stream allows 1 to 12"),
        (
            {"method": "lrc-combined", "settings": lrc.FitSettings(solver=lrc.LowRank())},
            "solver is 'low_rank', but lrc-combined needs all singular values; use solver='exact', or other",
        ),
        ({"subject_layer": 2}, "object layer 1 is not above subject layer 2; take an earlier subject layer"),
        ({"subject_layer": 1, "method": "lrc", "rank": 2}, "object layer 1 is not above subject layer 1"),
        ({"subject_layer": 2, "method": "lrc-final", "rank": 2}, "object layer 2 is not above subject layer 2"),
        ({"object_layer": 9}, "layer 9 is outside the model; allowed are -3 to 2"),
        ({"prompts": ()}, "no prompts to make concepts from"),
        (
            {"method": "lrc", "rank": 4, "settings": lrc.FitSettings(solver=lrc.LowRank(rank=3))},
            r"the solver is LowRank\(rank=3\), but rank 4 is asked for; give it rank=4 or more",
        ),
    ],
)
def test_bad_input_is_refused(word_model, prompts, changes, message, monkeypatch):
    options = {"prompts": prompts, **PLACE, **changes}
    monkeypatch.setattr("lrc_tl.methods.fitting.training_activations", None)  # refused before the model runs
    with pytest.raises(ValueError, match=message):
        lrc.fit_concepts(word_model, **options)


def test_a_rank_above_the_numerical_rank_of_the_lre_is_refused(word_model, prompts, monkeypatch):
    monkeypatch.setattr(lrc.LinearRelationalEmbedding, "numerical_rank", 3)
    with pytest.raises(ValueError, match="rank 4 is above the numerical rank of its LRE, 3"):
        lrc.fit_concepts(word_model, prompts, **{**PLACE, "method": "lrc", "rank": 4})


@pytest.mark.real_model
def test_the_combined_method_probes_unseen_cities_and_swaps_their_country(gemma, known_cities):
    train, known, unseen = known_cities
    settings = lrc.FitSettings(max_lre_prompts=3)
    concepts = lrc.fit_concepts(gemma, known.prompts, subject_layer=7, object_layer=12, settings=settings)
    concepts = concepts.centred(lrc.subject_activations(gemma, train.prompts(), layer=7))
    found = lrc.evaluate(gemma, concepts, unseen.prompts, beta=0.1)
    assert found.accuracy > 3 * found.classification.chance
    assert found.causality > 0.5


def test_lres_of_several_methods_come_from_the_same_passes_where_they_can(word_model, prompts, monkeypatch):
    fits = []
    fit = lre_grids.fit_exact_pairs

    def counted(model, prompts, pairs, **options):
        fits.append((pairs, options["object_aggregation"]))
        return fit(model, prompts, pairs, **options)

    monkeypatch.setattr(lre_grids, "fit_exact_pairs", counted)
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())

    def fitted_of(*names):
        layers = {name: 1 if METHODS[name].takes_object_layer else 2 for name in names}
        variants = [
            MethodVariant(name=name, method=METHODS[name], subject_layer=0, object_layer=layers[name], rank=3)
            for name in names
        ]
        activations = training_activations(word_model, variants, prompts)
        found = fit_methods(word_model, variants, known, activations, relation="r", seed=3, settings=FOUR)
        return [one.concepts for one in found.values()], found

    together, found = fitted_of("lrc", "lrc-final")
    assert fits == [([(0, 1), (0, 2)], {1: "mean", 2: "first_token"})]
    assert all(one.seconds > 0 for one in found.values())
    fits.clear()
    apart = [fitted_of(name)[0][0] for name in ("lrc", "lrc-final")]
    assert fits == [([(0, 1)], "mean"), ([(0, 2)], "first_token")]
    for one, other in zip(together, apart, strict=True):
        assert list(one) == list(other)
        torch.testing.assert_close(one.vectors, other.vectors, rtol=1e-4, atol=1e-5)
