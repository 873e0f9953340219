"""Blocks own what they put on a model: left in any order, and nothing on copies."""

import copy
import pickle
from contextlib import ExitStack

import pytest
import tiny_models
import torch
from left_behind import left_on
from threads import steered_text
from tiny_steering import HOOK, TOKENS, WORDS, adding, generate, residuals, unit

from lrc_tl.models.hooking import hooked_pass, hooks_on


@pytest.fixture(scope="module")
def model(word_model):
    return word_model


@pytest.fixture(autouse=True)
def nothing_is_left(model):
    before = left_on(model)
    yield
    assert left_on(model) == before


@pytest.mark.parametrize("first_left", ["the outer", "the inner"])
def test_blocks_may_be_left_in_any_order(model, first_left):
    clean = residuals(model, TOKENS)
    shifts = {"the outer": 2.0, "the inner": 3.0}
    blocks = {name: adding(strength).on(model) for name, strength in shifts.items()}

    def shift():
        moved = (residuals(model, TOKENS) - clean)[:, 1:] @ unit(dtype=clean.dtype)
        return pytest.approx(float(moved.mean()), abs=1e-4)

    for block in blocks.values():
        block.__enter__()
    assert shift() == 5.0
    blocks.pop(first_left).__exit__(None, None, None)
    (left,) = blocks
    assert shift() == shifts[left]
    assert generate(model, WORDS[:1])[0] == steered_text(model, shifts[left])
    blocks.pop(left).__exit__(None, None, None)
    assert torch.equal(residuals(model, TOKENS), clean)


def test_a_generator_that_holds_a_block_may_outlive_a_later_one(model):
    clean = residuals(model, TOKENS)

    def steered():
        with adding(2.0).on(model):
            yield

    holding = steered()
    next(holding)
    with ExitStack() as stack:
        stack.enter_context(adding(3.0).on(model))
        holding.close()
        torch.testing.assert_close(residuals(model, TOKENS)[:, 1:], clean[:, 1:] + 3 * unit(dtype=clean.dtype))
    assert torch.equal(residuals(model, TOKENS), clean)


def test_a_block_left_between_steps_of_a_stream_ends_its_edits_there(model):
    def stream():
        return model.generate_stream(
            WORDS[0], max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens",
            max_tokens_per_yield=1,
        )  # fmt: skip

    with adding(where="generated").on(model):
        pieces = stream()
        next(pieces)
        block = adding(5.0).on(model)
        block.__enter__()
        next(pieces)
    block.__exit__(None, None, None)
    assert len(list(pieces)) >= 1


def test_hooks_of_a_block_see_what_hooks_of_the_model_see(model):
    names = [name for name in model.hook_dict if name.startswith(("blocks.1.", "unembed", "ln_final"))]
    names = [name for name in names if not name.endswith(("_input", "attn_in", "mlp_in", "hook_result"))]

    def run(block):
        kept = []
        hooks = [(name, lambda value, hook, name=name: kept.append((name, value))) for name in names]
        with torch.no_grad(), block(hooks):
            model(TOKENS)
        return kept

    ours, theirs = run(lambda hooks: hooks_on(model, hooks)), run(lambda hooks: model.hooks(fwd_hooks=hooks))
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert len(ours) > 10
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_hooks_of_a_block_change_what_hooks_of_the_model_change(model):
    for name in (
        "blocks.1.hook_resid_post",
        "blocks.1.attn.hook_pattern",
        "blocks.1.attn.hook_z",
        "blocks.1.hook_mlp_out",
    ):
        hooks = [(name, lambda value, hook: value * 0.5)]
        with hooks_on(model, hooks):
            ours = model(TOKENS)
        with model.hooks(fwd_hooks=hooks):
            theirs = model(TOKENS)
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, model(TOKENS))


def test_hook_points_that_are_not_there_or_not_used_are_refused(model):
    with (
        pytest.raises(LookupError, match=r"no hook point 'blocks\.1\.hook_resid_pots'"),
        hooks_on(model, [("blocks.1.hook_resid_pots", print)]),
    ):
        pass
    with (
        pytest.raises((AssertionError, ValueError), match=r"hook_result (because|if) use_attn_result"),
        hooks_on(model, [("blocks.1.attn.hook_result", print)]),
    ):
        pass


def test_taking_off_all_hooks_takes_off_the_callers_alone(model):
    clean = residuals(model, TOKENS)
    calls = []
    with adding().on(model):
        model.add_hook(HOOK, lambda residual, hook: calls.append(1))
        model.reset_hooks()
        steered = residuals(model, TOKENS)
    assert not calls
    torch.testing.assert_close(steered[:, 1:], clean[:, 1:] + 9 * unit(dtype=clean.dtype))


def test_a_pass_that_stops_early_runs_no_later_layer(model):
    runs = []
    hooks = [
        (f"blocks.{layer}.hook_resid_post", lambda r, hook, layer=layer: runs.append(layer)) for layer in range(3)
    ]
    for stop in (1, 2, 3):
        runs.clear()
        hooked_pass(model, TOKENS, fwd_hooks=hooks[:stop], stop_at_layer=stop)
        assert runs == list(range(stop))
    assert torch.equal(model(TOKENS), model(TOKENS))


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_made_inside_a_block_is_the_plain_model(model, way):
    try:
        duplicate = {"deepcopy": copy.deepcopy, "pickle": lambda one: pickle.loads(pickle.dumps(one))}[way]
        duplicate(model)
    except Exception as error:  # TransformerLens's own limits are not ours
        pytest.skip(f"this model has no copy by {way}: {type(error).__name__}")
    clean = generate(model, WORDS)
    with adding().on(model):
        steered = generate(model, WORDS)
        copied = duplicate(model)
        assert generate(copied, WORDS)[0] == clean[0]
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.mul_(0.5)
        changed = generate(copied, WORDS)
        assert torch.equal(generate(model, WORDS)[1], steered[1])
        with adding().on(copied):
            assert not torch.equal(generate(copied, WORDS)[1], changed[1])
    assert (changed[1] - clean[1]).abs().max() > 1e-3
    assert torch.equal(generate(copied, WORDS)[1], changed[1])
    assert left_on(copied) == {}
    assert torch.equal(generate(model, WORDS)[1], clean[1])


def test_a_steering_of_one_model_leaves_others_of_its_class_alone(model, tmp_path):
    other = (
        tiny_models.bridge(model.tokenizer, tmp_path) if "Bridge" in type(model).__name__ else copy.deepcopy(model)
    )
    clean = generate(other, WORDS)
    with adding().on(model):
        assert torch.equal(generate(other, WORDS)[1], clean[1])
        with adding(where="generated").on(other):
            assert not torch.equal(generate(other, WORDS)[1], clean[1])
