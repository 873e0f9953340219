"""How a relation shows itself in a notebook. Needs no torch."""

from collections import Counter
from typing import TYPE_CHECKING

from lrc_tl.markup.fragments import Html, display, note, side_by_side
from lrc_tl.markup.tables import bars, pairs, table

if TYPE_CHECKING:
    from lrc_tl.relations.relation import Relation

_MOST = 10


def relation_html(self: "Relation") -> str:
    """The display of a relation: its counts, templates, how many facts each object has, and some facts."""
    counts = Counter(fact.object for fact in self.facts)
    templates = dict.fromkeys((*self.templates, *self.zero_shot_templates))
    left_out = len(self.duplicates) + len(self.ambiguous)
    objects = Html(
        note("facts by object") + bars([(name, float(count)) for name, count in counts.most_common()], most=_MOST)
    )
    facts = table(["subject", "object"], [[fact.subject, fact.object] for fact in self.facts], most=_MOST)
    return display(
        f"{self.name} ({self.kind})",
        pairs(
            {
                "facts": f"{len(self.facts)} with {len(self.objects)} objects",
                "templates": "\n".join(list(templates)[:_MOST]),
                "examples from": f"{len(self.shot_facts)} other facts" if self.shot_facts else None,
                "left out": f"{left_out}; .report() lists them" if left_out else None,
            }
        ),
        side_by_side(objects, facts),
    )
