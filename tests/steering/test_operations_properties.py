"""The algebra of operations on random residuals, directions and strengths, in float64."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import lrc_tl as lrc
from lrc_tl.steering.along_vector import Dual
from lrc_tl.steering.operations import Add, Clamp, Erase, FromClean, Reflect, Swap

WIDTH = 16
SEEDS = st.integers(0, 2**32 - 1)
STRENGTHS = st.floats(-50, 50)
LENGTHS = st.sampled_from([1e-3, 1.0, 50.0, 9e4])


@st.composite
def residuals(draw):
    """Rows of two texts, some with a massive coordinate, as models have at their first tokens."""
    rng = np.random.default_rng(draw(SEEDS))
    h = torch.from_numpy(rng.standard_normal((2, 3, WIDTH))) * draw(LENGTHS)
    if draw(st.booleans()):
        h[:, 0, int(rng.integers(WIDTH))] *= 1e3
    return h


@st.composite
def units(draw):
    vector = torch.from_numpy(np.random.default_rng(draw(SEEDS)).standard_normal(WIDTH))
    return vector / vector.norm()


@st.composite
def duals(draw, vector):
    """None, or a writing vector that leans to the reading one more or less, with a scale and an offset."""
    if draw(st.booleans()):
        return None
    beside = draw(units())
    write = vector + draw(st.floats(0, 3)) * beside
    assume(float(write.norm()) > 1e-3)
    write = write / write.norm()
    assume(float(write @ vector) > 0.15)
    return Dual(write=write, scale=draw(st.floats(0.01, 100)), offset=draw(st.floats(-100, 100)))


@st.composite
def places(draw):
    """A residual, a unit vector and a dual for it."""
    vector = draw(units())
    return draw(residuals()), vector, draw(duals(vector))


def edit(operation, h):
    return lrc.Steering(operation=operation, hook_name="blocks.1.hook_resid_post").everywhere(h, hook=None)


def assert_close(actual, expected, h, *, at_scale=0.0):
    """To rounding, of the residuals or of what was added."""
    size = max(float(h.abs().max()), float(expected.abs().max()), at_scale)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10 * size)


@given(place=places(), first=STRENGTHS, second=STRENGTHS, unit=st.sampled_from(["absolute", "score"]))
def test_adding_twice_is_adding_the_sum_and_the_opposite_undoes_it(place, first, second, unit):
    h, vector, dual = place

    def add(strength, to):
        return edit(Add(vector=vector, strength=strength, unit=unit, dual=dual), to)

    scale = float((add(first, h) - h).abs().max())
    assert_close(add(second, add(first, h)), add(first + second, h), h, at_scale=scale)
    assert_close(add(-first, add(first, h)), h, h, at_scale=scale)
    assert torch.equal(add(0.0, h), h)


@given(place=places(), strength=STRENGTHS)
def test_units_of_the_score_are_what_the_score_moves_by(place, strength):
    h, vector, dual = place
    operation = Add(vector=vector, strength=strength, unit="score", dual=dual)
    edited = edit(operation, h)
    size = 1 if dual is None else dual.scale
    moved = operation.score(edited) - operation.score(h)
    tolerance = 1e-9 * (size * float(max(h.abs().max(), edited.abs().max())) + abs(strength))
    torch.testing.assert_close(moved, torch.full_like(moved, strength), rtol=0, atol=tolerance)


@given(place=places(), strength=STRENGTHS, factor=st.floats(-5, 5))
def test_a_share_grows_with_the_residual_and_with_the_strength(place, strength, factor):
    h, vector, dual = place
    share = Add(vector=vector, strength=strength, dual=dual)
    assert_close(share.with_amount(strength * factor).shift(h), factor * share.shift(h), share.shift(h))
    assert_close(share.shift(abs(factor) * h), abs(factor) * share.shift(h), share.shift(h))
    sizes = share.shift(h).norm(dim=-1) / h.norm(dim=-1)
    torch.testing.assert_close(sizes, torch.full_like(sizes, abs(strength)), rtol=1e-9, atol=1e-12)


@given(place=places(), first=STRENGTHS, second=STRENGTHS)
def test_the_last_clamp_counts_and_clamping_to_the_score_changes_nothing(place, first, second):
    h, vector, dual = place

    def clamp(value, to):
        return edit(Clamp(vector=vector, value=value, dual=dual), to)

    once = clamp(second, h)
    scale = float((clamp(first, h) - h).abs().max())
    assert_close(clamp(second, clamp(first, h)), once, h, at_scale=scale)
    assert_close(clamp(second, once), once, h, at_scale=float((once - h).abs().max()))
    score = Clamp(vector=vector, value=0.0, dual=dual).score(h[:1, :1])
    assert_close(clamp(float(score), h[:1, :1]), h[:1, :1], h, at_scale=abs(float(score)))


@given(place=places())
def test_a_reflection_undoes_itself_and_goes_twice_as_far_as_ablation(place):
    h, vector, dual = place
    reflect, ablate = Reflect(vector=vector, dual=dual), Clamp(vector=vector, value=0.0, dual=dual)
    once = edit(reflect, h)
    assert_close(edit(reflect, once), h, h, at_scale=float(once.abs().max()))
    assert_close(reflect.shift(h), 2 * ablate.shift(h), h)
    if dual is None:
        torch.testing.assert_close(once.norm(dim=-1), h.norm(dim=-1), rtol=1e-9, atol=0)
        assert (edit(ablate, h).norm(dim=-1) <= h.norm(dim=-1) * (1 + 1e-12)).all()


@given(place=places(), strength=STRENGTHS)
def test_nothing_moves_but_along_the_writing_vector(place, strength):
    h, vector, dual = place
    write = vector if dual is None else dual.write
    for operation in (
        Add(vector=vector, strength=strength, dual=dual),
        Clamp(vector=vector, value=strength, dual=dual),
        Reflect(vector=vector, dual=dual),
        FromClean(does="ablate", vector=vector, dual=dual),
    ):
        shift = operation.shift(h)
        beside = shift - (shift @ write)[..., None] * write
        assert (beside.norm(dim=-1) <= 1e-10 * shift.norm(dim=-1).clamp_min(1e-300)).all()


@given(h=residuals(), remove=units(), add=units(), beta=st.floats(-2, 2))
def test_a_swap_the_other_way_round_is_its_opposite_and_of_one_vector_it_is_nothing(h, remove, add, beta):
    shift = Swap(remove=remove, add=add, beta=beta).shift(h)
    assert_close(Swap(remove=add, add=remove, beta=beta).shift(h), -shift, h)
    assert torch.equal(Swap(remove=add, add=add, beta=beta).shift(h), torch.zeros_like(h))
    assert_close(Swap(remove=remove, add=add, beta=-beta).shift(h), -shift, h)
    # Eq. 7: at most twice beta, reached where the vectors are opposite.
    assert (shift.norm(dim=-1) <= 2 * abs(beta) * h.norm(dim=-1) * (1 + 1e-9) + 1e-12).all()


@given(h=residuals(), vectors=st.tuples(units(), units()), strengths=st.tuples(STRENGTHS, STRENGTHS))
def test_operations_along_orthogonal_vectors_do_not_depend_on_their_order(h, vectors, strengths):
    first, other = vectors
    second = other - (other @ first) * first
    assume(float(second.norm()) > 1e-2)
    second = second / second.norm()
    for one in (Add(vector=first, strength=strengths[0], unit="absolute"), Reflect(vector=first)):
        for two in (Clamp(vector=second, value=strengths[1]), Reflect(vector=second)):
            assert_close(edit(two, edit(one, h)), edit(one, edit(two, h)), h, at_scale=max(map(abs, strengths)))


@given(h=residuals(), seed=SEEDS, rank=st.integers(1, WIDTH))
def test_erasing_twice_is_erasing_once_and_the_mean_stays(h, seed, rank):
    rng = np.random.default_rng(seed)
    left = torch.from_numpy(rng.standard_normal((WIDTH, rank)))
    right = torch.linalg.pinv(left)
    assume(float(torch.linalg.cond(left)) < 1e3)
    mean = torch.from_numpy(rng.standard_normal(WIDTH))
    erase = Erase(left=left, right=right, mean=mean)
    once = edit(erase, h)
    scale = float(h.abs().max()) * 1e3
    assert_close(edit(erase, once), once, h, at_scale=scale)
    assert_close(edit(erase, mean.expand(2, 3, -1)), mean.expand(2, 3, -1), h, at_scale=scale)


@given(place=places(), strength=STRENGTHS)
def test_the_length_that_is_kept_is_that_of_the_residual(place, strength):
    h, vector, dual = place
    steering = lrc.Steering(
        operation=Add(vector=vector, strength=strength, dual=dual),
        hook_name="blocks.1.hook_resid_post",
        keep_norm=True,
    )
    edited = steering.everywhere(h, hook=None)
    assume(float((h + steering.operation.shift(h)).norm(dim=-1).min()) > 1e-6 * float(h.norm(dim=-1).max()))
    torch.testing.assert_close(edited.norm(dim=-1), h.norm(dim=-1), rtol=1e-9, atol=0)
