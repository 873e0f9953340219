"""Laws of operations that read with one vector and write along another, to 1e-10 of |h| in float64."""

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.directions.writing import swap_of
from lrc_tl.numerics.covariance import Covariance
from lrc_tl.steering.operations import Add, Clamp, Dual, Reflect, Swap

WIDTH = 24
HOOK = "blocks.1.hook_resid_post"
SCALE, OFFSET = 3.7, -12.5
BY_ROW = torch.tensor([0.5, -2.0], dtype=torch.float64)


def relative_size(operation, h):
    return operation.shift(h).norm(dim=-1) / h.norm(dim=-1)


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(vector):
    return vector / vector.norm()


SIGMA = Covariance.of_samples(draw(60, WIDTH, seed=0) * torch.linspace(0.2, 2.0, WIDTH).double(), shrinkage=0.1)
READ = unit(draw(WIDTH, seed=1))
WRITE = unit(SIGMA.times(READ))
DUAL = Dual(write=WRITE, scale=SCALE, offset=OFFSET)


@pytest.fixture(params=[1.0, 9e4], ids=["short", "as long as Gemma's"])
def h(request):
    return request.param * draw(2, 5, WIDTH, seed=2)


def score(h):
    return SCALE * (h @ READ) - OFFSET


def within(h):
    return 1e-10 * h.norm(dim=-1)


def edit(operation, h, **options):
    """The residual as a `Steering` with the operation gives it back."""
    return lrc.Steering(operation=operation, hook_name=HOOK, **options).everywhere(h, hook=None)


def each_operation(dual=DUAL):
    return (
        Add(vector=READ, strength=0.25, dual=dual),
        Add(vector=READ, strength=2.5, unit="absolute", dual=dual),
        Add(vector=READ, strength=BY_ROW, unit="score", dual=dual),
        Clamp(vector=READ, value=BY_ROW, dual=dual),
        Reflect(vector=READ, dual=dual),
    )


def test_the_two_vectors_differ_enough_for_the_laws_to_say_something():
    assert 0.3 < READ @ WRITE < 0.95


def test_the_score_is_scale_times_projection_less_offset(h):
    for operation in each_operation():
        assert ((operation.score(h) - score(h)).abs() <= within(h)).all()


@pytest.mark.parametrize("strength", [-3.0, 0.0, 2.5, BY_ROW], ids=str)
def test_adding_in_units_of_the_score_moves_it_by_exactly_the_amount(h, strength):
    edited = edit(Add(vector=READ, strength=strength, unit="score", dual=DUAL), h)
    moved = strength[:, None] if isinstance(strength, torch.Tensor) else strength
    assert ((score(edited) - score(h) - moved).abs() <= within(h)).all()


def test_ablation_sets_the_score_to_zero_and_twice_is_once(h):
    ablate = Clamp(vector=READ, value=0.0, dual=DUAL)
    edited = edit(ablate, h)
    assert (score(edited).abs() <= within(h)).all()
    assert ((edit(ablate, edited) - edited).norm(dim=-1) <= within(h)).all()


@pytest.mark.parametrize("value", [-40.0, 7.0, BY_ROW], ids=str)
def test_clamping_sets_the_score_and_twice_is_once(h, value):
    clamp = Clamp(vector=READ, value=value, dual=DUAL)
    edited = edit(clamp, h)
    wanted = value[:, None] if isinstance(value, torch.Tensor) else value
    assert ((score(edited) - wanted).abs() <= within(h)).all()
    assert ((edit(clamp, edited) - edited).norm(dim=-1) <= within(h)).all()


def test_reflection_turns_the_sign_of_the_score_and_undoes_itself(h):
    reflect = Reflect(vector=READ, dual=DUAL)
    edited = edit(reflect, h)
    assert ((score(edited) + score(h)).abs() <= within(h)).all()
    assert ((edit(reflect, edited) - h).norm(dim=-1) <= within(h)).all()


