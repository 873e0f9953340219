"""Turns with a model: one lock for each, whoever asks first, which no interrupt keeps from other threads."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lrc_tl.turns import turn


class Model:
    """Stands for a model: turns only need something that can be referred to weakly."""


def taken_by_another_thread(model):
    """Whether another thread has its turn with the model within some seconds."""
    done = threading.Event()

    def take():
        with turn(model):
            done.set()

    threading.Thread(target=take, daemon=True).start()
    return done.wait(5)


def test_threads_take_turns_with_a_model_from_the_first_one_on():
    for _ in range(50):
        model, start, inside, most = Model(), threading.Barrier(8), [], []

        def use(number, model=model, start=start, inside=inside, most=most):
            start.wait()
            with turn(model):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.0001)
                inside.remove(number)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
        assert most == [1] * 8


def test_a_thread_has_its_turn_again_inside_of_it_and_models_have_turns_of_their_own():
    model = Model()
    with turn(model), turn(model):
        assert taken_by_another_thread(Model())
        done = threading.Event()
        other = threading.Thread(target=lambda: (turn(model).__enter__(), done.set()), daemon=True)
        other.start()
        assert not done.wait(0.05)
    assert done.wait(5)


def test_an_error_in_a_block_gives_the_turn_back_and_goes_on():
    model = Model()
    with pytest.raises(ZeroDivisionError), turn(model):
        1 / 0  # noqa: B018
    assert taken_by_another_thread(model)


def steps_of_a_turn():
    """How many calls, lines and instructions a block takes, in this file's block and in the module."""
    return _interrupted(Model(), None)


def _block(model):
    with turn(model):
        pass


def _interrupted(model, at):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code is not _block.__code__ and not frame.f_code.co_filename.endswith("turns.py"):
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
        _block(model)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("at", range(1, steps_of_a_turn() + 1))
def test_after_an_interrupt_anywhere_other_threads_still_have_their_turn(at):
    model = Model()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(model, at)
    assert taken_by_another_thread(model)
    assert taken_by_another_thread(Model())
