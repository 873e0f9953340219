"""Benchmarks that go on from stored results, and runs that were killed."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from spoken import spoken_relations
from tiny_benchmark import BETAS, METHODS, SEEDS, SETTINGS, without_times

import lrc_tl as lrc
from lrc_tl.experiments.run import run_protocol
from lrc_tl.storage.json_results import _checksum

CURVES = replace(SETTINGS, betas=BETAS)


@pytest.fixture(scope="module")
def relations(one_word_model):
    return spoken_relations(one_word_model, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def whole(one_word_model, relations, folder):
    return run_protocol(
        one_word_model, relations, methods=METHODS, seeds=SEEDS, settings=CURVES,
        out=folder / one_word_model.__class__.__name__,
    )  # fmt: skip


def resumed(model, relations, folder, *, seeds=SEEDS, **changes):
    place = folder / model.__class__.__name__
    settings = replace(CURVES, **changes)
    return run_protocol(model, relations, methods=METHODS, seeds=seeds, settings=settings, out=place, resume=True)


def test_a_finished_run_is_resumed_without_running_anything(one_word_model, relations, folder, whole, monkeypatch):
    monkeypatch.setattr("lrc_tl.experiments.run.benchmark_relation", None)
    again = resumed(one_word_model, relations, folder)
    assert again.to_dict() == whole.to_dict()
    fewer = resumed(one_word_model, relations[1:], folder, seeds=SEEDS[1:])
    assert fewer.records == whole.records[3:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ranks": 3},
            r"it was made with other settings \(ranks \[4\], now \[3\]\); run with what it was made with",
        ),
        ({"betas": 0.3, "shots": 1}, r"other settings \(betas \[0.3, 0.8\], now \[0.3\]; shots 0, now 1\)"),
    ],
)
def test_results_of_other_settings_are_refused(one_word_model, relations, folder, whole, changes, message):
    with pytest.raises(lrc.errors.ResumeError, match=message):
        resumed(one_word_model, relations, folder, **changes)


def test_results_of_other_facts_are_refused(one_word_model, relations, folder, whole):
    changed = lrc.Relation.from_pairs("r0", [("w3", "w4"), ("w5", "w4")], templates=list(relations[0].templates))
    with pytest.raises(lrc.errors.ResumeError, match=r"has changed .the relation's facts or templates"):
        resumed(one_word_model, [changed], folder)


def test_results_of_another_model_are_refused(one_word_model, relations, folder, whole):
    (weight, *_) = one_word_model.parameters()
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight)
        with pytest.raises(lrc.errors.ResumeError, match=r"made on another model .*residuals of a fixed prompt"):
            resumed(one_word_model, relations, folder)
    finally:
        with torch.no_grad():
            weight.copy_(before)


def rewrite(path, change, *, sealed):
    """Changes a stored part; `sealed` gives it the checksum of its new content, as its writer would have."""
    data = json.loads(path.read_text())
    change(data)
    if sealed:
        del data["checksum"]
        data["checksum"] = _checksum(data)
    path.write_text(json.dumps(data))


@pytest.fixture
def part(one_word_model, folder, whole):
    """One stored part, put back afterwards."""
    path = min((folder / one_word_model.__class__.__name__).glob("*.json"))
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["schema"].update(version=9), 'its schema is {.*"version": 9}, not'),
        (lambda data: data["schema"].update(version=1), 'its schema is {.*"version": 1}, not'),
        (lambda data: data.update(lrc_tl="0.0.9"), "it was made by lrc_tl 0.0.9, not"),
        (lambda data: data["model"].update(dtype="bfloat16"), 'another model .dtype "bfloat16", now'),
        (lambda data: data["model"].update(d_model=9), "another model .*d_model 9 against 12"),
        (lambda data: data["model"]["behaviour"].update({"0": [None] * 9}), "no fingerprint of a model"),
        (lambda data: data["model"]["behaviour"].update({"0": []}), "no fingerprint of a model"),
        (lambda data: data["model"].pop("torch"), "a model fingerprint needs the fields"),
        (lambda data: data.pop("record"), "is no stored result: record must be a mapping, not None; delete it"),
        (lambda data: data["record"].update(seed=True), r"is no stored result: record\['seed'\] cannot be True"),
        (lambda data: data["record"].pop("edits"), "is no stored result: record has no field 'edits'"),
        (lambda data: data["record"]["methods"]["lrc"].update(accuracy=0.123), "the share of its outcomes is"),
        (
            lambda data: data["record"]["methods"]["lrc"]["correct"].append(True),
            r"\['correct'\] has \d+ entries; it must have",
        ),
    ],
)
def test_results_of_another_schema_version_or_dtype_are_refused(
    one_word_model, relations, folder, part, change, message
):
    rewrite(part, change, sealed=True)
    with pytest.raises(lrc.errors.ResumeError, match=message) as refused:
        resumed(one_word_model, relations, folder)
    assert str(part) in str(refused.value)


def test_a_changed_or_cut_part_is_refused_by_its_checksum(one_word_model, relations, folder, part):
    whole_text = part.read_text()
    rewrite(part, lambda data: data["record"].update(chance=0.5), sealed=False)
    with pytest.raises(
        lrc.errors.ResumeError, match=r"does not match its checksum, so it was changed .*; delete it"
    ):
        resumed(one_word_model, relations, folder)
    part.write_text(whole_text[: len(whole_text) // 2])
    with pytest.raises(lrc.errors.ResumeError, match=r"json is damaged or no stored result .*; delete it"):
        resumed(one_word_model, relations, folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"schema": 1, "checksum": 2}', b"NaN", None],
    ids=["empty", "list", "no fields", "no UTF-8", "deep", "long number", "no schema", "nan", "folder"],
)
def test_what_is_no_part_is_one_line_that_names_the_file(one_word_model, relations, folder, part, content):
    part.unlink()
    if content is None:
        part.mkdir()
    else:
        part.write_bytes(content)
    try:
        with pytest.raises(lrc.errors.ResumeError) as refused:
            resumed(one_word_model, relations, folder)
        assert str(part) in str(refused.value)
        assert "\n" not in str(refused.value)
    finally:
        if content is None:
            part.rmdir()


@pytest.mark.parametrize(
    "recorded",
    [{"device": "cuda:1"}, {"torch": "2.0.1+cpu"}, {"transformer_lens": "3.9.9"}, {"model_class": "Other"}],
)
def test_parts_of_the_same_model_run_differently_are_gone_on_from_with_a_warning(
    one_word_model, relations, folder, whole, part, recorded
):
    rewrite(part, lambda data: data["model"].update(recorded), sealed=True)
    (name, value) = next(iter(recorded.items()))
    message = f"stored results were made on the same model, run differently: {name} {re.escape(value)} against"
    with pytest.warns(UserWarning, match=message):
        again = resumed(one_word_model, relations, folder)
    assert again.to_dict() == whole.to_dict()


def test_a_run_that_does_not_resume_leaves_finished_parts_alone(
    one_word_model, relations, folder, whole, monkeypatch
):
    place = folder / one_word_model.__class__.__name__
    before = {path.name: path.read_bytes() for path in place.glob("*.json")}
    monkeypatch.setattr("lrc_tl.experiments.run.benchmark_relation", None)
    monkeypatch.setattr("lrc_tl.experiments.plan.ModelFingerprint", None)  # refused before the model is run
    for settings in (CURVES, replace(CURVES, ranks=3)):
        with pytest.raises(lrc.errors.ResumeError) as refused:
            run_protocol(one_word_model, relations, methods=METHODS, seeds=SEEDS, settings=settings, out=place)
        message = str(refused.value)
        assert f"{place} holds 4 finished results of an earlier run" in message
        assert 'methods ["lrc", "lrc-final", "svm", "mean"]' in message
        assert "ranks [4]" in message
        assert "add --resume (resume=True in Python); else give another folder" in message
    assert {path.name: path.read_bytes() for path in place.glob("*.json")} == before


def test_a_result_is_loaded_from_its_folder_and_from_its_file(one_word_model, relations, folder, whole, tmp_path):
    loaded = lrc.ProtocolResult.load(folder / one_word_model.__class__.__name__)
    assert loaded.records == whole.records  # relations and seeds were asked for in sorted order
    assert loaded.to_dict() == whole.to_dict()
    whole.save(tmp_path / "whole.json")
    again = lrc.ProtocolResult.load(tmp_path / "whole.json")
    assert (again.records, again.methods, again.compared) == (whole.records, whole.methods, whole.compared)
    assert again.to_markdown() == whole.to_markdown()


def test_parts_of_two_processes_make_one_result(one_word_model, relations, folder, whole, tmp_path):
    source = folder / one_word_model.__class__.__name__
    for path in source.glob("*.json"):
        shutil.copy(path, tmp_path)
    first, *_ = sorted(tmp_path.glob("*.json"))
    rewrite(first, lambda data: data["model"].update(device="cuda:1"), sealed=True)
    with pytest.warns(UserWarning, match="device cuda:1 against cpu"):
        assert lrc.ProtocolResult.load(tmp_path).to_dict() == whole.to_dict()
    rewrite(first, lambda data: data["settings"].update(ranks=[3]), sealed=True)
    with pytest.raises(
        lrc.errors.ResumeError, match=r"belong to different runs .settings: ranks \[3\], now \[4\]"
    ):
        lrc.ProtocolResult.load(tmp_path)


def test_what_is_no_stored_result_is_not_loaded(one_word_model, whole, tmp_path):
    with pytest.raises(lrc.errors.ResumeError, match="holds no results of a benchmark"):
        lrc.ProtocolResult.load(tmp_path)
    with pytest.raises(lrc.errors.ResumeError, match="there is no such file"):
        lrc.ProtocolResult.load(tmp_path / "none.json")
    target = tmp_path / "whole.json"
    whole.save(target)
    rewrite(target, lambda data: data["records"][0].update(left_out=3), sealed=True)
    with pytest.raises(
        lrc.errors.ResumeError, match=r"whole.json is no stored result: record\['left_out'\] cannot be 3"
    ):
        lrc.ProtocolResult.load(target)


def test_two_runs_cannot_write_to_one_folder(one_word_model, relations, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(RuntimeError, match="another run is writing to"):
        run_protocol(one_word_model, relations, out=tmp_path, settings=SETTINGS)


def test_an_unexpected_error_is_raised_and_keeps_what_was_finished(
    one_word_model, relations, tmp_path, monkeypatch
):
    def fail(*arguments, **options):
        raise ArithmeticError("broken")

    with monkeypatch.context() as patch:
        real = lrc.evaluation.classify_activations
        calls = []
        patch.setattr(
            "lrc_tl.experiments.readings.classify_activations",
            lambda *args, **options: (calls.append(1) or real if len(calls) < 3 else fail)(*args, **options),
        )
        with pytest.raises(ArithmeticError, match="broken"):
            run_protocol(one_word_model, relations, methods=("mean",), out=tmp_path, settings=SETTINGS)
    assert len(list(tmp_path.glob("*.json"))) == 1
    done = run_protocol(one_word_model, relations, methods=("mean",), out=tmp_path, resume=True, settings=SETTINGS)
    fresh = run_protocol(one_word_model, relations, methods=("mean",), settings=SETTINGS)
    assert without_times(done.to_dict()) == without_times(fresh.to_dict())


KILLED = """
import json, os, random, signal, sys, tempfile
from dataclasses import replace
import torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
import tiny_models
from spoken import spoken_relations
from tiny_benchmark import SETTINGS, without_times
from lrc_tl.experiments.run import run_protocol

