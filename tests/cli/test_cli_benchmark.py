"""`lrc-tl benchmark`: from a folder of relation files to the JSON, and bad usage."""

import json

import pytest
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.cli.main import main
from lrc_tl.experiments.presets import PRESETS, benchmark_options
from lrc_tl.experiments.settings import ExperimentSettings

LAYERS = ["--subject-layer", "0", "--object-layer", "1", "--rank", "4"]


@pytest.fixture(scope="module")
def folder(word_model, tmp_path_factory):
    made = tmp_path_factory.mktemp("relations")
    for number, relation in enumerate(spoken_relations(word_model, 3)):
        below = made / f"kind{number}"
        below.mkdir()
        data = {
            "name": relation.name,
            "prompt_templates": list(relation.templates),
            "samples": [{"subject": fact.subject, "object": fact.object} for fact in relation.facts],
        }
        (below / f"file_{number}.json").write_text(json.dumps(data))
    return made


@pytest.fixture
def load_model(word_model, monkeypatch):
    loaded = []

    def load(name, **given):
        loaded.append((name, given["device"], str(given["dtype"])))
        return word_model

    monkeypatch.setattr(lrc, "load_model", load)
    return loaded


def run(folder, *options):
    return main(["benchmark", "--model", "m", "--relations", str(folder), "--shots", "0", *options])


def test_a_benchmark_prints_its_table_keeps_its_parts_and_resumes(
    word_model, folder, load_model, capsys, tmp_path
):
    (folder / "broken.json").write_text("{")
    target = tmp_path / "new" / "r.json"
    options = [
        *LAYERS, "--methods", "lrc,mean", "--seeds", "1:3", "--beta", "0.3,0.5", "--only", "R1, file 2",
        "--max-lre-prompts", "3", "--max-facts", "20", "--solver", "low_rank", "--json", str(target),
    ]  # fmt: skip
    assert run(folder, *options) == 0
    captured = capsys.readouterr()
    assert "| lrc | " in captured.out
    assert "broken.json: not JSON" in captured.err
    assert load_model == [("m", "cpu", "torch.float32")]
    data = json.loads(target.read_text())
    assert data["schema"] == {"name": "lrc_tl.benchmark", "version": 1}
    assert [entry["method"] for entry in data["methods"]] == ["lrc", "mean"]
    assert data["methods"][0]["accuracy"]["mean"] is not None
    assert {row["relation"] for row in data["methods"][0]["per_relation"]} <= {"r1", "r2"}
    assert data["settings"]["seeds"] == [1, 2]
    assert data["settings"]["beta"] == [0.3, 0.5]
    assert data["settings"]["subject_layer"] == 0
    assert data["settings"]["fit_method"] == "low_rank"
    assert data["model"]["n_layers"] == 3
    parts = tmp_path / "new" / "r.json.parts"
    assert len(list(parts.glob("*.json"))) == 4
    assert run(folder, *options, "--resume") == 0
    again = json.loads(target.read_text())
    assert {
        key: value for key, value in again.items() if key not in ("seconds", "peak_rss_bytes", "settings")
    } == {key: value for key, value in data.items() if key not in ("seconds", "peak_rss_bytes", "settings")}
    capsys.readouterr()
    assert run(folder, *options, "--resume", "--rank", "3") == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("lrc-tl: ")
    assert "it was made with other settings (ranks [4], now [3])" in err
    (folder / "broken.json").unlink()


