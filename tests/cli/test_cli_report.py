"""`lrc-tl report` writes a page beside what it is of, with the command that repeats the run."""

import json
import sys
from pathlib import Path

import pytest
import typer

from lrc_tl.cli.main import app, main
from lrc_tl.cli.report import repeating_command

sys.path.append(str(Path(__file__).parent.parent / "views"))
from test_report_source import write_benchmark

pytest.importorskip("matplotlib")


def test_a_report_is_written_with_its_command_and_its_headline(tmp_path, capsys):
    settings = {
        "model": "m",
        "folder": "my relations",
        "methods": ["lrc", "mean"],
        "beta": [0.1, 0.2],
        "seeds": [1, 2],
    }
    source = write_benchmark(tmp_path / "b.json", **settings)
    assert main(["report", str(source), "--json", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr()
    data = json.loads((tmp_path / "r.json").read_text())
    assert "On tiny, lrc with subject layer 1 has an accuracy of" in " ".join(printed.out.split())
    assert f"wrote {tmp_path / 'b.html'}" in printed.err
    assert data["bytes"] == (tmp_path / "b.html").stat().st_size
    assert data["figures"] == ["curves", "curves_hard", "relations"]
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    command = "lrc-tl benchmark --model m --relations 'my relations' --methods lrc,mean --beta 0.1,0.2 --seeds 1,2"
    assert f"<pre>{command}</pre>" in page


def test_commands_leave_out_defaults_and_resuming():
    parameters = typer.main.get_command(app).commands["sweep"].params
    given = {"model": "m", "methods": ["svm", "x y"], "subject_layers": (4, 5), "validation": 0.25, "resume": True}
    given |= {"max_facts": None, "ridges": (), "betas": [0.05], "dry_run": False, "split_seed": 0}
    assert repeating_command("sweep", parameters, given) == (
        "lrc-tl sweep --model m --methods 'svm,x y' --subject-layers 4,5 --betas 0.05 --split-seed 0"
    )


def test_what_cannot_be_read_or_written_is_one_line(tmp_path, capsys):
    source = write_benchmark(tmp_path / "b.json")
    assert main(["report", str(source), "--out", str(source)]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds neither a sweep nor a benchmark's results" in error
