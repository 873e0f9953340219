"""The command line: exit codes, one clear line for an error, JSON, and the library calls that it makes."""

import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.cli.main import app, fit, main
from lrc_tl.methods.method import METHODS

RELATION = {
    "name": "pet sound",
    "kind": "commonsense",
    "prompt_templates": ["The {} says"],
    "samples": [{"subject": s, "object": o} for s, o in [("dog", "woof"), ("pup", "woof"), ("cat", "meow")]],
}
FIT = ["fit", "--model", "m", "--subject-layer", "-4", "--object-layer", "3", "--rank", "2"]


def write(path, **changes):
    path.write_text(json.dumps(RELATION | changes), encoding="utf-8")
    return path


def test_importing_the_command_line_needs_no_torch():
    code = "import sys, lrc_tl.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "lrc-tl 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'. (see lrc-tl --help)"),
        (["relations", "/no/such/folder"], "does not exist. (see lrc-tl relations --help)"),
        (["relations", "--nope"], "No such option: --nope (see lrc-tl relations --help)"),
        ([*FIT[:-1], "0", "--relation", "r", "--out", "o"], "--rank"),
        (
            [*FIT[:-2], "--relation", "r", "--out", "o", "--method", "lrc"],
            "--rank, --ridge or both must be given",
        ),
        (["fit", "--model", "m"], "(see lrc-tl fit --help)"),
        ([*FIT, "--relation", "r", "--out", "o", "--method", "lcr"], "no method 'lcr'; did you mean lrc"),
        (
            [*FIT, "--relation", "r", "--out", "o", "--method", "svm", "--ridge", "0.1"],
            "--ridge and --first-token belong to --method lrc, not to svm",
        ),
        ([*FIT[:-2], "--relation", "r", "--out", "o", "--method", "lrc-final"], "lrc-final needs a rank"),
        (
            ["probe", "--model", "m", "--concepts", "/no/such/file", "--text", "t", "--subject", "t"],
            "does not exist",
        ),
    ],
)
def test_bad_usage_is_one_line_on_stderr_and_exit_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lrc-tl: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_no_command_shows_the_commands_and_is_bad_usage(capsys):
    assert main([]) == 2
    out = capsys.readouterr().out
    assert all(command in out for command in ("relations", "fit", "probe", "steer"))


@pytest.mark.parametrize("command", ["fit", "benchmark"])
def test_the_help_lists_every_method_with_its_sentence_on_a_line(command, capsys):
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split(maxsplit=1) for line in lines[-len(METHODS) :]]
    assert listed == [[name, method.summary] for name, method in METHODS.items()]
    assert max(len(line) for line in lines) <= 80


def test_the_help_of_the_benchmark_lists_the_presets(capsys):
    assert main(["benchmark", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "One of table5, table6, table7, table8, fig3, fig4, fig5, fig6, fig7, betas; each also in small" in shown
    )


def test_python_m_is_the_command_line():
    shown = subprocess.run(
        [sys.executable, "-m", "lrc_tl", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("lrc-tl ")


def test_a_failure_is_one_line_and_exit_code_1_and_debug_shows_the_traceback_wherever_it_stands(capsys, tmp_path):
    arguments = [*FIT, "--relation", "city_in_contry", "--out", str(tmp_path / "o")]
    line = "lrc-tl: no relation or file 'city_in_contry'; did you mean city_in_country or company_in_country"
    assert main(arguments) == 1
    quiet = capsys.readouterr().err
    assert quiet.startswith(line)
    assert quiet.count("\n") == 1
    for debug in (["--debug", *arguments], [*arguments, "--debug"]):
        assert main(debug) == 1
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        assert line in err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("no concept 'x'"), "lrc-tl: no concept 'x'\n"),
        (ValueError("two\n  lines"), "lrc-tl: two lines\n"),
        (MemoryError(), "lrc-tl: MemoryError: (--debug shows where)\n"),
        (AttributeError("no such thing"), "lrc-tl: AttributeError: no such thing (--debug shows where)\n"),
    ],
)
def test_every_error_is_one_line(capsys, monkeypatch, error, line):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(lrc, "load_relation", fail)
    assert main(["relations"]) == 1
    assert capsys.readouterr().err == line


