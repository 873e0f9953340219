"""Steering refuses what it cannot do right: places, positions, padding, gates and layers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_steering import HOOK, TOKENS, WORDS, adding, generate, unit

import lrc_tl as lrc
from lrc_tl.errors import FingerprintMismatch


@pytest.fixture(scope="module")
def model(word_model):
    return word_model


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (9, r"position 9 of `where` is outside row 0, of which 5 positions are run"),
        (-6, r"position -6 of `where` is outside row 0"),
        (slice(2, 9), r"position 8 of `where` is outside row 0"),
        (slice(0, 4, 2), "only slices with step 1"),
        (slice(3, 2), r"`where` is slice\(3, 2, None\), which holds no position"),
        (slice(2, 2), "which holds no position"),
        (slice(-1, -3), "which holds no position"),
        (slice(3, -2), r"slice\(3, -2, None\), which holds no position of row 0: it goes from 3 to before 3"),
        (slice(-1, 2), r"slice\(-1, 2, None\), which holds no position of row 0: it goes from 4 to before 2"),
        (slice(0, -5), r"which holds no position of row 0: it goes from 0 to before 0"),
        ([1, 2], "holds 2 positions, but the batch has 1 rows"),
        ("subject", "allowed words are 'all', 'prompt' and 'generated'"),
        (torch.ones(1, 3, dtype=torch.bool), r"shape \(1, 3\); it must be torch\.bool .* here \(1, 5\)"),
        (torch.ones(1, 5), r"the mask for `where` is torch\.float32"),
        (lambda chunk: torch.ones(2, 2, dtype=torch.bool), r"the callable for `where` returned"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),  # a function's own text has its address
)
def test_places_that_do_not_exist_are_refused(model, where, message):
    with pytest.raises(ValueError, match=message), adding(where=where).on(model):
        model(TOKENS)


@pytest.mark.parametrize("where", [2.0, [1.5], [[1]], None])
def test_places_that_are_no_positions_are_refused(model, where):
    steering = lrc.Steering(operation=lrc.steering.Reflect(vector=unit()), hook_name=HOOK, where=where)
    with (
        pytest.raises(TypeError, match="give a word, an int, a slice, one int per row, a mask or"),
        steering.on(model),
    ):
        model(TOKENS)


def test_a_position_may_be_any_integer(model):
    with adding(where=2).on(model):
        expected = model(TOKENS)
    for where in (np.int64(2), np.array([2])):
        with adding(where=where).on(model):
            assert torch.equal(model(TOKENS), expected)


def test_a_position_that_generation_never_reaches_is_refused(model):
    for reached in (True, False):
        with adding(where=6 + (0 if reached else 1)).on(model):
            if reached:
                generate(model, WORDS[:1], n_new=2)
                continue
            with pytest.raises(ValueError, match="position 7 of `where` is outside row 0, of which 7 positions"):
                generate(model, WORDS[:1], n_new=2)


def test_pads_that_no_mask_covers_are_refused(model):
    left = torch.tensor([[0, 0, 1, 5], [1, 5, 6, 7]])
    with adding().on(model), pytest.raises(ValueError, match="pad tokens that no attention mask covers"):
        model(left)
    with adding().on(model):
        model(left, attention_mask=(left != 0).long())
        with pytest.raises(ValueError, match="pad on the left instead"):
            model.generate(
                torch.tensor([[1, 5, 0, 0], [1, 5, 6, 7]]), max_new_tokens=2, stop_at_eos=False, verbose=False
            )


def test_embeddings_do_not_show_whether_they_begin_with_a_special_token(model):
    embedded = model.embed(TOKENS)
    given = {"start_at_layer": 0} if "Hooked" in type(model).__name__ else {}
    with adding().on(model), pytest.raises(ValueError, match="the model was given embeddings"):
        model(embedded, **given)
    with adding(bos=True).on(model):
        model(embedded, **given)


def runs(model, direct):
    """The model by call, and by `run_with_hooks`, which goes past it to `forward`."""
    return (lambda *args, **given: model.run_with_hooks(*args, **given)) if direct else model


@pytest.mark.parametrize("direct", [False, True])
def test_a_pass_that_starts_at_a_layer_has_nothing_to_do_with_the_text_of_a_pass_that_stopped_before(
    word_model, direct
):
    if "Hooked" not in type(word_model).__name__:
        pytest.skip("the Bridge starts at no layer")
    run = runs(word_model, direct)
    others = torch.tensor([[9, 1, 7, 8, 5]])  # without a beginning token in front
    entering = run(others, stop_at_layer=1)
    with adding().on(word_model):
        run(TOKENS, stop_at_layer=1)
        with pytest.raises(ValueError, match="the model was given embeddings"):
            run(entering, start_at_layer=1)
    for place in ({"where": 2}, {"where": -1}, {"bos": True}):
        with adding(**place).on(word_model):
            run(TOKENS, stop_at_layer=1)
            got = run(entering, start_at_layer=1)
            torch.testing.assert_close(got, run(others))


@pytest.mark.parametrize("direct", [False, True])
def test_a_pass_that_goes_on_with_what_a_pass_gave_before_it_is_over_the_same_text(word_model, direct):
    if "Hooked" not in type(word_model).__name__:
        pytest.skip("the Bridge starts at no layer")
    run = runs(word_model, direct)
    with adding().on(word_model):
        whole = run(TOKENS)
        for layer in (1, 2):
            stopped = run(TOKENS, stop_at_layer=layer)
            torch.testing.assert_close(run(stopped, start_at_layer=layer), whole)


def test_what_may_be_decoding_by_hand_is_not_guessed(model):
    longer = torch.cat([TOKENS, torch.tensor([[9]])], dim=1)
    with adding(where="prompt").on(model):
        model(TOKENS)
        with pytest.raises(ValueError, match="where='prompt' needs to know where the prompt ends"):
            model(longer)
        model(torch.tensor([[1, 9, 9, 9]]))
    with adding(where=2).on(model):
        model(TOKENS)
        model(longer)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ({"layers": [3]}, ValueError, r"layers \[3\] are not all in the model; allowed: -3 to 2"),
        ({"layers": []}, ValueError, r"layers \[\] are not all in the model"),
        ({"layers": "some"}, ValueError, "give 'own', 'all' or layer numbers"),
        ({"layers": 3}, ValueError, r"layers \[3\] are not all in the model; allowed: -3 to 2"),
        (
            {"gate": lrc.steering.Gate(vector=unit(), hook_name="blocks.2.hook_resid_post", threshold=0.0)},
            ValueError,
            r"the gate reads blocks\.2\.hook_resid_post, later than the operation at layer 1",
        ),
        (
            {"gate": lrc.steering.Gate(vector=unit(), hook_name="blocks.1.hook_resid_pots", threshold=0.0)},
            LookupError,
            r"near names: .*blocks\.1\.hook_resid_post",
        ),
    ],
    ids=str,
)
def test_steerings_that_do_not_fit_the_model_are_refused_before_it_runs(model, place, error, message):
    with pytest.raises(error, match=message), adding(**place).on(model):
        pass


def test_a_gate_after_the_edit_in_the_same_layer_is_refused(model):
    gate = lrc.steering.Gate(vector=unit(), hook_name="blocks.1.hook_resid_post", threshold=0.0)
    steering = lrc.Steering(
        operation=lrc.steering.Reflect(vector=unit()), hook_name="blocks.1.hook_resid_pre", gate=gate
    )
    with pytest.raises(ValueError, match="gate on a hook point before the operation's"), steering.on(model):
        model(TOKENS)


def test_a_schedule_takes_one_step_or_more():
    with pytest.raises(ValueError, match="schedule 'first' over 0 steps; allowed are"):
        lrc.Schedule(kind="first", steps=0)
    with pytest.raises(TypeError, match=r"steps is nan \(float\); give a whole number"):
        lrc.Schedule(kind="first", steps=float("nan"))


def test_other_bad_input_is_refused(model):
    wide = torch.eye(13)[0]
    with (
        pytest.raises(ValueError, match="the steering's vector has width 13, but the model's d_model is 12"),
        lrc.Steering(operation=lrc.steering.Reflect(vector=wide), hook_name=HOOK).on(model),
    ):
        pass
    with pytest.raises(ValueError, match="no steerings"), lrc.steer(model, []):
        pass
    with (
        pytest.raises(ValueError, match="the amount has 3 rows, but the batch has 1"),
        adding(torch.ones(3)).on(model),
    ):
        model(TOKENS)
    with pytest.raises(ValueError, match="'hook_embed' is not in a block"):
        lrc.Steering(operation=lrc.steering.Reflect(vector=unit()), hook_name="hook_embed").require_model(model)
    with pytest.raises(ValueError, match="over 0 steps"):
        lrc.Schedule(kind="first", steps=0)
    with pytest.raises(ValueError, match="the gate's threshold is nan"):
        lrc.steering.Gate(vector=unit(), hook_name=HOOK, threshold=float("nan"))


def test_the_names_of_hook_points_are_no_check_and_all_that_puts_hooks_on_a_model_checks_it(model):
    fingerprint = lrc.models.ModelFingerprint.of(model)
    elsewhere = adding(bos=True, layers=iter([-1, 0]), fingerprint=replace(fingerprint, name="another"))
    names = ["blocks.0.hook_resid_post", f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
    assert elsewhere.hook_names(model) == names
    for refused in (elsewhere.require_model, elsewhere.hooks, lambda model: elsewhere.on(model).__enter__()):
        with pytest.raises(FingerprintMismatch, match="another"):
            refused(model)
    unknown = lrc.Steering(operation=lrc.steering.Reflect(vector=unit()), hook_name="blocks.1.hook_resid_pots")
    assert unknown.hook_names(model) == ["blocks.1.hook_resid_pots"]
    with pytest.raises(LookupError, match=r"no hook point 'blocks\.1\.hook_resid_pots'"):
        unknown.require_model(model)
    own = adding(bos=True, layers=[-1, 0], fingerprint=fingerprint)
    own.require_model(model)
    assert [name for name, _ in own.hooks(model)] == names


def test_a_range_that_is_empty_for_one_row_alone_is_refused_with_the_row(model):
    with adding(where=slice(3, -1)).on(model):
        generate(model, WORDS[:1], n_new=1)
        with pytest.raises(
            ValueError, match=r"no position of row 1: it goes from 3 to before 3; give another range"
        ):
            generate(model, WORDS, n_new=1)


def test_an_attention_mask_of_another_shape_is_refused_with_the_right_one(model):
    said = r"attention mask has shape \(1, 3\), but 0 cached and 5 new tokens in 1 rows need \(1, 5\); without it"
    if "Hooked" in type(model).__name__:  # which looks first
        said = r"Attention mask shape torch.Size\(\[1, 3\]\) does not match"
    with adding().on(model), pytest.raises((ValueError, AssertionError), match=said):
        model(TOKENS, attention_mask=torch.ones(1, 3, dtype=torch.long))
