"""`lrc-map` by its name: the dual concepts of its LRE, with the built-in subjects that were not held out."""

import warnings
from dataclasses import replace

import pytest
import torch
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.errors import ModelError
from lrc_tl.lre.dual import DualFit
from lrc_tl.lre.dual_means import MeansShare, joined_with_means, weights_by_lead
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.methods import backgrounds
from lrc_tl.methods.fitting import fit_methods
from lrc_tl.methods.method import method_variants
from lrc_tl.methods.training_activations import training_activations
from lrc_tl.models.token_metric import next_token_metric

FOUR = lrc.FitSettings(max_lre_prompts=4)


@pytest.fixture(scope="module")
def prompts(word_model):
    (relation, *_) = spoken_relations(word_model, 1)
    return relation.prompts(shots=1, seed=0)


def prompts_about(subjects):
    return [
        lrc.Prompt(text=f"w{other} {subject} w3", subject=subject, object="w9", relation="background")
        for subject in subjects
        for other in (1, 4, 6)
    ]


@pytest.fixture(scope="module")
def background(word_model):
    return SubjectStatistics.fit(word_model, background=prompts_about([f"w{number}" for number in range(44)]))


def lre_of(model, prompts, *, subject_layer, object_layer):
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    return lrc.LinearRelationalEmbedding.fit(
        model, known.sample(4, seed=0), subject_layer=subject_layer, object_layer=object_layer, progress=False
    )


