"""The dual of class means, and duals joined with it: against plain NumPy, and as laws."""

import numpy as np
import pytest
import torch
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.lre.dual_means import MeansShare, joined_with_means, mean_dual, weights_by_lead
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
def test_class_means_are_read_through_the_inverse_covariance(prior, subjects, shrinkage):
    expected = np.linalg.solve(shrunk_covariance(prior, shrinkage), plain_means(subjects).T).T
    found = mean_dual(subjects, OBJECTS, prior, shrinkage=shrinkage)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_joined_scores_are_those_of_each_set_in_units_of_their_spread_among_the_prior_s_subjects(prior, subjects):
    duals, share = [a_dual(prior, 2), a_dual(prior, 3)], MeansShare(reading=0.4, writing=0.7, shrinkage=0.5)
    few_shot = subjects + 0.3 * draw(len(OBJECTS), WIDTH, seed=9)
    joined = joined_with_means(duals, subjects, OBJECTS, prior, write_acts=few_shot, share=share, method="both")
    sigma = prior.covariance.dense().numpy()

    def in_spreads(rows):
        rows = rows - rows.mean(0)
        return rows / np.sqrt(np.einsum("oi,ij,oj->o", rows, sigma, rows)).mean()

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    means = np.linalg.solve(shrunk_covariance(prior, 0.5), plain_means(subjects).T).T
    duals_alone = in_spreads(sum(in_spreads(reading_rows(dual)) for dual in duals))
    read = duals_alone + 0.4 * in_spreads(means)
    read = read / np.sqrt(np.einsum("oi,ij,oj->o", read, sigma, read))[:, None]
    np.testing.assert_allclose(reading_rows(joined), read, rtol=1e-7)
    written = [unit(dual.write_vectors.numpy()) for dual in duals]
    written = unit(sum(rows - rows.mean(0) for rows in written)) + 0.7 * unit(plain_means(few_shot))
    aligned = (unit(read) * unit(written)).sum(1) >= 0.01
    expected = np.where(aligned[:, None], written, read @ sigma)
    np.testing.assert_allclose(joined.write_vectors.numpy(), unit(expected), rtol=1e-7)
    assert joined.settings["written_by_dual"] == [n for n, good in zip("abc", aligned, strict=True) if not good]
    np.testing.assert_allclose(joined.scores(subjects).mean(0).numpy(), 0, atol=1e-8)
    spread = np.sqrt(np.diag(reading_rows(joined) @ sigma @ reading_rows(joined).T))
    np.testing.assert_allclose(spread, 1)  # among the prior's subjects, with its shrinkage
    assert {direction.method for direction in joined.values()} == {"both"}


def test_sets_count_in_reading_by_their_weights_and_alike_in_writing(prior, subjects):
    duals = [a_dual(prior, 2), a_dual(prior, 3)]

    def joined(sets, **options):
        share = MeansShare(reading=0.4, writing=0.7)
        return joined_with_means(sets, subjects, OBJECTS, prior, share=share, method="m", **options)

    first = joined(duals[:1])
    np.testing.assert_allclose(reading_rows(joined(duals, weights=[2, 0])), reading_rows(first), rtol=1e-9)
    alike, equal = joined(duals), joined(duals, weights=[3, 3])
    np.testing.assert_allclose(reading_rows(alike), reading_rows(equal), rtol=1e-9)
    assert alike.settings["weights"] == equal.settings["weights"] == [0.5, 0.5]
    other = joined(duals, weights=[3, 1])
    assert other.settings["weights"] == [0.75, 0.25]
    assert np.abs(reading_rows(other) - reading_rows(alike)).max() > 0.01
    assert other.settings["written_by_dual"] == alike.settings["written_by_dual"] == []
    torch.testing.assert_close(other.write_vectors, alike.write_vectors)


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, float("nan")], [1, float("inf")]])
def test_weights_that_say_nothing_are_refused(prior, subjects, weights):
    with pytest.raises(ValueError, match=r"weights (are|is)|all weights are 0"):
        joined_with_means(
            [a_dual(prior, 2), a_dual(prior, 3)], subjects, OBJECTS, prior, share=MeansShare(), method="m",
            weights=weights,
        )  # fmt: skip


def test_weighing_by_leads_tells_two_objects_apart_as_well_as_their_discriminant(prior):
    """Of independent measurements with equal noise, Fisher's weights are in proportion to what each measures."""
    leads = (0.4, 1.6)
    weights = weights_by_lead(leads)
    assert weights == (0.2, 0.8)

    def telling(share):
        return ((1 - share) * leads[0] + share * leads[1]) / np.hypot(1 - share, share)

    shares = np.linspace(0, 1, 1001)
    assert shares[np.argmax([telling(share) for share in shares])] == pytest.approx(weights[1], abs=1e-3)


@pytest.mark.parametrize(
    ("leads", "expected"),
    [
        ((1.0, -2.0), (1, 0)),
        ((None, 3.0), (0.5, 0.5)),
        ((-1.0, 0.0), (0.5, 0.5)),
        ((2.0,), (1,)),
    ],
)
def test_what_leads_nothing_does_not_count_and_where_nothing_is_known_all_count_alike(leads, expected):
    assert weights_by_lead(leads) == expected


def test_an_object_whose_vectors_would_not_go_together_is_written_with_the_dual_of_its_reading_vector(
    prior, subjects
):
    joined = joined_with_means(
        [a_dual(prior, 2)], subjects, OBJECTS, prior, write_acts=-100 * subjects,
        share=MeansShare(reading=1.0, writing=50.0), method="m",
    )  # fmt: skip
    names = joined.settings["written_by_dual"]
    assert names
    for name in names:
        dual = prior.covariance.times(joined[name].vector)
        torch.testing.assert_close(joined[name].write_vector, dual / dual.norm())


def test_with_a_share_of_nothing_class_means_do_not_count(prior, subjects):
    nothing = MeansShare(reading=0.0, writing=0.0)
    joined = joined_with_means([a_dual(prior, 2)], subjects, OBJECTS, prior, share=nothing, method="m")
    alone = lrc.combine_concepts([a_dual(prior, 2)])
    torch.testing.assert_close(joined.vectors, alone.vectors)
    aligned = [name for name in "abc" if name not in joined.settings["written_by_dual"]]
    for name in aligned:
        torch.testing.assert_close(joined[name].write_vector, alone[name].write_vector)


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duals": []}, "no sets to join"),
        ({"objects": OBJECTS[:-1]}, "7 subjects to read, 7 to write and 6 objects"),
        ({"objects": ["a"] * 7}, r"the objects \['a', 'b', 'c'\], and the subjects \['a'\]"),
    ],
)
def test_what_does_not_belong_together_is_refused(prior, subjects, change, message):
    given = {"duals": [a_dual(prior, 2)], "subject_acts": subjects, "objects": OBJECTS, "prior": prior, **change}
    with pytest.raises(ValueError, match=message):
        joined_with_means(**given, share=MeansShare(), method="m")
