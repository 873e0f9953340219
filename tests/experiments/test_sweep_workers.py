"""Where units run: other processes, executors, clusters and shards give the same rows."""

import json
import subprocess
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from tiny_sweep import SETTINGS, assert_same_rows, model_folder

import lrc_tl as lrc
from lrc_tl.experiments import merge_sweeps


@pytest.fixture(scope="module")
def place(one_thread, tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(place):
    return place[0]


@pytest.fixture(scope="module")
def relations(place):
    return place[2]


@pytest.fixture(scope="module")
def whole(folder, relations):
    """In this process, with one thread, as each worker has here."""
    return lrc.run_sweep(folder, relations, settings=SETTINGS)


def test_two_processes_give_the_same_bits(folder, relations, whole):
    assert torch.get_num_threads() == 1
    assert_same_rows(lrc.run_sweep(folder, relations, settings=SETTINGS, workers=2), whole)


def test_a_process_for_each_device_gives_the_same_bits(folder, relations, whole):
    assert_same_rows(lrc.run_sweep(folder, relations, settings=SETTINGS, devices=["cpu", "cpu"]), whole)


def test_executors_of_threads_and_processes_give_the_same_bits(folder, relations, whole):
    with ThreadPoolExecutor(2) as executor:
        assert_same_rows(lrc.run_sweep(folder, relations, settings=SETTINGS, executor=executor), whole)
        model = lrc.load_model(folder)
        assert_same_rows(lrc.run_sweep(model, relations, settings=SETTINGS, executor=executor), whole)
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as executor:
        assert_same_rows(lrc.run_sweep(folder, relations, settings=SETTINGS, executor=executor), whole)


class Reversed(Executor):
    """Runs what it is given when its last result is asked for, last first."""

    def __init__(self):
        self.waiting = []

    def submit(self, function, /, *arguments, **options):
        future = Future()
        if not options and len(arguments) == 1:  # the facts of the model, which the units wait for
            future.set_result(function(*arguments))
            return future
        self.waiting.append((future, function, arguments))
        if len(self.waiting) == 4:
            for later, call, given in reversed(self.waiting):
                later.set_result(call(*given))
        return future


def test_the_order_in_which_units_finish_changes_nothing(folder, relations, whole):
    assert_same_rows(lrc.run_sweep(folder, relations, settings=SETTINGS, executor=Reversed()), whole)


def test_three_shards_make_the_whole_sweep(folder, relations, whole, tmp_path):
    parts = [tmp_path / f"part{number}" for number in range(3)]
    for number, part in enumerate(parts):
        lrc.run_sweep(folder, relations, settings=SETTINGS, out=part, shard=f"{number}/3")
    merged = merge_sweeps(parts, out=tmp_path / "merged")
    assert_same_rows(merged, whole)
    assert_same_rows(lrc.SweepResult.load(tmp_path / "merged"), whole)
    assert merged.settings == whole.settings
    best = {"method": "lrc", "subject_layer": 1, "rank": 4}
    assert merged.compare(best, "svm" if len(merged.cells) < 3 else {"method": "svm", "subject_layer": 1}).n > 0
    with pytest.raises(lrc.errors.ResumeError, match="holds results already; give a new folder"):
        merge_sweeps(parts, out=tmp_path / "merged")
    with pytest.raises(lrc.errors.ResumeError, match="which another record has too"):
        merge_sweeps([*parts, parts[0]], out=tmp_path / "twice")


def test_parts_of_different_sweeps_are_not_merged(folder, relations, tmp_path):
    quick = replace(SETTINGS, metrics="accuracy")
    lrc.run_sweep(folder, relations, settings=quick, out=tmp_path / "a", shard=(0, 2))
    lrc.run_sweep(folder, relations, settings=replace(quick, max_facts=30), out=tmp_path / "b", shard=(1, 2))
    with pytest.raises(lrc.errors.ResumeError, match=r"different sweeps \(settings: max_facts null, now 30"):
        merge_sweeps([tmp_path / "a", tmp_path / "b"], out=tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(lrc.errors.ResumeError, match="holds no sweep"):
        merge_sweeps([tmp_path / "a", tmp_path / "empty"], out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_model_object_cannot_travel(folder, relations):
    model = lrc.load_model(folder)
    for options in ({"workers": 2}, {"devices": ["cpu"]}, {"executor": Reversed()}):
        with pytest.raises(ValueError, match="a model object cannot travel there; give the model's name"):
            lrc.run_sweep(model, relations, settings=SETTINGS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2, "devices": ["cpu"]}, "workers and devices were given; each says where units run"),
        ({"workers": 0}, "workers is 0; it must be 1 or more"),
        ({"devices": []}, r"devices is \[\]; give a list, such as"),
        ({"devices": "cuda:0"}, "devices is 'cuda:0'; give a list, such as"),
        ({"shard": "3/3"}, "shard is 3/3; of 3 shards the places are 0 to 2"),
        ({"shard": "a"}, "shard is 'a'; give its place and how many there are, as in 0/3"),
        ({"resume": True}, "resume needs out"),
    ],
)
def test_bad_places_are_refused_before_anything_runs(relations, options, message):
    with pytest.raises(ValueError, match=message):
        lrc.run_sweep("no such model", relations, settings=SETTINGS, **options)


def test_what_is_no_executor_is_refused(relations):
    with pytest.raises(TypeError, match=r"executor is of the type int; give a concurrent.futures.Executor"):
        lrc.run_sweep("no such model", relations, settings=SETTINGS, executor=3)


def test_a_killed_worker_is_one_line_and_the_sweep_goes_on_when_resumed(folder, relations, whole, tmp_path):
    script = (
        "import os, signal, sys, threading, time\n"
        "sys.path[:0] = ['tests']\n"
        "import torch; torch.set_num_threads(1)\n"
        "import lrc_tl as lrc, multiprocessing\n"
        "from tiny_sweep import SETTINGS\n"
        "def kill(record):\n"
        "    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    relations = list(lrc.load_relations(sys.argv[2])[0].values())\n"
        "    try:\n"
        "        options = {'workers': 2, 'out': sys.argv[3], 'on_record': kill}\n"
        "        lrc.run_sweep(sys.argv[1], relations, settings=SETTINGS, **options)\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
    )
    (tmp_path / "run.py").write_text(script)
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore", str(tmp_path / "run.py"), folder, folder.parent / "relations",
            tmp_path / "out",
        ],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "a worker process was killed" in done.stdout, done.stderr
    n_finished = len(list((tmp_path / "out" / "records").glob("*.json")))
    assert 1 <= n_finished < 4
    run = []
    again = lrc.run_sweep(
        folder, relations, settings=SETTINGS, out=tmp_path / "out", resume=True, on_record=run.append
    )
    assert len(run) == 4 - n_finished
    assert_same_rows(again, whole)


def test_dask_gives_the_same_bits_when_a_worker_is_killed(folder, relations, whole, tmp_path):
    pytest.importorskip("distributed")
    script = Path(__file__).with_name("dask_sweep.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), folder, folder.parent / "relations", tmp_path],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"killed": True}
    for name in ("plain", "killed"):
        assert_same_rows(lrc.SweepResult.load(tmp_path / name), whole)
