"""Sets that are combined: what they agree on stays, what their objects share goes."""

from dataclasses import replace

import pytest
import torch

import lrc_tl as lrc

HOOK = "blocks.1.hook_resid_post"


def a_set(vectors, names="abc", hook=HOOK, **more):
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                vector, relation="r", object_name=name, hook_name=hook, **more
            )
            for name, vector in zip(names, vectors, strict=True)
        }
    )


@pytest.fixture
def vectors():
    return torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_each_direction_is_the_mean_of_its_own_without_what_a_set_shares(vectors):
    one, other = map(a_set, vectors)
    found = lrc.combine_concepts([one, other])
    units = vectors / vectors.norm(dim=-1, keepdim=True)
    expected = (units - units.mean(1, keepdim=True)).mean(0)
    torch.testing.assert_close(found.vectors, expected / expected.norm(dim=-1, keepdim=True))
    assert found["a"].norm == pytest.approx(float(expected[0].norm()))
    assert {direction.method for direction in found.values()} == {"lrc-combined"}


def test_the_order_of_objects_and_of_sets_does_not_matter(vectors):
    one = a_set(vectors[0])
    other = a_set(vectors[1].flip(0), names="cba")
    found, turned = lrc.combine_concepts([one, other]), lrc.combine_concepts([other, one])
    assert (list(found), list(turned)) == (["a", "b", "c"], ["c", "b", "a"])
    for name in found:
        torch.testing.assert_close(found[name].vector, turned[name].vector)


def test_one_set_alone_ranks_centred_activations_as_its_centred_unit_directions(vectors):
    one = a_set(vectors[0])
    found = lrc.combine_concepts([one])
    less = one.vectors - one.vectors.mean(0)
    acts = torch.randn(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(found.scores(acts), acts @ (less / less.norm(dim=-1, keepdim=True)).T)


def test_what_all_sets_share_does_not_matter(vectors):
    shared = torch.full((12,), 0.01, dtype=torch.float64)
    unscaled = [a_set(own) for own in vectors]
    moved = [
        lrc.ConceptSet(
            {
                name: replace(one, vector=unit(one.vector + shared), write_vector=None, write_rule=None)
                for name, one in own.items()
            }
        )
        for own in unscaled
    ]
    found, other = lrc.combine_concepts(unscaled), lrc.combine_concepts(moved)
    assert float((found.vectors * other.vectors).sum(-1).min()) > 0.999
    plain = torch.stack([own.vectors for own in unscaled]).mean(0) + 20 * shared
    assert float((unit(plain) * found.vectors).sum(-1).max()) < 0.999


def test_combining_centred_sets_is_centring_the_combined_one(vectors):
    sets = [a_set(own) for own in vectors]
    generator = torch.Generator().manual_seed(5)
    acts = 7 + torch.randn(9, 12, generator=generator, dtype=torch.float64)
    found = lrc.combine_concepts([one.centred(acts) for one in sets])
    expected = lrc.combine_concepts(sets).centred(acts)
    torch.testing.assert_close(found.scores(acts), expected.scores(acts))
    assert any(abs(one.offset) > 0.1 for one in found.values())


def test_what_is_left_of_cancelled_directions_is_no_direction(vectors):
    one = a_set(vectors[0].float())
    nearly = a_set(-vectors[0].float() + 1e-8)
    with pytest.raises(ValueError, match="the directions of 'a' cancel"):
        lrc.combine_concepts([one, nearly])
    with pytest.raises(ValueError, match="the directions of 'a' cancel, or are all that its sets' objects share"):
        lrc.combine_concepts([a_set(vectors[0].float()[:1].expand(3, -1))])


def test_sets_of_one_model_combine_though_their_fingerprints_differ_in_rounding(vectors, word_model):
    fingerprint = lrc.models.ModelFingerprint.of(word_model)
    moved = replace(
        fingerprint,
        behaviour={layer: tuple(x * (1 + 1e-9) for x in own) for layer, own in fingerprint.behaviour.items()},
    )
    one, other = a_set(vectors[0], fingerprint=fingerprint), a_set(vectors[1], fingerprint=moved)
    assert lrc.combine_concepts([one, other]).fingerprint == fingerprint
    assert lrc.combine_concepts([a_set(vectors[1]), one]).fingerprint == fingerprint
    wrong = replace(fingerprint, d_model=13)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="the first set was made"):
        lrc.combine_concepts([one, a_set(vectors[1], fingerprint=wrong)])


def unit(vector):
    return vector / vector.norm(dim=-1, keepdim=True)


