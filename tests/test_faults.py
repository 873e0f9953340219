"""Disks that are full or read-only, processes that are killed or convert at once, clocks that go backwards.

Elsewhere: interrupts at any line (`models/test_interrupts.py`), threads (`models/test_hooks_in_threads.py`,
`test_turns.py`), damaged conversions and weights (`models/test_packaged.py`, `models/test_mapped_weights.py`),
killed runs and workers (`experiments/test_protocol_resume.py`, `experiments/test_sweep_workers.py`), no memory
(`lre/test_robust_fits.py`).
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from spoken import spoken_relations
from tiny_benchmark import SETTINGS, without_times

import lrc_tl
from lrc_tl.experiments.run import run_protocol
from lrc_tl.storage.artifacts import write_artifact

TESTS = Path(__file__).parent
SCRIPT = TESTS / "every_writer.py"
PLACES = [TESTS.parent, TESTS, *(TESTS / name for name in ("experiments", "storage", "fuzz"))]


def environment(**more):
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PLACES)), "OMP_NUM_THREADS": "1", **more}


def can_mount():
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs a file system of its own: root on Linux")


def on_a_disk_that_is(kind, tmp_path):
    """What every writer said on a disk of its own, which only that process sees."""
    (disk := tmp_path / "disk").mkdir()
    (beside := tmp_path / "beside").mkdir()
    command = f'mount -t tmpfs -o size=512k tmpfs "{disk}" && exec "$@"'
    done = subprocess.run(
        [
            "unshare", "--mount", "sh", "-c", command, "sh",
            sys.executable, str(SCRIPT), kind, str(disk), str(beside),
        ],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@needs_mount
def test_a_full_disk_is_said_and_every_file_stays_as_it_was(tmp_path):
    found = on_a_disk_that_is("full", tmp_path)
    assert found["changed"] == []
    for name, text in found["texts"].items():
        assert text is not None, name
        assert re.search("[Nn]o space", text), (name, text)
    for name in ("a sweep's unit", "merge_sweeps"):
        assert "make space and run the same again to resume" in found["texts"][name]


@needs_mount
def test_a_read_only_disk_is_said_and_every_file_stays_as_it_was(tmp_path):
    found = on_a_disk_that_is("read_only", tmp_path)
    assert found["changed"] == []
    for name, text in found["texts"].items():
        assert text is not None, name
        assert re.search("[Rr]ead-only|cannot be written to", text), (name, text)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_killed_while_it_saves_leaves_the_old_file_or_the_new_one(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "killed", str(tmp_path), ""],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found["seen"]) == 24
    assert set(found["seen"]) == {0, 1}
    assert all(name.startswith(".") and name.endswith(".partial") for name in found["others"])


CONVERTING = """
import sys, time
from pathlib import Path
from lrc_tl.models import packaged

def convert(parts, working, name, **given):
    with open(sys.argv[2], "a") as log:
        log.write("converts\\n")
    (working / name).mkdir()
    (working / name / "config.json").write_text("half")
    time.sleep(1)
    (working / name / "config.json").write_text("whole")

packaged._convert = convert
Path(sys.argv[3]).touch()
while len(list(Path(sys.argv[3]).parent.glob("ready*"))) < 3:
    time.sleep(0.01)
target = packaged._converted(Path(sys.argv[1]), [], sha256="", damaged="")
print((target / "config.json").read_text())
"""


def test_processes_that_convert_the_same_model_at_once_convert_it_once_and_wait_for_each_other(tmp_path):
    target, log = tmp_path / "cache" / "some-model", tmp_path / "log"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERTING, str(target), str(log), str(tmp_path / f"ready{number}")],
            env=environment(), stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    assert [process.communicate(timeout=300)[0] for process in processes] == ["whole\n"] * 3
    assert log.read_text() == "converts\n"
    assert sorted(path.name for path in target.parent.iterdir()) == ["some-model", "some-model.lock"]


def test_two_writers_of_one_cached_file_leave_it_whole(tmp_path):
    """As two processes do that miss the same statistics: the last one counts, and no reader sees a half."""
    from concurrent.futures import ThreadPoolExecutor

    from lrc_tl.storage.artifacts import read_artifact

    path, tensors = tmp_path / "layer-1.safetensors", {"a": torch.arange(5000.0)}
    write_artifact(path, kind="k", tensors=tensors, header={"by": 0})

    def write(by):
        for _ in range(20):
            write_artifact(path, kind="k", tensors=tensors, header={"by": by})

    def read(_):
        return {read_artifact(path, kind="k")[1]["by"] for _ in range(20)}

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, by) for by in (1, 2)]
        reading = [pool.submit(read, number) for number in range(2)]
        assert all(future.result() is None for future in writing)
        assert set().union(*(future.result() for future in reading)) <= {0, 1, 2}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_no_line_asks_for_the_time_of_day():
    """A clock that is set back during a run must not matter: times are differences of a counter."""
    asked = re.compile(r"time\.time\b|time_ns|datetime|localtime|st_mtime|getmtime")
    sources = Path(lrc_tl.__file__).parent.rglob("*.py")
    assert [str(source) for source in sources if asked.search(source.read_text(encoding="utf-8"))] == []


def test_a_counter_that_runs_backwards_changes_seconds_alone(one_word_model, tmp_path, monkeypatch):
    relations = spoken_relations(one_word_model, 1)
    options = {"methods": ("mean", "svm"), "seeds": (1,), "settings": SETTINGS}
    expected = run_protocol(one_word_model, relations, out=tmp_path / "first", **options)
    ticks = itertools.count(10**6, -60)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    result = run_protocol(one_word_model, relations, out=tmp_path / "second", **options)
    assert without_times(result.to_dict()) == without_times(expected.to_dict())
    loaded = lrc_tl.ProtocolResult.load(tmp_path / "second")
    assert without_times(loaded.to_dict()) == without_times(expected.to_dict())
