"""Files of results can be written where lrc_tl is only on the path."""

import json
from importlib.metadata import PackageNotFoundError, version

import pytest

from lrc_tl.storage import own_version as module
from lrc_tl.storage.json_results import write_result


def test_an_installed_package_has_its_own_version():
    assert module.own_version() == version("lrc-tl")


@pytest.fixture
def not_installed(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", missing)


def test_a_result_can_be_written_without_an_installed_package(tmp_path, not_installed):
    path = tmp_path / "result.json"
    write_result(path, kind="test", results={"n": 1}, settings={}, model=None, seconds=0.1)
    assert json.loads(path.read_text())["lrc_tl"] == "not installed"
