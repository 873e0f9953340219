"""Dual concepts of an LRE: the definition, both limits of the noise, facts left out, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference.wiener import dual_vectors
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.errors import FingerprintMismatch
from lrc_tl.lre.dual import DEFAULT_NOISE, METHOD, NOISES, DualFit
from lrc_tl.lre.subject_statistics import LayerStatistics, SubjectStatistics

D_SUBJECT, D_OBJECT = 12, 10
OBJECTS = [*"aaaaabbbbccc", "d"]
"""Of thirteen facts; the last one is alone with its object."""


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def statistics_of(samples, **given):
    fields = {
        "layer": 1,
        "samples": samples,
        "kind": "subjects",
        "sources": tuple(f"s{number}" for number in range(len(samples))),
        "source_of": torch.arange(len(samples)),
        "fingerprint": FINGERPRINT,
    }
    return LayerStatistics(**{**fields, **given})


@pytest.fixture
def prior():
    return statistics_of(5 + draw(70, D_SUBJECT, seed=0) * torch.linspace(0.2, 2.0, D_SUBJECT).double())


@pytest.fixture
def spherical_prior():
    """Samples whose covariance is the identity, to the bit."""
    corners = torch.cat([torch.eye(D_SUBJECT), -torch.eye(D_SUBJECT)]).double() * D_SUBJECT**0.5
    return statistics_of(corners.repeat(3, 1))


@pytest.fixture(params=[None, 4], ids=["whole weight", "rank 4"])
def rank(request):
    return request.param


@pytest.fixture
def lre():
    return lrc.LinearRelationalEmbedding(
        weight=draw(D_OBJECT, D_SUBJECT, seed=1),
        bias=draw(D_OBJECT, seed=2),
        subject_layer=1,
        object_layer=2,
        object_aggregation="mean",
        n_prompts=4,
        prompts_hash="ab" * 32,
        relation="r",
        fingerprint=FINGERPRINT,
    )


@pytest.fixture
def subjects():
    return 5 + draw(len(OBJECTS), D_SUBJECT, seed=3)


@pytest.fixture
def objects():
    """Object activations: those of one object lie near each other."""
    centres = draw(4, D_OBJECT, seed=4)
    rows = torch.tensor(["abcd".index(name) for name in OBJECTS])
    return 7 + centres[rows] + 0.5 * draw(len(OBJECTS), D_OBJECT, seed=5)


def targets_of(objects):
    """`m_o - m` for each object, in the order of the set."""
    means = torch.stack([objects[[name == each for each in OBJECTS]].mean(0) for name in dict.fromkeys(OBJECTS)])
    return means - means.mean(0)


def part_of(lre, rank):
    """The weight, or its leading part, from an SVD of its own."""
    u, s, vh = torch.linalg.svd(lre.weight, full_matrices=False)
    return lre.weight if rank is None else (u[:, :rank] * s[:rank]) @ vh[:rank]


def reading_of(concepts):
    """Reading vectors at the length that scores keep."""
    return torch.stack([direction.norm * direction.vector for direction in concepts.values()])


@pytest.mark.parametrize("noise", [0.01, 1.0, 30.0])
def test_both_vectors_are_those_of_the_definition(lre, prior, rank, objects, subjects, noise):
    concepts = DualFit.of(lre, prior, rank=rank).concepts(objects, OBJECTS, subjects, noise=noise)
    reading, writing = dual_vectors(
        part_of(lre, rank).numpy(), prior.covariance.dense().numpy(), targets_of(objects).numpy(), noise
    )
    assert list(concepts) == ["a", "b", "c", "d"]
    np.testing.assert_allclose(reading_of(concepts).numpy(), reading, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(concepts.write_vectors.numpy(), unit(torch.from_numpy(writing)).numpy(), atol=1e-10)
    assert {(one.write_rule, one.method, one.relation) for one in concepts.values()} == {
        ("covariance", METHOD, "r")
    }
    assert concepts.hook_name == lre.subject_hook
    assert concepts.fingerprint == FINGERPRINT


def test_the_mean_subject_scores_zero_and_lengths_are_kept(lre, prior, objects, subjects):
    concepts = DualFit.of(lre, prior).concepts(objects, OBJECTS, subjects, noise=1.0)
    length = subjects.mean(0).norm()
    assert (concepts.scores(subjects.mean(0)).abs() <= 1e-10 * length).all()
    expected = (subjects - subjects.mean(0)) @ reading_of(concepts).T
    assert ((concepts.scores(subjects) - expected).abs() <= 1e-10 * length).all()
    norms = [direction.norm for direction in concepts.values()]
    assert max(norms) > 1.1 * min(norms)


def test_what_is_uncorrelated_with_the_score_is_left_alone_by_every_operation(lre, prior, objects, subjects):
    concepts = DualFit.of(lre, prior).concepts(objects, OBJECTS, subjects, noise=1.0)
    h = 40 * draw(1, 5, D_SUBJECT, seed=6)
    for direction in concepts.values():
        seen = prior.covariance.times(direction.vector)
        other = draw(D_SUBJECT, seed=7)
        other = unit(other - (other @ seen) / (direction.vector @ seen) * direction.vector)
        for steering in (direction.reflect(), direction.ablate(), direction.add(strength=0.3)):
            shift = steering.operation.shift(h)
            assert (shift.norm(dim=-1) > 1e-3).all()
            assert ((shift @ other).abs() <= 1e-10 * h.norm(dim=-1)).all()


def test_without_noise_and_with_equal_variances_both_are_the_pseudo_inverse(
    lre, spherical_prior, rank, objects, subjects
):
    np.testing.assert_allclose(spherical_prior.covariance.dense().numpy(), np.eye(D_SUBJECT), atol=1e-14)
    fit = DualFit.of(lre, spherical_prior, rank=rank, noise=1e-13)
    concepts = fit.concepts(objects, OBJECTS, subjects, noise=1e-13)
    inverse = torch.linalg.pinv(part_of(lre, rank), rtol=1e-10)
    expected = targets_of(objects) @ inverse.T
    torch.testing.assert_close(reading_of(concepts), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(concepts.write_vectors, unit(expected), rtol=1e-9, atol=1e-10)


def test_without_noise_the_paper_differs_by_one_shift_of_all_objects(lre, spherical_prior, objects, subjects):
    fit = DualFit.of(lre, spherical_prior, noise=1e-13)
    reading = reading_of(fit.concepts(objects, OBJECTS, subjects, noise=1e-13))
    paper = reading_of(lre.concepts_from_activations(objects, OBJECTS, rank=D_OBJECT))
    shift = paper - reading
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-9)
    assert shift.norm() > 1


def test_with_much_noise_both_tend_to_the_transpose(lre, prior, rank, objects, subjects):
    concepts = DualFit.of(lre, prior, rank=rank).concepts(objects, OBJECTS, subjects, noise=1e13)
    expected = targets_of(objects) @ part_of(lre, rank)
    torch.testing.assert_close(concepts.vectors, unit(expected), rtol=0, atol=1e-10)
    torch.testing.assert_close(concepts.write_vectors, unit(prior.covariance.times(expected)), rtol=0, atol=1e-10)


def left_out_accuracy(fit, objects, subjects, noise):
    """Each fact left out of all means, which are worked out anew; facts alone with their object are skipped."""
    right = []
    for fact, name in enumerate(OBJECTS):
        rest = [other for other in range(len(OBJECTS)) if other != fact]
        names = [OBJECTS[other] for other in rest]
        if name in names:
            concepts = fit.concepts(objects[rest], names, subjects[rest], noise=noise)
            scores = dict(zip(concepts, concepts.scores(subjects[fact]).tolist(), strict=True))
            right.append(max(scores, key=scores.get) == name)
    return sum(right) / len(right), len(right)


@pytest.mark.parametrize("seed", range(4))
def test_the_noise_is_chosen_by_really_leaving_each_fact_out(lre, prior, rank, seed):
    centres = draw(4, D_SUBJECT, seed=10 + seed)
    rows = torch.tensor(["abcd".index(name) for name in OBJECTS])
    subjects = 5 + centres[rows] + draw(len(OBJECTS), D_SUBJECT, seed=20 + seed)
    objects = subjects @ lre.weight.T + 2 * draw(len(OBJECTS), D_OBJECT, seed=30 + seed)
    fit = DualFit.of(lre, prior, rank=rank)
    noises = (1e-3, 0.1, 1.0, 10.0, 1e3)
    choice = fit.choose_noise(objects, OBJECTS, subjects, noises=noises)
    expected = {noise: left_out_accuracy(fit, objects, subjects, noise) for noise in noises}
    assert choice.accuracies == {noise: accuracy for noise, (accuracy, _) in expected.items()}
    assert {n_facts for _, n_facts in expected.values()} == {choice.n_facts} == {12}
    assert choice.n_left_out == 1
    best = max(choice.accuracies.values())
    assert choice.noise == max(noise for noise, accuracy in choice.accuracies.items() if accuracy == best)
    # The same means with every fact in them read other facts right, or this would show nothing.
    inside = [fit.concepts(objects, OBJECTS, subjects, noise=noise).scores(subjects).argmax(1) for noise in noises]
    counted = [float((places[:12] == rows[:12]).double().mean()) for places in inside]
    assert counted != list(choice.accuracies.values())


def test_the_lead_is_what_facts_score_that_are_really_left_out(lre, prior, rank, objects, subjects):
    fit, noise = DualFit.of(lre, prior, rank=rank), 3.0
    leads = []
    for fact, name in enumerate(OBJECTS[:12]):  # the last is alone with its object
        rest = [other for other in range(len(OBJECTS)) if other != fact]
        concepts = fit.concepts(objects[rest], [OBJECTS[other] for other in rest], subjects[rest], noise=noise)
        scores = dict(zip(concepts, concepts.scores(subjects[fact]).tolist(), strict=True))
        own = scores.pop(name)
        leads.append(own - np.mean(list(scores.values())))
    rows = fit.dual.reading(targets_of(objects), noise=noise)
    spread = float((rows * (rows @ prior.covariance.dense())).sum(1).sqrt().mean())
    found = fit.left_out_lead(objects, OBJECTS, subjects, noise=noise)
    assert found == pytest.approx(np.mean(leads) / spread, rel=1e-9)


def test_a_lead_takes_no_unit_from_the_lre_and_grows_as_facts_are_plainer(lre, prior, subjects):
    rows = torch.tensor(["abcd".index(name) for name in OBJECTS])
    noisy = draw(len(OBJECTS), D_OBJECT, seed=3)
    leads = []
    for plainness in (0.0, 1.0, 4.0):
        given = subjects + plainness * draw(4, D_SUBJECT, seed=4)[rows]
        objects = given @ lre.weight.T + noisy
        leads.append(DualFit.of(lre, prior).left_out_lead(objects, OBJECTS, given, noise=1.0))
    assert leads == sorted(leads)
    larger = DualFit.of(replace(lre, weight=7 * lre.weight), prior)
    again = larger.left_out_lead(7 * objects, OBJECTS, given, noise=1.0)
    assert again == pytest.approx(leads[-1], rel=1e-9)


def test_where_every_fact_is_alone_there_is_no_lead(lre, prior, objects, subjects):
    assert DualFit.of(lre, prior).left_out_lead(objects[:4], list("abcd"), subjects[:4], noise=1.0) is None


def test_where_every_fact_is_alone_the_default_noise_is_taken_and_said(lre, prior, objects, subjects):
    choice = DualFit.of(lre, prior).choose_noise(objects[:4], list("abcd"), subjects[:4])
    assert (choice.noise, choice.n_facts, choice.n_left_out) == (DEFAULT_NOISE, 0, 4)
    assert choice.to_dict()["n_left_out"] == 4
    assert tuple(choice.accuracies) == NOISES


def test_a_set_says_what_made_it(lre, prior, objects, subjects):
    fit = DualFit.of(lre, prior, rank=4)
    concepts = fit.concepts(objects, OBJECTS, subjects, noise=3.0, settings={"seed": 5})
    expected = {"rank": 4, "noise": 3.0, "object_layer": 2, "centred_on": 13, "n_lre_prompts": 4, "seed": 5}
    assert expected.items() <= concepts.settings.items()
    assert concepts.settings["prior"] == {
        "kind": "subjects", "n_samples": 70, "n_sources": 70, "shrinkage": prior.shrinkage,
    }  # fmt: skip


def test_a_dual_set_comes_back_from_its_file_bit_for_bit(lre, prior, objects, subjects, tmp_path):
    narrow = replace(lre, weight=lre.weight.float(), bias=lre.bias.float())
    concepts = DualFit.of(narrow, prior).concepts(objects, OBJECTS, subjects, noise=1.0)
    assert concepts.vectors.dtype == concepts.write_vectors.dtype == torch.float32
    concepts.save(tmp_path / "c")
    loaded = lrc.ConceptSet.load(tmp_path / "c")
    assert torch.equal(loaded.scores(subjects), concepts.scores(subjects))
    assert torch.equal(loaded.write_vectors, concepts.write_vectors)
    assert loaded.settings == concepts.settings


def test_an_lre_and_statistics_of_one_model_make_directions_for_it(word_model):
    prompts = [
        lrc.Prompt(text=f"w{number} w2 w3", subject=f"w{number}", object=f"w{4 + number % 3}", relation="r")
        for number in range(10, 40)
    ]
    background = [
        lrc.Prompt(text=f"w1 w{number} w{last}", subject=f"w{number}", object="w9", relation="b")
        for number in range(10, 40)
        for last in (7, 8)
    ]
    statistics = SubjectStatistics.fit(word_model, layers=[0], background=background, progress=False)
    lre = lrc.LinearRelationalEmbedding.fit(word_model, prompts[:4], subject_layer=0, object_layer=2)
    acts = lrc.subject_activations(word_model, prompts, layer=0)
    objects = draw(len(prompts), 12, seed=0)
    concepts = DualFit.of(lre, statistics[0]).concepts(
        objects, [prompt.object for prompt in prompts], acts, noise=1.0
    )
    concepts.require_model(word_model)
    means = concepts.scores(acts).double().mean(0)
    assert (means.abs() <= 1e-5 * concepts.scores(acts).abs().max()).all()
    for direction in concepts.values():
        seen = unit(statistics[0].covariance.times(direction.vector))
        torch.testing.assert_close(direction.write_vector.double(), seen, rtol=0, atol=1e-4)


@pytest.fixture
def metric():
    root = draw(D_OBJECT, 4, seed=9)
    return root @ root.T


def test_a_metric_is_mixed_with_a_hundredth_of_the_identity_and_counts_in_reading(
    lre, prior, metric, objects, subjects
):
    fit = DualFit.of(lre, prior, metric=metric, metric_name="next_token")
    concepts = fit.concepts(objects, OBJECTS, subjects, noise=30.0)
    mixed = 0.99 * metric * D_OBJECT / metric.trace() + 0.01 * torch.eye(D_OBJECT).double()
    root = torch.linalg.cholesky(mixed)
    within = replace(lre, weight=root.T @ lre.weight)
    expected = DualFit.of(within, prior).concepts(objects @ root, OBJECTS, subjects, noise=30.0)
    for name, direction in expected.items():
        torch.testing.assert_close(concepts[name].vector, direction.vector, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(concepts[name].write_vector, direction.write_vector, rtol=1e-8, atol=1e-10)
        assert concepts[name].scale == pytest.approx(direction.scale)
        assert concepts[name].offset == pytest.approx(direction.offset)
    assert concepts.settings["metric"] == "next_token"
    assert "metric" not in expected.settings
    leads = [
        of.left_out_lead(acts, OBJECTS, subjects, noise=30.0)
        for of, acts in ((fit, objects), (DualFit.of(within, prior), objects @ root))
    ]
    assert leads[0] == pytest.approx(leads[1])


def test_with_a_noise_of_its_own_it_writes_in_the_metric_too(lre, prior, metric, objects, subjects):
    fit = DualFit.of(lre, prior, metric=metric)
    both = fit.concepts(objects, OBJECTS, subjects, noise=30.0, write_noise=1.0)
    reads, writes = (fit.concepts(objects, OBJECTS, subjects, noise=noise) for noise in (30.0, 1.0))
    assert torch.equal(both.vectors, reads.vectors)
    assert torch.equal(both.write_vectors, writes.write_vectors)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.eye(3).double(), r"the metric has shape \(3, 3\); the LRE's objects have width 10"),
        (torch.zeros(D_OBJECT, D_OBJECT).double(), "mean eigenvalue is 0.0; it must be above 0"),
        (torch.full((D_OBJECT, D_OBJECT), float("nan")).double(), "mean eigenvalue is nan"),
        (torch.diag(torch.tensor([5.0] * 9 + [-1])).double(), "not positive definite"),
    ],
    ids=["width", "zero", "nan", "below zero"],
)
def test_a_metric_that_is_none_is_refused(lre, prior, wrong, message):
    with pytest.raises(ValueError, match=message):
        DualFit.of(lre, prior, metric=wrong)


def test_statistics_of_another_layer_model_or_width_are_refused(lre, prior):
    with pytest.raises(ValueError, match=r"statistics are of layer 2, and the LRE's subject layer is 1; fit them"):
        DualFit.of(lre, statistics_of(prior.samples, layer=2))
    other = statistics_of(prior.samples, fingerprint=replace(FINGERPRINT, name="other"))
    with pytest.raises(FingerprintMismatch, match="the statistics were made on other, and the LRE on m"):
        DualFit.of(lre, other)
    with pytest.raises(ValueError, match="takes subjects of width 12, and the covariance has width 9"):
        DualFit.of(lre, statistics_of(prior.samples[:, :9]))


def test_a_weight_of_zero_and_a_rank_that_it_has_not_are_refused(lre, prior):
    with pytest.raises(ValueError, match="the weight is zero: at these layers"):
        DualFit.of(replace(lre, weight=torch.zeros_like(lre.weight)), prior)
    with pytest.raises(ValueError, match=r"rank .*11"):
        DualFit.of(lre, prior, rank=11)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_a_noise_that_is_not_above_zero_is_refused(lre, prior, objects, subjects, noise):
    fit = DualFit.of(lre, prior)
    for use in (
        lambda: fit.concepts(objects, OBJECTS, subjects, noise=noise),
        lambda: fit.choose_noise(objects, OBJECTS, subjects, noises=[1.0, noise]),
    ):
        with pytest.raises(ValueError, match=f"noise is {noise}; it must be above 0"):
            use()


def test_one_object_and_objects_that_nothing_sets_apart_are_refused(lre, prior, objects, subjects):
    fit = DualFit.of(lre, prior)
    with pytest.raises(ValueError, match=r"needs two or more objects.* given is 'a' alone"):
        fit.concepts(objects[:3], ["a"] * 3, subjects, noise=1.0)
    equal = torch.cat([objects, objects[:5].mean(0, keepdim=True)])
    with pytest.raises(ValueError, match=r"activations of 'a' and 'e' are equal .* take another object layer"):
        fit.concepts(equal, [*OBJECTS, "e"], subjects, noise=1.0)


def test_rows_that_do_not_fit_are_refused(lre, prior, objects, subjects):
    fit = DualFit.of(lre, prior)
    for given, message in (
        ((objects[:, :7], OBJECTS, subjects), r"object activations of shape \(13, 7\) .* rows of width 10"),
        ((objects, OBJECTS, subjects[:, :7]), r"subject activations of shape \(13, 7\) .* rows of width 12"),
        ((objects, OBJECTS, subjects[:0]), r"subject activations of shape \(0, 12\)"),
        ((objects, OBJECTS[:5], subjects), "5 objects for 13 activations; give one each"),
    ):
        with pytest.raises(ValueError, match=message):
            fit.concepts(*given, noise=1.0)
    with pytest.raises(ValueError, match="12 subjects for 13 objects; give one for each"):
        fit.choose_noise(objects, OBJECTS, subjects[:12])
    with pytest.raises(ValueError, match="no noises to choose from"):
        fit.choose_noise(objects, OBJECTS, subjects, noises=[])
