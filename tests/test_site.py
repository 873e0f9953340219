"""The check of a built site sees links that lead nowhere, what is loaded from elsewhere, and missing names."""

import sys

import pytest
from documents import DOCS

pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def check_site():
    sys.path.insert(0, str(DOCS))
    try:
        import check_site
    finally:
        sys.path.remove(str(DOCS))
    return check_site


@pytest.fixture
def site(tmp_path, check_site):
    """A site of one page with the given body and an inventory that holds every public name."""
    from zlib import compress

    names = "".join(f"{place} py:class 1 index.html#a -\n" for place in check_site.places().values())
    head = "# Sphinx inventory version 2\n# Project: x\n# Version: 1\n# What follows is compressed using zlib.\n"

    def written(body, *, names=names):
        (tmp_path / "index.html").write_text(f"<html><body id='a'>{body}</body></html>")
        (tmp_path / "objects.inv").write_bytes(head.encode() + compress(names.encode()))
        return tmp_path

    return written


def test_a_site_that_stands_by_itself_passes(site, check_site):
    body = "<a href='#a'>x</a><a href='index.html#a'>x</a><a href='https://arxiv.org/'>x</a><img src='data:,x'>"
    assert check_site.flaws(site(body)) == []


@pytest.mark.parametrize(
    ("body", "flaw"),
    [
        ("<a href='gone.html'>x</a>", "index.html links to gone.html, which is not there"),
        ("<a href='#b'>x</a>", "index.html links to #b, where there is no such anchor"),
        ("<img src='gone.png'>", "index.html links to gone.png, which is not there"),
        ("<script src='https://example.org/x.js'></script>", "index.html loads https://example.org/x.js"),
        ("<link href='//example.org/x.css'>", "index.html loads //example.org/x.css"),
    ],
)
def test_what_leads_nowhere_or_is_loaded_from_elsewhere_is_seen(site, check_site, body, flaw):
    assert flaw in check_site.flaws(site(body))


def test_a_name_without_an_entry_is_seen(site, check_site):
    assert "lrc_tl.ConceptSet has no entry in the reference" in check_site.flaws(site("", names=""))
