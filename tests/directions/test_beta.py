"""Where no beta is given, an edit has the one that was stored with the concepts, else one stated constant."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_benchmark import SETTINGS
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.directions.beta import DEFAULT_BETA
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.experiments.presets import PRESETS

HOOK = "blocks.1.hook_resid_post"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def concepts():
    generator = torch.Generator().manual_seed(2)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(D_MODEL, generator=generator, dtype=torch.float64), relation="r", object_name=name,
                hook_name=HOOK,
            )
            for name in ("w5", "w6", "w7")
        },
        settings={"rank": 4},
    )  # fmt: skip


PROMPTS = [
    lrc.Prompt(text=f"w{number + 10} w3 w41", subject=f"w{number + 10}", object=f"w{5 + number % 3}")
    for number in range(6)
]


def test_a_swap_has_the_given_beta_else_the_stored_one_else_the_constant(word_model, concepts):
    swap = {"remove": "w5", "add": "w6", "text": "w10 w41", "subject": "w10"}

    def beta(own, **given):
        return own.swap_steering(word_model, **swap, **given).operation.beta

    assert beta(concepts) == concepts.beta == DEFAULT_BETA
    stored = concepts.with_beta(0.03)
    assert beta(stored) == stored.beta == 0.03
    assert beta(stored, beta=0.2) == 0.2
    (edit, *_) = lrc.edits_towards(PROMPTS, "w6")
    assert lrc.swap_at_subject(word_model, stored)(edit).operation.beta == 0.03
    ids = word_model.to_tokens(swap["text"])
    with stored.swap(word_model, **swap):
        by_default = word_model(ids)
    with concepts.swap(word_model, **swap, beta=0.03):
        given = word_model(ids)
    torch.testing.assert_close(by_default, given, rtol=0, atol=0)
    assert "beta" not in concepts.settings


def test_a_stored_beta_stays_with_the_same_directions_and_leaves_with_others(word_model, concepts, tmp_path):
    stored = concepts.with_beta(0.03)
    stored.save(tmp_path / "set.safetensors")
    acts = torch.randn(30, D_MODEL, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    objects = [f"w{5 + number % 3}" for number in range(30)]
    for same in (
        lrc.ConceptSet.load(tmp_path / "set.safetensors"),
        stored.centred(acts),
        stored.calibrate(acts, objects),
        stored.calibrate(acts, objects).with_beta(0.03),
    ):
        assert same.beta == 0.03
        assert same.settings["rank"] == 4
    assert stored.calibrate(acts, objects).with_beta(0.03).calibration is not None
    assert lrc.combine_concepts([stored, stored]).beta == DEFAULT_BETA


def test_files_without_a_beta_have_the_constant(concepts, tmp_path):
    concepts.save(tmp_path / "old.safetensors")
    assert "beta" not in lrc.ConceptSet.load(tmp_path / "old.safetensors").settings
    assert lrc.ConceptSet.load(tmp_path / "old.safetensors").beta == DEFAULT_BETA


@pytest.mark.parametrize("beta", [math.nan, math.inf, "0.1", True, [0.1]])
def test_a_stored_beta_that_is_no_finite_number_is_refused(concepts, beta):
    with pytest.raises(ValueError, match="it must be a finite number"):
        lrc.ConceptSet(dict(concepts), settings={"beta": beta})
    if isinstance(beta, float):
        with pytest.raises(ValueError, match="it must be a finite number"):
            concepts.with_beta(beta)


def test_evaluate_says_where_its_beta_comes_from_and_what_it_does(word_model, concepts):
    statements = [lrc.Prompt(text="w30 w2 w31", subject="w30 w2", object="w6")]
    for own, given, beta, source in (
        (concepts, None, DEFAULT_BETA, "default"),
        (concepts.with_beta(0.4), None, 0.4, "stored with the concepts"),
        (concepts.with_beta(0.4), 1, 1.0, "given"),
    ):
        found = lrc.evaluate(word_model, own, PROMPTS, beta=given, elsewhere=statements, progress=False)
        assert (found.causality_result.beta, found.beta_source) == (beta, source)
        assert f"beta {beta:g}, {source})" in repr(found)
        differences = swap_differences(own, found.edits)
        (curve,) = lrc.evaluation.causality_curve(
            word_model, found.edits, differences, betas=[beta], generated=True
        )
        assert (found.causality, found.hard_success) == (curve.causality, curve.hard_causality)
        pairs = lrc.evaluation.unrelated_statements(found.edits, statements, n=60)
        (away,) = lrc.evaluation.side_effects(word_model, pairs, {"": differences}, betas=[beta])[""]
        data = found.to_dict()
        assert data["kl_elsewhere"] == found.kl_elsewhere == pytest.approx(away.mean_kl)
        assert (data["hard_success"], data["beta_source"], data["n_elsewhere"]) == (
            found.hard_success, source, len(found.edits),
        )  # fmt: skip
        assert "hard success" in repr(found)
        assert "KL elsewhere" in repr(found)
    alone = lrc.evaluate(word_model, concepts, PROMPTS, progress=False)
    assert alone.kl_elsewhere is None
    assert "KL elsewhere" not in repr(alone)


def test_the_benchmark_has_the_constant_outside_presets_and_the_papers_inside(word_model):
    pairs = []
    for number in range(40):
        ids = word_model.to_tokens(f"w{number} w41")
        pairs.append((f"w{number}", word_model.tokenizer.decode([int(word_model(ids)[0, -1].argmax())])))
    relation = lrc.Relation.from_pairs("said", pairs, templates=["{} w41"])
    settings = replace(SETTINGS, ranks=2, n_side_effects=0)
    result = lrc.run_protocol(word_model, [relation], methods=["mean"], settings=settings)
    assert result.records[0].betas == (DEFAULT_BETA,)
    assert {preset.settings.betas[0] for preset in PRESETS.values()} == {0.1}


def test_the_constant_is_the_best_within_limits_on_the_training_facts_of_the_stored_results():
    means = [
        {effect["beta"]: effect for effect in json.loads(path.read_text())["mean"]}
        for path in sorted(RESULTS.glob("default_beta_*.json"))
    ]
    assert means
    allowed = {}
    for beta in set.intersection(*map(set, means)):
        rows = [own[beta] for own in means]
        if all(row["kl_elsewhere"] <= 0.7 and row["perplexity_ratio"] <= 1.5 for row in rows):
            allowed[beta] = sum(row["hard_success"] for row in rows)
    assert len(allowed) > 1
    assert max(allowed, key=allowed.get) == DEFAULT_BETA
