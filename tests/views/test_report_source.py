"""A report is made of what a run has left behind, and says what it cannot be made of."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_sweep import sweep_frame
from spoken import spoken_relations
from test_protocol_result import RECORDS, RESULT, with_kl
from tiny_benchmark import BETAS, SETTINGS

import lrc_tl as lrc
from lrc_tl.errors import ArtifactError
from lrc_tl.experiments.run import run_protocol
from lrc_tl.storage.json_results import write_result
from lrc_tl.views.aggregating import over_relations
from lrc_tl.views.report_source import report_source
from lrc_tl.views.tidy import measured

MODEL = {"name": "tiny", "torch": "2.9"}


def write_benchmark(path, result=RESULT, **settings):
    write_result(path, kind="benchmark", results=result.to_dict(), settings=settings, model=MODEL, seconds=3.0)
    return path


def means(source, metric="accuracy", reading="plain"):
    table = over_relations(measured(source.frame, metric, reading), ["method"])
    return dict(zip(table["method"], table["mean"], strict=True))


def test_a_benchmarks_json_file_has_its_numbers(tmp_path):
    source = report_source(write_benchmark(tmp_path / "b.json", command="lrc-tl benchmark x", seeds=[1, 2]))
    expected = {entry["method"]: entry for entry in RESULT.to_dict()["methods"]}
    for method in ("lrc", "mean"):
        assert means(source)[method] == pytest.approx(expected[method]["accuracy"]["mean"])
        assert means(source, reading="centred")[method] == pytest.approx(
            expected[method]["accuracy_centred"]["mean"]
        )
        assert means(source, "causality")[method] == pytest.approx(expected[method]["causality"]["mean"])
    assert source.left_out == [("c", "one-to-one"), ("b, seed 2", "too few")]
    assert (source.kind, source.model["name"], source.command) == ("Benchmark", "tiny", "lrc-tl benchmark x")
    assert "command" not in source.settings
    assert len(source.comparisons) == 1


def test_a_json_file_and_the_result_itself_have_the_same_figures(tmp_path):
    pytest.importorskip("matplotlib")
    result = lrc.ProtocolResult(records=with_kl(RECORDS, lrc=(1, 2), mean=(1, 2)), methods=("lrc", "mean"))
    of_file, of_result = (
        report_source(given).figures for given in (write_benchmark(tmp_path / "b.json", result), result)
    )
    assert set(of_file) == set(of_result) == {"curves", "curves_hard", "relations"}
    assert of_file["relations"] == of_result["relations"]
    for one, other in zip(of_file["curves"].panels, of_result["curves"].panels, strict=True):
        for first, second in zip(one.series, other.series, strict=True):
            np.testing.assert_allclose(first.y, second.y)
            np.testing.assert_allclose(first.low, second.low)
            np.testing.assert_allclose(first.x, second.x)


def test_a_folder_of_results_is_a_source(word_model, tmp_path):
    result = run_protocol(
        word_model,
        spoken_relations(word_model, 1),
        methods=("lrc", "mean"),
        seeds=(1,),
        settings=replace(SETTINGS, betas=BETAS),
        out=tmp_path,
    )
    source = report_source(tmp_path)
    assert means(source) == means(report_source(result))
    assert source.model["name"] == lrc.models.ModelFingerprint.of(word_model).name
    assert source.settings["methods"] == ["lrc", "mean"]
    assert source.origin == str(tmp_path)


def test_a_stored_result_and_a_frame_are_sources_too(tmp_path):
    RESULT.save(tmp_path / "r.json")
    assert means(report_source(tmp_path / "r.json")) == means(report_source(RESULT))
    frame = sweep_frame()
    assert report_source(frame).kind == "Sweep"
    assert len(report_source(frame).frame) == len(frame)


def test_the_json_file_of_a_sweep_has_its_rows(tmp_path):
    frame = sweep_frame(subject_layers=[6])
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    write_result(
        tmp_path / "s.json",
        kind="sweep",
        results={"rows": rows, "best": {}},
        settings={"methods": ["lrc"]},
        model=MODEL,
        seconds=3.0,
    )
    source = report_source(tmp_path / "s.json")
    assert means(source) == pytest.approx(means(report_source(frame)))
    assert (source.kind, source.model["name"], source.seconds) == ("Sweep", "tiny", 3.0)


def test_what_no_report_can_be_made_of_is_said(tmp_path):
    write_result(tmp_path / "demo.json", kind="demo", results={}, settings={}, model=None, seconds=0.0)
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    broken = json.loads(write_benchmark(tmp_path / "b.json").read_text())
    del broken["methods"][0]["per_relation"][0]["accuracy"]
    (tmp_path / "b.json").write_text(json.dumps(broken))
    for name, text in {
        "demo.json": r"is a result of lrc_tl\.demo; a report is made of a benchmark's JSON file",
        "text.json": "is no result file of lrc-tl",
        "list.json": "is no result file of lrc-tl",
        "empty": "holds neither a sweep nor a benchmark's results; give the --out folder",
        "absent": "does not exist",
        "b.json": r"is no whole result of lrc-tl benchmark \(KeyError\('accuracy'\)\)",
    }.items():
        with pytest.raises(ArtifactError, match=text):
            report_source(tmp_path / name)
    with pytest.raises(TypeError, match="a dict has no rows"):
        report_source({})
