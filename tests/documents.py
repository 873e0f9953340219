"""README and the pages of the documentation, taken apart: code blocks, inline code, links."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "generated" not in path.parts
}
"""Text by path from the root."""
_BLOCK = re.compile(
    r"^(?P<note>% not run: [^\n]*\n)?(?P<indent> *)```(?P<kind>\w+)\n(?P<code>.*?)^(?P=indent)```", re.M | re.S
)


@dataclass(frozen=True, kw_only=True)
class CodeBlock:
    """A fenced block of code in a page."""

    kind: str
    """The language."""
    code: str
    runs: bool
    """False: the page says above it that it is not run, and why."""


def code_blocks(text, kind):
    """The blocks of a language, in their order."""
    return [
        CodeBlock(kind=kind, code=textwrap.dedent(found["code"]), runs=found["note"] is None)
        for found in _BLOCK.finditer(text)
        if found["kind"] == kind
    ]


def prose(text):
    """A page without its fenced blocks."""
    return re.sub(r"^ *(```|:::+).*?^ *\1`*:*", "", text, flags=re.M | re.S)


def spans(text):
    """Inline code, each once; a line end inside counts as a space. Roles such as {doc}`page` are none."""
    without_roles = re.sub(r"\{\w+\}`[^`]*`", "", prose(text))
    found = re.findall(r"`([^`]+)`", without_roles)
    return list(dict.fromkeys(" ".join(span.split()) for span in found))


def links(text):
    """Targets of Markdown links, pictures and {doc} roles."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    roles = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    return targets, roles
