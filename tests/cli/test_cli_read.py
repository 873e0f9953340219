"""`lrc-tl read`: the library's scores in the table, in colour where that is wanted, and in the result file."""

import io
import json
import sys

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.cli.main import main
from lrc_tl.cli.read import score_style, score_table

HOOK = "blocks.1.hook_resid_post"
TEXTS = ["w3 w41 w7", "w9 w2"]


@pytest.fixture
def concepts(one_word_model, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    fingerprint = lrc.models.ModelFingerprint.of(one_word_model)
    made = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(one_word_model.cfg.d_model, generator=generator, dtype=torch.float64),
                relation="r", object_name=name, hook_name=HOOK, fingerprint=fingerprint,
            )
            for name in ("w5", "w6", "[b]w8")
        }
    )  # fmt: skip
    made.save(tmp_path / "c.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lrc, "load_model", lambda name, **options: one_word_model)
    return made


READ = ["read", "--model", "m", "--concepts", "c.safetensors"]


def test_the_scores_are_those_of_the_library_for_several_texts(concepts, one_word_model, tmp_path, capsys):
    given = [part for text in TEXTS for part in ("--text", text)]
    assert main([*READ, *given, "--json", "r.json"]) == 0
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["schema"]["name"] == "lrc_tl.read"
    assert (data["hook_name"], data["concepts"]) == (HOOK, ["w5", "w6", "[b]w8"])
    out = capsys.readouterr().out
    for row, expected in zip(data["texts"], concepts.read_texts(one_word_model, TEXTS), strict=True):
        assert row["tokens"] == list(expected.tokens)
        assert row["special"] == list(expected.special)
        torch.testing.assert_close(torch.tensor(row["scores"], dtype=torch.float64), expected.scores)
        for scores in expected.scores.tolist():
            line = next(line for line in out.splitlines() if f"{scores[0]:+.4g}" in line)
            assert [f"{score:+.4g}" for score in scores] == line.split()[-3:]
    assert [row["text"] for row in data["texts"]] == TEXTS
    assert "[b]w8" in out  # brackets of names are no markup
    assert "\x1b" not in out


def test_concepts_are_chosen_by_name_or_by_their_highest_score(concepts, one_word_model, tmp_path, capsys):
    assert main([*READ, "--text", TEXTS[0], "--concept", "w6", "--json", "r.json"]) == 0
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["concepts"] == ["w6"]
    expected = concepts.read(one_word_model, TEXTS[0])["w6"].scores
    torch.testing.assert_close(torch.tensor(data["texts"][0]["scores"], dtype=torch.float64)[:, 0], expected)
    out = capsys.readouterr().out
    assert "w5" not in out
    assert all(f"{score:+.4g}" in out for score in expected.tolist())
    stored = concepts.read(one_word_model, TEXTS[0])
    table = score_table(stored, ["w6"])
    assert [str(cell) for cell in table.columns[1].cells] == [f"{score:+.4g}" for score in expected.tolist()]
    assert main([*READ, "--text", TEXTS[0], "--top", "1", "--json", "r.json"]) == 0
    (highest,) = concepts.read(one_word_model, TEXTS[0]).highest(1)
    out = capsys.readouterr().out
    assert "the 1 highest of 3 concepts" in out
    assert [name for name in concepts if name in out] == [highest]
    scores = concepts.read(one_word_model, TEXTS[0])[highest].scores.tolist()
    assert all(f"{score:+.4g}" in out for score in scores)
    assert len(json.loads((tmp_path / "r.json").read_text())["concepts"]) == 3  # the file holds them all


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("options", "variable", "coloured"),
    [([], "", True), (["--no-color"], "", False), ([], "1", False)],
)
def test_cells_are_coloured_on_a_terminal_unless_that_is_not_wanted(
    concepts, monkeypatch, options, variable, coloured
):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", variable)
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert main([*READ, "--text", TEXTS[0], *options]) == 0
    assert ("48;5;" in terminal.getvalue()) == coloured


def test_the_colour_grows_with_the_score_and_its_side_shows():
    assert score_style(0.1, 2.0).bgcolor is None
    full, half = score_style(2.0, 2.0).bgcolor.triplet, score_style(1.0, 2.0).bgcolor.triplet
    assert full == (224, 112, 0)
    assert half == (112, 56, 0)
    assert score_style(-2.0, 2.0).bgcolor.triplet == (64, 128, 255)
    assert score_style(float("nan"), 2.0).bgcolor is None
    assert score_style(1.0, 0.0).bgcolor is None


def test_an_empty_text_is_bad_usage_and_another_model_a_failure(concepts, one_word_model, monkeypatch, capsys):
    assert main([*READ, "--text", " "]) == 2
    assert "--text is empty" in capsys.readouterr().err
    with torch.no_grad():
        kept = one_word_model.embed.W_E.clone()
        one_word_model.embed.W_E.add_(torch.randn(kept.shape, generator=torch.Generator().manual_seed(1)))
    try:
        assert main([*READ, "--text", TEXTS[0]]) == 1
    finally:
        with torch.no_grad():
            one_word_model.embed.W_E.copy_(kept)
    err = capsys.readouterr().err
    assert err.startswith("lrc-tl: ")
    assert err.count("\n") == 1
