"""Laws of the operations, in float32 and float64."""

from dataclasses import fields

import numpy as np
import pytest
import torch

import lrc_tl as lrc
from lrc_tl.steering import operations
from lrc_tl.steering.along_vector import Dual
from lrc_tl.steering.operations import Add, Clamp, Erase, FromClean, Reflect, Swap

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=[1.0, 9e4], ids=["short", "as long as Gemma's"])
def h(request, dtype):
    return request.param * torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0)).to(dtype)


def unit(seed):
    """A direction as it is stored: float32."""
    vector = torch.randn(24, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def tilted():
    """A unit vector between two directions, to write along."""
    return exact(unit(1) + unit(2), unit(1))


def edit(operation, h, **options):
    """The residual as a `Steering` with the operation gives it back."""
    steering = lrc.Steering(operation=operation, hook_name="blocks.1.hook_resid_post", **options)
    return steering.everywhere(h, hook=None)


def exact(vector, h):
    wide = vector.to(h)
    return wide / wide.norm()


def within(h):
    return TOLERANCE[h.dtype] * h.norm(dim=-1).clamp_min(1)


def score(h, seed=1):
    return h @ exact(unit(seed), h)


@pytest.mark.parametrize("strength", [-3.0, 0.0, 2.5])
def test_adding_moves_the_score_by_the_strength_and_nothing_else(h, strength):
    edited = edit(Add(vector=unit(1), strength=strength, unit="absolute"), h)
    assert ((score(edited) - score(h) - strength).abs() <= within(h)).all()
    rest = h - score(h)[..., None] * exact(unit(1), h)
    rest_after = edited - score(edited)[..., None] * exact(unit(1), h)
    assert ((rest - rest_after).norm(dim=-1) <= 2 * within(h)).all()


def test_adding_a_share_moves_the_score_by_that_share_of_the_length(h):
    edited = edit(Add(vector=unit(1), strength=0.25), h)
    assert ((score(edited) - score(h) - 0.25 * h.norm(dim=-1)).abs() <= within(h)).all()


@pytest.mark.parametrize("value", [-40.0, 0.0, 7.0])
def test_clamping_sets_the_score_and_twice_is_once(h, value):
    edited = edit(Clamp(vector=unit(1), value=value), h)
    assert ((score(edited) - value).abs() <= within(h)).all()
    again = edit(Clamp(vector=unit(1), value=value), edited)
    assert ((again - edited).norm(dim=-1) <= within(h)).all()


def test_ablation_leaves_no_score_and_never_lengthens(h):
    edited = edit(Clamp(vector=unit(1), value=0.0), h)
    assert (score(edited).abs() <= within(h)).all()
    assert (edited.norm(dim=-1) <= h.norm(dim=-1) + within(h)).all()
    other = exact(unit(2), h) - (exact(unit(2), h) @ exact(unit(1), h)) * exact(unit(1), h)
    assert ((edited @ other - h @ other).abs() <= within(h)).all()


def test_reflection_turns_the_score_keeps_the_length_and_undoes_itself(h):
    edited = edit(Reflect(vector=unit(1)), h)
    assert ((score(edited) + score(h)).abs() <= within(h)).all()
    assert ((edited.norm(dim=-1) - h.norm(dim=-1)).abs() <= within(h)).all()
    assert ((edit(Reflect(vector=unit(1)), edited) - h).norm(dim=-1) <= 2 * within(h)).all()


@pytest.mark.parametrize("amount", [0.5, torch.tensor([0.5, -2.0])], ids=["one", "by row"])
def test_a_shift_along_one_vector_has_the_shape_of_the_residuals_and_no_other_direction(h, amount):
    for operation in (
        Add(vector=unit(1), strength=amount),
        Add(vector=unit(1), strength=amount, unit="absolute"),
        Clamp(vector=unit(1), value=amount),
        Reflect(vector=unit(1)),
    ):
        shift = operation.shift(h)
        assert (shift.shape, shift.dtype) == (h.shape, h.dtype)
        beside = shift - score(shift)[..., None] * exact(unit(1), h)
        assert (beside.norm(dim=-1) < TOLERANCE[h.dtype] * shift.norm(dim=-1)).all()


def test_a_reflection_goes_exactly_twice_as_far_as_ablation(h):
    assert torch.equal(Reflect(vector=unit(1)).shift(h), 2 * Clamp(vector=unit(1), value=0.0).shift(h))


@pytest.mark.parametrize("kind", ["plain", "oblique"])
def test_measured_in_the_clean_run_itself_operations_are_the_plain_ones(h, kind):
    dual = None if kind == "plain" else Dual(write=tilted(), scale=0.2, offset=1.5)
    plain = {
        "reflect": Reflect(vector=unit(1), dual=dual),
        "ablate": Clamp(vector=unit(1), value=0.0, dual=dual),
    }
    for does, operation in plain.items():
        shift = FromClean(does=does, vector=unit(1), dual=dual).shift(h)
        assert (shift.shape, shift.dtype) == (h.shape, h.dtype)
        assert ((shift - operation.shift(h)).norm(dim=-1) <= within(h)).all()
    assert not FromClean(does="clamp", vector=unit(1), dual=dual).shift(h).any()


@pytest.mark.parametrize("kind", ["plain", "oblique"])
def test_scores_of_another_run_are_set_turned_or_taken_away(h, kind):
    dual = None if kind == "plain" else Dual(write=tilted(), scale=0.2, offset=1.5)
    clean = torch.randn(2, 5, generator=torch.Generator().manual_seed(4)).to(h) * h.norm(dim=-1)
    for does in ("reflect", "clamp", "ablate"):
        operation = FromClean(does=does, vector=unit(1), dual=dual)
        before = operation.score(h)
        after = operation.score(h + operation.shift(h, clean=clean))
        wanted = {"reflect": -clean, "clamp": clean, "ablate": before - clean}[does]
        assert ((after - wanted).abs() <= 10 * within(h)).all()
        assert (wanted - before).abs().max() > 0.1


def test_a_swap_is_the_papers_equation(h):
    edited = edit(Swap(remove=unit(1), add=unit(2), beta=0.1), h)
    expected = h.double().clone()
    for row in range(2):
        for place in range(5):
            length = expected[row, place].pow(2).sum().sqrt()
            difference = unit(2).double() - unit(1).double()
            expected[row, place] = expected[row, place] + 0.1 * length * difference
    assert ((edited.double() - expected).norm(dim=-1) <= within(h)).all()


def test_a_swap_is_a_shift_along_the_difference(h):
    difference = unit(2).to(h) - unit(1).to(h)
    swap = Swap(remove=unit(1), add=unit(2), beta=0.1)
    assert torch.equal(operations.shift_along(h, difference, 0.1), swap.shift(h))


def test_swapping_a_concept_for_itself_changes_nothing(h):
    assert torch.equal(edit(Swap(remove=unit(1), add=unit(1), beta=0.3), h), h)


def test_rows_may_have_their_own_directions_and_amounts(h):
    flat, many = h[0], torch.stack([unit(seed) for seed in range(10, 15)])
    betas = torch.linspace(-0.2, 0.4, 5)
    shifts = operations.shift_along(flat, unit(2).to(h) - many.to(h), betas)
    swapped = edit(Swap(remove=unit(1), add=unit(2), beta=betas), flat[:, None])
    for row in range(5):
        alone = edit(Swap(remove=many[row], add=unit(2), beta=float(betas[row])), flat[row])
        assert (flat[row] + shifts[row] - alone).norm() <= within(flat)[row]
        alone = edit(Swap(remove=unit(1), add=unit(2), beta=float(betas[row])), flat[row])
        assert (swapped[row, 0] - alone).norm() <= within(flat)[row]
    clamped = edit(Clamp(vector=unit(1), value=betas), flat[:, None])[:, 0]
    assert ((score(clamped) - betas.to(h)).abs() <= within(flat)).all()


def test_a_kept_norm_is_kept_and_the_edit_decides_the_direction(h):
    edited = edit(Add(vector=unit(1), strength=0.5), h)
    kept = edit(Add(vector=unit(1), strength=0.5), h, keep_norm=True)
    assert ((kept.norm(dim=-1) - h.norm(dim=-1)).abs() <= within(h)).all()
    assert (torch.cosine_similarity(kept, edited, dim=-1) > 1 - 1e-5).all()
    assert torch.equal(operations.rescaled(torch.zeros_like(h), h), torch.zeros_like(h))


def test_half_precision_is_worked_out_in_float32_and_given_back():
    h = torch.randn(3, 24, generator=torch.Generator().manual_seed(0)).bfloat16()
    edited = edit(Add(vector=unit(1), strength=0.5), h)
    assert edited.dtype == torch.bfloat16
    assert torch.equal(edited, edit(Add(vector=unit(1), strength=0.5), h.float()).bfloat16())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), torch.tensor([0.1, float("nan")])])
