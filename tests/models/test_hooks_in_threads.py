"""What a block puts on a model acts in its own thread or task alone, and an interrupted thread stops no other."""

import asyncio
import threading
from contextlib import ExitStack

import pytest
import torch
import transformer_lens.utilities
from left_behind import left_on
from threads import in_threads, steered_text
from tiny_steering import TOKENS, WORDS, adding, generate

import lrc_tl as lrc
from lrc_tl.models import following
from lrc_tl.models.following import generation_of
from lrc_tl.models.hooking import hooked_pass

N_PASSES = 40


@pytest.fixture(scope="module")
def model(word_model):
    return word_model


@pytest.fixture(autouse=True)
def nothing_is_left(model):
    before = left_on(model)
    yield
    assert left_on(model) == before


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
