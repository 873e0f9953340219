"""Ctrl-C at any moment leaves nothing of lrc_tl on the model."""

import signal
import sys
import threading

import pytest
import torch
from left_behind import left_on
from tiny_steering import TOKENS, WORDS, adding, generate

import lrc_tl as lrc
from lrc_tl.evaluation.control_tasks import random_weights
from lrc_tl.models.fingerprint import _taken, fingerprints_once
from lrc_tl.passes.padding import told_lengths, whole_rows
from lrc_tl.relations.prompts import _remembered, tokens_once

N_STEPS = 32
"""Steps tried for each work in the files that put things on a model, and half as many elsewhere."""
N_SIGNALS = 40
OWNERS = (
    "/hooking.py", "/clean_pass.py", "/following.py", "/tracking.py", "/control_tasks.py", "/padding.py",
)  # fmt: skip
WORKS = (
    "evaluate",
    "filter_known",
    "steer and generate",
    "steer by the clean run",
    "lrc.generate",
    "fit",
    "random weights",
)

# An interrupt may come while Python takes down a generator, and is lost there.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def model(word_model):
    return word_model


@pytest.fixture(scope="module")
def works(model):
    known = [
        lrc.Prompt(text=f"w3 w8 w{subject} w4", subject=f"w{subject}", object=f"w{30 + subject % 2}")
        for subject in range(10, 12)
    ]
    lre = lrc.LinearRelationalEmbedding.fit(model, known, subject_layer=0, object_layer=1, progress=False)
    concepts = lre.concepts(model, known, rank=4)

    def steer_and_generate():
        with adding(where="generated").on(model):
            generate(model, WORDS)

    def steer_by_the_clean_run():
        vector = torch.eye(12)[0]
        operation = lrc.steering.FromClean(does="reflect", vector=vector)
        with lrc.Steering(operation=operation, hook_name="blocks.1.hook_resid_post", layers="all").on(model):
            generate(model, WORDS)

    def fit():
        lrc.LinearRelationalEmbedding.fit(model, known, subject_layer=0, object_layer=2, progress=False)

    def randomize():
        with random_weights(model, seed=0):
            model(TOKENS)

    return {
        "evaluate": lambda: lrc.evaluate(model, concepts, known, beta=0.1),
        "filter_known": lambda: lrc.filter_known(model, known),
        "steer and generate": steer_and_generate,
        "steer by the clean run": steer_by_the_clean_run,
        "lrc.generate": lambda: lrc.generate(model, list(WORDS), steering=adding(), max_new_tokens=2),
        "fit": fit,
        "random weights": randomize,
    }


class Interrupted:
    """Counts the calls, lines and (in `OWNERS`) instructions of lrc_tl; KeyboardInterrupt at the given one."""

    def __init__(self, at=None):
        self.at, self.paths = at, []

    def __enter__(self):
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exception):
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        path = frame.f_code.co_filename
        if "/lrc_tl/" not in path:
            return None
        frame.f_trace_opcodes = path.endswith(OWNERS)
        paths, at = self.paths, self.at

        def step(frame, event, argument):
            if event in ("call", "line", "opcode"):
                paths.append(path)
                if len(paths) == at:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return step

        return step(frame, event, argument)


def spread(steps, n):
    return [steps[number * len(steps) // n] for number in range(n)] if len(steps) > n else steps


@pytest.mark.parametrize("name", WORKS)
def test_an_interrupt_at_any_step_leaves_nothing_on_the_model(model, works, name):
    work = works[name]
    clean, random_state = model(TOKENS), torch.get_rng_state()
    work()
    with Interrupted() as counted:
        work()
    steps = [step for step, path in enumerate(counted.paths, 1) if path.endswith(OWNERS)]
    others = [step for step, path in enumerate(counted.paths, 1) if not path.endswith(OWNERS)]
    chosen = spread(steps, N_STEPS) + spread(others, N_STEPS // 2)
    interrupted = 0
    for at in chosen:
        try:
            with Interrupted(at):
                work()
        except KeyboardInterrupt:
            interrupted += 1
        assert left_on(model) == {}, f"after an interrupt at step {at}"
        assert told_lengths(model) is None, f"after an interrupt at step {at}"
        assert torch.is_grad_enabled(), f"after an interrupt at step {at}"
        assert torch.equal(torch.get_rng_state(), random_state), f"after an interrupt at step {at}"
        assert torch.equal(model(TOKENS), clean), f"after an interrupt at step {at}"
    assert interrupted > 0.8 * len(chosen)


@pytest.mark.skipif(
    not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread(),
    reason="needs timers, which set off signals in the main thread",
)
@pytest.mark.parametrize("name", WORKS)
def test_a_signal_at_any_time_leaves_nothing_on_the_model(model, works, name):
    work = works[name]
    clean = model(TOKENS)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    try:
        for number in range(N_SIGNALS):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 * (number + 1))
                work()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert left_on(model) == {}
            assert told_lengths(model) is None
            assert torch.equal(model(TOKENS), clean)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0


def test_a_block_whose_way_out_is_interrupted_is_off_once_the_interrupt_is_forgotten(model):
    clean = model(TOKENS)

    def interrupt(*exception):
        raise KeyboardInterrupt

    def steered():
        block = adding().on(model)
        # Before the first instruction of the real `__exit__`, where nothing inside it can help.
        block_type = type("Block", (type(block),), {"__exit__": interrupt})
        block.__class__ = block_type
        with block:
            assert not torch.equal(model(TOKENS), clean)

    with pytest.raises(KeyboardInterrupt):
        steered()
    assert left_on(model) == {}
    assert torch.equal(model(TOKENS), clean)


def test_an_interrupt_leaves_no_fingerprint_no_tokens_and_no_lengths_remembered(model):
    blocks = (fingerprints_once, tokens_once, whole_rows)
    inside = {block.__wrapped__.__code__ for block in blocks}

    @fingerprints_once()
    def work():
        assert _taken.get() is not None
        assert _remembered.get() is not None
        with whole_rows(model, [3, 2]):
            assert told_lengths(model) == (3, 2)

    def interrupted_at(number):
        lines = 0

        def trace(frame, event, arg):
            nonlocal lines
            if frame.f_code not in inside:
                return None
            if event == "line":
                lines += 1
                if lines == number:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    number = 1
    while interrupted_at(number):
        assert (_taken.get(), _remembered.get(), told_lengths(model)) == (None, None, None), number
        number += 1
    assert number > 18
