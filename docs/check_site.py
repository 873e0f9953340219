"""Whether a built site stands by itself: `python docs/check_site.py build/docs`.

Every link inside leads to a page and an anchor that are there, nothing is loaded from another host, and every
public name has its entry.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from reference_pages import places
from sphinx.util.inventory import InventoryFile

LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """Anchors of a page, the links in it, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if (source := LOADING.get(tag)) in given:
            self.loads.append(given[source])


def is_outside(target: str) -> bool:
    """Whether a target is on another host, or is not for browsers at all."""
    parts = urlsplit(target)
    return bool(parts.scheme and parts.scheme != "data") or bool(parts.netloc)


def flaws(site: Path) -> list[str]:
    """What is wrong, one line each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name} loads {target}" for target in page.loads if is_outside(target)]
        inner = [target for target in page.links if not is_outside(target)]
        inner += [target for target in page.loads if not target.startswith("data:")]
        for target in inner:
            parts = urlsplit(target)
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not goal.exists():
                found.append(f"{name} links to {target}, which is not there")
            elif parts.fragment and goal.suffix == ".html":
                there = (
                    pages[site.resolve() / goal.relative_to(site.resolve())] if goal != path.resolve() else page
                )
                if unquote(parts.fragment) not in there.anchors:
                    found.append(f"{name} links to {target}, where there is no such anchor")
    for sheet in sorted(site.rglob("*.css")):
        if "url(http" in sheet.read_text(encoding="utf-8"):
            found.append(f"{sheet.relative_to(site)} loads from another host")
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    entries = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    found += [f"{place} has no entry in the reference" for place in places().values() if place not in entries]
    return found


def main() -> None:
    found = flaws(Path(sys.argv[1]).resolve())
    print(
        "\n".join(found)
        or "every link leads somewhere, nothing is loaded from elsewhere, every name has its entry"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
