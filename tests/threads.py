"""Work done in several threads at once, which take turns as often as they can."""

import sys
import threading

from tiny_steering import WORDS, adding, generate

OFTEN = 1e-5
"""Seconds after which a thread lets others run: 500 times as often as Python's own."""


def steered_text(model, strength):
    """What a thread of its own says, whose steering is alone."""
    said = []

    def run():
        with adding(strength).on(model):
            said.append(generate(model, WORDS[:1])[0])

    in_threads(run)
    return said[0]


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