def test_an_amount_that_is_not_finite_is_refused(bad):
    for make in (
        lambda: Add(vector=unit(1), strength=bad),
        lambda: Clamp(vector=unit(1), value=bad),
        lambda: Swap(remove=unit(1), add=unit(2), beta=bad),
    ):
        with pytest.raises(ValueError, match="must be a finite number"):
            make()


@pytest.mark.parametrize("bad", [[0.1, 0.2], np.array([0.1, 0.2]), "0.1", None])
def test_an_amount_that_is_neither_a_number_nor_a_tensor_is_refused(bad):
    with pytest.raises(TypeError, match=r"strength is .*; give one number, or a tensor with one for each row"):
        Add(vector=unit(1), strength=bad)
    assert Add(vector=unit(1), strength=np.float32(0.5)).strength == 0.5


def test_vectors_that_are_not_unit_vectors_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be one finite unit vector"):
        Reflect(vector=2 * unit(1))
    with pytest.raises(ValueError, match="add has width 3, remove 24"):
        Swap(remove=unit(1), add=torch.eye(3)[0], beta=0.1)
    with pytest.raises(ValueError, match="give one number, or one for each row"):
        Add(vector=unit(1), strength=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="does is 'turn'; allowed are 'reflect', 'clamp' and 'ablate'"):
        FromClean(does="turn", vector=unit(1))
    with pytest.raises(ValueError, match="unit is 'metres'; allowed are 'share', 'absolute' and 'score'"):
        Add(vector=unit(1), strength=1.0, unit="metres")


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        (Add(vector=unit(1), strength=0.5, unit="absolute"), "strength"),
        (Swap(remove=unit(1), add=unit(2), beta=0.5), "beta"),
        (Clamp(vector=unit(1), value=0.5), "value"),
    ],
    ids=lambda one: getattr(one, "kind", one),
)
@pytest.mark.parametrize("amount", [-3.0, torch.tensor([0.25, 2.0])], ids=["one", "by row"])
def test_another_amount_is_what_the_operation_was_made_with_and_all_else_stays(operation, field, amount):
    other = operation.with_amount(amount)
    assert operation.amount == 0.5
    assert other.amount is amount
    given = {one.name: getattr(operation, one.name) for one in fields(operation)}
    assert all(getattr(other, name) is (amount if name == field else value) for name, value in given.items())
    with pytest.raises(ValueError, match=f"{field} is nan; it must be a finite number"):
        operation.with_amount(float("nan"))


