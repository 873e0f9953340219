"""`lrc-tl rerun`: results of every command that are repeated and compared, and what counts as different."""

import json

import pytest
import typer
from tiny_sweep import model_folder

from lrc_tl.cli.main import app, main
from lrc_tl.cli.rerun import arguments_of, compared, read_result
from lrc_tl.errors import ResultFileError


@pytest.fixture(scope="module")
def place(one_thread, tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"), n_relations=1)


@pytest.fixture(scope="module")
def results(place, tmp_path_factory):
    """A result file of each command, by its name."""
    folder = tmp_path_factory.mktemp("results")
    model, relations, (relation,) = place
    fact = relation.facts[0]
    text = relation.templates[0].replace("{}", fact.subject)
    of_model, of_relations = ["--model", str(model)], ["--relations", str(relations)]
    source, concepts = str(next(relations.iterdir())), str(folder / "concepts")
    layers = ["--subject-layers", "0:2", "--seeds", "1", "--shots", "0"]
    commands = {
        "relations": [str(relations)],
        "fit": [
            *of_model, "--relation", source, "--out", concepts, "--subject-layer", "0", "--object-layer", "2",
            "--rank", "3", "--shots", "0", "--max-lre-prompts", "4",
        ],
        "probe": [*of_model, "--concepts", concepts, "--text", text, "--subject", fact.subject, "--top", "1"],
        "steer": [
            *of_model, "--concepts", concepts, "--concept", fact.object, "--strength", "-0.300000001",
            "--text", text, "--max-new-tokens", "3",
        ],
        "benchmark": [
            *of_model, *of_relations, "--methods", "mean,svm", "--beta", "0.3", "--seeds", "1,2", "--shots", "0",
            "--subject-layer", "1",
        ],
        "sweep": [*of_model, *of_relations, "--methods", "mean", "--betas", "0.3,0.8", *layers],
    }  # fmt: skip
    for name, arguments in commands.items():
        assert main([name, *arguments, "--json", str(folder / f"{name}.json")]) == 0, name
    return folder


@pytest.mark.parametrize("name", ["relations", "fit", "probe", "steer", "benchmark", "sweep"])
def test_a_result_that_is_run_again_is_the_same_and_nothing_of_it_is_written_over(results, tmp_path, name, capsys):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    code = main(["rerun", str(results / f"{name}.json"), "--json", str(tmp_path / "again.json")])
    printed = capsys.readouterr()
    assert code == 0, printed
    assert "the same: " in printed.out
    data = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert (data["same"], data["differences"], data["command"][:2]) == (True, [], ["lrc-tl", name])
    assert data["n_compared"] > 1
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("benchmark", lambda data: data["methods"][0]["accuracy"].update(mean=0.123), r"methods[0].accuracy.mean"),
        ("sweep", lambda data: data["rows"].pop(), "rows (how many)"),
        ("steer", lambda data: data.update(text_steered="other"), "text_steered"),
        ("fit", lambda data: data["objects"].reverse(), "objects[0]"),
        ("probe", lambda data: data.update(added=1), "added"),
        ("fit", lambda data: data["model"].update(d_vocab=7), "model"),
    ],
)
def test_what_differs_is_named_and_the_exit_code_is_1(results, tmp_path, name, change, message, capsys):
    data = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    change(data)
    (tmp_path / "changed.json").write_text(json.dumps(data), encoding="utf-8")
    assert main(["rerun", str(tmp_path / "changed.json"), "--json", str(tmp_path / "again.json")]) == 1
    printed = capsys.readouterr()
    assert "differ, beyond rtol 0.0001 and atol 1e-06" in printed.err
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert again["same"] is False
    assert message in [difference["place"] for difference in again["differences"]]


