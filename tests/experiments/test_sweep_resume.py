"""Sweeps that go on from stored units, grow, are killed, or have no space left."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from spoken import spoken_relations
from test_protocol_resume import rewrite
from tiny_sweep import SETTINGS, assert_same_rows, sorted_frame

import lrc_tl as lrc

QUICK = replace(SETTINGS, metrics="accuracy")


@pytest.fixture(scope="module")
def relations(word_model):
    return spoken_relations(word_model, 3)


@pytest.fixture(scope="module")
def finished(word_model, relations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "out"
    return lrc.run_sweep(word_model, relations[:2], settings=SETTINGS, out=folder)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished sweep's folder."""
    return shutil.copytree(finished.folder, tmp_path / "out")


def counted(model, relations, **options):
    """The result, and what was run: relation, seed and number of cells."""
    run = []
    result = lrc.run_sweep(
        model, relations, on_record=lambda record: run.append((record.relation, record.seed, len(record.cells))),
        **options,
    )  # fmt: skip
    return result, run


def test_a_finished_sweep_is_resumed_without_running_anything(word_model, relations, finished, folder):
    again, run = counted(word_model, relations[:2], settings=SETTINGS, out=folder, resume=True)
    assert run == []
    assert_same_rows(again, finished)


def test_a_folder_and_memory_give_the_same_rows(word_model, relations, finished):
    in_memory = lrc.run_sweep(word_model, relations[:2], settings=SETTINGS)
    assert_same_rows(in_memory, finished)
    assert_same_rows(lrc.SweepResult.load(finished.folder), finished)


def test_only_what_is_new_runs_when_axes_grow(word_model, relations, tmp_path):
    first = replace(QUICK, subject_layers=0, seeds=1)
    lrc.run_sweep(word_model, relations[:1], settings=first, out=tmp_path)
    name, other = relations[0].name, relations[1].name
    more_seeds = replace(first, seeds=(1, 2))
    _, run = counted(word_model, relations[:1], settings=more_seeds, out=tmp_path, resume=True)
    assert run == [(name, 2, 3)]
    _, run = counted(word_model, relations[:2], settings=more_seeds, out=tmp_path, resume=True)
    assert run == [(other, 1, 3), (other, 2, 3)]
    grown, run = counted(word_model, relations[:2], settings=QUICK, out=tmp_path, resume=True)
    assert run == [(name, 1, 3), (name, 2, 3), (other, 1, 3), (other, 2, 3)]
    at_once = lrc.run_sweep(word_model, relations[:2], settings=QUICK)
    assert_same_rows(grown, at_once)
    assert grown.settings == at_once.settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": 0.3}, r"made with other settings \(betas \[0.3, 0.8\], now \[0.3\]\); run with what it was"),
        ({"validation": 0.5, "max_facts": 20}, r"\(max_facts null, now 20; validation 0.25, now 0.5\)"),
    ],
)
def test_other_settings_are_refused_with_what_differs(word_model, relations, folder, changes, message):
    with pytest.raises(lrc.errors.ResumeError, match=message):
        lrc.run_sweep(word_model, relations[:2], settings=replace(SETTINGS, **changes), out=folder, resume=True)


def test_other_facts_another_model_and_a_benchmark_are_refused(word_model, relations, folder, tmp_path):
    changed = replace(relations[0], facts=relations[0].facts[:-1])
    with pytest.raises(lrc.errors.ResumeError, match="has changed"):
        lrc.run_sweep(word_model, changed, settings=SETTINGS, out=folder, resume=True)
    for record in (folder / "records").glob("*.json"):
        rewrite(record, lambda data: data["model"].update(d_model=9), sealed=True)
    with pytest.raises(lrc.errors.ResumeError, match="another model"):
        lrc.run_sweep(word_model, relations[:2], settings=SETTINGS, out=folder, resume=True)
    settings = lrc.ExperimentSettings(subject_layers=0, shots=0, betas=0.3)
    lrc.run_protocol(word_model, relations[:1], methods=["mean"], settings=settings, out=tmp_path / "benchmark")
    with pytest.raises(lrc.errors.ResumeError, match="holds results of a benchmark"):
        lrc.run_sweep(word_model, relations, settings=SETTINGS, out=tmp_path / "benchmark", resume=True)


def test_results_are_not_written_over_without_resume(word_model, relations, folder, monkeypatch):
    monkeypatch.setattr("lrc_tl.experiments.sweep.workers_for", None)  # refused before a model is loaded
    with pytest.raises(lrc.errors.ResumeError, match=r"holds 4 finished units .* add --resume"):
        lrc.run_sweep(word_model, relations, settings=SETTINGS, out=folder)


def test_a_damaged_record_is_refused_and_made_anew_once_it_is_deleted(word_model, relations, finished, folder):
    record = min((folder / "records").glob("*.json"))
    record.write_text(record.read_text()[:100])
    with pytest.raises(lrc.errors.ResumeError, match=f"{record.name} is damaged .*; delete it to have it made"):
        lrc.run_sweep(word_model, relations[:2], settings=SETTINGS, out=folder, resume=True)
    record.unlink()
    assert len(lrc.SweepResult.load(folder).to_frame()) < len(finished.to_frame())
    again, run = counted(word_model, relations[:2], settings=SETTINGS, out=folder, resume=True)
    assert len(run) == 1
    assert_same_rows(again, finished)


