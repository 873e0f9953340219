"""A short run of `tests/fuzz/run.py`, whether its guards see what they are for, and what long runs have found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_up_units import UNITS, unit_record, write_shard
from test_protocol_result import RESULT

import lrc_tl as lrc
from lrc_tl.experiments.resuming import record_files
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.experiments.sweep_rows import read_rows
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.storage.artifacts import write_artifact
from lrc_tl.storage.json_results import _checksum

RUN = Path(__file__).with_name("run.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and /proc are Linux's")


def environment():
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(RUN.parents[2]), str(RUN.parent)]),
        "OMP_NUM_THREADS": "1",
    }


def test_damaged_files_of_every_kind_are_read_or_refused_in_our_own_words():
    done = subprocess.run(
        [sys.executable, str(RUN), "--inputs", "1500", "--seed", "7"],
        env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 12  # eleven kinds and their sum
    assert rows[-1]["inputs"] >= 1500
    for row in rows:  # damage is seen, and not everything is refused for one reason
        assert row["read"] > 0
        assert row["refused"] > 0


GUARDED = """
import os, pickle, signal, sys, time
from pathlib import Path
import guards
guards.SECONDS = 1
place = guards.own_folder()
watch = guards.Watch(place / "given", sys.argv[1])
def seen(act):
    watch.seen.clear()
    with watch.reading():
        act()
    return len(watch.seen)
class Evil:
    def __reduce__(self):
        return os.getcwd, ()
evil = pickle.dumps(Evil())
def write(path):
    return lambda: path.write_text("x")
found = {
    "inside": seen(write(place / "given" / "x")),
    "library": seen(lambda: Path(os.__file__).read_bytes()),
    "outside": seen(write(place / "outside")),
    "above": seen(write(place / "given" / ".." / "outside")),
    "reads": seen(lambda: open("/etc/hostname", "rb").close()),
    "pickle": seen(lambda: pickle.loads(evil)),
    "system": seen(lambda: os.system("true")),
}
try:
    seen(lambda: time.sleep(30))
except guards.Hang:
    found["hang"] = 1
guards.MEMORY_BYTES = 1 << 28
guards.limit_memory()
try:
    seen(lambda: bytearray(1 << 30))
except MemoryError:
    found["memory"] = 1
print(found)
"""


def test_the_guards_see_what_they_are_for():
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(RUN.parents[2])],
        env=environment(), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = eval(done.stdout)  # what the lines above printed
    assert (found.pop("inside"), found.pop("library")) == (0, 0)
    assert len(found) == 7
    assert min(found.values()) == 1


# What it found, each mended since


def resealed(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("checksum")
    change(data)
    path.write_text(json.dumps({**data, "checksum": _checksum(data)}), encoding="utf-8")


@pytest.mark.parametrize("shape", [(), (60,), (0, 4), (2, 3, 4)])
def test_statistics_whose_samples_are_no_rows_are_refused(tmp_path, shape):
    header = {"kind": "subjects", "sources": ["a"], "layers": [0], "fingerprint": {}}
    tensors = {"source_of": torch.zeros(60, dtype=torch.int64), "layer.0": torch.ones(shape)}
    write_artifact(tmp_path / "a", kind="subject_statistics", tensors=tensors, header=header)
    with pytest.raises(lrc.errors.ArtifactError, match=r"its tensor 'layer.0' is torch.float32 of shape"):
        lrc.SubjectStatistics.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(methods=["lrc", "svm"]), "has no svm"),
        (lambda data: data.update(methods=[["lrc"]]), "must be a list of names"),
        (lambda data: data.update(compare="lrc"), "must be a list of names"),
    ],
)
def test_a_result_that_does_not_hold_the_methods_that_it_names_is_refused(tmp_path, change, message):
    RESULT.save(tmp_path / "r")
    resealed(tmp_path / "r", change)
    with pytest.raises(lrc.errors.ResumeError, match=message):
        lrc.ProtocolResult.load(tmp_path / "r")


@pytest.mark.parametrize("field", ["cells", "left_out", "relation", "seconds"])
def test_a_sweeps_record_without_a_field_is_refused_when_it_is_used(tmp_path, field):
    write_shard(tmp_path, [unit_record(*unit, n=3) for unit in UNITS[:2]])
    resealed(record_files(tmp_path / "records")[0], lambda data: data["record"].pop(field))
    result = SweepResult.load(tmp_path)
    with pytest.raises(lrc.errors.ResumeError, match="a record of this sweep is not as it was written"):
        print(result.left_out, result.seconds)


@pytest.mark.parametrize("column", ["relation", "seed", "value"])
@pytest.mark.parametrize("value", [b"\xff", [1], {"a": 1}, True, "x"])
def test_rows_of_other_types_are_refused(tmp_path, column, value):
    write_shard(tmp_path, [unit_record(*UNITS[0], n=3)])
    (path,) = (tmp_path / "rows").iterdir()
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    changed = table.set_column(place, column, pa.array([value] * len(table)))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    if column == "relation" and value == "x":
        assert set(read_rows([path])["relation"]) == {"x"}
        return
    with pytest.raises(lrc.errors.ResumeError, match="delete it to have it made anew"):
        read_rows([path])


def test_rows_with_a_column_whose_name_is_no_text_are_refused(tmp_path):
    write_shard(tmp_path, [unit_record(*UNITS[0], n=3)])
    (path,) = (tmp_path / "rows").iterdir()
    data = path.read_bytes()
    # Each name stands in the schema, and in front of the pages of its column.
    path.write_bytes(data.replace(b"metric", b"me\x98ric"))
    with pytest.raises(lrc.errors.ResumeError, match="delete it to have it made anew"):
        read_rows([path])


def test_settings_with_numbers_beyond_floating_point_or_odd_names_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"betas\[0\] is a whole number too large for floating point"):
        SweepSettings(subject_layers=0, methods="mean", betas=10**400)
    with pytest.raises(ValueError, match=r"have no \\x1b\[2J") as caught:
        SweepSettings.from_dict({"\x1b[2J": 1})
    assert str(caught.value).isprintable()
