"""A Sphinx extension: sections of Google style in docstrings, and annotations as a reader wants them."""

import builtins
import re
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.nodes import find_pending_xref_condition

SECTIONS = Config(napoleon_use_rtype=False, napoleon_use_admonition_for_examples=False)


SPAN = re.compile(r"(`[^`]*`)")


def escaped(line: str) -> str:
    """A line in which |h| is no substitution, and a code span may end inside a word."""
    parts = SPAN.split(line)
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    parts[2::2] = ["\\ " + part if part[:1].isalnum() else part for part in parts[2::2]]
    return "".join(parts)


def with_sections(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Turn `Args:` and `Raises:` into fields. Docstrings of attributes have no sections: a colon is a colon."""
    lines[:] = [escaped(line) for line in lines]
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(list(lines), SECTIONS, app, what, name, value, options).lines()


def without_links_to_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """Leave Python's own types in annotations as they are: `object` is none of the attributes of that name."""
    for reference in list(doctree.findall(pending_xref)):
        if reference.get("reftype") == "class" and reference["reftarget"] in vars(builtins):
            reference.replace_self((find_pending_xref_condition(reference, "resolved") or reference).children)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_lexer("mermaid", TextLexer)  # drawn by a script elsewhere; shown as text here
    app.connect("autodoc-process-docstring", with_sections)
    app.connect("doctree-read", without_links_to_builtins)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
