"""Checked arguments: whole lists, numbers of every kind, short errors, and a random state that is left alone."""

import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.arguments.plain_numbers import real_number, whole_number
from lrc_tl.arguments.typechecking import checked


@checked
def shifted(
    rows: Float[Tensor, "row d_model"],
    by: Float[Tensor, " d_model"],
    names: Sequence[str] = (),
    *,
    beta: float = 1.0,
    rank: int | None = None,
    shares: Sequence[int] | Mapping[int, float] | None = None,
) -> Float[Tensor, "row d_model"]:
    return rows + beta * by


def call(**options):
    return shifted(torch.zeros(3, 2), torch.ones(2), **options)


@pytest.mark.parametrize("number", [1, 0, 0.5, np.float32(0.5), np.float64(2), np.int64(2)])
def test_whole_numbers_and_those_of_numpy_are_numbers(number):
    torch.testing.assert_close(call(beta=number), torch.full((3, 2), float(number)))


@pytest.mark.parametrize("rank", [4, np.int64(4), np.uint8(4), None])
def test_whole_numbers_of_numpy_are_whole_numbers(rank):
    assert call(rank=rank).shape == (3, 2)


@pytest.mark.parametrize(
    "option",
    [
        {"beta": True}, {"beta": np.True_}, {"beta": "1"}, {"rank": False}, {"rank": 4.0}, {"rank": np.float64(4)},
        {"shares": [1, True]}, {"shares": {1: True}}, {"shares": {True: 1.0}},
    ],
)  # fmt: skip
def test_booleans_texts_and_fractions_are_refused_where_a_number_is_meant(option):
    (name,) = option
    with pytest.raises(TypeError, match=rf"shifted: .*`{name}`"):
        call(**option)


@pytest.mark.parametrize("place", range(9))
def test_one_wrong_item_of_a_list_is_refused_wherever_it_stands(place):
    names = list("abcdefghi")
    names[place] = 5
    for _ in range(20):
        with pytest.raises(TypeError, match=rf"item {place} of `names` is 5 \(int\); it must be str"):
            call(names=names)
    numbers = [*range(place), 0.5, *range(place, 8)]
    with pytest.raises(TypeError, match=f"item {place} of `shares` is 0.5"):
        call(shares=numbers)
    with pytest.raises(TypeError, match=rf"entry {place} of `shares` is 'much'"):
        call(shares={**dict.fromkeys(range(9), 1.0), place: "much"})


@checked
def asked(
    chat: str | Sequence[Mapping[str, str]] = "",
    pair: tuple[int, int] | Sequence[str] = (),
    rows: Mapping[str, Sequence[float]] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    "options",
    [
        {"chat": "a text"}, {"chat": ""}, {"chat": [{"role": "user", "content": "a"}]}, {"chat": []},
        {"pair": (1, 2)}, {"pair": ("a", "b", "c")}, {"pair": ["a"]}, {"rows": {"a": [1, 2.5], "b": ()}},
    ],
    ids=str,
)  # fmt: skip
def test_what_fits_one_alternative_need_not_fit_the_others(options):
    asked(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chat": [{"role": "user"}, 3]}, r"item 1 of `chat` is 3 \(int\); it must be Mapping\[str, str\]"),
        ({"chat": [{"role": "user", "content": 3}]}, r"entry 'content' of item 0 of `chat` is 3"),
        ({"chat": 5}, r"`chat` is 5 \(int\); it must be str \| Sequence"),
        ({"pair": (1, 2, 3)}, "item 0 of `pair` is 1"),
        ({"pair": ("a", 2)}, "item 1 of `pair` is 2"),
        ({"rows": {"a": [1, 2], "b": [1, 2, "x"]}}, "item 2 of entry 'b' of `rows` is 'x'"),
        ({"rows": {"a": "xy"}}, "entry 'a' of `rows` is 'xy'"),
    ],
    ids=str,
)
def test_items_of_items_are_all_looked_at_and_the_first_that_does_not_fit_is_named(options, message):
    with pytest.raises(TypeError, match=message):
        asked(**options)


