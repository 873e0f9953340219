"""`lrc-tl fit` with layers that are not given, and with dual directions."""

import pytest
from test_cli import write

import lrc_tl as lrc
from lrc_tl.cli.main import main


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"method": "lrc-map", "subject_layer": 3, "object_layer": None}),
        (["--subject-layer", "1"], {"method": "lrc-map", "subject_layer": 1, "object_layer": None}),
        (["--object-layer", "4"], {"method": "lrc-map-given", "subject_layer": 3, "object_layer": 4}),
        (["--noise", "3"], {"method": "lrc-map", "subject_layer": 3, "object_layer": None, "noise": 3.0}),
        (["--method", "lrc-combined"], {"method": "lrc-combined", "subject_layer": 3, "object_layer": 4}),
    ],
)
def test_fit_fills_in_layers_that_are_not_given_and_passes_the_noise_on(
    calls, tmp_path, monkeypatch, options, expected
):
    path = write(tmp_path / "r.json")
    made = []
    monkeypatch.setattr(
        lrc, "fit_concepts", lambda model, prompts, **given: made.append(given) or lrc.ConceptSet.load(path)
    )
    where = ["--relation", str(path), "--out", str(tmp_path / "c.safetensors"), "--shots", "1"]
    assert main(["fit", "--model", "m", "--method", "lrc-map", *where, *options]) == 0
    (given,) = made
    noise = expected.pop("noise", None)
    assert {name: given[name] for name in expected} == expected
    assert (given["settings"].noise, given["rank"]) == (noise, None)


def test_fit_of_an_lre_without_layers_has_those_of_the_library(calls, tmp_path):
    path = write(tmp_path / "r.json")
    where = ["--relation", str(path), "--out", str(tmp_path / "c.safetensors"), "--shots", "1"]
    assert main(["fit", "--model", "m", "--rank", "2", *where]) == 0
    _, options = calls["fit"]
    assert (options["subject_layer"], options["object_layer"]) == (3, 4)
    assert main(["fit", "--model", "m", "--rank", "2", "--subject-layer", "-1", *where]) == 2


def test_fit_passes_on_in_what_lres_are_fitted(calls, tmp_path, monkeypatch):
    path = write(tmp_path / "r.json")
    where = ["--relation", str(path), "--out", str(tmp_path / "c.safetensors"), "--shots", "1"]
    assert main(["fit", "--model", "m", "--rank", "2", *where]) == 0
    assert calls["fit"][1]["fit_dtype"] == "model"
    assert main(["fit", "--model", "m", "--rank", "2", "--fit-dtype", "float32", *where]) == 0
    assert calls["fit"][1]["fit_dtype"] == "float32"
    made = []
    monkeypatch.setattr(
        lrc, "fit_concepts", lambda model, prompts, **given: made.append(given) or lrc.ConceptSet.load(path)
    )
    assert main(["fit", "--model", "m", "--method", "lrc-map", "--fit-dtype", "float32", *where]) == 0
    assert made[0]["settings"].fit_dtype == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "svm", "--noise", "3"],
            "--noise belongs to --method lrc-map, lrc-map-given, lrc-fisher, lrc-map-combined, not to svm",
        ),
        (["--method", "lrc-map", "--noise", "0"], "noise is 0.0; it must be above 0"),
        (
            ["--method", "lrc-map", "--ridge", "0.2"],
            "--ridge and --first-token belong to --method lrc",
        ),
        (
            ["--method", "svm", "--fit-dtype", "float32"],
            "--fit-dtype is for methods with an LRE, which svm has not",
        ),
        (["--fit-dtype", "float16"], "--fit-dtype is 'float16'; allowed are 'model' and 'float32'"),
    ],
)
def test_fit_refuses_what_is_not_of_its_method(calls, tmp_path, capsys, options, message):
    path = write(tmp_path / "r.json")
    where = ["--relation", str(path), "--out", str(tmp_path / "c.safetensors")]
    assert main(["fit", "--model", "m", *where, *options]) == 2
    assert message in capsys.readouterr().err
    assert "load_model" not in calls
