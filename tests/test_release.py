"""What a release needs: one version, metadata, a licence, a changelog; the check of its files sees faults."""

import re
import tarfile
import tomllib
import zipfile

import check_dist
import pytest
from documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_stands_in_pyproject_alone_and_the_citation_says_the_same():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, flags=re.MULTILINE) == [PROJECT["version"]]
    modules = (path.read_text(encoding="utf-8") for path in (ROOT / "lrc_tl").rglob("*.py"))
    assert not any(re.search(r"__version__ *=", text) for text in modules)


def test_the_metadata_are_complete():
    assert PROJECT["license"] == "MIT"
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert (ROOT / PROJECT["readme"]).is_file()
    assert {"description", "authors", "keywords", "classifiers", "urls", "requires-python"} <= set(PROJECT)
    pythons = {name.split(" :: ")[-1] for name in PROJECT["classifiers"] if "Python :: 3." in name}
    assert pythons == {"3.11", "3.12", "3.13"}
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def test_the_changelog_begins_with_what_is_not_released_yet():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d{2}-\d{2}\)", heading) for heading in headings[1:])


@pytest.fixture
def distributions(tmp_path):
    """A wheel and an sdist as they should be, by a function that leaves files out or puts others in."""

    def written(*, without=(), extra=()):
        names = (check_dist.package_files() - set(without)) | set(extra)
        with zipfile.ZipFile(tmp_path / "lrc_tl-1.whl", "w") as wheel:
            for name in (*names, "lrc_tl-1.dist-info/licenses/LICENSE"):
                wheel.writestr(name, "")
        with tarfile.open(tmp_path / "lrc_tl-1.tar.gz", "w:gz") as sdist:
            for name in (*names, *check_dist.SOURCE_ONLY):
                sdist.addfile(tarfile.TarInfo(f"lrc_tl-1/{name}"))
        return tmp_path

    return written


def test_a_whole_wheel_and_sdist_pass(distributions):
    assert check_dist.flaws(distributions()) == []


def test_missing_data_and_files_that_do_not_belong_are_seen(distributions):
    folder = distributions(without=["lrc_tl/py.typed"], extra=["tests/test_release.py"])
    assert check_dist.flaws(folder) == [
        "the wheel lacks lrc_tl/py.typed",
        "the wheel holds tests/test_release.py",
        "the sdist lacks lrc_tl/py.typed",
        "the sdist holds tests/test_release.py",
    ]