def assert_same(made, expected):
    assert list(made) == list(expected)
    torch.testing.assert_close(made.vectors, expected.vectors, rtol=0, atol=1e-4)
    for name in made:
        torch.testing.assert_close(made[name].write_vector, expected[name].write_vector, rtol=0, atol=1e-4)
        assert made[name].offset == pytest.approx(expected[name].offset, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ({}, (1, 2)),
        ({"subject_layer": 0}, (0, 2)),
        ({"subject_layer": 0, "object_layer": 1}, (0, 1)),
        ({"subject_layer": 0, "object_layer": 1, "method": "lrc-map-given"}, (0, 1)),
        ({"subject_layer": 0, "method": "lrc-map-given"}, (0, 2)),
    ],
)
def test_it_gives_the_dual_concepts_of_its_lre_at_the_layers_given_or_by_default(
    word_model, prompts, background, given, places
):
    settings = replace(FOUR, background=background, noise=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = lrc.fit_concepts(
            word_model, prompts, **{"method": "lrc-map", **given}, settings=settings, progress=False
        )
    lre = lre_of(word_model, prompts, subject_layer=places[0], object_layer=places[1])
    assert_same(made, lre.concepts(word_model, prompts, prior=background, noise=3.0))
    assert (made.layer, made.settings["object_layer"], made.settings["noise"]) == (*places, 3.0)


def test_layers_of_other_methods_have_defaults_too(word_model, prompts):
    made = lrc.fit_concepts(word_model, prompts, method="lrc", rank=3, settings=FOUR, progress=False)
    expected = lre_of(word_model, prompts, subject_layer=1, object_layer=2).concepts(word_model, prompts, rank=3)
    torch.testing.assert_close(made.vectors, expected.vectors)
    assert lrc.fit_concepts(word_model, prompts, method="mean", progress=False).layer == 1


def test_without_a_noise_it_is_chosen_on_the_training_prompts(word_model, prompts, background):
    made = lrc.fit_concepts(
        word_model, prompts, method="lrc-map", settings=replace(FOUR, background=background), progress=False
    )
    expected = lre_of(word_model, prompts, subject_layer=1, object_layer=2).concepts(
        word_model, prompts, prior=background
    )
    assert made.settings["noise"] == expected.settings["noise"]
    assert_same(made, expected)


class TestTheBuiltInBackground:
    @pytest.fixture
    def built_in(self, monkeypatch, tmp_path):
        """Three built-in relations of words; `said` has the subjects w10 to w29."""
        monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path))
        relations = {
            name: lrc.Relation.from_pairs(
                name, [(f"w{number}", f"w{number % 3}") for number in numbers], templates=["w1 {} w2", "w4 {} w3"]
            )
            for name, numbers in {"said": range(10, 30), "beside": range(20, 40), "third": range(40, 44)}.items()
        }
        for module in ("lrc_tl.methods.backgrounds", "lrc_tl.lre.background"):
            monkeypatch.setattr(f"{module}.built_in_relations", lambda: list(relations))
            monkeypatch.setattr(f"{module}.load_relation", relations.__getitem__)
        return relations

    def test_subjects_of_the_same_relation_that_are_not_among_the_prompts_are_never_counted(
        self, word_model, built_in, monkeypatch
    ):
        train, test = built_in["said"].split(seed=0)
        seen = []
        really = backgrounds.background_for
        monkeypatch.setattr(
            "lrc_tl.methods.fitting.background_for",
            lambda *args, **options: seen.append(really(*args, **options)) or seen[-1],
        )
        made = lrc.fit_concepts(
            word_model, train.prompts(shots=1), method="lrc-map", settings=FOUR, progress=False
        )
        (used,) = seen
        tested = {fact.subject for fact in test.facts}
        assert tested.isdisjoint(used.sources)
        assert {fact.subject for fact in train.facts} <= set(used.sources)
        others = {fact.subject for name in ("beside", "third") for fact in built_in[name].facts}
        assert set(used.sources) == {fact.subject for fact in train.facts} | (others - tested)
        by_hand = SubjectStatistics.fit(word_model, layers=[1], cache=False, progress=False).without(
            sorted(tested)
        )
        settings = replace(FOUR, background=by_hand)
        expected = lrc.fit_concepts(word_model, train.prompts(shots=1), method="lrc-map", settings=settings)
        assert_same(made, expected)

    def test_prompts_of_another_relation_hold_nothing_out(self, built_in):
        assert backgrounds.held_out_subjects(prompts_about(["w10"])) == []
        assert backgrounds.held_out_subjects([]) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"background": prompts_about(["w1"])},
            TypeError,
            "background is of the type list; give SubjectStatistics",
        ),
        ({"layer": 0}, ValueError, r"the background has statistics of the layers \[0\], and not of \[1\]; fit it"),
        ({"d_model": 99}, lrc.errors.FingerprintMismatch, "these subject statistics were made"),
        ({"solver": lrc.LowRank()}, ValueError, "lrc-map has no rank that the solver could be made for; give one"),
    ],
)
def test_a_background_or_solver_that_does_not_fit_is_refused_before_the_model_runs(
    word_model, prompts, background, change, error, message, monkeypatch
):
    if "layer" in change:
        change = {"background": SubjectStatistics([background[change["layer"]]])}
    elif "d_model" in change:
        other = replace(background.fingerprint, d_model=change["d_model"])
        change = {"background": SubjectStatistics(replace(s, fingerprint=other) for s in background.values())}
    settings = replace(FOUR, **{"background": background, **change})
    monkeypatch.setattr("lrc_tl.methods.fitting.training_activations", None)
    with pytest.raises(error, match=message):
        lrc.fit_concepts(word_model, prompts, method="lrc-map", settings=settings)


def test_a_low_rank_solver_gives_it_the_leading_part(word_model, prompts, background):
    solver = lrc.LowRank(rank=2, oversample=1)
    settings = replace(FOUR, background=background, noise=3.0, solver=solver)
    made = lrc.fit_concepts(word_model, prompts, method="lrc-map", subject_layer=0, settings=settings)
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, known.sample(4, seed=0), subject_layer=0, object_layer=2, solver=solver, progress=False
    )
    assert_same(made, lre.concepts(word_model, prompts, prior=background, noise=3.0))


def test_it_needs_two_objects(word_model, prompts, background):
    alone = [prompt for prompt in prompts if prompt.object == prompts[0].object]
    settings = replace(FOUR, background=background)
    with pytest.raises(ValueError, match="lrc-map needs two or more objects"):
        lrc.fit_concepts(word_model, alone, method="lrc-map", settings=settings, progress=False)