def test_an_interrupt_is_said_and_has_its_own_exit_code(capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(lrc, "load_relation", interrupt)
    assert main(["relations"]) == 130
    assert capsys.readouterr().err == "lrc-tl: interrupted\n"


def test_the_built_in_relations_are_listed(capsys):
    assert main(["relations"]) == 0
    out = capsys.readouterr().out
    assert all(lrc.load_relation(name).name in out for name in lrc.built_in_relations())


def test_a_bad_file_is_named_hides_no_other_and_is_a_failure(capsys, tmp_path):
    pairs = [("dog", "woof"), ("dog", "woof"), ("cat ", "meow"), ("fox", "yip"), ("fox", "ring"), ("Cat", "meow")]
    write(tmp_path / "a.json", samples=[{"subject": s, "object": o} for s, o in pairs])
    bad = write(tmp_path / "b.json", name="other", prompt_templates=["none"])
    assert main(["relations", str(tmp_path), "--json", str(tmp_path / "out" / "r.js")]) == 1
    captured = capsys.readouterr()
    assert "pet sound" in captured.out
    named, summary = captured.err.splitlines()
    assert named.startswith(f"lrc-tl: {bad}: ")
    assert "must hold {} exactly once" in named
    assert summary == "lrc-tl: 1 of 2 files hold no usable relation"
    data = json.loads((tmp_path / "out" / "r.js").read_text())
    assert data["schema"]["name"] == "lrc_tl.relations"
    assert data["settings"] == {"folder": str(tmp_path), "strict": False}
    assert data["model"] is None
    (row,) = data["relations"]
    counted = ("facts", "objects", "duplicates", "ambiguous", "rewritten", "lookalikes")
    assert [row[key] for key in ("name", "kind", *counted)] == ["pet sound", "commonsense", 3, 2, 1, 2, 1, 1]
    assert data["errors"] == [{"file": str(bad), "error": named.removeprefix("lrc-tl: ")}]
    assert main(["relations", str(tmp_path), "--strict"]) == 1
    assert "2 of 2 files" in capsys.readouterr().err


def test_a_folder_without_relations_is_a_failure(capsys, tmp_path):
    assert main(["relations", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"lrc-tl: there is no *.json file below {tmp_path}\n"


def test_fit_gives_its_arguments_to_the_library_and_saves_the_concepts(calls, capsys, tmp_path):
    path = write(tmp_path / "r.json")
    out, result = tmp_path / "new" / "c.safetensors", tmp_path / "f.json"
    options = [
        "--shots",
        "1",
        "--max-lre-prompts",
        "7",
        "--seed",
        "3",
        "--first-token",
        "--device",
        "cuda:0",
        "--dtype",
        "bfloat16",
    ]
    assert main([*FIT, "--relation", str(path), "--out", str(out), *options, "--json", str(result)]) == 0
    prompts = lrc.load_relation(path).prompts(shots=1, seed=3)
    assert calls["load_model"] == ("m", "cuda:0", torch.bfloat16)
    assert calls["filter_known"] == prompts
    assert calls["sample"] == (7, 3)
    assert calls["fit"] == (
        prompts[1:2],
        {
            "subject_layer": -4,
            "object_layer": 3,
            "object_aggregation": "first_token",
            "solver": "exact",
            "fit_dtype": "model",
        },
    )
    assert calls["concepts"] == (prompts[1:], 2, 0.0)
    assert out.read_text() == "saved"
    data = json.loads(result.read_text())
    assert data["model"] == {"name": "m"}
    assert (data["relation"], data["n_facts"], data["n_known"], data["n_lre_prompts"]) == ("pet sound", 3, 2, 1)
    assert data["objects"] == ["woof", "meow"]
    assert data["dropped"][0]["answer"] == "moo"
    assert data["settings"]["subject_layer"] == -4
    assert "json_file" not in data["settings"]
    assert "2 concepts saved" in capsys.readouterr().out


def test_fit_takes_a_ridge_in_place_of_the_rank(calls, tmp_path):
    path = write(tmp_path / "r.json")
    options = ["--relation", str(path), "--out", str(tmp_path / "c.safetensors"), "--ridge", "0.2", "--shots", "1"]
    assert main([*FIT[:-2], *options]) == 0
    assert calls["concepts"][1:] == (None, 0.2)


def test_fit_without_a_rank_and_centring_are_the_library_s(calls, tmp_path, monkeypatch):
    path = write(tmp_path / "r.json")
    out = tmp_path / "c.safetensors"

    def fit_concepts(model, prompts, **options):
        calls["fit_concepts"] = prompts, options
        return SimpleNamespace(centred=lambda acts: calls.update(centred=acts) or lrc.ConceptSet.load(path))

    monkeypatch.setattr(lrc, "fit_concepts", fit_concepts)
    monkeypatch.setattr(lrc, "subject_activations", lambda model, prompts, *, layer: (prompts, layer))
    options = ["--centre", "--shots", "1", "--seed", "3", "--max-lre-prompts", "7"]
    assert main([*FIT[:-2], "--relation", str(path), "--out", str(out), *options]) == 0
    facts = lrc.load_relation(path)
    assert calls["fit_concepts"] == (
        facts.prompts(shots=1, seed=3)[1:],
        {
            "method": "lrc-map-combined",
            "subject_layer": -4,
            "object_layer": 3,
            "rank": None,
            "seed": 3,
            "settings": lrc.FitSettings(max_lre_prompts=7),
        },
    )
    assert calls["centred"] == (facts.prompts(seed=3), -4)
    assert out.read_text() == "saved"


def test_fit_has_the_defaults_of_fit_concepts():
    library, command = inspect.signature(lrc.fit_concepts).parameters, inspect.signature(fit).parameters
    for name in ("method", "object_layer", "rank", "seed"):
        assert command[name].default == library[name].default, name
    assert command["max_lre_prompts"].default == library["settings"].default.max_lre_prompts
    assert library["settings"].default == lrc.FitSettings()


def test_fit_ignores_what_a_method_does_not_have_and_says_so(calls, capsys, tmp_path, monkeypatch):
    path, result = write(tmp_path / "r.json"), tmp_path / "f.json"
    monkeypatch.setattr(
        lrc, "fit_concepts", lambda *a, **options: calls.update(options) or lrc.ConceptSet.load(path)
    )
    options = ["--relation", str(path), "--out", str(tmp_path / "c.safetensors"), "--json", str(result)]
    assert main([*FIT, *options, "--shots", "1", "--method", "svm"]) == 0
    assert capsys.readouterr().err == "lrc-tl: svm takes no object layer 3 and no rank 2; they are ignored\n"
    assert (calls["object_layer"], calls["rank"]) == (None, None)  # so the library has nothing to warn of
    assert json.loads(result.read_text())["settings"]["method"] == "svm"


def test_fit_refuses_a_target_that_cannot_be_written_before_the_model_is_loaded(calls, capsys, tmp_path):
    assert main([*FIT, "--relation", "animal_class", "--out", str(tmp_path)]) == 1
    assert "is a folder; give the name of a file to write" in capsys.readouterr().err
    assert "load_model" not in calls


def test_probe_prints_the_ranking_of_the_loaded_concepts(calls, capsys, tmp_path):
    stored = tmp_path / "c.safetensors"
    stored.write_text("saved")
    arguments = ["--model", "m", "--concepts", str(stored), "--text", "The [cat] says", "--subject", "[cat]"]
    assert main(["probe", *arguments, "--top", "1", "--json", str(tmp_path / "p.json")]) == 0
    assert calls["load"] == ("saved", False)  # the file is read before the model
    assert calls["require_model"].cfg.n_layers == 6
    assert calls["classify"] == ("The [cat] says", "[cat]")
    out = capsys.readouterr().out
    assert "meow" in out
    assert "2.5" in out
    assert "woof" not in out
    data = json.loads((tmp_path / "p.json").read_text())
    assert data["ranking"] == [{"object": "meow", "score": 2.5}, {"object": "woof", "score": -1.0}]


def test_steer_shows_the_text_without_and_with_the_concept(calls, capsys, tmp_path):
    stored = tmp_path / "c.safetensors"
    stored.write_text("saved")
    arguments = [
        "--model",
        "m",
        "--concepts",
        str(stored),
        "--concept",
        "meow",
        "--strength",
        "-0.2",
        "--text",
        "Hi",
    ]
    assert main(["steer", *arguments, "--max-new-tokens", "5", "--json", str(tmp_path / "s.json")]) == 0
    assert calls["steer"] == {"strength": -0.2, "unit": "share"}
    assert calls["generate"] == {"max_new_tokens": 5, "do_sample": False, "verbose": False}
    out = capsys.readouterr().out
    assert "Hi plain [b]" in out
    assert "Hi loud [b]" in out
    data = json.loads((tmp_path / "s.json").read_text())
    assert (data["text_unsteered"], data["text_steered"]) == ("Hi plain [b]", "Hi loud [b]")
    assert main(["steer", *["moo" if a == "meow" else a for a in arguments]]) == 1
    assert capsys.readouterr().err == "lrc-tl: moo\n"
    assert main(["steer", *arguments, "--unit", "score"]) == 0
    assert calls["steer"] == {"strength": -0.2, "unit": "score"}
    assert main(["steer", *arguments, "--unit", "metres"]) == 2
    assert "'metres' is not one of 'share', 'absolute', 'score'" in capsys.readouterr().err


WITHOUT_MODEL = {"relations", "merge", "report"}


def test_every_command_that_loads_a_model_says_where_and_in_which_precision():
    import typer

    commands = typer.main.get_command(app).commands
    options = {
        name: {option for one in command.params for option in one.opts} for name, command in commands.items()
    }
    assert {name for name in options if "--model" in options[name]} == set(commands) - WITHOUT_MODEL
    for name in set(commands) - WITHOUT_MODEL:
        assert {"--device", "--dtype"} <= options[name], name


def test_an_unknown_dtype_is_bad_usage(calls, capsys, tmp_path):
    options = ["--relation", str(write(tmp_path / "r.json")), "--out", str(tmp_path / "c.safetensors")]
    assert main([*FIT, *options, "--dtype", "int8"]) == 2
    assert "'int8' is not one of 'float32', 'bfloat16', 'float16', 'float64'" in capsys.readouterr().err
    assert "load_model" not in calls
