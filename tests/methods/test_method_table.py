"""The table of methods: one entry says all that the rest of the library asks about a method."""

import inspect
from types import MappingProxyType

import pytest
import torch
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.experiments.presets import TABLE_METHODS
from lrc_tl.methods import baselines, fitting, method
from lrc_tl.methods.method import METHODS, Method, default_method


def test_results_and_files_know_the_methods_by_these_names_in_this_order():
    assert list(METHODS) == [
        "lrc", "lrc-final", "lrc-first", "lrc-ridge", "lrc-combined", "lrc-same-object", "lrc-other-objects",
        "mean", "centred-mean", "mean-difference", "svm", "logistic", "lda", "pca", "random",
        "shuffled-mean", "shuffled-svm",
    ]  # fmt: skip
    assert all(entry.name == name for name, entry in METHODS.items())


def test_each_method_says_what_it_is_in_a_sentence_of_its_own():
    summaries = [entry.summary for entry in METHODS.values()]
    assert len(set(summaries)) == len(summaries)
    assert all(summary.endswith(".") for summary in summaries)
    # So that a line of the help has 80 columns.
    assert [summary for summary in summaries if len(summary) > 60] == []
    assert [name for name in METHODS if len(name) > 17] == []


@pytest.mark.parametrize("entry", METHODS.values(), ids=lambda entry: entry.name)
def test_a_method_reads_objects_exactly_if_it_inverts_an_lre(entry):
    assert (entry.object_layer is None) == (entry.inverse is None) == entry.is_baseline
    assert not (entry.is_baseline and (entry.combines or entry.lre_for_each or entry.needs_rank or entry.ridge))
    assert not (entry.needs_rank and entry.ridge)
    assert entry.object_layer != "half_way"  # for parts of another method alone


def test_a_baseline_has_a_function_or_shuffles_the_objects_of_one_that_has():
    own = {name for name in method.BASELINES if METHODS[name].shuffles is None}
    assert own == set(baselines._FUNCTIONS)
    assert {METHODS[name].shuffles for name in METHODS} - {None} <= own


def test_names_that_are_written_elsewhere_are_in_the_table():
    defaults = (
        inspect.signature(function).parameters["method"].default
        for function in (lrc.combine_concepts, lrc.ConceptDirection.from_unscaled)
    )
    chosen = (default_method(rank=None), default_method(rank=64), default_method(rank=None, ridge=0.2))
    assert {*defaults, *chosen, *TABLE_METHODS} <= set(METHODS)


def test_the_method_where_none_is_named_has_all_that_it_needs_without_a_rank_and_is_the_paper_s_with_one():
    assert not METHODS[default_method(rank=None)].needs_rank
    assert default_method(rank=64) == default_method(rank=None, ridge=0.2) == "lrc"
    assert METHODS["lrc"].open_settings  # it takes a ridge


def test_a_method_of_pieces_that_are_there_needs_an_entry_and_no_more(word_model, monkeypatch):
    entry = Method(
        name="lrc-first-ridge",
        summary="lrc-first with a ridge in place of the rank.",
        object_layer="given",
        aggregation="first_token",
        inverse="ridge",
    )
    table = MappingProxyType({**METHODS, entry.name: entry})
    for module in (method, fitting):
        monkeypatch.setattr(module, "METHODS", table)
    (relation, *_) = spoken_relations(word_model, 1)
    prompts = lrc.filter_known(word_model, relation.prompts(seed=0)).prompts
    places = {"subject_layer": 0, "object_layer": 1}
    made = lrc.fit_concepts(word_model, prompts, method=entry.name, **places, progress=False)
    used = lrc.passes.KnownPrompts(prompts=prompts, dropped=()).sample(20, seed=0)
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, used, **places, object_aggregation="first_token", progress=False
    )
    torch.testing.assert_close(made.vectors, lre.concepts(word_model, prompts, ridge=0.2).vectors)
    assert {direction.method for direction in made.values()} <= set(METHODS)
    settings = lrc.FitSettings(solver=lrc.LowRank())
    with pytest.raises(ValueError, match="lrc-first-ridge needs all singular values"):
        lrc.fit_concepts(word_model, prompts, method=entry.name, **places, settings=settings)