def test_checks_leave_the_global_random_state_alone():
    read = lrc.methods.baseline_concepts  # what is imported at first use may draw
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for _ in range(50):
        call(names=list("abcdefghijkl"), shares=[1, 2, 3])
        read(torch.eye(4), list("abab"), method="mean", hook_name="blocks.0.hook_resid_post")
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_axes_of_one_name_have_one_size_and_the_error_shows_both_shapes_in_two_lines():
    with pytest.raises(TypeError) as caught:
        shifted(torch.zeros(3, 2), torch.ones(5))
    assert str(caught.value) == (
        "shifted: `by` is a tensor of float32 and shape (5,); it must be Float[Tensor, 'd_model']\n"
        "axes of one name have one size: `rows` is a tensor of float32 and shape (3, 2) for "
        "Float[Tensor, 'row d_model']"
    )
    with pytest.raises(TypeError, match=r"`rows` is a tensor of int64 and shape \(3, 2\)"):
        shifted(torch.zeros(3, 2, dtype=torch.int64), torch.ones(2))


def test_an_error_never_prints_what_is_large():
    for given in (
        {"names": [b"x" * 10**6]},
        {"names": 3},
        {"beta": "y" * 10**6},
        {"shares": [torch.zeros(10**5)]},
    ):
        with pytest.raises(TypeError) as caught:
            call(**given)
        assert len(str(caught.value)) < 400
        assert str(caught.value).count("\n") < 4


def test_missing_and_unknown_arguments_are_named():
    with pytest.raises(TypeError, match="by"):
        shifted(torch.zeros(3, 2))
    with pytest.raises(TypeError, match="gamma"):
        call(gamma=1)


def test_axes_are_compared_anew_in_each_call_and_in_the_result():
    assert shifted(torch.zeros(3, 2), torch.ones(2)).shape == (3, 2)
    assert shifted(torch.zeros(4, 6), torch.ones(6)).shape == (4, 6)

    @checked
    def wrong(x: Float[Tensor, " a"]) -> Float[Tensor, " a"]:
        return x[1:]

    with pytest.raises(TypeError, match=r"wrong: the result is a tensor of float32 and shape \(2,\)"):
        wrong(torch.zeros(3))


def test_generators_and_methods_are_checked_too():
    class Holder:
        @checked
        def doubled(self, x: Float[Tensor, " d"], *, times: int = 2) -> Float[Tensor, " d"]:
            return times * x

    @checked
    def rows_of(x: Float[Tensor, "row d"]) -> Iterator[tuple[int, Float[Tensor, " d"]]]:
        yield from enumerate(x)

    torch.testing.assert_close(Holder().doubled(torch.ones(3), times=np.int64(3)), torch.full((3,), 3.0))
    with pytest.raises(TypeError, match=r"Holder.doubled: `x` is a tensor of float32 and shape \(2, 2\)"):
        Holder().doubled(torch.zeros(2, 2))
    assert [number for number, _ in rows_of(torch.zeros(3, 2))] == [0, 1, 2]
    with pytest.raises(TypeError, match="`x` is 'a'"):
        rows_of("a")


def test_an_error_raised_inside_a_checked_function_comes_out_as_it_is():
    @checked
    def fails(x: Float[Tensor, " d"]) -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match=r"^as it is$") as caught:
        fails(torch.zeros(2))
    assert not getattr(caught.value, "__notes__", None)


def test_numbers_become_those_of_python():
    for value in (3, np.int64(3), np.uint8(3)):
        assert type(whole_number(value, "rank")) is int
    for value in (3, 0.5, np.float32(0.5), np.int64(3)):
        assert type(real_number(value, "beta")) is float
    for value in (True, np.True_, "3", 3.0, None):
        with pytest.raises(TypeError, match=r"rank is .*give a whole number"):
            whole_number(value, "rank")
    for value in (True, np.True_, "3", None):
        with pytest.raises(TypeError, match=r"beta is .*give a number"):
            real_number(value, "beta")