def test_every_operation_moves_along_the_writing_vector_alone(h):
    for operation in each_operation():
        shift = operation.shift(h)
        beside = shift - (shift @ WRITE)[..., None] * WRITE
        assert (beside.norm(dim=-1) <= 1e-12 * shift.norm(dim=-1)).all()
        assert (shift.norm(dim=-1) > 0).all()


def test_adding_a_share_or_residual_units_is_a_step_of_that_length_along_the_writing_vector(h):
    share = Add(vector=READ, strength=0.25, dual=DUAL).shift(h)
    assert ((share - 0.25 * h.norm(dim=-1, keepdim=True) * WRITE).norm(dim=-1) <= within(h)).all()
    absolute = Add(vector=READ, strength=BY_ROW, unit="absolute", dual=DUAL).shift(h)
    assert ((absolute - BY_ROW[:, None, None] * WRITE).norm(dim=-1) <= within(h)).all()


def test_a_swap_adds_the_difference_of_the_writing_vectors_and_reads_the_one_that_comes_in(h):
    def direction(seed):
        read = draw(WIDTH, seed=seed)
        return lrc.ConceptDirection.from_unscaled(
            read, write_vector=SIGMA.times(read), relation="r", object_name="x", hook_name=HOOK
        )

    out, comes = direction(1), direction(3)
    swap = swap_of(out, comes, beta=0.1)
    expected = 0.1 * h.norm(dim=-1, keepdim=True) * (unit(SIGMA.times(draw(WIDTH, seed=3))) - WRITE)
    assert ((swap.shift(h) - expected).norm(dim=-1) <= within(h)).all()
    assert swap.vector is comes.vector


def test_what_is_uncorrelated_with_the_score_stays_under_the_dual_and_not_under_another_vector(h):
    seen = SIGMA.times(READ)
    others = draw(10, WIDTH, seed=4)
    others = others - (others @ seen)[:, None] / (READ @ seen) * READ  # u.Sigma.v = 0
    assert ((others @ seen).abs() < 1e-12).all()
    plain = Dual(write=READ, scale=SCALE, offset=OFFSET)
    for kept, moved in zip(each_operation(), each_operation(plain), strict=True):
        before = h @ others.T
        tolerance = within(h)[..., None] * others.norm(dim=1)
        assert ((edit(kept, h) @ others.T - before).abs() <= tolerance).all()
        assert ((edit(moved, h) @ others.T - before).abs() > tolerance).any()


def test_without_a_dual_every_shift_is_the_plain_formula_to_the_bit(h):
    v, length = READ / READ.norm(), h.norm(dim=-1, keepdim=True)
    projection, rows = (h * v).sum(-1, keepdim=True), BY_ROW[:, None, None]
    other = unit(draw(WIDTH, seed=3))
    for operation, expected in (
        (Add(vector=READ, strength=0.25), 0.25 * length * v),
        (Add(vector=READ, strength=BY_ROW), rows * length * v),
        (Add(vector=READ, strength=2.5, unit="absolute"), (2.5 * v).expand_as(h)),
        (Add(vector=READ, strength=2.5, unit="score"), (2.5 * v).expand_as(h)),
        (Clamp(vector=READ, value=BY_ROW), (rows - projection) * v),
        (Clamp(vector=READ, value=0.0), (0.0 - projection) * v),
        (Reflect(vector=READ), 2 * (0.0 - projection) * v),
        (Swap(remove=READ, add=other, beta=0.1), 0.1 * length * (other - READ)),
    ):
        assert torch.equal(operation.shift(h), expected), operation


def test_a_dual_of_the_same_vector_is_what_none_is(h):
    same = Dual(write=READ)
    for one, other in zip(each_operation(same), each_operation(None), strict=True):
        assert ((one.shift(h) - other.shift(h)).norm(dim=-1) <= within(h)).all()


