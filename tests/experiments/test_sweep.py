"""Sweeps: every row as the pieces give it, and the protocol as a sweep of one cell per method."""

import random
from dataclasses import replace

import pandas as pd
import pytest
import torch
from spoken import spoken_relations
from tiny_sweep import SETTINGS, assert_same_rows

import lrc_tl as lrc
from lrc_tl.experiments.statements import side_effect_statements
from lrc_tl.experiments.sweep_metrics import METRICS
from lrc_tl.experiments.sweep_outcomes import Outcomes
from lrc_tl.experiments.sweep_rows import COLUMNS, KEY
from lrc_tl.relations.sampling import splittable_sample

LRE_ROWS = {"shots": 0, "n_lre_prompts": 4}


@pytest.fixture(scope="module")
def relations(word_model):
    return spoken_relations(word_model, 2)


@pytest.fixture(scope="module")
def whole(word_model, relations):
    settings = replace(
        SETTINGS, methods=("lrc", "lrc-final", "lrc-ridge", "svm"), ridges=(0.1, 0.4), metrics=tuple(METRICS),
        places=("all", "from", "subject"), validation_edits=4, max_lre_prompts=(3, 4),
    )  # fmt: skip
    return lrc.run_sweep(word_model, relations, settings=settings)


def rows_of(result, **where):
    frame = result.to_frame()
    for name, value in where.items():
        frame = frame[frame[name].isna() if value is None else (frame[name] == value).fillna(False)]
    return frame


def value_of(result, **where):
    (value,) = rows_of(result, **where)["value"]
    return value


def test_every_row_has_a_key_of_its_own_and_the_documented_columns(whole):
    frame = whole.to_frame()
    assert list(frame.columns) == list(COLUMNS)
    assert not frame.duplicated(list(KEY)).any()
    assert frame["value"].notna().all()
    counted = frame[frame["count"].notna()]
    assert (counted["value"] == (counted["count"] / counted["n"]).astype(float)).all()
    assert (counted["n_facts"] <= counted["n"]).all()
    for name in ("subject_layer", "object_layer", "rank", "n_lre_prompts", "shots", "seed", "count", "n"):
        assert frame[name].dtype == pd.Int64Dtype()
    assert set(frame.loc[frame["method"] == "svm", "rank"].isna()) == {True}
    assert set(frame.loc[frame["metric"] == "faithfulness", "method"]) == {"lrc-final"}


def test_the_protocol_is_a_sweep_of_one_cell_per_method(word_model, relations):
    methods, seeds = ("lrc", "lrc-final", "svm", "mean"), (1, 2)
    shared = {"subject_layers": 0, "object_layers": 1, "ranks": 4, "betas": (0.3, 0.8), "shots": 0}
    protocol = lrc.run_protocol(
        word_model, relations, methods=methods, seeds=seeds,
        settings=lrc.ExperimentSettings(**shared, max_lre_prompts=4, single_layer=True),
    )  # fmt: skip
    sweep = lrc.run_sweep(
        word_model, relations,
        settings=lrc.SweepSettings(
            **shared, methods=methods, seeds=seeds, max_lre_prompts=4, validation=0, places=("all", "subject"),
            metrics=("accuracy", "causality", "hard_causality", "kl_elsewhere", "selectivity"),
        ),
    )  # fmt: skip
    for record in protocol.records:
        for method, outcome in record.methods.items():
            where = {"relation": record.relation, "seed": record.seed, "method": method}
            for reading, accuracy in (
                ("plain", outcome.accuracy),
                ("centred", outcome.accuracy_centred),
                ("calibrated", outcome.accuracy_calibrated),
            ):
                assert value_of(sweep, **where, metric="accuracy", reading=reading) == accuracy
            assert value_of(sweep, **where, metric="top3", reading="plain") == outcome.top3
            selectivity = value_of(sweep, **where, metric="selectivity")
            assert selectivity == pytest.approx(outcome.accuracy - outcome.control_shuffled)
            for place, curve in (("all", outcome.curve), ("subject", outcome.curve_single_layer)):
                for point in curve:
                    at = {**where, "beta": point.beta, "place": place}
                    assert value_of(sweep, **at, metric="causality") == point.causality
                    assert value_of(sweep, **at, metric="hard_causality") == point.hard_causality
                    assert value_of(sweep, **at, metric="edit_share") == point.edit_share
                    if place == "all" and point.unrelated.kl is not None:
                        assert value_of(sweep, **at, metric="kl_elsewhere") == pytest.approx(point.unrelated.kl)


def test_sharing_changes_nothing_against_a_cell_run_by_itself(word_model, relations, whole):
    alone = lrc.run_sweep(
        word_model, relations[:1],
        settings=replace(
            whole.settings, methods="lrc", subject_layers=1, ranks=4, max_lre_prompts=4, seeds=2, betas=0.8,
            places="from",
        ),
    )  # fmt: skip
    rows = rows_of(
        whole, relation=relations[0].name, seed=2, method="lrc", subject_layer=1, rank=4, n_lre_prompts=4
    )
    rows = rows[rows["beta"].isna() | ((rows["beta"] == 0.8) & (rows["place"] == "from"))]
    left = rows.set_index(list(KEY))["value"]
    right = alone.to_frame().set_index(list(KEY))["value"]
    pd.testing.assert_series_equal(left.sort_index(), right.sort_index(), rtol=1e-5)


