"""Tables, bars in tables, and small heat maps. Plain data in, markup out."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from lrc_tl.markup.fragments import (
    NEGATIVE,
    POSITIVE,
    Cell,
    Html,
    colour,
    html_of,
    joined,
    note,
    number,
)

MOST_ROWS = 20
"""A longer table is shortened, and says how much is left out."""
MOST_IN_MAP = 16
"""Rows and columns of a heat map."""
_MOST_WORDS = 64, 32
"""Rows and columns of a map of words."""
_TO_THE_RIGHT = ' class="lrc-number"'
_TO_THE_LEFT = ' style="text-align:left"'
_TEXT = ' dir="auto" style="text-align:left;white-space:pre-wrap"'
_BAR = 9.0
"""Length of the longest bar, in em."""


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, most: int = MOST_ROWS) -> Html:
    """Rows under their heads; numbers stand to the right. At most `most` rows, and how many more there are."""
    all_rows = list(rows)
    right = [_is_numeric(column) for column in zip(*all_rows, strict=True)] or [False] * len(head)
    heads = "".join(
        f"<th{_TO_THE_RIGHT if to_right else _TO_THE_LEFT}>{html_of(text)}</th>"
        for text, to_right in zip(head, right, strict=True)
    )
    lines = [f'<table class="lrc-table"><thead><tr>{heads}</tr></thead><tbody>']
    lines += [f"<tr>{''.join(map(_cell, row, right))}</tr>" for row in all_rows[:most]]
    lines.append("</tbody></table>")
    return joined([*lines, left_out(len(all_rows) - most, "row")])


def pairs(entries: Mapping[str, Cell]) -> Html:
    """A table of names and values; entries that are None are not shown."""
    lines = [
        f'<tr><th class="lrc-name"{_TO_THE_LEFT}>{html_of(name)}</th><td{_TEXT}>{html_of(value)}</td></tr>'
        for name, value in entries.items()
        if value is not None
    ]
    return Html(f'<table class="lrc-table"><tbody>{"".join(lines)}</tbody></table>')


def bar(value: float, scale: float) -> Html:
    """The value with a bar, of full length at `scale`; negative ones in another colour."""
    share = min(abs(value) / scale, 1.0) if scale and math.isfinite(value) else 0.0
    tint = POSITIVE if value >= 0 else NEGATIVE
    looks = f"display:inline-block;height:.75em;width:{share * _BAR:.2f}em;background:rgba({tint},.6)"
    drawn = f'<span style="{looks}"></span>'
    return Html(f'<span style="white-space:nowrap">{drawn} {html_of(number(value))}</span>')


def bars(entries: Sequence[tuple[str, float]], *, most: int = MOST_ROWS) -> Html:
    """Names with bars, in their order, all on one scale."""
    scale = max((abs(value) for _, value in entries if math.isfinite(value)), default=0.0)
    lines = [
        f"<tr><td{_TEXT}>{html_of(name)}</td><td{_TO_THE_LEFT}>{bar(value, scale)}</td></tr>"
        for name, value in entries[:most]
    ]
    return joined(
        [
            f'<table class="lrc-table"><tbody>{"".join(lines)}</tbody></table>',
            left_out(len(entries) - most, "row"),
        ]
    )


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], *, scale: float
) -> Html:
    """Values as coloured cells, full at `scale`; at most 16 rows and columns, and how many more there are.

    Columns have numbers, and their names on hover, where they are the rows again.
    """
    same = list(rows) == list(columns)
    heads = [
        f'<th{_TO_THE_RIGHT} title="{html_of(name)}">{place + 1}</th>'
        if same
        else f'<th dir="auto">{html_of(name)}</th>'
        for place, name in enumerate(columns[:MOST_IN_MAP])
    ]
    lines = [f'<table class="lrc-table lrc-map"><thead><tr><th></th>{"".join(heads)}</tr></thead><tbody>']
    for place, (name, cells) in enumerate(zip(rows[:MOST_IN_MAP], values, strict=False)):
        label = f"{place + 1} {name}" if same else name
        drawn = [
            f'<td style="background:{colour(value, scale)}" title="{html_of(name)}, {html_of(column)}: '
            f'{value:.6g}">{value:.2f}</td>'
            for column, value in zip(columns[:MOST_IN_MAP], cells, strict=False)
        ]
        lines.append(f'<tr><th class="lrc-corner" dir="auto">{html_of(label)}</th>{"".join(drawn)}</tr>')
    lines.append("</tbody></table>")
    more = [left_out(len(rows) - MOST_IN_MAP, "row")]
    if not same:
        more.append(left_out(len(columns) - MOST_IN_MAP, "column"))
    return joined([*lines, *more])


def word_map(
    rows: Sequence[str],
    columns: Sequence[str],
    words: Sequence[Sequence[str]],
    shares: Sequence[Sequence[float]],
    *,
    hovers: Sequence[Sequence[str]],
    pale: Collection[int] = (),
) -> Html:
    """A word in each cell, in a colour as strong as its share of 1, with a text on hover.

    At most 64 rows, and the last 32 columns, which hold the end of a text; how many more there are is said.
    """
    first = max(0, len(columns) - _MOST_WORDS[1])
    places = range(first, len(columns))
    marks = [' class="lrc-special"' if place in pale else "" for place in range(len(columns))]
    heads = [f'<th{marks[place]} dir="auto">{html_of(columns[place])}</th>' for place in places]
    lines = [f'<table class="lrc-table lrc-map"><thead><tr><th></th>{"".join(heads)}</tr></thead><tbody>']
    for name, cells, values, texts in zip(rows[: _MOST_WORDS[0]], words, shares, hovers, strict=False):
        drawn = [
            f'<td{marks[place]} dir="auto" style="text-align:left;background:{colour(values[place], 1.0)}" '
            f'title="{html_of(texts[place])}">{html_of(cells[place])}</td>'
            for place in places
        ]
        lines.append(f'<tr><th class="lrc-corner" dir="auto">{html_of(name)}</th>{"".join(drawn)}</tr>')
    lines.append("</tbody></table>")
    return joined([*lines, left_out(len(rows) - _MOST_WORDS[0], "row"), left_out(first, "earlier column")])


def left_out(count: int, what: str) -> Html:
    """A remark that this many are not shown; nothing where none is left out."""
    return note(f"… and {count} {what}{'s' * (count != 1)} more") if count > 0 else Html("")


def _cell(value: Cell, to_right: bool) -> str:
    kind = _TO_THE_RIGHT if to_right else _TEXT
    return f"<td{kind}>{html_of(value)}</td>"


def _is_numeric(column: Sequence[Cell]) -> bool:
    """Whether there are numbers, and nothing else but gaps between them."""
    values = [value for value in column if value is not None]
    return bool(values) and all(isinstance(value, int | float) for value in values)
