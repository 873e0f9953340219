"""A report says what was run and what came out, in one file that fetches nothing."""

import html
import json
import re
import shlex
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from made_up_sweep import sweep_frame
from spoken import spoken_relations
from test_protocol_result import RESULT
from test_report_source import write_benchmark
from test_sweep_result import made_up_result
from tiny_sweep import SETTINGS

from lrc_tl import Relation, run_sweep
from lrc_tl.cli.main import main
from lrc_tl.experiments.sweep_record import SweepRecord, left_out_cell, left_out_record
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.numerics.statistics import bootstrap_interval
from lrc_tl.views import plot_sweep, write_report
from lrc_tl.views.report import headline, report_html, report_path
from lrc_tl.views.report_source import report_source
from lrc_tl.views.tidy import metric_of

pytest.importorskip("matplotlib")
EVIL = '<img src="x" onerror="alert(1)">'


@pytest.fixture(scope="module")
def sweep_page():
    return report_html(report_source(sweep_frame()), command="lrc-tl sweep --only 'a b'")


def test_the_headline_has_the_number_and_its_interval(tmp_path):
    accuracies = [0.75, 0.5, 0.8]
    low, high = bootstrap_interval(accuracies)
    source = report_source(write_benchmark(tmp_path / "b.json"))
    assert headline(source) == (
        f"On tiny, lrc with subject layer 1 has an accuracy of {sum(accuracies) / 3:.3f} (95 % interval {low:.3f} "
        f"to {high:.3f}) over 3 relations, the best of 2 methods."
    )


def test_the_headline_of_a_sweep_says_on_what_its_setting_was_chosen():
    assert headline(report_source(sweep_frame())).endswith(", at the setting that is best on these facts.")
    on_validation = headline(report_source(sweep_frame(validation=True)))
    assert on_validation.endswith(", at a setting chosen on validation facts.")
    assert "lrc with subject layer 6, object layer 12, rank 64 has an accuracy of" in on_validation


def test_a_report_is_one_small_file_without_addresses(sweep_page):
    assert len(sweep_page.encode()) < 1_000_000
    text = sweep_page.replace("http-equiv", "")
    assert not re.search(r"https?:|src=|@import|url\((?!#)", text)
    assert "arXiv:2311.08968" in text
    assert sweep_page.count("<script>") == 1


def test_a_report_has_every_part(sweep_page):
    heads = re.findall("<h2>(.*?)</h2>", sweep_page)
    assert heads == ["What was run", "Figures", "Tables", "Left out", "To repeat it", "Words"]
    assert sweep_page.count("<svg ") == 9
    assert sweep_page.count("<table>") == 3
    assert "<pre>lrc-tl sweep --only 'a b'</pre>" in sweep_page
    for text in ("city in country, animal class, food kind", "4, 5, 6, 7, 8", "Nothing: every relation"):
        assert text in sweep_page


def test_identifiers_of_all_drawings_differ(sweep_page):
    found = re.findall(r'\sid="([^"]+)"', sweep_page)
    assert len(found) == len(set(found))


def test_the_tables_have_the_numbers_of_the_frame():
    frame = sweep_frame()
    page = report_html(report_source(frame))
    accuracies = frame[(frame["metric"] == "accuracy") & (frame["reading"] == "plain")]
    cells = accuracies.groupby(["method", "subject_layer", "object_layer", "rank", "relation"], dropna=False)[
        "value"
    ].mean()
    means = cells.groupby(["method", "subject_layer", "object_layer", "rank"], dropna=False).mean().sort_values()
    table = page[page.index("Settings: accuracy") :]
    shown = [float(value) for value in re.findall(r'data-value="([\d.]+)">\.?\d\.\d{3}</td>', table)]
    assert shown == pytest.approx(means.tolist()[::-1], abs=1e-7)


def test_what_was_left_out_stands_with_its_reason(tmp_path):
    page = report_html(report_source(write_benchmark(tmp_path / "b.json", seeds=[1, 2])))
    assert "<td>c</td><td>one-to-one</td>" in page
    assert "<td>b, seed 2</td><td>too few</td>" in page
    assert "The command was not stored; the settings below are what was run." in page
    assert "seeds" in page[page.index("All settings") :]


def test_names_are_escaped_everywhere():
    frame = sweep_frame(relations=(EVIL, "b"), methods=("lrc", EVIL))
    page = report_html(report_source(frame), command=EVIL)
    assert EVIL not in page
    assert "<img" not in page
    assert page.count("&lt;img src=") >= 5


def test_one_setting_has_no_figure_and_says_so():
    frame = sweep_frame(methods=["lrc"], subject_layers=[6], object_layers=[12], ranks=[64], betas=[0.1])
    page = report_html(report_source(frame))
    assert "there is nothing to compare in a figure" in page
    assert "<svg" not in page


def test_reports_go_beside_what_they_are_of(tmp_path):
    path = write_report(write_benchmark(tmp_path / "b.json"))
    assert path == tmp_path / "b.html"
    assert report_path(tmp_path) == tmp_path / "report.html"
    assert write_report(RESULT, tmp_path / "r.html").stat().st_size > 10_000
    with pytest.raises(ValueError, match="a ProtocolResult has no folder for its report; give out"):
        write_report(RESULT)


