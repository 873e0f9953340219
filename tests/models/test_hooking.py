"""Blocks own what they put on a model: left in any order, in their own thread alone, and nothing on copies."""

import asyncio
import copy
import pickle
import sys
import threading
from contextlib import ExitStack

import pytest
import tiny_models
import torch
import transformer_lens.utilities
from left_behind import left_on
from tiny_steering import HOOK, TOKENS, WORDS, adding, generate, residuals, unit

import lrc_tl as lrc
from lrc_tl.models import following
from lrc_tl.models.following import generation_of
from lrc_tl.models.hooking import hooked_pass, hooks_on

N_PASSES = 40
OFTEN = 1e-5
"""Seconds after which a thread lets others run: 500 times as often as Python's own."""


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


def steered_text(model, strength):
    """What a thread of its own says, whose steering is alone."""
    said = []

    def run():
        with adding(strength).on(model):
            said.append(generate(model, WORDS[:1])[0])

    in_threads(run)
    return said[0]


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


def in_threads(*works):
    """Run each in a thread of its own, all at once, which take turns often; the first error is raised."""
    errors = []
    usual = sys.getswitchinterval()

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    sys.setswitchinterval(OFTEN)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("strengths", [(9.0, None), (9.0, -4.0), (2.0, 9.0, None)], ids=str)
def test_a_steering_acts_on_the_passes_of_its_own_thread_alone(model, strengths):
    def passes(strength, n):
        kept = []
        for _ in range(n):
            with adding(strength).on(model) if strength is not None else ExitStack():
                kept.append(model(TOKENS)[0, -1])
        return torch.stack(kept)

    expected = [passes(strength, 1) for strength in strengths]
    found = [None] * len(strengths)

    def work(number):
        found[number] = passes(strengths[number], N_PASSES)

    in_threads(*(lambda number=number: work(number) for number in range(len(strengths))))
    for ours, alone in zip(found, expected, strict=True):
        assert torch.equal(ours, alone.expand_as(ours))


@pytest.mark.parametrize("cache", [True, False])
def test_generation_in_two_threads_is_that_of_each_alone(model, cache):
    works = [(9.0, WORDS), (None, WORDS[:1]), (-4.0, WORDS[1:])]

    def texts(strength, words):
        with adding(strength, where="generated").on(model) if strength is not None else ExitStack():
            return generate(model, words, cache=cache)

    expected = [texts(*work) for work in works]
    found = [[] for _ in works]

    def repeat(number):
        for _ in range(4):
            # Unsteered generation of TransformerLens is not safe in threads by itself: it takes its turn here too.
            found[number].append(texts(*works[number]))

    with adding(0.0).on(model):
        in_threads(*(lambda number=number: repeat(number) for number in range(len(works))))
    for one, alone in zip(found, expected, strict=True):
        for tokens, logits in one:
            assert tokens == alone[0]
            assert torch.equal(logits, alone[1])


def test_measured_generation_in_two_threads_is_that_of_each_alone(model):
    def made(strength):
        steering = [adding(strength)] if strength else []
        return [
            (one.text, one.kl) for one in lrc.generate(model, list(WORDS), steering=steering, max_new_tokens=3)
        ]

    strengths = (9.0, 0.0, -4.0)
    expected = [made(strength) for strength in strengths]
    found = [[] for _ in strengths]
    in_threads(
        *(
            lambda number=number: found[number].extend(made(strengths[number]) for _ in range(3))
            for number in range(len(strengths))
        )
    )
    for one, alone in zip(found, expected, strict=True):
        for made_now in one:
            assert [text for text, _ in made_now] == [text for text, _ in alone]
            assert all(torch.equal(kl, other) for (_, kl), (_, other) in zip(made_now, alone, strict=True))


def test_a_pass_of_another_thread_leaves_the_cache_of_a_generation_alone(model):
    """A TransformerBridge keeps the cache of the last pass on itself until its generation takes it."""
    other_ids = torch.tensor([[1, 9, 8, 7]])
    expected = [(one.text, one.kl) for one in lrc.generate(model, list(WORDS), steering=[adding(9.0)])]
    others = []

    def pass_meanwhile(module, args, output):
        if not others:  # the first step of the generation has made its cache, and has not taken it yet
            other = threading.Thread(target=hooked_pass, args=(model, other_ids), kwargs={"fwd_hooks": []})
            others.append(other)
            other.start()
            other.join(timeout=0.3)

    handle = model.register_forward_hook(pass_meanwhile)
    try:
        with_another = lrc.generate(model, list(WORDS), steering=[adding(9.0)])
    finally:
        handle.remove()
    others[0].join(timeout=60)
    assert not others[0].is_alive()
    for one, (text, kl) in zip(with_another, expected, strict=True):
        assert one.text == text
        assert torch.equal(one.kl, kl)


