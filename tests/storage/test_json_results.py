"""Result files: their head, what they may hold, and that they are written whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrc_tl.errors import ResultFileError
from lrc_tl.storage.json_results import HEAD, check_target, peak_rss_bytes, read_sealed_result, write_result

HEADING = {"kind": "demo", "settings": {"seed": 1, "out": Path("a")}, "model": None, "seconds": 1.5}


def test_a_result_file_has_the_common_head_and_the_results_at_the_top(tmp_path):
    path = tmp_path / "new" / "r.json"
    results = {"accuracy": np.float64(0.5), "n": np.int64(3), "rows": ({"name": "é"},), "range": range(2)}
    write_result(path, **HEADING, results=results)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert list(data) == [*HEAD, "accuracy", "n", "rows", "range"]
    assert data["schema"] == {"name": "lrc_tl.demo", "version": 1}
    assert data["settings"] == {"seed": 1, "out": "a"}
    assert (data["accuracy"], data["n"], data["rows"], data["range"]) == (0.5, 3, [{"name": "é"}], [0, 1])
    assert data["peak_rss_bytes"] > 1e7
    assert os.listdir(path.parent) == ["r.json"]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_result(
        tmp_path / "r.json", **HEADING, results={"a": [float("nan"), float("inf"), np.float32("nan"), 1.0]}
    )
    assert json.loads((tmp_path / "r.json").read_text())["a"] == [None, None, None, 1.0]


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ({"model": 1, "seconds": 2}, ValueError, "results may not be called model, seconds"),
        ({"a": [{"b": object()}]}, TypeError, r"the result\['a'\]\[0\]\['b'\] is a object"),
        ({"a": np.zeros(2)}, TypeError, r"the result\['a'\] is a ndarray"),
    ],
)
def test_what_cannot_be_written_is_refused_and_the_old_file_stays(tmp_path, results, error, message):
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(error, match=message):
        write_result(path, **HEADING, results=results)
    assert path.read_text() == "old"


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_result(path, **HEADING, results={})
    assert os.listdir(tmp_path) == ["r.json"]
    assert path.read_text() == "old"


def test_a_target_that_is_a_folder_or_lies_below_a_file_is_refused_before_a_run(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file"):
        check_target(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"Not a directory: .*file; give another place for r.json"):
        check_target(tmp_path / "file" / "r.json")


def test_a_check_makes_nothing_and_writing_makes_the_folders(tmp_path):
    check_target(tmp_path / "a" / "b" / "r.json")
    assert os.listdir(tmp_path) == []
    write_result(tmp_path / "a" / "b" / "r.json", **HEADING, results={})
    assert os.listdir(tmp_path / "a" / "b") == ["r.json"]


def test_a_folder_in_which_no_file_can_be_made_is_refused_whatever_its_permissions_say():
    with pytest.raises(
        PermissionError, match=r"the folder /proc cannot be written to; give another place for r.json"
    ):
        check_target(Path("/proc/r.json"))


def test_a_read_only_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("kept")
    monkeypatch.setattr(os, "access", lambda given, mode: given != path)  # root may write to any file
    with pytest.raises(PermissionError, match=r"r.json is read-only; give another name"):
        write_result(path, **HEADING, results={})
    assert path.read_text() == "kept"


def test_names_that_are_no_unicode_are_written_as_escapes(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.json")
    write_result(path, **HEADING, results={"file": path, "half": "\ud83d"})
    data = json.loads(path.read_text(encoding="utf-8"))
    assert (data["file"], data["half"]) == (str(path), "\ud83d")


def test_a_sealed_file_comes_back_whole_and_any_other_is_refused(tmp_path):
    path = tmp_path / "r.json"
    write_result(path, **HEADING, results={"a": [1.0, np.float64("nan")], "b": "\udcff"}, sealed=True)
    data = read_sealed_result(path, kind="demo", schema_version=1)
    assert (data["a"], data["b"]) == ([1.0, None], "\udcff")
    with pytest.raises(ResultFileError, match=r"its schema is .*lrc_tl.demo.*, not .*lrc_tl.other"):
        read_sealed_result(path, kind="other", schema_version=1)
    write_result(path, **HEADING, results={"a": 1})
    with pytest.raises(ResultFileError, match="does not match its checksum"):
        read_sealed_result(path, kind="demo", schema_version=1)
    with pytest.raises(ValueError, match="results may not be called checksum"):
        write_result(path, **HEADING, results={"checksum": 1})


def test_peak_memory_counts_what_was_held_and_let_go():
    code = (
        "from lrc_tl.storage.json_results import peak_rss_bytes as peak\n"
        "before = peak(); held = bytearray(b'x') * 200_000_000; del held; print(before, peak())"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    before, after = map(int, out.split())
    assert before < 150e6
    assert 190e6 < after - before < 250e6
    assert peak_rss_bytes() > before
