"""Dual concepts of an LRE from prompts: what is read where, how the noise is chosen, and what is refused."""

import dataclasses

import pytest
import torch
from reference.wiener import dual_vectors
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.lre.dual import NOISES, DualFit
from lrc_tl.lre.subject_statistics import SubjectStatistics

PLACE = {"subject_layer": 0, "object_layer": 2}
WRITTEN = {"torch.float64": 1e-9, "torch.float32": 1e-4}
"""Relative error that the model's own precision leaves."""


@pytest.fixture(scope="module")
def prompts(word_model):
    (relation, *_) = spoken_relations(word_model, 1)
    return relation.prompts(shots=1, seed=0)


@pytest.fixture(scope="module")
def statistics(word_model):
    background = [
        lrc.Prompt(text=f"w{other} w{number} w3", subject=f"w{number}", object="w9")
        for number in range(10, 40)
        for other in (1, 4)
    ]
    return SubjectStatistics.fit(word_model, background=background)


@pytest.fixture(scope="module", params=["exact", "low_rank"])
def lre(request, word_model, prompts):
    solver = lrc.LowRank(rank=3, oversample=0) if request.param == "low_rank" else "exact"
    lre = lrc.LinearRelationalEmbedding.fit(word_model, prompts[:5], **PLACE, solver=solver, progress=False)
    assert lre.solver == request.param
    return lre


def acts_of(model, prompts):
    """Objects of the few-shot prompts and subjects of the zero-shot ones, one prompt at a time."""
    objects = [lrc.passes.object_activations(model, [prompt], layer=2)[0] for prompt in prompts]
    subjects = [lrc.subject_activations(model, [prompt.zero_shot], layer=0)[0] for prompt in prompts]
    return torch.stack(objects).cpu(), torch.stack(subjects).cpu()


def means_of(acts, names):
    objects = list(dict.fromkeys(names))
    rows = [[row for row, name in enumerate(names) if name == wanted] for wanted in objects]
    return objects, torch.stack([acts[of_object].double().mean(0) for of_object in rows])


def test_each_direction_is_the_dual_pair_of_its_object_s_mean_and_scores_from_the_mean_zero_shot_subject(
    word_model, prompts, statistics, lre
):
    concepts = lre.concepts(word_model, prompts, prior=statistics, noise=0.7)
    object_acts, subject_acts = acts_of(word_model, prompts)
    names, means = means_of(object_acts, [prompt.object for prompt in prompts])
    weight, covariance = lre.weight.double().cpu().numpy(), statistics[0].covariance.dense().numpy()
    reading, writing = dual_vectors(weight, covariance, (means - means.mean(0)).numpy(), 0.7)
    tolerance = WRITTEN[str(lre.weight.dtype)]
    assert list(concepts) == names
    for row, name in enumerate(names):
        direction = concepts[name]
        expected = torch.from_numpy(reading[row])
        length = float(expected.norm())
        torch.testing.assert_close(
            direction.vector.double().cpu() * direction.scale, expected, rtol=0, atol=tolerance * length
        )
        unit = torch.from_numpy(writing[row]) / torch.from_numpy(writing[row]).norm()
        torch.testing.assert_close(direction.write_vector.double().cpu(), unit, rtol=0, atol=tolerance)
        assert direction.method == "lrc-map"
    scores = concepts.scores(subject_acts.to(concepts.vectors))
    expected = (subject_acts.double() - subject_acts.double().mean(0)) @ torch.from_numpy(reading).T
    torch.testing.assert_close(
        scores.double().cpu(), expected, rtol=0, atol=100 * tolerance * float(expected.abs().max())
    )
    few_shot = lrc.subject_activations(word_model, prompts, layer=0).cpu()
    assert not torch.allclose(few_shot.double(), subject_acts.double(), rtol=0, atol=0.01)


