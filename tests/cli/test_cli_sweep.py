"""`lrc-tl sweep` and `lrc-tl merge`: end to end on a tiny model, and what they refuse."""

import html
import json
import re
import shlex

import pytest
from tiny_sweep import assert_same_rows, model_folder

import lrc_tl as lrc
from lrc_tl.cli.main import main
from lrc_tl.experiments.sweep_rows import COLUMNS


@pytest.fixture(scope="module")
def place(one_thread, tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def arguments(place):
    model, relations, _ = place
    return [
        "sweep", "--model", str(model), "--relations", str(relations), "--methods", "lrc,svm", "--subject-layers",
        "0:2", "--object-layers", "2", "--ranks", "2,4", "--betas", "0.3,0.8", "--seeds", "1,2", "--shots", "0",
        "--max-lre-prompts", "4", "--validation-edits", "3",
    ]  # fmt: skip


def test_a_sweep_of_shards_merged_is_the_whole_sweep_and_resumes(arguments, place, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "whole"), "--json", str(tmp_path / "whole.json")]) == 0
    printed = capsys.readouterr()
    assert "4 units (a relation and seed each) of up to 6 cells" in printed.out
    assert "Best cell of each method, chosen by accuracy on validation facts" in printed.out
    assert "(4 of 4, about 0 s left)" in printed.err
    data = json.loads((tmp_path / "whole.json").read_text())
    assert data["schema"] == {"name": "lrc_tl.sweep", "version": 1}
    assert list(data["rows"][0]) == list(COLUMNS)
    assert {row["method"] for row in data["best"]["accuracy"]} == {"lrc", "svm"}
    assert data["settings"]["subject_layers"] == [0, 1]
    assert data["model"]["d_model"] == 12
    whole = lrc.SweepResult.load(tmp_path / "whole")
    assert len(data["rows"]) == len(whole.to_frame())
    for number in range(3):
        shard = [*arguments, "--out", str(tmp_path / f"part{number}"), "--shard", f"{number}/3"]
        assert main(shard) == 0
    parts = [str(tmp_path / f"part{number}") for number in range(3)]
    assert main(["merge", *parts, "--out", str(tmp_path / "merged")]) == 0
    assert_same_rows(lrc.SweepResult.load(tmp_path / "merged"), whole)
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 1
    assert "holds 4 finished units of an earlier sweep" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "whole"), "--resume"]) == 0
    assert "0 units" in capsys.readouterr().out


def test_the_command_in_a_report_repeats_its_sweep(arguments, place, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra plots")
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    whole = lrc.SweepResult.load(tmp_path / "whole")
    assert main(["report", str(tmp_path / "whole"), "--out", str(tmp_path / "r.html")]) == 0
    (command,) = re.findall("<pre>lrc-tl (sweep .*?)</pre>", (tmp_path / "r.html").read_text(encoding="utf-8"))
    repeated = [str(place[1]) if word == "DIR" else word for word in shlex.split(html.unescape(command))]
    assert main([*repeated, "--out", str(tmp_path / "repeated")]) == 0
    assert_same_rows(lrc.SweepResult.load(tmp_path / "repeated"), whole)


def test_a_dry_run_loads_no_model_and_writes_its_plan_alone(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lrc_tl.experiments.sweep.workers_for", None)
    plan = tmp_path / "plan.json"
    assert main([*arguments, "--dry-run", "--out", str(tmp_path / "out"), "--json", str(plan)]) == 0
    printed = capsys.readouterr().out
    assert "Jacobian products" in printed
    assert "time: at most about " in printed
    assert not (tmp_path / "out").exists()
    written = json.loads(plan.read_text())
    data = written["plan"]
    assert written["seconds_predicted"] == pytest.approx(data["operations"] / written["rate"])
    assert len(data["units"]) == 4
    assert data["products"] < data["products_cell_by_cell"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--methods", "lcr"], "no method 'lcr'; did you mean"),
        (["--metrics", "acuracy"], "metrics: there is no 'acuracy'; did you mean accuracy"),
        (["--subject-layers", "4:4"], "the range '4:4' is empty"),
        (["--subject-layers", "7"], "subject_layers: there is no layer 7; this model has layers 0 to 2"),
        (["--object-layers", "0"], "object_layers: 0 is not above any subject layer"),
        (["--ranks", "2,2"], "2 comes twice in '2,2'"),
        (["--places", "here"], "places: there is no 'here'; there are all, from, subject"),
        (["--shard", "3/3"], "shard is 3/3; of 3 shards the places are 0 to 2"),
        (["--workers", "2", "--devices", "cpu"], "--workers and --devices were both given"),
        (["--resume"], "--resume needs --out or --json"),
        (["--validation", "1.5"], "validation is 1.5; it is a share"),
    ],
)
def test_bad_usage_is_one_line_before_the_model_is_loaded(arguments, changes, message, capsys, monkeypatch):
    monkeypatch.setattr("lrc_tl.experiments.sweep.workers_for", None)
    assert main([*arguments, *changes]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1]


def test_parts_of_no_sweep_are_not_merged(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    assert main(["merge", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 1
    assert "holds no sweep" in capsys.readouterr().err