kind, folder = sys.argv[1:]
with tempfile.TemporaryDirectory() as place:
    tokenizer = tiny_models.word_tokenizer(place)
    made = tiny_models.hooked_transformer(tokenizer) if kind == "hooked" else tiny_models.bridge(tokenizer, place)
    model = made.eval().requires_grad_(False)
    relations = spoken_relations(model, 3)

    settings = replace(SETTINGS, betas=0.3)

    def run(**options):
        return run_protocol(model, relations, methods=("lrc", "mean"), seeds=(1, 2), settings=settings, **options)

    calls = 0

    def count(frame, event, argument):
        global calls
        if event == "call":
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

    last = None
    sys.setprofile(count)
    whole = run()
    sys.setprofile(None)
    counts = []
    for attempt in range(10):
        child = os.fork()
        if child == 0:
            calls, last = 0, random.Random(attempt).randrange(calls // 2)
            sys.setprofile(count)
            run(out=folder, resume=True)
            os._exit(0)
        os.waitpid(child, 0)
        counts.append(len([name for name in os.listdir(folder) if name.endswith(".json") and name[0] != "."]))
    after = run(out=folder, resume=True)
    equal = without_times(after.to_dict()) == without_times(whole.to_dict())
    left = [name for name in os.listdir(folder) if name.endswith(".partial")]
print(json.dumps({"equal": equal, "counts": counts, "left": left}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_ten_times_gives_the_same_result_bit_for_bit(tmp_path):
    kind = "hooked" if version("transformer-lens").startswith("3.") else "bridge"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, kind, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"]
    assert found["left"] == []
    assert found["counts"] == sorted(found["counts"])  # nothing that was finished is lost
    assert any(0 < count < 6 for count in found["counts"]), found["counts"]  # some were killed half way