def test_a_rank_takes_the_leading_part_of_the_weight(word_model, prompts, statistics, lre):
    concepts = lre.concepts(word_model, prompts, prior=statistics, noise=0.7, rank=2)
    leading = lre.svd.leading(2)
    part = dataclasses.replace(lre, weight=leading.u * leading.s @ leading.vh)
    expected = part.concepts(word_model, prompts, prior=statistics, noise=0.7)
    torch.testing.assert_close(concepts.vectors, expected.vectors, rtol=0, atol=1e-4)
    whole = lre.concepts(word_model, prompts, prior=statistics, noise=0.7)
    assert not torch.allclose(concepts.vectors, whole.vectors, atol=1e-2)
    assert concepts.settings["rank"] == 2


def test_without_a_noise_the_one_that_reads_left_out_prompts_best_is_taken(word_model, prompts, statistics, lre):
    concepts = lre.concepts(word_model, prompts, prior=statistics)
    object_acts, subject_acts = acts_of(word_model, prompts)
    choice = DualFit.of(lre, statistics[0]).choose_noise(
        object_acts, [prompt.object for prompt in prompts], subject_acts
    )
    assert concepts.settings["noise"] == choice.noise
    assert concepts.settings["noise_choice"] == choice.to_dict()
    assert set(choice.accuracies) == set(NOISES)
    given = lre.concepts(word_model, prompts, prior=statistics, noise=choice.noise)
    assert torch.equal(concepts.vectors, given.vectors)
    assert "noise_choice" not in given.settings


def test_activations_that_were_read_before_give_the_same(word_model, prompts, statistics, lre):
    object_acts, subject_acts = acts_of(word_model, prompts)
    made = lre.concepts_from_activations(
        object_acts, [prompt.object for prompt in prompts],
        prior=statistics[0], subject_acts=subject_acts, noise=2.0,
    )  # fmt: skip
    expected = lre.concepts(word_model, prompts, prior=statistics, noise=2.0)
    torch.testing.assert_close(made.vectors, expected.vectors, rtol=0, atol=1e-4)
    assert [made[name].offset for name in made] == pytest.approx(
        [expected[name].offset for name in expected], rel=1e-3, abs=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": None, "rank": 2, "noise": 3.0}, "noise 3 is given without a prior, and only dual directions"),
        ({"ridge": 0.2}, "ridge 0.2 is given with a prior, whose noise takes its place"),
        ({"noise": 0.0}, "noise is 0.0; it must be above 0"),
        ({"noise": float("nan")}, "noise is nan; it must be above 0"),
        ({"prompts": ()}, "no prompts to make concepts from"),
        ({"prior": None}, "neither rank nor ridge was given"),
        ({"rank": 0}, "rank 0 is not allowed"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_the_model_runs(
    word_model, prompts, statistics, lre, options, message, monkeypatch
):
    for reader in ("object_activations", "subject_activations"):
        monkeypatch.setattr(f"lrc_tl.lre.embedding.{reader}", None)
    options = {"prompts": prompts, "prior": statistics, **options}
    with pytest.raises(ValueError, match=message):
        lre.concepts(word_model, **options)


def test_a_rank_above_that_of_a_low_rank_lre_is_refused(word_model, prompts, statistics):
    lre = lrc.LinearRelationalEmbedding.fit(
        word_model, prompts[:5], **PLACE, solver=lrc.LowRank(rank=2, oversample=2), progress=False
    )
    with pytest.raises(ValueError, match="rank 3 is above 2, which this low-rank LRE was fitted for"):
        lre.concepts(word_model, prompts, prior=statistics, rank=3)


def test_statistics_without_the_subject_layer_are_refused(word_model, prompts, statistics, lre):
    other = SubjectStatistics([statistics[1]])
    with pytest.raises(KeyError, match=r"no statistics of layer 0, but of \[1\]; fit them"):
        lre.concepts(word_model, prompts, prior=other)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("prior", "subject_acts is given without prior; dual directions need both"),
        ("subject_acts", "prior is given without subject_acts; dual directions need both"),
    ],
)
def test_a_prior_and_subjects_go_together(word_model, prompts, statistics, lre, without, message):
    object_acts, subject_acts = acts_of(word_model, prompts)
    options = {"prior": statistics[0], "subject_acts": subject_acts}
    del options[without]
    with pytest.raises(ValueError, match=message):
        lre.concepts_from_activations(object_acts, [prompt.object for prompt in prompts], **options)
