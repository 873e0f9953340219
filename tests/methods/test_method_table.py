"""The table of methods: one entry says all that the rest of the library asks about a method."""

import inspect
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.experiments.presets import TABLE_METHODS
from lrc_tl.methods import baselines, fitting, method
from lrc_tl.methods.method import (
    METHODS,
    Method,
    default_method,
    default_object_layer,
    default_subject_layer,
    meant_method,
)


def test_results_and_files_know_the_methods_by_these_names_in_this_order():
    assert list(METHODS) == [
        "lrc", "lrc-final", "lrc-first", "lrc-ridge", "lrc-combined", "lrc-same-object", "lrc-other-objects",
        "lrc-map", "lrc-map-given", "lrc-fisher", "lrc-map-combined",
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
    assert entry.needs_rank + bool(entry.ridge) + entry.is_dual == (not entry.is_baseline)
    assert entry.object_layer != "half_way"  # for parts of another method alone


def test_what_stands_for_a_method_at_an_object_layer_that_is_given_differs_in_nothing_else():
    for entry in METHODS.values():
        meant = meant_method(entry, object_layer=13)
        if meant is not entry:
            assert (entry.object_layer, meant.object_layer) == ("last", "given")
            same = {"name": "", "summary": "", "object_layer": None, "with_object_layer": None}
            assert replace(entry, **same) == replace(meant, **same)
        assert meant_method(entry, object_layer=None) is entry
    assert meant_method(METHODS["lrc-map"], object_layer=13).name == "lrc-map-given"


@pytest.mark.parametrize(
    ("n_layers", "subject", "object_"),
    [(18, 9, 13), (30, 15, 22), (32, 16, 23), (28, 14, 20), (3, 1, 2), (2, 1, 1)],
)
def test_layers_that_are_not_given_lie_half_way_and_at_72_percent(n_layers, subject, object_):
    assert default_subject_layer(n_layers) == subject
    assert default_object_layer(n_layers, subject_layer=subject) == object_
    assert default_object_layer(n_layers, subject_layer=n_layers - 2) == n_layers - 1


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


def test_a_method_of_pieces_that_are_there_needs_an_entry_and_no_more(one_word_model, monkeypatch):
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
    (relation, *_) = spoken_relations(one_word_model, 1)
    prompts = lrc.filter_known(one_word_model, relation.prompts(seed=0)).prompts
    places = {"subject_layer": 0, "object_layer": 1}
    made = lrc.fit_concepts(one_word_model, prompts, method=entry.name, **places, progress=False)
    used = lrc.passes.KnownPrompts(prompts=prompts, dropped=()).sample(20, seed=0)
    lre = lrc.LinearRelationalEmbedding.fit(
        one_word_model, used, **places, object_aggregation="first_token", progress=False
    )
    torch.testing.assert_close(made.vectors, lre.concepts(one_word_model, prompts, ridge=0.2).vectors)
    assert {direction.method for direction in made.values()} <= set(METHODS)
    settings = lrc.FitSettings(solver=lrc.LowRank())
    with pytest.raises(ValueError, match="lrc-first-ridge needs all singular values"):
        lrc.fit_concepts(one_word_model, prompts, method=entry.name, **places, settings=settings)
