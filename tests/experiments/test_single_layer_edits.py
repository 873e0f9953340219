"""Edits at the subject layer alone: their side effects in the benchmark."""

from dataclasses import replace

import pytest
import torch
from spoken import spoken_relations
from tiny_benchmark import SETTINGS

import lrc_tl as lrc
from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.collateral import side_effects
from lrc_tl.experiments.run import run_protocol
from lrc_tl.experiments.statements import side_effect_statements


def test_side_effects_of_single_layer_edits_are_those_of_edits_at_that_layer(one_word_model):
    (relation,) = spoken_relations(one_word_model, 1)
    settings = replace(SETTINGS, n_side_effects=4, single_layer=True, betas=0.6)
    names = {name for fact in relation.facts for name in (fact.subject, fact.object)}
    first, second, *_ = (f"w{n}" for n in range(44) if f"w{n}" not in names)
    apart = [lrc.Relation.from_pairs("apart", [(first, second), (second, first)], templates=["{} w40"])]
    (record,) = run_protocol(
        one_word_model, [relation], methods=("mean",), settings=settings, others=apart
    ).records
    train, test = relation.split(seed=42)
    known = lrc.filter_known(one_word_model, train.prompts(seed=42), seed=42)
    concepts = lrc.mean_concepts(one_word_model, known.prompts, layer=0)
    prompts = {prompt.text: prompt for prompt in test.prompts(seed=42, templates="all")}
    asked = {asked.subject: prompts[asked.text] for asked in record.test_prompts}
    edits = [Edit(prompt=asked[edit.subject], target=edit.target) for edit in record.edits]
    differences = torch.stack([concepts[e.target].vector - concepts[e.prompt.object].vector for e in edits])
    unrelated, _ = side_effect_statements(one_word_model, relation, edits, apart, n=4, seed=42)
    assert len(unrelated) == record.n_unrelated == 4
    options = {"betas": [0.6], "progress": False}
    effects = {
        layers: side_effects(one_word_model, unrelated, {"mean": differences}, layers=layers, **options)["mean"][0]
        for layers in (None, (0,))
    }
    outcome = record.methods["mean"]
    assert outcome.curve_single_layer[0].unrelated.kl == pytest.approx(effects[(0,)].mean_kl)
    assert outcome.curve[0].unrelated.kl == pytest.approx(effects[None].mean_kl)
    assert effects[(0,)].mean_kl != effects[None].mean_kl