@pytest.mark.parametrize(
    ("write", "cosine"), [(-READ, "-1"), (unit(draw(WIDTH, seed=5) - (draw(WIDTH, seed=5) @ READ) * READ), "")]
)
def test_vectors_that_do_not_go_together_are_refused_with_their_cosine(write, cosine):
    for make in (
        lambda dual: Add(vector=READ, strength=0.1, dual=dual),
        lambda dual: Clamp(vector=READ, value=0.1, dual=dual),
        lambda dual: Reflect(vector=READ, dual=dual),
    ):
        with pytest.raises(ValueError, match=rf"have the cosine {cosine}.*; it must be 0\.001 or more"):
            make(Dual(write=write))


def test_a_cosine_just_above_the_least_one_is_taken_and_one_just_below_is_not():
    across = unit(draw(WIDTH, seed=5) - (draw(WIDTH, seed=5) @ READ) * READ)
    assert Reflect(vector=READ, dual=Dual(write=unit(across + 1.01e-3 * READ))).dual is not None
    with pytest.raises(ValueError, match=r"have the cosine 0\.00099; it must be 0\.001 or more"):
        Reflect(vector=READ, dual=Dual(write=unit(across + 0.99e-3 * READ)))


def test_a_dual_that_is_no_score_is_refused():
    with pytest.raises(ValueError, match="has width 3, the reading one 24"):
        Reflect(vector=READ, dual=Dual(write=torch.eye(3)[0]))
    with pytest.raises(ValueError, match=r"the writing vector has shape .* must be one finite unit vector"):
        Dual(write=2 * WRITE)
    for scale, offset in ((0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match=f"scale {scale} and offset {offset} of a score; they must be finite"):
            Dual(write=WRITE, scale=scale, offset=offset)


def test_an_operation_says_its_size_relative_to_the_residual(h):
    length = h.norm(dim=-1)
    expected = (2 * score(h) / (SCALE * (READ @ WRITE))).abs() / length
    assert ((relative_size(Reflect(vector=READ, dual=DUAL), h) - expected).abs() <= 1e-10).all()
    for operation in each_operation():
        steering = lrc.Steering(operation=operation, hook_name=HOOK)
        size = steering.relative_size(h)
        assert ((size - (steering.everywhere(h, hook=None) - h).norm(dim=-1) / length).abs() <= 1e-10).all()
        assert torch.equal(size, relative_size(operation, h))
    assert (abs(lrc.Steering(operation=each_operation()[0], hook_name=HOOK).relative_size(h) - 0.25) < 1e-12).all()


def test_the_further_apart_the_vectors_the_larger_the_operation(h):
    def size(write):
        return lrc.Steering(operation=Reflect(vector=READ, dual=Dual(write=write)), hook_name=HOOK).relative_size(
            h
        )

    assert ((size(WRITE) * (READ @ WRITE) - size(READ)).abs() <= 1e-10).all()
    assert (size(WRITE) > size(READ)).all()


def test_the_size_has_the_shape_of_the_residuals_without_their_width_and_knows_a_kept_norm(h):
    steering = lrc.Steering(operation=Clamp(vector=READ, value=3.0, dual=DUAL), hook_name=HOOK)
    size = steering.relative_size(h)
    for shape in ((10, WIDTH), (2, 1, 5, WIDTH)):
        torch.testing.assert_close(steering.relative_size(h.reshape(shape)), size.reshape(shape[:-1]))
    torch.testing.assert_close(steering.relative_size(h[1, 2]), size[1, 2])
    kept = steering.at(keep_norm=True)
    expected = (kept.everywhere(h, hook=None) - h).norm(dim=-1) / h.norm(dim=-1)
    torch.testing.assert_close(kept.relative_size(h), expected)
    assert (kept.relative_size(h) != size).all()
    by_row = lrc.Steering(operation=Clamp(vector=READ, value=BY_ROW, dual=DUAL), hook_name=HOOK)
    torch.testing.assert_close(by_row.relative_size(h[:, 0]), by_row.relative_size(h)[:, 0])
    with pytest.raises(ValueError, match="the activations have width 7, the steering's vector 24"):
        steering.relative_size(torch.ones(2, 7))