def test_what_has_a_strength_shifts_in_proportion_to_it_and_what_has_none_does_not(h):
    erase = Erase(left=unit(1)[:, None], right=unit(1)[None], mean=torch.zeros(24))
    for operation, proportional in (
        (Add(vector=unit(1), strength=0.5), True),
        (Add(vector=unit(1), strength=0.5, unit="absolute"), True),
        (Swap(remove=unit(1), add=unit(2), beta=0.5), True),
        (Clamp(vector=unit(1), value=0.5), False),
        (Reflect(vector=unit(1)), False),
        (FromClean(does="reflect", vector=unit(1)), False),
        (erase, False),
    ):
        assert operation.has_strength == proportional
        if operation.amount is None:
            with pytest.raises(ValueError, match=rf"{operation.kind} has no amount, and was given 1\.0"):
                operation.with_amount(1.0)
            continue
        assert operation.with_amount(0.0).shift(h).any() != proportional
        difference = operation.with_amount(1.5).shift(h) - 3 * operation.shift(h)
        assert bool((difference.norm(dim=-1) <= within(h)).all()) == proportional


def test_a_swap_is_read_along_the_direction_that_comes_in():
    assert torch.equal(Swap(remove=unit(1), add=unit(2), beta=0.1).vector, unit(2))
