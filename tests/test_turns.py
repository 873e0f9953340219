"""Turns with a model: one lock for each, whoever asks first, and no lock that all models share."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lrc_tl.turns import turn


class Model:
    """Stands for a model: turns only need something that can be referred to weakly."""


def test_all_threads_get_the_lock_of_a_model_and_models_have_locks_of_their_own():
    for _ in range(50):
        model, start = Model(), threading.Barrier(8)

        def ask(number, model=model, start=start):
            start.wait()
            return turn(model)

        with ThreadPoolExecutor(8) as pool:
            locks = list(pool.map(ask, range(8)))
        assert all(lock is locks[0] for lock in locks)
        assert turn(Model()) is not locks[0]


def steps_of_a_turn():
    """How many lines and instructions the turn of one model takes."""
    return _interrupted(None)


def _interrupted(at):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.endswith("turns.py"):
            return None
        frame.f_trace_opcodes = True
        if event in ("call", "line", "opcode"):
            count += 1
            if count == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        turn(Model())
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("at", range(1, steps_of_a_turn() + 1))
def test_after_an_interrupt_anywhere_other_threads_still_have_their_turn(at):
    with pytest.raises(KeyboardInterrupt):
        _interrupted(at)
    taken = []
    other = threading.Thread(target=lambda: taken.append(turn(Model())), daemon=True)
    other.start()
    other.join(5)
    assert len(taken) == 1
