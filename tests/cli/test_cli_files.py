"""Files of the command line: which may replace which, what is checked before the model, and names as they show."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import pytest
import torch
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.cli.main import main
from lrc_tl.markup.printable import printable
from lrc_tl.storage.file_roles import require_distinct_files

PLACES = ["--subject-layer", "0", "--object-layer", "1", "--rank", "4"]


@pytest.fixture
def files(word_model, tmp_path, monkeypatch):
    """A folder with a relation, a set of concepts, and a model's folder; loading a model fails unless `ready`."""
    (relation,) = spoken_relations(word_model, 1)
    data = {
        "name": relation.name,
        "prompt_templates": list(relation.templates),
        "samples": [{"subject": fact.subject, "object": fact.object} for fact in relation.facts],
    }
    (tmp_path / "relation.json").write_text(json.dumps(data))
    vectors = torch.eye(12)[:2]
    directions = {
        name: lrc.ConceptDirection(
            vector=vector, relation="r", object_name=name, hook_name="blocks.1.hook_resid_post", method="mean"
        )
        for name, vector in zip(("w1", "w2"), vectors, strict=True)
    }
    lrc.ConceptSet(directions).save(tmp_path / "concepts.safetensors")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    monkeypatch.chdir(tmp_path)

    def fail(name, **given):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(lrc, "load_model", fail)
    return tmp_path


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FIT = ["fit", "--model", "model", "--relation", "relation.json", "--shots", "0", *PLACES]
PROBE = ["probe", "--model", "model", "--text", "w3 w1", "--subject", "w3", "--concepts", "concepts.safetensors"]
STEER = ["steer", "--model", "model", "--text", "w3", "--concepts", "concepts.safetensors", "--concept", "w1"]
STEER += ["--strength", "0.1"]
BENCHMARK = ["benchmark", "--model", "model", "--relations", ".", "--shots", "0", "--methods", "mean", *PLACES]
OUT = ["--out", "new.safetensors"]


@pytest.mark.parametrize(
    "arguments",
    [
        [*FIT, "--out", "relation.json"],
        [*FIT, "--out", "./model/../relation.json"],
        [*FIT, "--out", "link.json"],
        [*FIT, "--out", "hard.json"],
        [*FIT, "--out", "model/model.safetensors"],
        [*FIT, *OUT, "--json", "relation.json"],
        [*FIT, *OUT, "--json", "new.safetensors"],
        [*FIT, *OUT, "--json", "NEW.safetensors"],
        [*FIT, *OUT, "--json", "model/model.safetensors"],
        [*PROBE, "--json", "concepts.safetensors"],
        [*PROBE, "--json", "hard.safetensors"],
        [*STEER, "--json", "link.safetensors"],
        [*BENCHMARK, "--json", "relation.json"],
        [*BENCHMARK, "--json", "hard.json"],
        [*BENCHMARK, "--json", "r.json", "--out", "r.json"],
        [*BENCHMARK, "--json", "r.json", "--plots", "r.json.parts"],
        ["relations", ".", "--json", "relation.json"],
        ["demo", "--relation", "relation.json", "--json", "relation.json"],
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-2:]),
)
def test_no_output_takes_the_place_of_an_input_or_another_output(files, capsys, arguments):
    (files / "link.json").symlink_to("relation.json")
    (files / "link.safetensors").symlink_to(files / "concepts.safetensors")
    os.link(files / "relation.json", files / "hard.json")
    os.link(files / "concepts.safetensors", files / "hard.safetensors")
    if "relations" in arguments or "--relations" in arguments:  # one relation, under two names
        (files / "link.json").unlink()
    before = contents(files)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 or arguments[0] in ("benchmark", "relations")
    assert "would overwrite" in err or "are the same file" in err
    assert contents(files) == before


