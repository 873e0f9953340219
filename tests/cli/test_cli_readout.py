"""`lrc-tl readout`: the library's words for directions and for the hidden states of a text."""

import json

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.cli.main import main

HOOK = "blocks.1.hook_resid_post"
TEXT = "w3 w41 w7"
OF_TEXT = ["readout", "--model", "m", "--text", TEXT]
OF_CONCEPTS = ["readout", "--model", "m", "--concepts", "c.safetensors"]


@pytest.fixture
def concepts(one_word_model, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    made = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(one_word_model.cfg.d_model, generator=generator, dtype=torch.float64),
                relation="r", object_name=name, hook_name=HOOK,
                fingerprint=lrc.models.ModelFingerprint.of(one_word_model),
            )
            for name in ("w5", "w6")
        }
    )  # fmt: skip
    made.save(tmp_path / "c.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lrc, "load_model", lambda name, **options: one_word_model)
    return made


def words(ends):
    return [(word["word"], word["token"], word["logit"]) for word in ends]


@pytest.mark.parametrize("chosen", [["w6"], ["w5", "w6"]])
def test_directions_are_said_in_the_library_s_words(concepts, one_word_model, tmp_path, capsys, chosen):
    named = [part for name in chosen for part in ("--concept", name)]
    given = named if len(chosen) == 1 else []  # else all
    assert main([*OF_CONCEPTS, *given, "-k", "3", "--json", "r.json"]) == 0
    data, out = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().out
    assert data["hook_name"] == HOOK
    assert [row["concept"] for row in data["readouts"]] == chosen
    for row in data["readouts"]:
        expected = concepts[row["concept"]].readout(one_word_model, k=3)
        assert words(row["top"]) == [tuple(word) for word in expected.top]
        assert words(row["bottom"]) == [tuple(word) for word in expected.bottom]
        assert all(repr(word.text) in out for word in (*expected.top, *expected.bottom))


def test_a_text_is_read_by_the_logit_lens(concepts, one_word_model, tmp_path, capsys):
    assert main([*OF_TEXT, "-k", "2", "--layers", "1,-1", "--json", "r.json"]) == 0
    data, out = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().out
    lens = lrc.directions.logit_lens(one_word_model, TEXT, k=2, layers=[1, -1])
    assert (data["text"], data["tokens"], data["layers"]) == (TEXT, list(lens.tokens), list(lens.layers))
    frame = lens.to_frame()
    assert [row["word"] for row in data["words"]] == list(frame["word"])
    assert [row["token"] for row in data["words"]] == list(frame["id"])
    assert [row["probability"] for row in data["words"]] == pytest.approx(list(frame["probability"]))
    first = [lens.top(layer=layer, position=1)[0][0].strip() for layer in lens.layers]
    (line,) = [line for line in out.splitlines() if line.split()[:1] == [repr(lens.tokens[1])]]
    assert line.split()[1:] == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (OF_TEXT[:3], "give --concepts, for its directions in words, or --text"),
        ([*OF_CONCEPTS, "--text", TEXT], "give --concepts, for its directions in words, or --text"),
        ([*OF_CONCEPTS, "--layers", "1"], "--layers belongs to --text"),
        ([*OF_TEXT, "--concept", "w5"], "belong to --concepts"),
        ([*OF_TEXT, "--layers", "1:1"], "the range '1:1' is empty"),
        ([*OF_TEXT[:-1], " "], "--text is empty"),
        ([*OF_TEXT, "-k", "0"], "--words"),
    ],
)
def test_bad_usage_is_said_before_a_model_is_loaded(concepts, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(lrc, "load_model", lambda name, **options: pytest.fail("loaded"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_what_the_model_refuses_is_a_failure(concepts, capsys):
    assert main([*OF_TEXT, "--layers", "99"]) == 1
    assert main([*OF_CONCEPTS, "-k", "100000"]) == 1
    assert capsys.readouterr().err.count("\n") == 2