@pytest.fixture(scope="module")
def swept(word_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    settings = replace(SETTINGS, methods=("lrc", "svm"))
    unknown = Relation.from_pairs("nonsense", [("w1", "w2"), ("w3", "w4")], templates=["{} w5"])
    relations = [*spoken_relations(word_model, 2), unknown]
    return run_sweep(word_model, relations, settings=settings, out=folder / "out")


def test_a_sweep_in_a_folder_has_its_best_cells_and_what_was_left_out(swept):
    source = report_source(swept.folder)
    best = swept.best()
    first = best.sort_values("validation", ascending=False).iloc[0]
    sentence = headline(source)
    assert f"{first['method']} with subject layer {first['subject_layer']}" in sentence
    assert (
        f"chosen on validation facts as the best of 2 methods, has an accuracy of {first['value']:.3f}" in sentence
    )
    assert {what.split(",")[0] for what, _ in source.left_out} == {"nonsense"}
    page = report_html(source)
    assert "on validation facts" in page
    assert len(re.findall("<td>(?:lrc|svm)</td><td>subject layer", page)) >= 2
    assert page.count("nonsense") >= 2


def test_a_sweep_draws_itself(swept):
    figure = swept.plot()
    assert figure == plot_sweep(swept.to_frame())
    assert figure.panels
    causality = swept.plot(kind="curves", metric="causality", methods=["lrc"])
    assert causality == plot_sweep(swept.to_frame(), kind="curves", metric="causality", methods=["lrc"])
    with pytest.raises(ValueError, match="'heat' is no kind of figure"):
        swept.plot(kind="heat")


def test_a_sweeps_report_repeats_it_from_its_settings(swept, capsys):
    assert main(["report", str(swept.folder)]) == 0
    assert "wrote" in capsys.readouterr().err
    page = (swept.folder / "report.html").read_text(encoding="utf-8")
    (command,) = re.findall("<pre>(lrc-tl sweep .*?)</pre>", page)
    words = shlex.split(html.unescape(command))
    assert words[words.index("--methods") + 1] == "lrc,svm"
    assert words[words.index("--relations") + 1] == "DIR"  # its relations are not built in
    assert words[words.index("--seeds") + 1] == ",".join(map(str, swept.settings.seeds))
    assert swept.folder.joinpath("sweep.json").is_file()


def test_single_settings_that_were_left_out_stand_by_name_with_their_reason():
    result = made_up_result()
    records = [SweepRecord.from_dict(record) for record in result.outcomes.records]
    first = records[0]
    cell = first.cells[0].cell  # lrc at rank 2
    records[0] = replace(first, cells=(left_out_cell(cell, "its rank is too high"), *first.cells[1:]))
    records.append(left_out_record("r9", 1, "one-to-one", [cell]))
    source = report_source(SweepResult.of(records, settings=result.settings, model=result.model))
    assert source.left_out == [
        (
            "r0, seed 1, lrc, subject layer 0, object layer 2, rank 2, LRE prompts 4, shots 0",
            "its rank is too high",
        ),
        ("r9, seed 1", "one-to-one"),
    ]
    assert "<td>r9, seed 1</td><td>one-to-one</td>" in report_html(source)


def test_one_relation_has_no_interval_and_none_is_made_up():
    page = report_html(report_source(sweep_frame(relations=("a",), subject_layers=[6], object_layers=[12])))
    cells = re.findall("<td[^>]*>(.*?)</td>", page)
    assert ">95 % interval</button>" in page
    assert not [cell for cell in cells if "nan" in cell.split() or " to " in cell]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.4, "0 seconds"),
        (89.4, "89 seconds"),
        (90, "2 minutes"),
        (5399, "90 minutes"),
        (5400, "1.5 hours"),
    ],
)
def test_durations_are_said_in_the_unit_of_their_size(seconds, said):
    source = report_source(sweep_frame(subject_layers=[6], object_layers=[12]))
    page = report_html(replace(source, figures={}, seconds=seconds))
    assert re.findall(r"<dt>computed in</dt><dd>(.*?)</dd>", page) == ([said] if said else [])


@pytest.mark.parametrize("metrics", [["hard_causality"], ["kl_elsewhere"], ["my_score"]], ids=str)
def test_rows_without_accuracy_have_a_report_by_what_they_have(metrics):
    frame = sweep_frame(subject_layers=(4, 6))
    frame = pd.concat([frame, frame[frame["reading"] == "plain"].assign(metric="my_score", reading=None)])
    of_metrics = frame[frame["metric"].isin(metrics)].reset_index(drop=True)
    source = report_source(of_metrics)
    label = metric_of(metrics[0]).label
    assert f"a {label} of " in headline(source)
    assert f"Settings: {label}, mean over relations" in report_html(source)


def test_the_report_of_built_in_relations_repeats_them_by_name(swept, tmp_path, capsys):
    folder = shutil.copytree(swept.folder, tmp_path / "sweep")
    head = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    head["asked"]["built_in"] = True
    (folder / "sweep.json").write_text(json.dumps(head), encoding="utf-8")
    assert main(["report", str(folder)]) == 0
    (command,) = re.findall("<pre>(lrc-tl sweep .*?)</pre>", (folder / "report.html").read_text(encoding="utf-8"))
    words = shlex.split(html.unescape(command))
    assert "--relations" not in words
    assert words[words.index("--only") + 1] == ",".join(sorted(swept.relations))
