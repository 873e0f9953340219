"""Tokens of a text with a value each: as running text, and as rows of values under the text."""

from collections.abc import Collection, Mapping, Sequence

from lrc_tl.markup.fragments import NEGATIVE, POSITIVE, STRONGEST, Html, colour, html_of, joined, number
from lrc_tl.markup.tables import left_out

MOST_CELLS = 20_000
"""Values under a text: with more, later tokens are left out, and how many is said."""
_LINE = 90
"""Characters in a line of tokens with rows under it."""
_VISIBLE = {"\n": "↵", "\t": "⇥", "\r": "␍"}


def token_html(token: str, *, breaks: bool) -> Html:
    """A token with its white space to be seen: `↵` for a line end, which also breaks where `breaks` says so."""
    shown = "".join(
        f"{_VISIBLE[letter]}\n" if letter == "\n" and breaks else _VISIBLE.get(letter, letter) for letter in token
    )
    return html_of(shown)


def legend(scale: float) -> Html:
    """The colours from `-scale` to `scale`."""
    stripe = (
        f"linear-gradient(90deg,rgba({NEGATIVE},{STRONGEST}),rgba({NEGATIVE},0) 50%,rgba({POSITIVE},0) 50%,"
        f"rgba({POSITIVE},{STRONGEST}))"
    )
    return Html(
        f'<div class="lrc-note">{html_of(number(-scale))} <span style="display:inline-block;width:9em;'
        f'height:.8em;vertical-align:middle;border:1px solid rgba(128,128,128,.4);background:{stripe}"></span> '
        f"{html_of(number(scale))}</div>"
    )


def running_text(
    tokens: Sequence[str], values: Sequence[float], *, scale: float, special: Collection[int] = ()
) -> Html:
    """The text with each token in the colour of its value, and the value on hover; special tokens are pale."""
    pale = frozenset(special)
    spans = [
        f'<span style="opacity:.5" title="{value:+.7g}">{token_html(token, breaks=True)}</span>'
        if place in pale
        else f'<span style="background:{colour(value, scale)}" title="{value:+.7g}">'
        f"{token_html(token, breaks=True)}</span>"
        for place, (token, value) in enumerate(zip(tokens, values, strict=True))
    ]
    looks = "white-space:pre-wrap;overflow-wrap:anywhere"
    return Html(f'<div class="lrc-text" dir="auto" style="{looks}">{"".join(spans)}</div>')


def rows_under_text(
    tokens: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    *,
    scales: Mapping[str, float],
    special: Collection[int] = (),
    marked: Collection[int] = (),
    with_values: bool = False,
) -> Html:
    """The text in lines, and under each token a cell of every row, in the colour of its value.

    The value stands there on hover, and in the cell with `with_values`. Tokens in `marked` are underlined.
    """
    pale, underlined = frozenset(special), frozenset(marked)
    kept = min(len(tokens), max(1, MOST_CELLS // max(len(rows), 1)))
    parts = []
    for start, end in _lines(tokens[:kept], least=5 if with_values else 1):
        heads = [
            f'<td{_token_class(place, pale, underlined)} dir="auto">{token_html(tokens[place], breaks=False)}</td>'
            for place in range(start, end)
        ]
        lines = [f'<tr><th class="lrc-corner"></th>{"".join(heads)}</tr>']
        for name, values in rows.items():
            scale = scales[name]
            cells = [
                f'<td style="background:{colour(0.0 if place in pale else values[place], scale)}" '
                f'title="{values[place]:+.7g}">{f"{values[place]:.3g}" if with_values else ""}</td>'
                for place in range(start, end)
            ]
            lines.append(f'<tr><th class="lrc-corner" dir="auto">{html_of(name)}</th>{"".join(cells)}</tr>')
        parts.append(f'<table class="lrc-table lrc-map"><tbody>{"".join(lines)}</tbody></table>')
    return joined([*parts, left_out(len(tokens) - kept, "token")])


def _token_class(place: int, pale: Collection[int], underlined: Collection[int]) -> str:
    if place in pale:
        return ' class="lrc-special"'
    return ' style="text-decoration:underline"' if place in underlined else ""


def _lines(tokens: Sequence[str], *, least: int) -> list[tuple[int, int]]:
    """Start and end of lines of about `_LINE` characters."""
    lines, start, width = [], 0, 0
    for place, token in enumerate(tokens):
        own = max(len(token), least) + 1
        if width and width + own > _LINE:
            lines.append((start, place))
            start, width = place, 0
        width += own
    return [*lines, (start, len(tokens))] if tokens else []