def prompts():
    return [
        lrc.Prompt(text=f"w3 w8 w{subject} w{template}", subject=f"w{subject}", object=f"w{30 + subject % 2}")
        for subject in range(10, 14)
        for template in (4, 5)
    ]


def test_fits_in_two_threads_are_those_of_each_alone(model):
    def fit(layers):
        return lrc.LinearRelationalEmbedding.fit(
            model, prompts(), subject_layer=layers[0], object_layer=layers[1], progress=False
        ).weight

    pairs = [(0, 2), (1, 2), (0, 1)]
    expected = [fit(layers) for layers in pairs]
    found = [[] for _ in pairs]
    plain = model(TOKENS)
    passes = []

    def plain_passes():
        passes.extend(model(TOKENS) for _ in range(N_PASSES))

    def fits(number):
        found[number].extend(fit(pairs[number]) for _ in range(2))

    in_threads(plain_passes, *(lambda number=number: fits(number) for number in range(len(pairs))))
    for weights, alone in zip(found, expected, strict=True):
        assert all(torch.equal(weight, alone) for weight in weights)
    assert all(torch.equal(logits, plain) for logits in passes)


def test_tasks_of_one_thread_keep_their_steerings_apart(model):
    clean = model(TOKENS)
    with adding(9.0).on(model):
        expected = model(TOKENS)

    async def steered():
        with adding(9.0).on(model):
            await asyncio.sleep(0)
            assert torch.equal(model(TOKENS), expected)
            assert torch.equal(await asyncio.to_thread(model, TOKENS), expected)
            await asyncio.sleep(0)

    async def plain():
        for _ in range(4):
            assert torch.equal(model(TOKENS), clean)
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(steered(), plain(), steered())

    asyncio.run(both())


def test_threads_that_share_a_block_have_positions_of_their_own(model):
    import contextvars

    lengths = (3, 7)
    ids = [torch.arange(length)[None] + 4 for length in lengths]
    with adding(where=-1).on(model):
        expected = [model(one) for one in ids]
        found = [[], []]

        def work(number):
            found[number].extend(model(ids[number]) for _ in range(N_PASSES))

        contexts = [contextvars.copy_context() for _ in lengths]
        in_threads(*(lambda n=n: contexts[n].run(work, n) for n in range(2)))
    for logits, alone in zip(found, expected, strict=True):
        assert all(torch.equal(one, alone) for one in logits)


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


def test_a_pass_of_another_thread_leaves_the_padding_side_of_a_generation_alone(model, monkeypatch):
    """A pass of HookedTransformer sets the tokenizer's padding side at its end to what it was at its beginning."""
    expected = [(one.text, one.kl) for one in lrc.generate(model, list(WORDS), steering=[adding(9.0)])]
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(activation, hook):
        has_begun.set()
        may_end.wait(timeout=0.5)

    held_hooks = {"fwd_hooks": [("blocks.0.hook_resid_pre", hold)]}
    other = threading.Thread(target=hooked_pass, args=(model, torch.tensor([[1, 9, 8, 7]])), kwargs=held_hooks)
    made_mask = transformer_lens.utilities.get_attention_mask

    def ending_the_other(*args):
        if generation_of(model) is not None:  # the padding side of this generation is set, and is read next
            may_end.set()
            other.join(timeout=60)
        return made_mask(*args)

    monkeypatch.setattr(transformer_lens.utilities, "get_attention_mask", ending_the_other)
    other.start()
    assert has_begun.wait(timeout=60)
    with_another = lrc.generate(model, list(WORDS), steering=[adding(9.0)])
    assert not other.is_alive()
    for one, (text, kl) in zip(with_another, expected, strict=True):
        assert one.text == text
        assert torch.equal(one.kl, kl)


def test_an_interrupt_that_kept_a_thread_from_giving_a_lock_back_stops_no_other(model, monkeypatch):
    monkeypatch.setattr(following, "_lock", threading.RLock())
    monkeypatch.setattr(following, "_LONGEST", 0.05)
    before = left_on(model)
    expected = steered_text(model, 9.0)
    following._lock.acquire()  # and never given back
    assert steered_text(model, 9.0) == expected
    assert left_on(model) == before