def test_what_does_not_belong_together_is_refused(vectors):
    one = a_set(vectors[0])
    with pytest.raises(ValueError, match="no sets to combine"):
        lrc.combine_concepts([])
    with pytest.raises(ValueError, match=r"different objects: \['c', 'd'\]"):
        lrc.combine_concepts([one, a_set(vectors[1], names="abd")])
    with pytest.raises(ValueError, match=r"blocks.1.hook_resid_post and blocks.2.hook_resid_post"):
        lrc.combine_concepts([one, a_set(vectors[1], hook="blocks.2.hook_resid_post")])
    with pytest.raises(ValueError, match="two or more"):
        lrc.combine_concepts([a_set(vectors[0][:1], names="a")])
    with pytest.raises(ValueError, match="the directions of 'a' cancel"):
        lrc.combine_concepts([one, a_set(-vectors[0])])
    with pytest.raises(ValueError, match="the sets have widths 12 and 5; combine those of one model"):
        lrc.combine_concepts([one, a_set(vectors[1, :, :5])])


def pairs(vectors, names="abc", seed=3):
    """Directions of several lengths that write with other vectors than they read with."""
    generator = torch.Generator().manual_seed(seed)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                (2 + place) * vector,
                write_vector=unit(vector) + 0.2 * torch.randn(12, generator=generator, dtype=torch.float64),
                offset=0.3 * place,
                relation="r",
                object_name=name,
                hook_name=HOOK,
            )
            for place, (name, vector) in enumerate(zip(names, vectors, strict=True))
        }
    )


def test_one_set_of_pairs_alone_keeps_its_scores_less_their_mean_in_units_of_its_mean_length(vectors):
    one = pairs(vectors[0])
    combined = lrc.combine_concepts([one])
    acts = torch.randn(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores, length = one.scores(acts), sum(direction.norm for direction in one.values()) / 3
    torch.testing.assert_close(combined.scores(acts), (scores - scores.mean(-1, keepdim=True)) / length)
    written = one.write_vectors - one.write_vectors.mean(0)
    torch.testing.assert_close(combined.write_vectors, unit(written))
    assert {direction.write_rule for direction in combined.values()} == {"given"}


def test_pairs_combine_to_the_mean_of_their_scores_and_of_their_writing_vectors(vectors):
    sets = [pairs(vectors[0]), pairs(vectors[1].flip(0), names="cba", seed=4)]
    combined = lrc.combine_concepts(sets)
    acts = torch.randn(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = [lrc.combine_concepts([each]) for each in sets]
    by_name = [torch.stack([each[name].score(acts) for name in "abc"], dim=-1) for each in alone]
    torch.testing.assert_close(combined.scores(acts), torch.stack(by_name).mean(0))
    written = torch.stack([torch.stack([each[name].write_vector for name in "abc"]) for each in sets])
    expected = unit((written - written.mean(1, keepdim=True)).mean(0))
    torch.testing.assert_close(combined.write_vectors, expected)


def test_combining_centred_pairs_is_centring_the_combined_ones(vectors):
    acts = 7 + torch.randn(9, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sets = [pairs(vectors[0]), pairs(vectors[1], seed=4)]
    combined = lrc.combine_concepts([each.centred(acts) for each in sets])
    torch.testing.assert_close(combined.scores(acts), lrc.combine_concepts(sets).centred(acts).scores(acts))


def test_sets_of_which_only_some_write_with_other_vectors_are_refused_with_the_counts(vectors):
    mixed = lrc.ConceptSet({**pairs(vectors[0]), "a": a_set(vectors[0])["a"]})
    for sets, counts in (
        ([pairs(vectors[0]), a_set(vectors[1])], "3 of 3, 0 of 3"),
        ([mixed], "2 of 3"),
    ):
        with pytest.raises(ValueError, match=f"in these sets {counts} directions write with another vector"):
            lrc.combine_concepts(sets)


def test_combined_vectors_that_no_longer_go_together_are_refused_with_their_cosine(vectors):
    one, other = pairs(vectors[0]), pairs(vectors[1], seed=4)

    def against(concepts, others):
        """The set, writing against what the other set reads, as far as its own score does not see it."""
        turned = {}
        for name, direction in concepts.items():
            read, unseen = direction.vector, others[name].vector
            unseen = unseen - (unseen @ read) * read
            turned[name] = replace(direction, write_vector=unit(0.1 * read - unseen))
        return lrc.ConceptSet(turned)

    with pytest.raises(ValueError, match=r"the reading and the writing vector of 'a' have the cosine -0\.\d+"):
        lrc.combine_concepts([against(one, other), against(other, one)])