def test_places_are_the_layers_that_edits_act_in(word_model, relations, whole):
    relation = relations[0]
    train, test = relation.split(seed=1)
    train, held_out = train.split(seed=1, train_share=0.75)
    known = lrc.filter_known(word_model, train.prompts(seed=1), seed=1)
    unseen = lrc.filter_known(word_model, test.prompts(seed=1, templates="all"), seed=1).one_per_fact()
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, known.sample(4, seed=1), subject_layer=1, object_layer=2, progress=False
    )
    concepts = lre.concepts(word_model, known.prompts, rank=4)
    usable = [prompt for prompt in unseen.prompts if prompt.object in concepts]
    edits = lrc.evaluation.counterfactual_edits(usable, seed=1)
    differences = torch.stack(
        [concepts[edit.target].vector - concepts[edit.prompt.object].vector for edit in edits]
    )
    where = {
        "relation": relation.name, "seed": 1, "method": "lrc", "subject_layer": 1, "object_layer": 2, "rank": 4,
        "n_lre_prompts": 4, "beta": 0.8,
    }  # fmt: skip
    for place, layers in (("all", None), ("from", [1, 2]), ("subject", [1])):
        (result,) = lrc.evaluation.causality_curve(
            word_model, edits, differences, betas=[0.8], layers=layers, generated=True, progress=False
        )
        row = rows_of(whole, **where, place=place, metric="causality").iloc[0]
        assert (row["value"], row["n"]) == (result.causality, len(edits))
        assert value_of(whole, **where, place=place, metric="hard_causality") == result.hard_causality
    assert {prompt.subject for prompt in known.prompts}.isdisjoint(fact.subject for fact in held_out.facts)


def test_edits_of_validation_facts_have_a_kl_elsewhere_of_their_own(word_model, relations):
    relation, seed = splittable_sample(relations[1], 20, seed=0), 1  # so that there are statements apart
    settings = replace(
        SETTINGS, methods="svm", subject_layers=1, seeds=seed, validation=0.5, validation_edits=3, betas=0.8
    )
    result = lrc.run_sweep(word_model, relation, settings=settings, others=relations[:1])
    train, held_out = relation.split(seed=seed)[0].split(seed=seed, train_share=0.5)
    known = lrc.filter_known(word_model, train.prompts(seed=seed), seed=seed)
    unseen = lrc.filter_known(word_model, held_out.prompts(seed=seed, templates="all"), seed=seed).one_per_fact()
    svm = lrc.fit_concepts(word_model, known.prompts, method="svm", subject_layer=1, seed=seed)
    usable = [prompt for prompt in unseen.prompts if prompt.object in svm]
    edits = lrc.evaluation.counterfactual_edits(usable, seed=seed)
    edits = [edits[row] for row in sorted(random.Random(seed).sample(range(len(edits)), min(3, len(edits))))]
    pairs, _ = side_effect_statements(
        word_model, relation, edits, relations[:1], n=settings.n_side_effects, seed=seed
    )
    differences = {"svm": torch.stack([svm[e.target].vector - svm[e.prompt.object].vector for e in edits])}
    (effects,) = lrc.evaluation.side_effects(word_model, pairs, differences, betas=[0.8], progress=False)["svm"]
    (row,) = rows_of(result, metric="validation_kl_elsewhere").to_dict("records")
    assert row["value"] == pytest.approx(effects.mean_kl, rel=1e-4)
    assert (row["n"], row["beta"], row["place"]) == (len(pairs), 0.8, "all")


def test_a_cell_without_directions_is_left_out_with_its_reason_and_the_others_stand(word_model, relations):
    settings = replace(SETTINGS, methods="lrc", ranks=(4, 12), max_lre_prompts=1, metrics="accuracy", seeds=1)
    result = lrc.run_sweep(word_model, relations, settings=settings)
    left_out = result.left_out
    assert set(result.cells["rank"]) | set(left_out["rank"]) == {4, 12}
    if len(left_out):
        assert left_out["reason"].str.contains("rank").all()


def test_a_relation_with_too_few_facts_is_left_out(word_model, relations):
    few = lrc.Relation.from_pairs("few", [("w1", "w2"), ("w3", "w4")], templates=["{} w5"])
    result = lrc.run_sweep(word_model, [*relations, few], settings=replace(SETTINGS, metrics="accuracy"))
    assert result.relations == tuple(relation.name for relation in relations)
    assert set(result.left_out["relation"]) == {"few"}
    assert "one-to-one" in result.left_out["reason"].iloc[0]
    with pytest.raises(ValueError, match="no relation could be evaluated: few: it is one-to-one"):
        lrc.run_sweep(word_model, few, settings=SETTINGS)


def test_a_reason_that_no_table_can_hold_is_shown_with_escapes(word_model, relations):
    few = lrc.Relation.from_pairs("few", [("w1", "w2"), ("w3", "w4")], templates=["{} w5"])
    result = lrc.run_sweep(word_model, [relations[0], few], settings=SETTINGS, progress=False)
    record, *_ = (record for record in result.outcomes.records if record["left_out"] is not None)
    damaged = replace(result, outcomes=Outcomes.of([{**record, "left_out": "too few \ud800"}]))
    assert list(damaged.left_out["reason"]) == ["too few \\ud800"]


def test_records_are_handed_on_as_they_finish(word_model, relations):
    records = []
    result = lrc.run_sweep(
        word_model, relations, settings=replace(SETTINGS, metrics="accuracy"), on_record=records.append
    )
    assert [(record.relation, record.seed) for record in records] == [
        (relation.name, seed) for relation in relations for seed in (1, 2)
    ]
    assert_same_rows(result, lrc.run_sweep(word_model, relations, settings=replace(SETTINGS, metrics="accuracy")))


def test_the_notebook_shows_the_best_cells(whole):
    assert "lrc-ridge" in whole._repr_html_()
