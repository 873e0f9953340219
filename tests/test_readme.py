"""README: its Python runs as it stands, its commands and names exist, and so do the pages that it links to."""

import re

import pytest
from documents import README, ROOT, code_blocks, links, spans
from named_things import OTHERS, names_something


@pytest.mark.real_model
def test_every_block_of_the_readme_runs(gemma, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrc_tl.load_model", lambda name: gemma)
    names = {}
    for block in code_blocks(README, "python"):
        exec(compile(block.code, "README.md", "exec"), names)  # the README is ours
    printed = capsys.readouterr().out
    assert "('France'," in printed.splitlines()[0]


def test_the_readme_is_one_page():
    (block,) = code_blocks(README, "python")
    assert len([line for line in block.code.splitlines() if line.strip()]) <= 15
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize("span", spans(README))
def test_every_name_in_the_readme_exists(span):
    assert span in OTHERS or names_something(span), f"README says `{span}`, which names nothing"


def test_the_readme_names_only_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"demo", "test", "docs"} <= named
    assert all(f"\n{target}:" in makefile for target in named)


def test_every_link_of_the_readme_leads_to_a_file():
    targets, roles = links(README)
    assert not roles
    inner = [target for target in targets if "://" not in target]
    assert inner
    assert not [target for target in inner if not (ROOT / target).exists()]