def test_variants_and_labels_share_one_solution_and_the_lre_of_lrc(word_model, prompts, background, monkeypatch):
    made = []
    really = DualFit.of.__func__
    monkeypatch.setattr(
        DualFit,
        "of",
        classmethod(lambda cls, *args, **options: made.append(args[0]) or really(cls, *args, **options)),
    )
    variants = method_variants(
        ("lrc", "lrc-map", "lrc-map-given"), n_layers=3, subject_layers=[0], object_layers=[1], ranks=[3]
    )
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    fitted = fit_methods(
        word_model, variants, known, training_activations(word_model, variants, prompts), relation="r", seed=0,
        settings=replace(FOUR, background=background),
    )  # fmt: skip
    assert [lre.object_layer for lre in made] == [1, 2] or [lre.object_layer for lre in made] == [2, 1]
    names = [prompt.object for prompt in prompts]
    shuffled = names[1:] + names[:1]
    again = fitted["lrc-map"].make(names)
    assert torch.equal(again.vectors, fitted["lrc-map"].concepts.vectors)
    other = fitted["lrc-map"].make(shuffled)
    assert not torch.equal(other[names[0]].vector, again[names[0]].vector)
    assert len(made) == 2


def test_the_combined_method_joins_the_given_and_the_last_layer_in_the_next_token_s_metric_and_class_means(
    word_model, prompts, background, tmp_path
):
    settings = replace(FOUR, background=background)
    made = lrc.fit_concepts(
        word_model, prompts, method="lrc-map-combined", subject_layer=0, object_layer=1, settings=settings,
        progress=False,
    )  # fmt: skip
    zero_shot = lrc.subject_activations(word_model, [p.without_examples() for p in prompts], layer=0)
    names = [prompt.object for prompt in prompts]
    first = lrc.passes.object_activations(word_model, prompts, layer=2, object_aggregation="first_token")
    metric = next_token_metric(word_model, first)
    parts, leads = [], []
    for layer, aggregation in ((1, "mean"), (2, "first_token")):
        known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
        lre = lrc.LinearRelationalEmbedding.fit(
            word_model, known.sample(4, seed=0), subject_layer=0, object_layer=layer,
            object_aggregation=aggregation, progress=False,
        )  # fmt: skip
        acts = lrc.passes.object_activations(word_model, prompts, layer=layer, object_aggregation=aggregation)
        fit = DualFit.of(lre, background[0], metric=metric)
        parts.append(fit.concepts(acts, names, zero_shot, noise=30.0, write_noise=1.0))
        leads.append(fit.left_out_lead(acts, names, zero_shot, noise=30.0))
    expected = joined_with_means(
        parts,
        zero_shot,
        names,
        background[0],
        write_acts=lrc.subject_activations(word_model, prompts, layer=0),
        share=MeansShare(),
        method="lrc-map-combined",
        weights=weights_by_lead(leads),
    )
    assert_same(made, expected)
    assert made.settings["weights"] == pytest.approx(weights_by_lead(leads), abs=1e-3)
    assert {direction.method for direction in made.values()} == {"lrc-map-combined"}
    assert {direction.write_rule for direction in made.values()} == {"given"}
    other = lrc.fit_concepts(
        word_model, prompts, method="lrc-map-combined", subject_layer=0, object_layer=1,
        settings=replace(settings, noise=1.0), progress=False,
    )  # fmt: skip
    assert not torch.allclose(other.vectors, made.vectors, atol=1e-3)
    made.save(tmp_path / "c.safetensors")
    again = lrc.ConceptSet.load(tmp_path / "c.safetensors", model=word_model)
    assert torch.equal(again.write_vectors, made.write_vectors)
    assert again.settings["class_means"] == made.settings["class_means"]