def test_files_that_cannot_be_read_and_relations_left_out_are_in_the_result(folder, load_model, tmp_path, capsys):
    bad = folder / "bad.json"
    bad.write_text(json.dumps({"name": "x"}))
    lone = folder / "lone.json"
    pairs = [{"subject": f"w{n}", "object": f"w{n + 20}"} for n in range(9)]
    lone.write_text(json.dumps({"name": "lone", "prompt_templates": ["{} w1"], "samples": pairs}))
    try:
        assert run(folder, *LAYERS, "--methods", "mean", "--json", str(tmp_path / "r.json")) == 0
        left = json.loads((tmp_path / "r.json").read_text())["relations_left_out"]
        assert left[str(bad)] == f"{bad}: field 'prompt_templates' is missing"
        assert left["lone"].startswith("it is one-to-one")
        assert run(folder, *LAYERS, "--methods", "mean", "--only", "lone") == 1
        assert "no relation could be evaluated: lone: it is one-to-one" in capsys.readouterr().err
    finally:
        bad.unlink()
        lone.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "lrc,svn", *LAYERS], "no method 'svn'; did you mean svm"),
        (["--methods", "lrc,mean", "--compare", "svm", *LAYERS], "--compare svm: it is none of the methods"),
        (["--preset", "tabel6"], "no preset 'tabel6'; did you mean table6"),
        (["--preset", "nope"], f"no preset 'nope'; there are {', '.join(PRESETS)}"),
        (["--seeds", "1,x", *LAYERS], "'x' in '1,x' is not a whole number"),
        (["--beta", "much", *LAYERS], "'much' in 'much' is not a number"),
        (["--rank", "4"], "--subject-layer, --object-layer must be given, or --select"),
        (["--preset", "fig4"], "preset 'fig4' does not know the layers of 'm'; give --object-layers"),
        (["--preset", "fig6", "--select"], "preset 'fig6' sweeps over ranks, which --select would choose"),
        (
            [*LAYERS, "--ranks", "2,4"],
            "--rank and --ranks were both given; give one value or several to sweep over",
        ),
        ([*LAYERS, "--resume"], "--resume needs --out or --json"),
        ([*LAYERS, "--max-facts", "1"], "--max-facts"),
        ([*LAYERS, "--solver", "lowrank"], "--solver"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2_before_the_model_is_loaded(
    folder, load_model, capsys, options, message
):
    assert run(folder, *options) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert load_model == []


def test_a_folder_without_relations_and_an_unknown_name_are_one_line(folder, load_model, capsys, tmp_path):
    assert run(tmp_path, *LAYERS) == 1
    assert capsys.readouterr().err == f"lrc-tl: there is no usable relation below {tmp_path}\n"
    assert run(folder, *LAYERS, "--only", "r9") == 1
    assert "no relation 'r9'; there are r0, r1" in capsys.readouterr().err
    assert load_model == []


def places(options):
    settings = options.settings
    return settings.subject_layers, settings.object_layers, settings.ranks


def test_given_options_win_over_the_preset_and_the_preset_over_the_defaults():
    nothing = dict.fromkeys(("methods", "seeds", "betas", "ranks", "subject_layers", "object_layers", "shots"))
    given = benchmark_options({**nothing, "ranks": 32}, model="packaged:gemma-3-270m", preset="table5")
    assert places(given) == ((9,), (13,), (32,))
    assert given.seeds == (42, 43, 44, 45, 46)
    defaults = ExperimentSettings()
    assert given.settings.betas == (0.1,)
    for name in ("shots", "max_facts", "max_lre_prompts", "n_side_effects", "solver", "split_seed"):
        assert getattr(given.settings, name) == getattr(defaults, name)
    llama = benchmark_options(nothing, model="meta-llama/Llama-2-7b-hf", preset="table5-small")
    assert places(llama) == ((17,), (21,), (192,))
    assert llama.settings.max_facts == 60
    selected = benchmark_options(nothing, model="packaged:gemma-3-270m", preset="table5", select=True)
    assert places(selected) == ((), (), ())
    assert selected.settings.betas is None
    assert selected.settings.select
    with pytest.raises(ValueError, match="--subject-layer, --object-layer, --rank must be given"):
        benchmark_options(nothing, model="other", preset="table5")


def test_presets_sweep_over_the_layers_of_the_models_that_they_know():
    gemma = benchmark_options({}, model="packaged:gemma-3-270m", preset="fig4-small")
    assert places(gemma) == ((9,), (10, 12, 14, 16), (64,))
    assert gemma.methods == ("lrc",)
    gptj = benchmark_options({}, model="EleutherAI/gpt-j-6B", preset="fig7")
    assert places(gptj) == (tuple(range(20)), (20,), (192,))
    assert len(gptj.seeds) == 5
    fixed = benchmark_options({"ranks": 32}, model="packaged:gemma-3-270m", preset="fig6")
    assert fixed.settings.ranks == (32,)
    several = benchmark_options({"object_layers": (3, 4)}, model="packaged:gemma-3-270m", preset="table5")
    assert places(several) == ((9,), (3, 4), (64,))
    own = {"subject_layers": 1, "object_layers": (2, 3), "ranks": 8}
    other = benchmark_options(own, model="other", preset="fig5-small")
    assert places(other) == ((1,), (2, 3), (8,))
    assert other.settings.max_facts == 60


def test_the_stored_settings_name_a_single_layer_apart_from_several():
    stored = benchmark_options({}, model="packaged:gemma-3-270m", preset="fig4-small").to_dict()
    assert (stored["subject_layer"], stored["object_layer"], stored["rank"]) == (9, None, 64)
    assert (stored["subject_layers"], stored["object_layers"], stored["ranks"]) == ((), (10, 12, 14, 16), ())
    assert (stored["methods"], stored["beta"], stored["seeds"]) == (("lrc",), (0.1,), (42,))
    assert list(stored) == [
        "methods", "beta", "seeds", "max_lre_prompts", "max_facts", "shots", "subject_layer", "object_layer",
        "rank", "subject_layers", "object_layers", "ranks", "single_layer", "random_model", "fit_method",
        "split_seed",
    ]  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_both_sizes_and_runs_with_what_it_brings(preset):
    from lrc_tl.methods.method import METHODS

    whole = preset.removesuffix("-small")
    assert {whole, f"{whole}-small"} <= set(PRESETS)
    for model, n_layers in (("packaged:gemma-3-270m", 18), ("meta-llama/Llama-2-7b-hf", 32), ("gpt-j-6B", 28)):
        options = benchmark_options({}, model=model, preset=preset)
        assert set(options.methods) <= set(METHODS)
        variants = options.settings.variants(options.methods, n_layers)
        assert len(variants) >= len(options.methods)
        assert all(v.object_layer is None or v.subject_layer < v.object_layer < n_layers for v in variants)


def test_help_shows_the_defaults_of_the_settings(capsys):
    assert main(["benchmark", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = ExperimentSettings()
    assert f"{defaults.max_lre_prompts} by default" in text
    assert f"Examples in training prompts, {defaults.shots} by default" in text
    assert f"{defaults.solver} by default" in text


def test_a_sweep_from_the_command_line_has_a_row_for_each_setting(folder, load_model, tmp_path, capsys):
    target = tmp_path / "r.json"
    options = [
        "--subject-layer",
        "0",
        "--object-layers",
        "1:3",
        "--ranks",
        "2,4",
        "--methods",
        "lrc",
        "--beta",
        "0.3",
    ]
    more = ["--single-layer", "--random-model", "--only", "r0", "--json", str(target)]
    assert run(folder, *options, *more) == 0
    data = json.loads(target.read_text())
    places = {(entry["object_layer"], entry["rank"]) for entry in data["methods"]}
    assert places == {(1, 2), (1, 4), (2, 2), (2, 4)}
    assert all(entry["curve_single_layer"] for entry in data["methods"])
    assert all(0 <= entry["control_random_model"]["mean"] <= 1 for entry in data["methods"])
    assert len(data["by_object_tokens"]) == 8
    again = [*options, *more, "--resume"]
    assert run(folder, *again, "--compare", "lrc@object=2,rank=4, lrc@object=1,rank=2") == 0
    compared = [entry["method"] for entry in json.loads(target.read_text())["comparisons"]]
    assert compared == ["lrc@object=2,rank=4"] * 3 + ["lrc@object=1,rank=2"] * 3
    capsys.readouterr()
    loads = len(load_model)
    assert run(folder, *again, "--compare", "lrc") == 2
    assert len(load_model) == loads
    assert (
        "compare: there is no method 'lrc' in this run; there are lrc@object=1,rank=2" in capsys.readouterr().err
    )


def test_plots_are_drawn_or_refused_before_anything_runs(folder, load_model, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    options = [
        *LAYERS,
        "--methods",
        "lrc,mean",
        "--beta",
        "0.3,0.5",
        "--only",
        "r0",
        "--plots",
        str(tmp_path / "p"),
    ]
    assert run(folder, *options) == 0
    drawn = {path.name for path in (tmp_path / "p").iterdir()}
    assert drawn == {"relations.png", "curves.png", "curves_hard.png"}
    assert f"wrote {tmp_path / 'p' / 'relations.png'}" in capsys.readouterr().err
    monkeypatch.setattr("lrc_tl.load_model", None)  # what follows is refused before
    taken = tmp_path / "file"
    taken.write_text("")
    capsys.readouterr()
    assert run(folder, *options[:-1], str(taken / "p")) == 1
    assert "Not a directory" in capsys.readouterr().err
    monkeypatch.setattr("lrc_tl.views.plots.find_spec", lambda name: None)
    assert run(folder, *options) == 1
    assert capsys.readouterr().err == "lrc-tl: plots need matplotlib; install lrc-tl[plots]\n"


def test_the_noise_and_the_test_subjects_of_dual_directions_are_options():
    options = benchmark_options(
        {"methods": ("lrc-map",), "noise": 3.0, "keep_test_subjects": True, "subject_layers": 0}, model="m",
        select=True,
    )  # fmt: skip
    assert (options.settings.noise, options.settings.keep_test_subjects) == (3.0, True)
    written = options.to_dict()
    assert (written["noise"], written["keep_test_subjects"]) == (3.0, True)


def test_options_of_dual_directions_reach_the_run(folder, load_model, capsys, monkeypatch, tmp_path):
    from lrc_tl.experiments import run as protocol

    ran = []

    def stop(model, relation, seed, methods, settings, **options):
        ran.append(settings)
        raise RuntimeError("far enough")

    monkeypatch.setattr(protocol, "benchmark_relation", stop)
    options = [*LAYERS, "--methods", "lrc-map", "--noise", "3", "--keep-test-subjects"]
    assert run(folder, *options) == 1
    assert (ran[0].noise, ran[0].keep_test_subjects) == (3.0, True)
    assert run(folder, *LAYERS, "--methods", "lrc-map", "--noise", "-1") == 2
    assert "noise is -1.0; it must be above 0" in capsys.readouterr().err
