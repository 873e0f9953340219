"""`select_settings(method="lrc-map")`: the noise by leaving facts out, a covariance without those judged on."""

import pytest
import tiny_models

import lrc_tl as lrc
from lrc_tl.lre.dual import NOISES, DualFit
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.tuning import selection

SPACE = {"subject_layers": [0, 1], "betas": [0.4, 0.1]}


@pytest.fixture(scope="module")
def relation(word_model):
    return tiny_models.relation_known_by(word_model)


@pytest.fixture(scope="module")
def background(word_model):
    prompts = [
        lrc.Prompt(text=f"w{other} w{number} w3", subject=f"w{number}", object="w9", relation="background")
        for number in range(44)
        for other in (1, 4, 6, 8)
    ]
    return SubjectStatistics.fit(word_model, background=prompts)


def selected(model, relation, **space):
    return lrc.select_settings(
        model, relation, method="lrc-map", space=lrc.SearchSpace(**{**SPACE, **space}), shots=0, n_prompts=3,
        progress=False, others=[],
    )  # fmt: skip


def test_layers_noise_and_beta_are_the_best_of_what_was_tried(word_model, relation, background):
    settings = selected(word_model, relation, background=background)
    tried = settings.tried.set_index(["subject_layer", "object_layer"])
    assert list(tried.index) == [(0, 2), (1, 2)]  # the tiny model's default and last object layers are one
    assert tried.accuracy[settings.subject_layer, settings.object_layer] == tried.accuracy.max()
    assert set(tried.noise) <= set(NOISES)
    assert settings.noise == tried.noise[settings.subject_layer, settings.object_layer]
    assert settings.rank is None
    edits = settings.tried_edits
    assert sorted(edits.beta) == [0.1, 0.4]
    assert set(edits.noise) == {settings.noise}
    assert settings.to_dict()["noise"] == settings.noise
    assert settings.accuracy == edits.accuracy.iloc[0]


def test_the_noise_is_chosen_on_the_first_part_and_the_covariance_has_no_subject_of_the_second(
    word_model, relation, background, monkeypatch
):
    settings = selected(word_model, relation, background=background, subject_layers=[0], object_layers=[1])
    fit_on, validate_on = relation.split(seed=0)
    known = lrc.filter_known(word_model, fit_on.prompts(seed=0), seed=0, progress=False)
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, known.sample(3, seed=0), subject_layer=0, object_layer=1, progress=False
    )
    left = background.without([fact.subject for fact in validate_on.facts])
    assert len(left.sources) == len(background.sources) - len(validate_on.facts)
    concepts = lre.concepts(word_model, known.prompts, prior=left)
    assert settings.noise == concepts.settings["noise"]
    _, validation = selection._validation_prompts(word_model, validate_on, shots=0, seed=0, progress=False)
    acts = lrc.subject_activations(word_model, validation, layer=0)
    actual = [prompt.object for prompt in validation]
    assert settings.accuracy == lrc.evaluation.classify_activations(concepts, acts, actual).accuracy
    used = []
    really = DualFit.of.__func__

    def recorded(cls, lre, prior, **options):
        used.append(prior.sources)
        return really(cls, lre, prior, **options)

    monkeypatch.setattr(DualFit, "of", classmethod(recorded))
    selected(word_model, relation, background=background)
    assert used == [left.sources] * 2


def test_a_noise_that_is_given_alone_is_kept(word_model, relation, background):
    settings = selected(word_model, relation, background=background, noises=[7.0])
    assert settings.noise == 7.0


def test_object_layers_that_are_given_are_tried_and_no_others(word_model, relation, background):
    settings = selected(word_model, relation, background=background, subject_layers=[0], object_layers=[1])
    assert set(settings.tried.object_layer) == {1}


def test_other_methods_and_bad_noises_are_refused(word_model, relation):
    with pytest.raises(
        ValueError, match="method is 'svm'; settings can be chosen for lrc or lrc-map or lrc-map-combined"
    ):
        lrc.select_settings(word_model, relation, method="svm", progress=False)
    with pytest.raises(ValueError, match="noises are empty; give at least one"):
        lrc.SearchSpace(noises=[])
    with pytest.raises(ValueError, match=r"noise is -1.0; it must be above 0"):
        lrc.SearchSpace(noises=[3.0, -1.0])


def test_layers_and_beta_of_the_default_method_are_the_best_of_what_was_tried(word_model, relation, background):
    settings = lrc.select_settings(
        word_model, relation, method="lrc-map-combined", shots=0, n_prompts=3, progress=False, others=[],
        space=lrc.SearchSpace(**SPACE, object_layers=[1, 2], background=background),
    )  # fmt: skip
    tried = settings.tried.set_index(["subject_layer", "object_layer"]).accuracy
    assert list(tried.index) == [(0, 1), (0, 2), (1, 2)]
    assert tried[settings.subject_layer, settings.object_layer] == tried.max() == settings.accuracy
    assert (settings.rank, settings.noise, settings.method) == (None, 30.0, "lrc-map-combined")
    assert sorted(settings.tried_edits.beta) == [0.1, 0.4]
    assert repr(settings).startswith("Settings(lrc-map-combined, layers ")
    fit_on, validate_on = relation.split(seed=0)
    known = lrc.filter_known(word_model, fit_on.prompts(seed=0), seed=0, progress=False)
    concepts = lrc.fit_concepts(
        word_model, known, progress=False,
        subject_layer=settings.subject_layer, object_layer=settings.object_layer,
        settings=lrc.FitSettings(
            max_lre_prompts=3, background=background.without([fact.subject for fact in validate_on.facts])
        ),
    )  # fmt: skip
    _, validation = selection._validation_prompts(word_model, validate_on, shots=0, seed=0, progress=False)
    acts = lrc.subject_activations(word_model, validation, layer=settings.subject_layer)
    actual = [prompt.object for prompt in validation]
    assert settings.accuracy == lrc.evaluation.classify_activations(concepts, acts, actual).accuracy


def test_settings_of_lrc_say_nothing_of_a_noise(word_model, relation):
    settings = lrc.select_settings(
        word_model, relation, space=lrc.SearchSpace(subject_layers=[0], ranks=[4], betas=[0.1]), shots=0,
        n_prompts=2, progress=False, others=[],
    )  # fmt: skip
    assert (settings.rank, settings.noise) == (4, None)
    assert "noise" not in settings.to_dict()
