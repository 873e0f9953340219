"""A batch never changes a row: figures of many rows are those that passes over one row each give."""

from collections import Counter
from dataclasses import asdict, replace
from importlib.util import find_spec

import pytest
import tiny_models
import torch
from entry_point_rows import LAYERS, NEUTRAL, close, direction
from entry_points import WHOLE
from spoken import has_enough
from tiny_benchmark import SETTINGS

import lrc_tl as lrc
from lrc_tl.directions import pooling, token_scores
from lrc_tl.evaluation import edited_passes
from lrc_tl.lre import background
from lrc_tl.passes import batches, content, prefix_cache, residuals
from lrc_tl.steering import generation
from lrc_tl.tuning import strength_batches


@pytest.fixture
def every_row_alone(monkeypatch):
    """Every pass of the library over one row alone."""

    def one_by_one(lengths, **options):
        return ([row] for row in range(len(lengths)))

    def put_on():
        for module in (
            background,
            content,
            edited_passes,
            batches,
            pooling,
            prefix_cache,
            residuals,
            token_scores,
        ):
            monkeypatch.setattr(module, "length_batches", one_by_one)
        monkeypatch.setattr(edited_passes, "_LEAST_SPARED", 10**9)
        monkeypatch.setattr(generation, "MAX_LOGITS", 1)
        monkeypatch.setattr(strength_batches, "MAX_LOGIT_POSITIONS", 1)

    return put_on


def answers_to(model, texts):
    """The greedy next word after each text; texts of one length run together, so that none is padded."""
    answers = {}
    rows = [model.to_tokens(text)[0] for text in texts]
    for length in {len(row) for row in rows}:
        places = [place for place, row in enumerate(rows) if len(row) == length]
        with torch.no_grad():
            next_ids = model(torch.stack([rows[place] for place in places]))[:, -1].argmax(-1)
        answers.update(zip(places, (model.tokenizer.decode([int(one)]) for one in next_ids), strict=True))
    return [answers[place] for place in range(len(texts))]


def said_relation(model, *, name, beginning, apart_from=()):
    """What the model says itself of subjects of a few words, every other with an end token inside."""
    subjects = []
    for number in range(44):
        words = beginning + [f"w{(number * 7 + step) % 44}" for step in range(1 + number % 3)]
        subjects.append(" ".join(words) + " <eos>" * (number % 2) + f" w{number}")
    for tail in range(44):
        answers = answers_to(model, [f"{subject} w{tail} <eos>" for subject in subjects])
        pairs = [
            (subject, answer)
            for subject, answer in zip(subjects, answers, strict=True)
            if answer.startswith("w") and answer not in apart_from
        ]
        commonest = [name for name, _ in Counter(answer for _, answer in pairs).most_common(3)]
        pairs = [pair for pair in pairs if pair[1] in commonest]
        relation = lrc.Relation.from_pairs(name, pairs, templates=[f"{{}} w{tail} <eos>"]) if pairs else None
        if relation and (len(pairs) >= 4 if apart_from else has_enough(relation, facts=8)):
            return relation
    raise AssertionError("the tiny model says the same to everything")


def plain(value):
    """What can be compared of a result: without its times."""
    if isinstance(value, lrc.ConceptSet):
        return value.vectors
    if isinstance(value, lrc.LinearRelationalEmbedding):
        return [value.weight, value.bias]
    if isinstance(value, lrc.SubjectStatistics):
        return [layer.samples for layer in value.values()]
    if isinstance(value, dict):
        return [(key, plain(own)) for key, own in value.items() if not str(key).startswith("seconds")]
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


ERASURE = find_spec("concept_erasure") is not None
"""Whether the extra `erasure` is installed: the second leg has it not."""


