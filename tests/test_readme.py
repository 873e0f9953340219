"""The README's Python runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.real_model
def test_every_block_of_the_readme_runs(gemma, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrc_tl.load_model", lambda name: gemma)
    names = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)  # the README is ours
    printed = capsys.readouterr().out
    assert "('France'," in printed.splitlines()[0]
    assert (tmp_path / "city_in_country.safetensors").is_file()


def test_the_readme_names_only_commands_that_exist():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", README))
    assert named == {"bench", "demo", "test", "test-bridge", "notebooks", "lint"}
    assert all(f"\n{target}:" in makefile for target in named)
