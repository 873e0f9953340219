"""Ctrl-C at any moment leaves nothing of lrc_tl on the model: an interrupt is raised at every k-th step in turn."""

import sys

import pytest
import torch
from left_behind import left_on
from tiny_steering import TOKENS, WORDS, adding, generate

import lrc_tl as lrc

N_INTERRUPTS = 120
"""Moments tried for each work, spread over all of it and dense where blocks are entered and left."""


@pytest.fixture(scope="module")
def model(word_model):
    return word_model


def prompts():
    return [
        lrc.Prompt(text=f"w3 w8 w{subject} w4", subject=f"w{subject}", object=f"w{30 + subject % 2}")
        for subject in range(10, 14)
    ]


class _Interrupter:
    """Counts the calls, lines and instructions of lrc_tl, and raises KeyboardInterrupt at a given one."""

    def __init__(self, at=None, dense=False):
        self.at, self.count, self.places = at, 0, []
        self._dense = dense

    def __enter__(self):
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exception):
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        code = frame.f_code
        name = code.co_filename
        if "/lrc_tl/" not in name:
            return None
        # Instructions inside the blocks' own file, lines elsewhere.
        frame.f_trace_opcodes = name.endswith(("hooking.py", "following.py", "tracking.py"))
        return self._step(frame, event, argument)

    def _step(self, frame, event, argument):
        # Nothing of a with statement's own way into `__exit__` can be guarded from inside; see the last test.
        if event in ("call", "line", "opcode") and not _on_the_way_in(frame, event):
            self.count += 1
            if self.at is None:
                self.places.append(frame.f_code.co_filename.rsplit("/", 1)[-1])
            elif self.count == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._step


def _on_the_way_in(frame, event):
    return False


def works(model):
    known = [*prompts()]
    lre = lrc.LinearRelationalEmbedding.fit(model, known, subject_layer=0, object_layer=1, progress=False)
    concepts = lre.concepts(model, known, rank=4)

    def steered():
        with adding(where="generated").on(model):
            generate(model, WORDS)

    def fit():
        lrc.LinearRelationalEmbedding.fit(model, known, subject_layer=0, object_layer=2, progress=False)

    return {
        "evaluate": lambda: lrc.evaluate(model, concepts, known, beta=0.1),
        "filter_known": lambda: lrc.filter_known(model, known),
        "steer and generate": steered,
        "lrc.generate": lambda: lrc.generate(model, list(WORDS), steering=adding(), max_new_tokens=2),
        "fit": fit,
    }


@pytest.fixture(scope="module")
def work_of(model):
    return works(model)


@pytest.mark.parametrize("name", ["evaluate", "filter_known", "steer and generate", "lrc.generate", "fit"])
def test_an_interrupt_leaves_nothing_on_the_model(model, work_of, name):
    work = work_of[name]
    clean, seed = model(TOKENS), torch.get_rng_state()
    work()
    with _Interrupter() as counted:
        work()
    steps = [n for n, place in enumerate(counted.places, 1) if place in ("hooking.py", "following.py")]
    others = [n for n in range(1, counted.count + 1) if n not in set(steps)]
    chosen = spread(steps, N_INTERRUPTS) + spread(others, N_INTERRUPTS // 4)
    interrupted = 0
    for at in chosen:
        try:
            with _Interrupter(at):
                work()
        except KeyboardInterrupt:
            interrupted += 1
        assert left_on(model) == {}, f"after an interrupt at step {at}"
        assert torch.is_grad_enabled(), f"after an interrupt at step {at}"
        assert torch.equal(torch.get_rng_state(), seed)
    assert interrupted > 0.9 * len(chosen)
    assert torch.equal(model(TOKENS), clean)


def spread(steps, n):
    return [steps[number * len(steps) // n] for number in range(n)] if len(steps) > n else steps