@pytest.mark.parametrize("method", ["lrc-fisher", "lrc-map-combined"])
def test_without_a_metric_of_the_next_token_noise_is_even_and_a_warning_says_so(
    word_model, prompts, background, monkeypatch, method
):
    def refuse(model, states):
        raise ModelError("no final norm")

    with_metric = lrc.fit_concepts(
        word_model, prompts, method=method, settings=replace(FOUR, background=background), progress=False
    )
    monkeypatch.setattr("lrc_tl.methods.fitting.next_token_metric", refuse)
    with pytest.warns(UserWarning, match="counts alike in all directions.* no final norm"):
        made = lrc.fit_concepts(
            word_model, prompts, method=method, settings=replace(FOUR, background=background), progress=False
        )
    assert not torch.allclose(made.vectors, with_metric.vectors, atol=1e-3)
    settings = [concepts.settings for concepts in (made, with_metric)]
    dual_settings = [of["combined"][0] if "combined" in of else of for of in settings]
    assert ["metric" in of for of in dual_settings] == [False, True]
    assert torch.isfinite(made.vectors).all()


def test_lrc_fisher_is_the_dual_of_the_last_layer_in_the_next_token_s_metric(word_model, prompts, background):
    made = lrc.fit_concepts(
        word_model, prompts, method="lrc-fisher", settings=replace(FOUR, background=background), progress=False
    )
    zero_shot = lrc.subject_activations(word_model, [p.without_examples() for p in prompts], layer=made.layer)
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, known.sample(4, seed=0), subject_layer=made.layer, object_layer=2,
        object_aggregation="first_token", progress=False,
    )  # fmt: skip
    acts = lrc.passes.object_activations(word_model, prompts, layer=2, object_aggregation="first_token")
    fit = DualFit.of(lre, background[made.layer], metric=next_token_metric(word_model, acts))
    names = [prompt.object for prompt in prompts]
    assert_same(made, fit.concepts(acts, names, zero_shot, noise=30.0, write_noise=1.0))


def test_directions_that_write_with_another_noise_read_as_without_it(word_model, prompts, background):
    lre = lre_of(word_model, prompts, subject_layer=0, object_layer=1)
    acts = lrc.passes.object_activations(word_model, prompts, layer=1)
    names = [prompt.object for prompt in prompts]
    subjects = lrc.subject_activations(word_model, prompts, layer=0)
    fit = DualFit.of(lre, background[0])
    both = fit.concepts(acts, names, subjects, noise=10.0, write_noise=0.1)
    reads, writes = (fit.concepts(acts, names, subjects, noise=noise) for noise in (10.0, 0.1))
    assert torch.equal(both.vectors, reads.vectors)
    assert torch.equal(both.write_vectors, writes.write_vectors)
    assert (both.settings["noise"], both.settings["write_noise"]) == (10.0, 0.1)
    assert {direction.write_rule for direction in both.values()} == {"given"}
    assert {direction.write_rule for direction in reads.values()} == {"covariance"}


@pytest.mark.real_model
def test_it_reads_unseen_cities_better_than_the_paper_s_method_and_swaps_their_country_no_worse(
    gemma, known_cities
):
    others = ("landmark_in_country", "company_in_country", "food_kind", "animal_class", "river_on_continent")
    background = [prompt for name in others for prompt in lrc.load_relation(name).prompts()]
    settings = lrc.FitSettings(
        max_lre_prompts=3, background=SubjectStatistics.fit(gemma, layers=[9], background=background)
    )
    _, known, unseen = known_cities
    dual = lrc.fit_concepts(gemma, known.prompts, method="lrc-map", settings=settings)
    paper = lrc.fit_concepts(gemma, known.prompts, method="lrc", rank=64, settings=settings)
    assert (dual.layer, dual.settings["object_layer"], paper.settings["object_layer"]) == (9, 17, 13)
    of_dual, of_paper = (lrc.evaluate(gemma, concepts, unseen.prompts, beta=0.01) for concepts in (dual, paper))
    assert of_dual.accuracy > of_paper.accuracy
    assert of_dual.accuracy > 3 * of_dual.classification.chance
    assert of_dual.causality > of_paper.causality
    assert of_dual.hard_success >= of_paper.hard_success > 0
