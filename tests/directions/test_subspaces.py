"""Laws of projections and principal angles."""

import math
from dataclasses import replace

import pytest
import torch

import lrc_tl as lrc

HOOK = "blocks.1.hook_resid_post"


def vectors(count, seed=0, width=12):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def concepts(rows, hook=HOOK, fingerprint=None):
    return lrc.ConceptSet(
        {
            f"c{number}": lrc.ConceptDirection.from_unscaled(
                row, relation="r", object_name=f"c{number}", hook_name=hook, fingerprint=fingerprint
            )
            for number, row in enumerate(rows)
        }
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_basis_is_orthonormal_and_spans_the_vectors(dtype):
    rows = vectors(4).to(dtype)
    basis = lrc.directions.orthonormal_basis(rows)
    assert basis.dtype == dtype
    torch.testing.assert_close(basis @ basis.T, torch.eye(4, dtype=dtype))
    torch.testing.assert_close(rows @ basis.T @ basis, rows)


def test_vectors_that_repeat_each_other_count_once():
    rows = vectors(3)
    repeated = torch.cat([rows, rows[:1] - 2 * rows[2:], 5 * rows[1:2]])
    assert lrc.directions.orthonormal_basis(repeated).shape == (3, 12)
    space = concepts(repeated).subspace()
    assert (space.rank, space.hook_name) == (3, HOOK)
    assert (space.singular_values[:-1] >= space.singular_values[1:]).all()
    assert lrc.directions.orthonormal_basis(vectors(20)).shape == (12, 12)


@pytest.mark.parametrize("scale", [1.0, 9e4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_a_projection_is_idempotent_and_splits_an_activation_in_two_orthogonal_parts(dtype, tolerance, scale):
    members = concepts(vectors(4).float())  # stored in float32, whatever the activations are
    space = members.subspace()
    acts = (scale * vectors(6, seed=1)).to(dtype).reshape(2, 3, 12)
    within = tolerance * acts.norm(dim=-1).clamp_min(1)
    inside, outside = space.project(acts), space.remove(acts)
    assert inside.dtype == acts.dtype
    assert ((inside + outside - acts).norm(dim=-1) <= within).all()
    assert ((space.project(inside) - inside).norm(dim=-1) <= within).all()
    assert (space.project(outside).norm(dim=-1) <= within).all()
    cosine = (inside * outside).sum(-1) / (inside.norm(dim=-1) * outside.norm(dim=-1))
    assert (cosine.abs() <= 10 * tolerance).all()
    assert (members.scores(outside).abs() <= 1e-5 * acts.norm(dim=-1, keepdim=True).clamp_min(1)).all()
    torch.testing.assert_close(members.scores(inside), members.scores(acts), rtol=1e-4, atol=float(within.max()))


def test_removing_one_direction_is_ablating_it():
    from lrc_tl.steering.operations import Clamp

    row = vectors(1)
    acts = vectors(5, seed=2)
    space = concepts(row).subspace()
    ablation = Clamp(vector=row[0] / row[0].norm(), value=0.0)
    torch.testing.assert_close(space.remove(acts), acts + ablation.shift(acts))


def test_angles_are_those_that_the_planes_were_built_with():
    q = torch.linalg.qr(vectors(12)).Q
    for small in (1e-9, 1e-3, 0.4, math.pi / 2):
        one = torch.stack([q[0], q[1]])
        turned = torch.stack([math.cos(small) * q[0] + math.sin(small) * q[2], q[1]])
        angles = lrc.directions.principal_angles(concepts(one), concepts(turned))
        assert angles.tolist() == pytest.approx([0.0, small], rel=1e-6, abs=1e-15)
    assert lrc.directions.principal_angles(concepts(q[:2]), concepts(q[2:7])).tolist() == pytest.approx(
        [math.pi / 2] * 2
    )


def test_angles_do_not_depend_on_the_basis_nor_the_order():
    rows, other = vectors(3), vectors(5, seed=1)
    angles = lrc.directions.principal_angles(concepts(rows), concepts(other))
    assert angles.shape == (3,)
    assert (angles[1:] >= angles[:-1]).all()
    mixed = vectors(3, seed=4)[:, :3] @ rows
    torch.testing.assert_close(lrc.directions.principal_angles(concepts(mixed), concepts(other)), angles)
    torch.testing.assert_close(lrc.directions.principal_angles(concepts(other).subspace(), concepts(rows)), angles)
    cosines = torch.linalg.svdvals(
        lrc.directions.orthonormal_basis(rows) @ lrc.directions.orthonormal_basis(other).T
    )
    torch.testing.assert_close(angles.cos(), cosines)


def test_what_cannot_be_compared_is_refused(word_model):
    here = concepts(vectors(2))
    with pytest.raises(ValueError, match=r"one set stands at blocks\.1.*, the other at blocks\.2"):
        lrc.directions.principal_angles(here, concepts(vectors(2), hook="blocks.2.hook_resid_post"))
    with pytest.raises(ValueError, match="one set has width 12, the other 8"):
        lrc.directions.principal_angles(here, concepts(vectors(2, width=8)))
    made = lrc.models.ModelFingerprint.of(word_model)
    other = replace(made, name="another")
    with pytest.raises(lrc.errors.FingerprintMismatch, match="the first set was made on another model: name"):
        lrc.directions.principal_angles(
            concepts(vectors(2), fingerprint=made), concepts(vectors(2), fingerprint=other)
        )
    space = here.subspace()
    for act in (space.project, space.remove):
        with pytest.raises(ValueError, match="the activations have width 8, the subspace 12"):
            act(torch.zeros(3, 8))
    with pytest.raises(ValueError, match="the 2 rows of the basis are not orthonormal"):
        lrc.directions.Subspace(basis=torch.ones(2, 4), hook_name=HOOK)
    with pytest.raises(ValueError, match="all vectors are zero"):
        lrc.directions.orthonormal_basis(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="there are no vectors"):
        lrc.directions.orthonormal_basis(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="the vectors are not finite"):
        lrc.directions.orthonormal_basis(torch.full((2, 4), float("inf")))
