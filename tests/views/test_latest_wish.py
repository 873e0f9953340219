"""The latest wish wins: what waits is replaced, what is under way ends, and no thread is left."""

import threading

import pytest
from chromium import until

from lrc_tl.views.latest_wish import LatestWish, Superseded


class Work:
    """Work that goes on until it is ended or let go; what happened stands in `begun` and `ended`."""

    def __init__(self):
        self.begun, self.ended, self.granted = [], [], []
        self.let_go = threading.Event()

    def __call__(self, wish, check):
        self.begun.append(wish)
        try:
            while not self.let_go.wait(0.002):
                check()
        except Superseded:
            self.ended.append(wish)
            raise
        self.granted.append(wish)


def test_a_newer_wish_ends_what_is_under_way_and_replaces_what_waits():
    work = Work()
    latest = LatestWish(work)
    latest.ask(1)
    until(lambda: work.begun == [1], "the first wish")
    with latest._lock:  # so that both come while the first is under way
        latest._waiting = [2]
    latest.ask(3)
    until(lambda: work.begun == [1, 3], "the last wish")
    work.let_go.set()
    assert latest.wait(5)
    assert (work.ended, work.granted) == ([1], [3])


def test_of_many_wishes_the_last_is_always_granted():
    granted = []
    latest = LatestWish(lambda wish, check: (check(), granted.append(wish)))
    for round_ in range(30):
        for wish in range(20):
            latest.ask((round_, wish))
        assert latest.wait(5)
        assert granted[-1] == (round_, 19)


def test_stop_ends_what_is_under_way_and_the_next_wish_is_granted():
    work = Work()
    latest = LatestWish(work)
    latest.ask(1)
    until(lambda: work.begun, "the wish")
    latest.stop()
    assert latest.wait(5)
    assert work.ended == [1]
    work.let_go.set()
    latest.ask(2)
    assert latest.wait(5)
    assert work.granted == [2]


def test_there_is_a_thread_only_while_there_is_work():
    latest = LatestWish(lambda wish, check: None)
    latest.stop()  # with nothing to stop
    for wish in range(3):
        latest.ask(wish)
        assert latest.wait(5)
        until(lambda: not any(thread.name == "lrc_tl explorer" for thread in threading.enumerate()), "its end")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_work_that_fails_does_not_keep_the_next_wish_from_a_thread():
    granted = []

    def work(wish, check):
        if wish == "bad":
            raise RuntimeError("no")
        granted.append(wish)

    latest = LatestWish(work)
    latest.ask("bad")
    assert latest.wait(5)
    latest.ask("good")
    assert latest.wait(5)
    assert granted == ["good"]
