"""How a steered continuation shows itself in a notebook."""

import math
from typing import TYPE_CHECKING

from lrc_tl.markup.fragments import Html, display, html_of, joined, note
from lrc_tl.markup.tables import table
from lrc_tl.markup.token_text import rows_under_text, token_html

if TYPE_CHECKING:
    from lrc_tl.steering.generation import Generated

_LONGEST = 60


def generated_html(self: "Generated") -> str:
    """The display of a continuation: beside the unsteered one, with scores and KL under each token.

    Underlined is each token in place of which the unsteered model would have said another behind the same text.
    """
    changed = {place for place, token in enumerate(self.tokens) if token != self.instead[place]}
    marked = Html(
        "".join(
            f'<u title="unsteered: {html_of(self.instead[place])}">{token_html(token, breaks=True)}</u>'
            if place in changed
            else token_html(token, breaks=True)
            for place, token in enumerate(self.tokens)
        )
    )
    rows = {}
    for number, scores in enumerate(self.scores.T.tolist()):
        rows["score" if self.scores.shape[1] == 1 else f"score {number + 1}"] = scores
    rows["KL (nats)"] = self.kl.tolist()
    scales = {name: max(map(abs, filter(math.isfinite, values)), default=0.0) for name, values in rows.items()}
    head = "steered" if self.strength is None else f"strength {self.strength:g}"
    texts = [[head, marked]]
    if self.unsteered is not None:
        texts.append(["unsteered", self.unsteered])
    said = f"{len(changed)} of {len(self.tokens)} tokens are not what the unsteered model would have said there"
    return display(
        joined([html_of(self.prompt), Html(" …")]),
        table(["", "continuation"], texts),
        rows_under_text(self.tokens, rows, scales=scales, marked=changed, with_values=True),
        note(said),
    )


def generated_text(self: "Generated") -> str:
    """Two lines at most: the prompt with its continuation, and how far it is from the unsteered one."""
    strength = "" if self.strength is None else f"strength {self.strength:g}, "
    kl = f"mean KL {float(self.kl.mean()):.3g} nats" if len(self.kl) else "no tokens"
    prompt = self.prompt if len(self.prompt) <= _LONGEST else f"…{self.prompt[-_LONGEST:]}"
    text = self.text if len(self.text) <= 4 * _LONGEST else f"{self.text[: 4 * _LONGEST]}…"
    return f"Generated({prompt!r} -> {text!r}, {strength}{kl})"
