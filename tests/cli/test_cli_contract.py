"""What holds of every subcommand: exit codes 0, 1 and 2, one clear line, near names, quiet and without colours."""

import json

import pytest
import torch
import typer

import lrc_tl as lrc
from lrc_tl.cli.main import app, main
from lrc_tl.markup.terminal import error_console, is_quiet

COMMANDS = typer.main.get_command(app).commands
READY = {
    "relations": [],
    "demo": [],
    "fit": ["--model", "m", "--relation", "city_in_country", "--out", "o.safetensors", "--rank", "2"],
    "probe": ["--model", "m", "--concepts", "c.safetensors", "--text", "w3 w1", "--subject", "w3"],
    "steer": ["--model", "m", "--concepts", "c.safetensors", "--concept", "w1", "--strength", "1", "--text", "w3"],
    "read": ["--model", "m", "--concepts", "c.safetensors", "--text", "w3 w1"],
    "readout": ["--model", "m", "--concepts", "c.safetensors"],
    "benchmark": ["--model", "m", "--subject-layer", "0", "--methods", "mean"],
    "sweep": ["--model", "m", "--subject-layers", "0", "--methods", "mean", "--dry-run"],
    "merge": ["shard", "--out", "whole"],
    "report": ["shard"],
    "rerun": ["result.json"],
}
"""Arguments with which nothing is wrong until the command runs."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    directions = {
        name: lrc.ConceptDirection(
            vector=torch.eye(12)[place],
            relation="r",
            object_name=name,
            hook_name="blocks.1.hook_resid_post",
            method="mean",
        )
        for place, name in enumerate(("w1", "w2"))
    }
    lrc.ConceptSet(directions).save(tmp_path / "c.safetensors")
    (tmp_path / "shard").mkdir()
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "taken").mkdir()
    monkeypatch.chdir(tmp_path)

    def fail(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(lrc, "load_model", fail)
    return tmp_path


def one_line(capsys):
    captured = capsys.readouterr()
    assert captured.err.startswith("lrc-tl: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    return captured.err


def test_every_command_is_here():
    assert set(READY) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_success_and_every_command_takes_json(command, capsys):
    assert main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert "--json FILE" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistyped_option_is_bad_usage_and_the_right_one_is_named(command, folder, capsys):
    assert main([command, *READY[command], "--jsn", "x"]) == 2
    line = one_line(capsys)
    assert "No such option: --jsn" in line
    assert "--json" in line
    assert line.endswith(f"(see lrc-tl {command} --help)\n")


@pytest.mark.parametrize("command", [name for name in COMMANDS if READY[name]])
def test_a_missing_option_is_bad_usage(command, folder, capsys):
    assert main([command]) == 2
    assert f"(see lrc-tl {command} --help)" in one_line(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_result_that_cannot_be_written_is_one_line_before_anything_runs(command, folder, capsys):
    assert main([command, *READY[command], "--json", "taken"]) == 1
    assert "taken is a folder; give the name of a file to write" in one_line(capsys)
    assert main([command, *READY[command], "--json", "taken", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "near"),
    [
        (["reed"], 2, "Did you mean 'read'"),
        (["benchmak"], 2, "Did you mean 'benchmark'"),
        (["fit", *READY["fit"][:3], "city_in_contry", *READY["fit"][4:]], 1, "city_in_country"),
        (["fit", *READY["fit"], "--method", "lcr"], 2, "did you mean lrc"),
        (["read", *READY["read"], "--concept", "w11"], 1, "near names: w1"),
        (["readout", *READY["readout"], "--concept", "w11"], 1, "near names: w1"),
        (["benchmark", *READY["benchmark"], "--preset", "tabel5"], 2, "did you mean table5"),
        (["benchmark", *READY["benchmark"], "--only", "city_in_contry"], 1, "did you mean city_in_country"),
        (["sweep", *READY["sweep"], "--metrics", "acuracy"], 2, "accuracy"),
        (["sweep", *READY["sweep"][:-2], "maen"], 2, "did you mean mean"),
    ],
)
def test_a_mistyped_name_is_met_with_near_ones(arguments, code, near, folder, capsys):
    assert main(arguments) == code
    assert near in one_line(capsys)


def test_quiet_leaves_results_and_errors_and_takes_notes_and_progress_wherever_it_stands(
    folder, capsys, monkeypatch
):
    seen = []
    monkeypatch.setattr(lrc, "built_in_relations", lambda: seen.append((is_quiet(), error_console().quiet)) or ())
    assert main(["relations"]) == 1
    assert main(["relations", "--quiet"]) == 1
    assert main(["--quiet", "relations"]) == 1
    assert seen == [(False, False), (True, True), (True, True)]
    assert not is_quiet()
    assert capsys.readouterr().err.count("there is no *.json file") == 3
    ignored = ["fit", *READY["fit"], "--method", "svm"]
    assert main([*ignored, "--json", "taken", "--quiet"]) == 1
    monkeypatch.setattr(lrc, "load_relation", lambda name: (_ for _ in ()).throw(ValueError("no more")))
    assert main(ignored) == 1
    assert "svm takes no rank 2; it is ignored" in capsys.readouterr().err
    assert main([*ignored, "--quiet"]) == 1
    assert capsys.readouterr().err == "lrc-tl: no more\n"


def test_colours_are_off_when_asked(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    consoles = []

    def names():
        consoles.append(error_console())
        return ()

    monkeypatch.setattr(lrc, "built_in_relations", names)
    assert main(["relations"]) == main(["relations", "--no-color"]) == 1
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["relations"]) == 1
    assert [console.no_color for console in consoles] == [False, True, True]
    capsys.readouterr()


def test_results_of_every_command_have_the_same_head(folder, capsys):
    assert main(["relations", "--json", "r.json"]) == 0
    data = json.loads((folder / "r.json").read_text())
    assert {"schema", "lrc_tl", "model", "settings", "seconds", "peak_rss_bytes"} < set(data)
    assert data["schema"]["name"] == "lrc_tl.relations"
    capsys.readouterr()


def test_an_interrupt_ends_with_130_and_without_a_traceback(monkeypatch, capsys):
    def interrupted(*args, **given):
        raise KeyboardInterrupt

    monkeypatch.setattr(lrc, "load_relation", interrupted)
    for debug in ([], ["--debug"]):
        assert main(["demo", *debug]) == 130
        assert "Traceback" not in capsys.readouterr().err
