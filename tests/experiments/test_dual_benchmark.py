"""`lrc-map` in the benchmark: what its covariance counts, what its centred reading is, what files hold."""

from dataclasses import replace

import pytest
import torch
from spoken import spoken_relations
from tiny_benchmark import METHODS, SETTINGS, without_times

import lrc_tl as lrc
from lrc_tl.evaluation.control_tasks import random_concepts, random_weights
from lrc_tl.experiments.method_outcome import MethodOutcome
from lrc_tl.experiments.run import run_protocol
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.lre import subject_statistics
from lrc_tl.lre.dual import NOISES
from lrc_tl.lre.subject_statistics import SubjectStatistics

QUICK = replace(SETTINGS, n_side_effects=0)


@pytest.fixture(scope="module")
def relations(one_word_model):
    return spoken_relations(one_word_model, 2)


@pytest.fixture(autouse=True)
def built_in(monkeypatch, tmp_path):
    """The built-in background: all words, in two contexts."""
    prompts = tuple(
        lrc.Prompt(text=f"w{other} w{number} w3", subject=f"w{number}", object="w9", relation="built in")
        for number in range(44)
        for other in (1, 4, 6)
    )
    monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path))
    monkeypatch.setattr(subject_statistics, "built_in_background", lambda: prompts)
    return prompts


def dual_set(model, known, statistics, *, noise=None):
    lre = lrc.LinearRelationalEmbedding.fit(
        model, known.sample(4, seed=42), subject_layer=0, object_layer=2, progress=False
    )
    return lre.concepts(model, known.prompts, prior=statistics, noise=noise)


def test_its_figures_are_those_of_dual_concepts_whose_covariance_never_saw_a_test_subject(
    one_word_model, relations
):
    settings = replace(QUICK, random_model=True)
    (record,) = run_protocol(one_word_model, relations[:1], methods=("lrc-map",), settings=settings).records
    outcome = record.methods["lrc-map"]
    train, test = relations[0].split(seed=42)
    known = lrc.filter_known(one_word_model, train.prompts(shots=0, seed=42), seed=42)
    unseen = lrc.filter_known(one_word_model, test.prompts(seed=42, templates="all"), seed=42).one_per_fact()
    actual = [prompt.object for prompt in unseen.prompts]
    tested = [fact.subject for fact in test.facts]
    statistics = SubjectStatistics.fit(one_word_model, layers=[0], cache=False, progress=False).without(tested)
    assert set(tested).isdisjoint(statistics.sources)
    concepts = dual_set(one_word_model, known, statistics)
    acts = lrc.subject_activations(one_word_model, unseen.prompts, layer=0)
    plain = lrc.subject_activations(one_word_model, train.prompts(seed=42), layer=0)
    classify = lrc.evaluation.classify_activations
    assert outcome.noise == concepts.settings["noise"]
    assert (outcome.subject_layer, outcome.object_layer, outcome.rank) == (0, 2, None)
    assert outcome.predicted == classify(concepts, acts, actual).predicted
    assert outcome.accuracy == classify(concepts, acts, actual).accuracy
    centred = concepts.centred(plain)
    assert outcome.accuracy_centred == classify(centred, acts, actual).accuracy
    calibrated = centred.calibrate(plain, [p.object for p in train.prompts(seed=42)], multiclass="standardised")
    assert outcome.accuracy_calibrated == classify(calibrated, acts, actual, calibrated=True).accuracy
    drawn = random_concepts(concepts, seed=42).centred(plain)
    assert outcome.control_random == classify(drawn, acts, actual).accuracy
    edits = lrc.evaluation.counterfactual_edits([p for p in unseen.prompts if p.object in concepts], seed=42)
    (curve,) = lrc.evaluation.causality_curve(
        one_word_model, edits, lrc.evaluation.summary.swap_differences(concepts, edits),
        betas=[outcome.curve[0].beta], generated=True,
    )  # fmt: skip
    assert outcome.curve[0].success == tuple(curve.success.tolist())
    with random_weights(one_word_model, seed=42):
        of_random = SubjectStatistics.fit(one_word_model, layers=[0], cache=False, progress=False).without(tested)
        untrained = dual_set(one_word_model, known, of_random)
        acts = lrc.subject_activations(one_word_model, unseen.prompts, layer=0)
        assert outcome.control_random_model == classify(untrained, acts, actual).accuracy


def test_a_noise_that_is_given_is_used_and_test_subjects_can_be_kept(one_word_model, relations, monkeypatch):
    removed = []
    really = SubjectStatistics.without

    def recorded(self, subjects):
        removed.append(set(subjects))
        return really(self, subjects)

    monkeypatch.setattr(SubjectStatistics, "without", recorded)
    run = {"methods": ("lrc-map", "lrc-map-given"), "seeds": (42,)}
    (record,) = run_protocol(one_word_model, relations[:1], settings=replace(QUICK, noise=0.3), **run).records
    assert [record.methods[name].noise for name in run["methods"]] == [0.3, 0.3]
    assert [record.methods[name].object_layer for name in run["methods"]] == [2, 1]
    _, test = relations[0].split(seed=42)
    assert removed == [{fact.subject for fact in test.facts}]
    kept = replace(QUICK, noise=0.3, keep_test_subjects=True)
    run_protocol(one_word_model, relations[:1], settings=kept, **run)
    assert removed[1:] == [set()]


