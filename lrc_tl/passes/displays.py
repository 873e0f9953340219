"""How known prompts show themselves in a notebook."""

from collections import Counter
from typing import TYPE_CHECKING

from lrc_tl.markup.fragments import Cell, Html, display, note, side_by_side
from lrc_tl.markup.tables import MOST_ROWS, bar, table

if TYPE_CHECKING:
    from lrc_tl.passes.known_prompts import KnownPrompts


def known_html(self: "KnownPrompts") -> str:
    """The display of known prompts: kept and asked by object, and what was said to the dropped ones."""
    kept = Counter(prompt.object for prompt in self.prompts)
    asked = kept + Counter(entry.prompt.object for entry in self.dropped)
    rows: list[list[Cell]] = [
        [name, kept[name], asked[name], bar(kept[name] / asked[name], 1.0)]
        for name in sorted(asked, key=lambda name: (-asked[name], name))
    ]
    parts = [table(["object", "kept", "asked", "share kept"], rows)]
    if self.dropped:
        said = [[entry.prompt.subject, entry.prompt.object, entry.answer] for entry in self.dropped]
        dropped = table(["subject", "wanted", "the model said"], said, most=MOST_ROWS)
        parts.append(Html(note("dropped") + dropped))
    total = len(self.prompts) + len(self.dropped)
    return display(f"{len(self.prompts)} of {total} prompts are answered correctly", side_by_side(*parts))


def known_text(self: "KnownPrompts") -> str:
    """One line: how many prompts of how many objects were kept."""
    objects = len({prompt.object for prompt in self.prompts})
    return f"KnownPrompts({len(self.prompts)} kept, of {objects} objects, {len(self.dropped)} dropped)"