def wholes(model, relation, other):
    prompts = lrc.filter_known(model, relation.prompts(shots=0), progress=False).prompts
    few = prompts[:5]
    low = {"rank": 3, "oversample": 1}
    layers = {"subject_layers": [0, 1], "object_layers": [2]}
    statements = lrc.known_statements(model, relation, others=[other], progress=False)
    assert statements
    baselines = lrc.fit_baselines(model, prompts, layer=0, methods=("mean", "logistic"))
    edits = lrc.evaluation.counterfactual_edits(prompts, per_object=1)[:4]
    quiet = {"progress": False}
    fit = lrc.LinearRelationalEmbedding.fit
    erased = {"fit_erasure": vars(lrc.fit_erasure(model, prompts, layer=1).operation)} if ERASURE else {}
    calibrated = lrc.calibrate_strength(
        model, lrc.tuning.at_subject(model, direction().add(strength=1.0)), edits,
        strengths=[0.2, 2.0], refinements=1,
        neutral_texts=NEUTRAL, **quiet,
    )  # fmt: skip
    evaluation = lrc.evaluate(
        model, baselines["mean"], prompts, edits_per_object=2, beta=0.3, elsewhere=statements, **quiet
    )
    many = [prompt for seed in range(8) for prompt in relation.prompts(shots=2, seed=seed)]
    return {
        "SubjectStatistics.fit": [
            lrc.SubjectStatistics.fit(model, layers=[0, 2], background=given, **quiet)
            for given in (many, [prompt.text for prompt in many])
        ],
        "LinearRelationalEmbedding.fit": [
            fit(model, few, **LAYERS, **quiet),
            fit(model, few, **LAYERS, solver=lrc.LowRank(power_iterations=1, **low), **quiet),
        ],
        "fit_layer_grid": [
            lrc.fit_layer_grid(model, few, **layers, **quiet),
            lrc.fit_layer_grid(model, few, **layers, solver=lrc.LowRank(**low), **quiet),
        ],
        "contrast_concepts": lrc.contrast_concepts(
            model, positive=NEUTRAL, negative=[prompt.text for prompt in few], layer=1
        ),
        "fit_concepts": lrc.fit_concepts(
            model, prompts, **LAYERS, settings=lrc.FitSettings(max_lre_prompts=4), **quiet
        ),
        "fit_baselines": baselines,
        "mean_concepts": lrc.mean_concepts(model, prompts, layer=1),
        **erased,
        "known_statements": [statement.text for statement in statements],
        "evaluate": [
            evaluation.to_dict(), evaluation.causality_result.edited, evaluation.elsewhere.kl,
            evaluation.classification.places,
        ],
        "selectivity": lrc.evaluation.selectivity(
            model, prompts, prompts[::2], lambda model, own: lrc.mean_concepts(model, own, layer=0)
        ).to_dict(),
        "calibrate_strength": [calibrated.strength, [asdict(point) for point in calibrated.points]],
        "select_settings": lrc.select_settings(
            model, relation, shots=0, n_prompts=3, others=[other], **quiet,
            space=lrc.SearchSpace(subject_layers=[0], object_layers=[1, 2], ranks=[3], betas=[0.3]),
        ).to_dict(),
        "run_protocol": lrc.run_protocol(
            model, [relation], methods=("lrc", "mean"), seeds=[1], others=[other],
            settings=replace(SETTINGS, betas=0.3),
        ).to_dict(),
        "run_sweep": lrc.run_sweep(
            model, relation, others=[other],
            settings=lrc.SweepSettings(
                methods=("lrc", "mean"), subject_layers=0, object_layers=1, ranks=4, betas=0.3, shots=0, seeds=1
            ),
        ).to_frame()["value"].tolist(),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pads with its end token"])
def test_figures_of_many_rows_are_those_of_rows_run_alone(
    class_of_model, kind, tmp_path, monkeypatch, every_row_alone
):
    close.narrow = class_of_model == "bridge"
    model = tiny_models.model_with(class_of_model, kind, tmp_path)
    relation = said_relation(model, name="said", beginning=[])
    other = said_relation(model, name="other", beginning=["w3"], apart_from=relation.objects)
    monkeypatch.setattr(edited_passes, "_LEAST_SPARED", 0)  # prefixes are shared wherever they can be
    batched = wholes(model, relation, other)
    assert set(batched) == set(WHOLE) - (set() if ERASURE else {"fit_erasure"})
    every_row_alone()
    alone = wholes(model, relation, other)
    for name in batched:
        close(plain(batched[name]), plain(alone[name]), path=name)