def test_rows_that_a_killed_run_did_not_write_come_from_the_record(word_model, relations, finished, folder):
    min((folder / "rows").glob("*.parquet")).unlink()
    again, run = counted(word_model, relations[:2], settings=SETTINGS, out=folder, resume=True)
    assert run == []
    assert_same_rows(again, finished)


def test_two_runs_cannot_write_to_one_folder(word_model, relations, folder):
    from filelock import FileLock

    with FileLock(folder / ".lock"), pytest.raises(RuntimeError, match="another run is writing to"):
        lrc.run_sweep(word_model, relations[:2], settings=SETTINGS, out=folder, resume=True)


def test_a_full_disk_is_one_line_and_what_was_finished_stays(
    word_model, relations, finished, tmp_path, monkeypatch
):
    from lrc_tl.experiments import sweep_store

    written = []

    def write_result(path, **options):
        written.append(path)
        if path.parent.name == "records" and len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, **options)

    real = sweep_store.write_result
    monkeypatch.setattr(sweep_store, "write_result", write_result)
    with pytest.raises(OSError, match=r"no space is left for .* finished units are kept: make space") as full:
        lrc.run_sweep(word_model, relations[:2], settings=SETTINGS, out=tmp_path)
    assert full.value.errno == errno.ENOSPC
    assert "\n" not in str(full.value)
    monkeypatch.undo()
    again, run = counted(word_model, relations[:2], settings=SETTINGS, out=tmp_path, resume=True)
    assert len(run) == 2
    assert_same_rows(again, finished)


def test_pandas_polars_and_duckdb_read_the_rows(finished):
    wanted = sorted_frame(finished)
    frame = pd.read_parquet(finished.folder / "rows")
    assert len(frame) == len(wanted)
    assert frame["value"].sum() == pytest.approx(wanted["value"].sum())
    files = str(finished.folder / "rows" / "*.parquet")
    polars = pytest.importorskip("polars")
    of_polars = polars.read_parquet(files)
    assert of_polars.columns == list(wanted.columns)
    assert of_polars["value"].sum() == pytest.approx(wanted["value"].sum())
    duckdb = pytest.importorskip("duckdb")
    ((count, total, layers),) = duckdb.sql(
        f"select count(*), sum(value), count(object_layer) from '{files}' where metric = 'accuracy'"
    ).fetchall()
    accuracy = wanted[wanted["metric"] == "accuracy"]
    assert (count, layers) == (len(accuracy), accuracy["object_layer"].count())
    assert total == pytest.approx(accuracy["value"].sum())


def test_every_file_of_rows_says_its_schema_and_another_version_is_refused(finished, folder):
    import pyarrow.parquet as pq

    path = min((folder / "rows").glob("*.parquet"))
    table = pq.read_table(path)
    assert table.schema.metadata[b"lrc_tl.schema"] == b"lrc_tl.sweep_rows"
    assert table.schema.metadata[b"lrc_tl.schema_version"] == b"1"
    pq.write_table(table.replace_schema_metadata({"lrc_tl.schema_version": "2"}), path)
    with pytest.raises(lrc.errors.ResumeError, match=f"{path.name} has rows of version 2, and this lrc_tl reads"):
        lrc.SweepResult.load(folder)
    path.write_bytes(b"PAR1")
    with pytest.raises(lrc.errors.ResumeError, match=f"{path.name} is damaged or no file of rows"):
        lrc.SweepResult.load(folder)


KILLED = """
import json, os, random, signal, sys, tempfile, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = ["tests"]
import tiny_models
from spoken import spoken_relations
from tiny_sweep import SETTINGS, sorted_frame
import lrc_tl as lrc

folder = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as place:
    tokenizer = tiny_models.word_tokenizer(place)
    model = tiny_models.bridge(tokenizer, place).eval().requires_grad_(False)
    relations = spoken_relations(model, 3)
    whole = lrc.run_sweep(model, relations, settings=SETTINGS)
    draw = random.Random(0)
    frames, counts, again, finished = [], [], 0, {}
    kills = 0
    while kills < 20:
        out = folder / f"out{len(frames)}"
        started = time.perf_counter()
        while True:
            child = os.fork()
            if child == 0:
                begun = (folder / "begun").open("w")
                def note(record):
                    begun.write(f"{record.relation} {record.seed}\\n")
                    begun.flush()
                lrc.run_sweep(model, relations, settings=SETTINGS, out=out, resume=True, on_record=note)
                os._exit(0)
            deadline = time.perf_counter() + draw.expovariate(1 / float(sys.argv[2]))
            status = 0
            while time.perf_counter() < deadline and not status:
                done, _ = os.waitpid(child, os.WNOHANG)
                status = done
                time.sleep(0.002)
            if status:
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            run = set((folder / "begun").read_text().splitlines()) if (folder / "begun").exists() else set()
            again += len(run & finished.get(out, set()))
            finished.setdefault(out, set()).update(run)
            (folder / "begun").unlink(missing_ok=True)
            counts.append(len(list((out / "records").glob("*.json"))))
        frames.append(lrc.SweepResult.load(out))
    equal = all(sorted_frame(frame).equals(sorted_frame(whole)) for frame in frames)
    left = [str(path) for path in folder.rglob("*.partial")]
print(json.dumps({"equal": equal, "counts": counts, "left": left, "again": again, "sweeps": len(frames)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_at_random_moments_give_the_same_frame_and_run_no_recorded_unit_again(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), "1.0"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"]
    assert found["left"] == []
    assert found["again"] == 0
    assert len(found["counts"]) >= 20
    assert any(0 < count < 6 for count in found["counts"]), found  # some were killed half way
