"""The dual of class means, and duals joined with it: against plain NumPy, and as laws."""

import numpy as np
import pytest
import torch
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.lre.dual_means import MeansShare, joined_with_means, mean_dual
from lrc_tl.lre.subject_statistics import LayerStatistics

WIDTH, HOOK = 6, "blocks.1.hook_resid_post"
OBJECTS = ["a", "b", "a", "c", "b", "c", "a"]


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def prior():
    samples = 3 + draw(80, WIDTH, seed=0) * torch.linspace(0.3, 2.0, WIDTH).double()
    return LayerStatistics(
        layer=1,
        samples=samples,
        kind="subjects",
        sources=tuple(f"s{number}" for number in range(80)),
        source_of=torch.arange(80),
        fingerprint=FINGERPRINT,
    )


@pytest.fixture
def subjects():
    return 3 + draw(len(OBJECTS), WIDTH, seed=1)


def a_dual(prior, seed):
    """Reading vectors of different lengths, each with its dual."""
    reading = draw(3, WIDTH, seed=seed) * torch.tensor([[1.0], [2.0], [4.0]]).double()
    writing = prior.covariance.times(reading)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                reading[row],
                write_vector=writing[row],
                relation="r",
                object_name=name,
                hook_name=HOOK,
                fingerprint=FINGERPRINT,
            )
            for row, name in enumerate("abc")
        }
    )


def means_of(subjects, prior, shrinkage):
    return mean_dual(
        subjects, OBJECTS, prior, shrinkage=shrinkage, hook_name=HOOK, relation="r", fingerprint=FINGERPRINT
    )


def reading_rows(concepts):
    lengths = np.array([direction.scale for direction in concepts.values()])
    return concepts.vectors.numpy() * lengths[:, None]


def plain_means(subjects):
    acts = subjects.numpy()
    means = np.stack([acts[[name == each for each in OBJECTS]].mean(0) for name in "abc"])
    return means - means.mean(0)


def shrunk_covariance(prior, share):
    samples = prior.samples.numpy()
    covariance = np.cov(samples.T, bias=True)
    return (1 - share) * covariance + share * np.trace(covariance) / WIDTH * np.eye(WIDTH)


@pytest.mark.parametrize("shrinkage", [0.1, 0.6, 1.0])
def test_class_means_are_read_through_the_inverse_covariance_and_written_as_they_are(prior, subjects, shrinkage):
    concepts = means_of(subjects, prior, shrinkage)
    difference = plain_means(subjects)
    expected = np.linalg.solve(shrunk_covariance(prior, shrinkage), difference.T).T
    np.testing.assert_allclose(reading_rows(concepts), expected, rtol=1e-8)
    written = difference / np.linalg.norm(difference, axis=1, keepdims=True)
    np.testing.assert_allclose(concepts.write_vectors.numpy(), written, rtol=1e-8)
    np.testing.assert_allclose(concepts.scores(subjects).mean(0).numpy(), 0, atol=1e-8)


def test_means_of_the_same_facts_in_another_prompt_may_be_written(prior, subjects):
    elsewhere = subjects + 0.3 * draw(len(OBJECTS), WIDTH, seed=9)
    both = mean_dual(
        subjects, OBJECTS, prior, shrinkage=0.5, write_acts=elsewhere, hook_name=HOOK, relation="r",
        fingerprint=FINGERPRINT,
    )  # fmt: skip
    torch.testing.assert_close(both.vectors, means_of(subjects, prior, 0.5).vectors)
    written = plain_means(elsewhere)
    expected = written / np.linalg.norm(written, axis=1, keepdims=True)
    np.testing.assert_allclose(both.write_vectors.numpy(), expected, rtol=1e-8)


def test_joined_scores_are_those_of_each_set_over_their_spread_among_the_prior_s_subjects(prior, subjects):
    duals, share = [a_dual(prior, 2), a_dual(prior, 3)], MeansShare(reading=0.4, writing=0.7, shrinkage=0.5)
    joined = joined_with_means(duals, subjects, OBJECTS, prior, share=share, method="both")
    sigma = prior.covariance.dense().numpy()

    def in_spreads(rows):
        rows = rows - rows.mean(0)
        return rows / np.sqrt(np.einsum("oi,ij,oj->o", rows, sigma, rows)).mean()

    means = means_of(subjects, prior, 0.5)
    read = in_spreads(sum(in_spreads(reading_rows(dual)) for dual in duals)) + 0.4 * in_spreads(
        reading_rows(means)
    )
    made = reading_rows(joined)
    np.testing.assert_allclose(made / np.linalg.norm(made), read / np.linalg.norm(read), rtol=1e-7)

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def centred(rows):
        return unit(rows) - unit(rows).mean(0)

    written = sum(centred(dual.write_vectors.numpy()) for dual in duals)
    written = centred(written) + 0.7 * centred(means.write_vectors.numpy())
    np.testing.assert_allclose(joined.write_vectors.numpy(), unit(written), rtol=1e-7)
    assert {direction.method for direction in joined.values()} == {"both"}


def test_with_a_share_of_nothing_class_means_do_not_count(prior, subjects):
    nothing = MeansShare(reading=0.0, writing=0.0)
    joined = joined_with_means([a_dual(prior, 2)], subjects, OBJECTS, prior, share=nothing, method="m")
    alone = lrc.combine_concepts([a_dual(prior, 2)])
    torch.testing.assert_close(joined.vectors, alone.vectors)
    torch.testing.assert_close(joined.write_vectors, alone.write_vectors)


def test_lengths_of_a_set_do_not_matter_to_what_it_counts(prior, subjects):
    dual = a_dual(prior, 2)
    longer = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                direction.vector * direction.scale * 50,
                write_vector=direction.write_vector,
                relation="r",
                object_name=name,
                hook_name=HOOK,
                fingerprint=FINGERPRINT,
            )
            for name, direction in dual.items()
        }
    )
    options = {"share": MeansShare(), "method": "m"}
    one, other = (joined_with_means([s], subjects, OBJECTS, prior, **options) for s in (dual, longer))
    torch.testing.assert_close(one.vectors, other.vectors)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reading": -0.1}, "reading is -0.1"),
        ({"shrinkage": 0.0}, "shrinkage is 0"),
        ({"writing": float("inf")}, "writing is inf"),
    ],
)
def test_shares_that_are_none_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MeansShare(**given)


def test_one_object_has_no_other_to_differ_from(prior, subjects):
    with pytest.raises(ValueError, match="two or more objects; given is 'a' alone"):
        mean_dual(
            subjects[:2], ["a", "a"], prior, shrinkage=0.5, hook_name=HOOK, relation="r", fingerprint=FINGERPRINT
        )