def test_statistics_are_fitted_once_for_all_relations_and_seeds(one_word_model, relations, monkeypatch):
    fitted = []
    really = SubjectStatistics.fit.__func__

    def counted(cls, model, **options):
        fitted.append(options["cache"])
        return really(cls, model, **options)

    monkeypatch.setattr(SubjectStatistics, "fit", classmethod(counted))
    settings = replace(QUICK, random_model=True)
    methods = ("lrc-map", "lrc-map-given", "lrc-map-combined")
    result = run_protocol(one_word_model, relations, methods=methods, seeds=(1, 2), settings=settings)
    assert all({*record.methods} == {*methods} for record in result.records)
    assert fitted == [True, False, False]  # the model's, and of each seed's random weights


def test_other_methods_are_as_they_are_without_it_and_need_no_statistics(one_word_model, relations, monkeypatch):
    together = run_protocol(one_word_model, relations[:1], methods=(*METHODS, "lrc-map"), settings=QUICK)
    monkeypatch.setattr(SubjectStatistics, "fit", None)
    alone = run_protocol(one_word_model, relations[:1], methods=METHODS, settings=QUICK)
    for name in METHODS:
        with_it, without_it = (result.records[0].methods[name].to_dict() for result in (together, alone))
        for outcome in (with_it, without_it):  # batches of edits differ, so the last bits of curves may
            del outcome["curve"]
        assert without_times(with_it) == without_times(without_it)
        assert "noise" not in without_it


def test_a_low_rank_solver_serves_it_with_the_largest_rank(one_word_model, relations):
    settings = replace(QUICK, solver="low_rank", ranks=2)
    (record,) = run_protocol(one_word_model, relations[:1], methods=("lrc", "lrc-map"), settings=settings).records
    assert record.methods["lrc-map"].noise is not None


def test_the_noise_is_kept_in_files_and_older_ones_have_none(one_word_model, relations, tmp_path):
    options = {"methods": ("lrc-map",), "settings": QUICK, "out": tmp_path / "parts"}
    result = run_protocol(one_word_model, relations[:1], **options)
    again = run_protocol(one_word_model, relations[:1], resume=True, **options)
    assert again.records == result.records
    data = result.records[0].methods["lrc-map"].to_dict()
    assert MethodOutcome.from_dict(data).noise == data["noise"]
    del data["noise"]
    assert MethodOutcome.from_dict(data).noise is None
    with pytest.raises(ValueError, match=r"outcome\['noise'\] cannot be 'high'"):
        MethodOutcome.from_dict({**data, "noise": "high"})


def test_what_is_fitted_is_not_the_same_with_and_without_test_subjects(one_word_model, relations):
    vectors = []
    train, test = relations[0].split(seed=42)
    known = lrc.filter_known(one_word_model, train.prompts(shots=0, seed=42), seed=42)
    statistics = SubjectStatistics.fit(one_word_model, layers=[0], cache=False, progress=False)
    for background in (statistics, statistics.without([fact.subject for fact in test.facts])):
        vectors.append(dual_set(one_word_model, known, background, noise=1.0).vectors)
    assert not torch.allclose(*vectors, rtol=0, atol=1e-3)


def test_layers_are_chosen_for_it_where_no_other_method_has_an_lre_and_never_with_test_subjects(
    one_word_model, monkeypatch
):
    from lrc_tl.experiments import one_relation

    asked = []
    really = one_relation.select_settings

    def recorded(model, train, **options):
        asked.append(options)
        return really(model, train, **options)

    monkeypatch.setattr(one_relation, "select_settings", recorded)
    relation = max(spoken_relations(one_word_model, 6), key=lambda relation: len(relation.facts))
    settings = ExperimentSettings(select=True, shots=0, betas=0.1, max_lre_prompts=3, n_side_effects=0)
    run = {"settings": settings, "seeds": (1,)}
    (record,) = run_protocol(one_word_model, [relation], methods=("lrc-map", "mean"), **run).records
    _, test = relation.split(seed=1)
    (options,) = asked
    assert options["method"] == "lrc-map"
    assert options["space"].object_layers == (-1,)
    assert {fact.subject for fact in test.facts}.isdisjoint(options["space"].background.sources)
    assert record.rank is None
    assert record.subject_layer == record.selected["subject_layer"]
    assert record.methods["lrc-map"].object_layer == 2
    assert record.selected["noise"] in NOISES
    run_protocol(one_word_model, [relation], methods=("lrc", "lrc-map"), **run)
    assert asked[1]["method"] == "lrc"
