"""The package's public names, which are loaded on first use."""

import subprocess
import sys

import pytest

import lrc_tl as lrc


@pytest.mark.parametrize("name", lrc.__all__)
def test_every_public_name_can_be_reached(name):
    assert getattr(lrc, name) is not None
    assert name in dir(lrc)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lrc_tl' has no attribute 'relation_prompt'"):
        lrc.relation_prompt  # noqa: B018


@pytest.mark.parametrize(
    "statement", ["import lrc_tl", "import lrc_tl; lrc_tl.load_relation('animal_class').prompts()"]
)
def test_relations_and_prompts_need_no_torch(statement):
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
