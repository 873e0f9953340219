"""Shell completion: what is offered for each option, by the shell's own protocol, without loading torch."""

import os
import subprocess
import sys

import pytest

import lrc_tl as lrc
from lrc_tl.cli import completing
from lrc_tl.cli.main import main
from lrc_tl.experiments.presets import PRESETS
from lrc_tl.methods.method import METHODS
from lrc_tl.models.packaged import PACKAGED


@pytest.fixture
def offered(monkeypatch, capsys):
    """What bash is given for the last of these words."""

    def run(*words):
        monkeypatch.setenv("_LRC_TL_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("lrc-tl", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code in (0, None)
        return capsys.readouterr().out.split()

    return run


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["rea"], ["read", "readout"]),
        (["read", "--con"], ["--concepts", "--concept"]),
        (["fit", "--relation", "city"], ["city_in_country"]),
        (["fit", "--method", "lrc-m"], ["lrc-map", "lrc-map-given", "lrc-map-combined"]),
        (["benchmark", "--preset", "table5"], ["table5", "table5-small"]),
        (["benchmark", "--methods", "lrc,sv"], ["lrc,svm"]),
        (["sweep", "--only", "city_in_country,company"], ["city_in_country,company_in_country"]),
        (["sweep", "--metrics", "kl_e"], ["kl_elsewhere"]),
        (["sweep", "--places", "sub"], ["subject"]),
        (["sweep", "--solver", "low"], ["low_rank"]),
        (["fit", "--fit-dtype", "f"], ["float32"]),
        (["read", "--model", "pack"], sorted(PACKAGED)),
        (["read", "--dtype", "bf"], ["bfloat16"]),
    ],
)
def test_names_that_are_built_in_are_offered(offered, words, wanted):
    assert offered(*words) == wanted


def test_all_names_are_offered_for_nothing_typed():
    assert [name for name, _ in completing.relation_names("")] == list(lrc.built_in_relations())
    assert [name for name, _ in completing.method_names("")] == list(METHODS)
    assert [name for name, _ in completing.preset_names("")] == list(PRESETS)
    assert set(completing.PACKAGED_MODELS) == set(PACKAGED)


def test_a_name_that_stands_in_the_list_is_not_offered_again():
    offers = [name for name, _ in completing.several_methods("lrc,svm,")]
    assert "lrc,svm,mean" in offers
    assert not {"lrc,svm,lrc", "lrc,svm,svm"} & set(offers)


def test_files_are_offered_where_no_name_fits(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    (tmp_path / "minor").mkdir()
    assert [name for name, _ in completing.relation_names(f"{tmp_path}/mi")] == [
        f"{tmp_path}/mine.json",
        f"{tmp_path}/minor/",
    ]
    assert [name for name, _ in completing.model_names(f"{tmp_path}/")] == [
        f"{tmp_path}/mine.json",
        f"{tmp_path}/minor/",
    ]
    assert completing.relation_names("/no/such/folder/x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_calls_the_command(shell):
    script = subprocess.run(
        [sys.executable, "-m", "lrc_tl"],
        env={**os.environ, "_LRC_TL_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"_LRC_TL_COMPLETE=complete_{shell}" in script


def test_completing_needs_no_torch():
    code = (
        "import sys; from lrc_tl.cli import completing as c\n"
        "assert c.relation_names('') and c.method_names('') and c.model_names('p') and c.several_metrics('')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
