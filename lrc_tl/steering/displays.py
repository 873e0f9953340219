"""How steered continuations show themselves in a notebook, one by one and together."""

import math
from itertools import groupby
from typing import TYPE_CHECKING

from lrc_tl.markup.fragments import Cell, Html, display, html_of, joined, note
from lrc_tl.markup.tables import MOST_ROWS, table
from lrc_tl.markup.token_text import rows_under_text, token_html

if TYPE_CHECKING:
    from lrc_tl.steering.continuations import Continuations
    from lrc_tl.steering.generation import Generated

_LONGEST = 60
_MOST_PROMPTS = 8


def generated_html(self: "Generated") -> str:
    """The display of a continuation: beside the unsteered one, with scores and KL under each token.

    Underlined is each token in place of which the unsteered model would have said another behind the same text.
    """
    rows = {}
    for number, scores in enumerate(self.scores.T.tolist()):
        rows["score" if self.scores.shape[1] == 1 else f"score {number + 1}"] = scores
    rows["KL (nats)"] = self.kl.tolist()
    scales = {name: max(map(abs, filter(math.isfinite, values)), default=0.0) for name, values in rows.items()}
    head = "steered" if self.strength is None else f"strength {self.strength:g}"
    texts: list[list[Cell]] = [[head, _marked(self)]]
    if self.unsteered is not None:
        texts.append(["unsteered", self.unsteered])
    changed = self.changed
    said = f"{len(changed)} of {len(self.tokens)} tokens are not what the unsteered model would have said there"
    return display(
        joined([html_of(self.prompt), Html(" …")]),
        table(["", "continuation"], texts),
        rows_under_text(self.tokens, rows, scales=scales, marked=changed, with_values=True),
        note(said),
    )


def continuations_html(self: "Continuations") -> str:
    """The display of continuations: for each prompt a table of texts by strength, with their mean KL.

    Where the unsteered text was asked for it stands first.
    """
    by_prompt = [list(results) for _, results in groupby(self, key=lambda result: result.prompt)]
    parts = []
    for results in by_prompt[:_MOST_PROMPTS]:
        alone = dict.fromkeys(result.unsteered for result in results if result.unsteered is not None)
        rows: list[list[Cell]] = [["unsteered", text, None] for text in alone]
        rows += [
            [
                "own" if result.strength is None else f"{result.strength:g}",
                _marked(result),
                result.mean_kl if len(result.tokens) else None,
            ]
            for result in results
        ]
        title = Html(f"<div><b>{html_of(_end_of(results[0].prompt))}</b> …</div>")
        parts.append(
            joined([title, table(["strength", "continuation", "mean KL (nats)"], rows, most=MOST_ROWS + 1)])
        )
    if len(by_prompt) > _MOST_PROMPTS:
        parts.append(note(f"… and {len(by_prompt) - _MOST_PROMPTS} prompts more"))
    said = "Underlined: in its place the unsteered model would have said another token."
    return display(f"{len(self)} continuation{'s' * (len(self) != 1)}", *parts, note(said))


def continuations_text(self: "Continuations") -> str:
    """A line for each of the first continuations."""
    lines = [f"  {generated_text(result)[:180]}" for result in self[:3]]
    more = [f"  and {len(self) - 3} more"] if len(self) > 3 else []
    return "\n".join([f"{len(self)} continuation{'s' * (len(self) != 1)}", *lines, *more])


def _marked(result: "Generated") -> Html:
    """The text, each token underlined in place of which the unsteered model would have said another."""
    changed = result.changed
    return joined(
        f'<u title="unsteered: {html_of(result.instead[place])}">{token_html(token, breaks=True)}</u>'
        if place in changed
        else token_html(token, breaks=True)
        for place, token in enumerate(result.tokens)
    )


def _end_of(prompt: str) -> str:
    return prompt if len(prompt) <= _LONGEST else f"…{prompt[-_LONGEST:]}"


def generated_text(self: "Generated") -> str:
    """Two lines at most: the prompt with its continuation, and how far it is from the unsteered one."""
    strength = "" if self.strength is None else f"strength {self.strength:g}, "
    kl = f"mean KL {self.mean_kl:.3g} nats" if len(self.kl) else "no tokens"
    text = self.text if len(self.text) <= 4 * _LONGEST else f"{self.text[: 4 * _LONGEST]}…"
    return f"Generated({_end_of(self.prompt)!r} -> {text!r}, {strength}{kl})"