def test_directions_that_point_elsewhere_are_seen_where_their_file_is_still_there(results, tmp_path, capsys):
    import lrc_tl as lrc

    data = json.loads((results / "fit.json").read_text(encoding="utf-8"))
    concepts = lrc.ConceptSet.load(data["settings"]["out"])
    names = list(concepts)
    turned = {name: concepts[other] for name, other in zip(names, [*names[1:], names[0]], strict=True)}
    data["settings"]["out"] = str(tmp_path / "turned")
    lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                direction.vector, relation=direction.relation, object_name=name, hook_name=direction.hook_name,
                fingerprint=direction.fingerprint,
            )
            for name, direction in turned.items()
        }
    ).save(tmp_path / "turned")  # fmt: skip
    (tmp_path / "fit.json").write_text(json.dumps(data), encoding="utf-8")
    assert main(["rerun", str(tmp_path / "fit.json")]) == 1
    assert f"cosine of {names[0]!r} to itself" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no result file of lrc-tl (it has no schema)"),
        ('{"schema": {"name": "x.y"}, "settings": {}}', "is no result file of lrc-tl (its schema is 'x.y')"),
        ('{"schema": {"name": "lrc_tl.rerun"}, "settings": {}}', "is no command that can be run again"),
        ('{"schema": {"name": "lrc_tl.fit"}, "settings": {}}', "does not say its model, relation, out"),
        ('{"schema": {"name": "lrc_tl.sweep"}, "settings": {"folders": ["a"]}}', "is repeated shard by shard"),
    ],
)
def test_files_that_cannot_be_run_again_are_refused(tmp_path, content, message, capsys):
    (tmp_path / "r.json").write_text(content, encoding="utf-8")
    assert main(["rerun", str(tmp_path / "r.json")]) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(ResultFileError, match="is no result file"):
        read_result(tmp_path / "none.json")


def test_figures_are_the_same_within_the_tolerances_and_counts_exactly():
    def differing(before, now, rtol=1e-4, atol=1e-6):
        return [difference.place for difference in compared(before, now, rtol=rtol, atol=atol)[1]]

    before = {"a": 0.5, "n": 4, "text": "x", "rows": [{"value": 1.0}, {"value": None}], "seconds_train": 1.0}
    assert differing(before, {**before, "seconds_train": 9.0, "seconds": 3, "peak_rss_bytes": 1}) == []
    assert differing(before, {**before, "a": 0.50004}) == []
    assert differing(before, {**before, "a": 0.5001}) == ["a"]
    assert differing(before, {**before, "a": 0.5001}, rtol=1e-3) == []
    assert differing({"a": 0.0}, {"a": 9e-7}) == []
    assert differing(before, {**before, "n": 5}, rtol=1.0) == ["n"]
    assert differing({"a": 1.0}, {"a": 1}) == []
    assert differing({"a": True}, {"a": 1}) == differing({"a": 1.0}, {"a": True}) == ["a"]
    assert differing({"a": 1.0}, {"a": None}) == differing({"a": "1"}, {"a": 1}) == ["a"]
    assert differing(before, {**before, "rows": [{"value": 1.1}, {"value": 0.0}]}) == [
        "rows[0].value",
        "rows[1].value",
    ]


def test_every_setting_becomes_the_option_that_it_came_from_and_no_place_to_write_is_kept(tmp_path):
    commands = typer.main.get_command(app).commands
    settings = {
        "model": "m", "folder": "R", "methods": ["lrc", "mean"], "subject_layers": [4, -1], "ridges": (0.1, 1e-7),
        "out": "old", "resume": True, "dry_run": False, "max_facts": None, "seeds": [], "validation": 0.25,
        "made_up": 3, "shard": "0/3",
    }  # fmt: skip
    words = arguments_of(commands["sweep"].params, settings, tmp_path)
    assert words == [
        "--model", "m", "--relations", "R", "--methods", "lrc,mean", "--subject-layers", "4,-1", "--ridges",
        "0.1,1e-07", "--validation", "0.25", "--shard", "0/3",
    ]  # fmt: skip
    words = arguments_of(
        commands["fit"].params, {"model": "m", "relation": "r", "out": "/etc/x", "centre": True}, tmp_path
    )
    assert words == ["--model", "m", "--relation", "r", "--out", str(tmp_path / "out"), "--centre"]