def test_files_that_are_not_the_same_are_not_refused(tmp_path):
    (tmp_path / "in.json").write_text("")
    (tmp_path / "model").mkdir()
    outputs = {"--out": tmp_path / "model" / "new.json", "--json": tmp_path / "b.json", "--plots": None}
    inputs = {"--relation": tmp_path / "in.json", "--model": tmp_path / "model", "--other": tmp_path / "none"}
    require_distinct_files(outputs, inputs)
    with pytest.raises(ValueError, match=r"in\.json"):  # so the same call does look at them
        require_distinct_files({**outputs, "--json": tmp_path / "in.json"}, inputs)


def test_a_hard_link_to_a_file_of_a_folder_is_a_file_of_it(tmp_path):
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "weights").write_text("")
    os.link(tmp_path / "model" / "deep" / "weights", tmp_path / "hard")
    with pytest.raises(ValueError, match=r"--out .*hard would overwrite .*model, which --model reads"):
        require_distinct_files({"--out": tmp_path / "hard"}, {"--model": tmp_path / "model"})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([*FIT[:7], *OUT, "--subject-layer", "0", "--object-layer", "1", "--rank", "0"], 2, "--rank"),
        ([*FIT[:7], *OUT, "--subject-layer", "0", "--object-layer", "1", "--ridge", "inf"], 2, "--ridge is inf"),
        ([*FIT, "--out", "/proc/c.safetensors"], 1, "the folder /proc cannot be written to"),
        ([*FIT, *OUT, "--shots", "99"], 1, "99"),
        ([*PROBE[:-1], "relation.json"], 1, "relation.json: damaged, cut short, or not a safetensors file"),
        ([*PROBE[:4], "w4 w1", *PROBE[5:]], 2, "subject 'w3' is not in"),
        ([*STEER[:-1], "inf"], 2, "--strength is inf"),
        ([*STEER[:4], " ", *STEER[5:]], 2, "--text is empty"),
        (["w9" if one == "w1" else one for one in STEER], 1, "no concept 'w9'; there are w1, w2"),
        (["demo", "--relation", "one.json"], 1, "one"),
        ([*BENCHMARK, "--out", "/proc/parts"], 1, "the folder /proc cannot be written to"),
        ([*BENCHMARK, "--out", "relation.json"], 2, "--out"),
        ([*BENCHMARK, "--out", "model/.."], 2, "is the folder of the relations"),
        ([*FIT[:-6], *OUT, "--subject-layer", "2", *PLACES[2:]], 2, "object layer 1 is not above subject layer 2"),
        ([*FIT[:-6], *OUT, "--subject-layer", "-1", "--object-layer", "-1", "--rank", "4"], 2, "is not above"),
        ([*BENCHMARK[:-6], "--subject-layer", "2", "--object-layer", "1", "--rank", "4"], 2, "lies below subject"),
        (
            [*BENCHMARK[:-6], "--subject-layer", "-1", "--object-layer", "-2", "--rank", "4"],
            2,
            "lies below subject",
        ),
        ([*BENCHMARK[:-6], "--subject-layers", "0:1000000000", *PLACES[2:]], 2, "more than 10,000 numbers"),
        ([*BENCHMARK, "--seeds", "0:1000000000"], 2, "more than 10,000 numbers"),
        ([*BENCHMARK, "--beta", "inf"], 2, "not a finite number"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else None,
)
def test_what_needs_no_model_is_refused_before_one_is_loaded(files, capsys, arguments, code, message):
    (files / "one.json").write_text(
        json.dumps({"name": "one", "prompt_templates": ["{} is"], "samples": [{"subject": "a", "object": "b"}]})
    )
    before = contents(files)
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert len(lines) == 1
    assert contents(files) == before
    assert {path.name for path in files.iterdir() if path.is_dir()} == {"model"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "13"], "rank is 13; the model's residual stream allows 1 to 12"),
        (["--rank", "13", "--ridge", "0.2"], "rank is 13"),
        (["--subject-layer", "-9"], "layer -9 is outside the model; allowed are -3 to 2"),
        (["--object-layer", "0"], "object layer 0 is not above subject layer 0"),
        (["--object-layer", "-3"], "object layer 0 is not above subject layer 0"),
    ],
)
def test_layers_and_rank_are_checked_before_the_model_runs(
    word_model, files, monkeypatch, capsys, options, message
):
    monkeypatch.setattr(lrc, "load_model", lambda name, *, device, dtype: word_model)
    monkeypatch.setattr(lrc, "filter_known", None)
    assert main([*FIT, *OUT, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_range_beyond_the_model_s_layers_is_refused_without_spelling_it_out(word_model):
    (relation,) = spoken_relations(word_model, 1)
    tracemalloc.start()
    for options in (
        {"subject_layers": range(10**9)},
        {"object_layers": range(-(10**9), 0)},
        {"ranks": range(1, 10**9)},
    ):
        with pytest.raises(ValueError, match=r"values were given, and at most 10,000 are allowed"):
            lrc.ExperimentSettings(**options)
    settings = lrc.ExperimentSettings(subject_layers=0, object_layers=1, ranks=4)
    with pytest.raises(ValueError, match=r"values were given, and at most 10,000 are allowed"):
        lrc.run_protocol(word_model, [relation], settings=settings, seeds=range(10**9))
    many = replace(settings, subject_layers=range(9000))
    with pytest.raises(ValueError, match="layer 3 is outside the model; allowed are -3 to 2"):
        lrc.run_protocol(word_model, [relation], settings=many)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("São Paulo\n\tok 国 कमल", "São Paulo\n\tok 国 कमल"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\udcff\x9b\x7f\r", "\\udcff\\x9b\\x7f\\r"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
    ],
)
def test_what_could_move_the_cursor_is_shown_as_escapes(text, shown):
    assert printable(text) == shown
    assert printable(printable(text)) == shown
    printable(text).encode("utf-8")


def test_names_with_escapes_and_bytes_that_are_no_text_are_printed_and_stored(files, capsysbinary):
    name = os.fsdecode(b"\x1b[2J\xff.json")
    data = json.loads((files / "relation.json").read_text())
    (files / name).write_text(json.dumps(data | {"name": "title \u202e"}))
    (files / "title.json").write_text(json.dumps(data | {"name": "\x1b]0;title\x07\ud800"}))
    (files / f"broken{name}").write_text("{")
    assert main(["relations", ".", "--json", f"out{name}"]) == 1
    captured = capsysbinary.readouterr()
    for stream in (captured.out, captured.err):
        assert b"\x1b" not in stream
        assert b"\x07" not in stream
    assert b"title \\u202e" in captured.out
    assert b"the name must be plain text" in captured.err
    assert b"\\x1b]0;title\\x07\\ud800" in captured.err
    assert b"broken\\x1b[2J\\udcff.json: not JSON" in captured.err
    stored = json.loads((files / f"out{name}").read_text(encoding="utf-8"))
    assert "title \u202e" in [row["name"] for row in stored["relations"]]


def test_a_terminal_without_the_letters_gets_escapes_in_place_of_a_failure(tmp_path):
    pairs = [{"subject": "a", "object": "ü"}, {"subject": "b", "object": "ö"}]
    data = {"name": "São", "prompt_templates": ["{} is"], "samples": pairs}
    (tmp_path / "r.json").write_text(json.dumps(data))
    done = subprocess.run(
        [sys.executable, "-c", "from lrc_tl.cli.main import main; raise SystemExit(main())", "relations",
        tmp_path], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "S\\xe3o" in done.stdout


def test_a_relation_whose_name_is_markup_is_run(word_model, tmp_path):
    (relation,) = spoken_relations(word_model, 1)
    named = lrc.Relation.from_pairs(
        "[/bold] \u202e",
        [(fact.subject, fact.object) for fact in relation.facts],
        templates=list(relation.templates),
    )
    settings = lrc.ExperimentSettings(subject_layers=0, object_layers=1, ranks=4, shots=0)
    result = lrc.run_protocol(
        word_model, [named], methods=("mean",), settings=settings, out=tmp_path, progress=True
    )
    assert lrc.ProtocolResult.load(tmp_path).records == result.records
