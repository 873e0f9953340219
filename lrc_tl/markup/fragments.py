"""Pieces of HTML: what is escaped, what is markup already, and the frame that every display stands in.

Text takes the colour that the notebook gives it, and everything else is drawn in translucent colours over the
notebook's own background. So a display reads well in light and dark themes alike, without asking which one it is.
"""

import math
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from lrc_tl.markup.printable import printable

POSITIVE, NEGATIVE, NEUTRAL = "224,112,0", "64,128,255", "128,128,128"
"""Orange, blue and grey as red, green, blue: apart for the colour-blind, and visible on white and on black."""
STRONGEST = 0.6
"""Opacity of the strongest colour: text over it stays readable on white and on black."""
_STYLE = """\
.lrc-tl{line-height:1.45;text-align:left;overflow-x:auto;max-width:100%;padding:.2em 0}
.lrc-tl .lrc-head{margin-bottom:.25em}
.lrc-tl .lrc-note{opacity:.7;font-size:.88em}
.lrc-tl table.lrc-table{border-collapse:collapse;border:none;margin:.2em 0;font-size:.92em;color:inherit}
.lrc-tl table.lrc-table tr{background:none}
.lrc-tl table.lrc-table th,.lrc-tl table.lrc-table td{padding:.1em .6em;border:none;text-align:left;
color:inherit;vertical-align:top;max-width:32em;white-space:pre-wrap;font-weight:normal;overflow-wrap:break-word;
min-width:1.2em}
.lrc-tl table.lrc-table td,.lrc-tl table.lrc-table th{border-bottom:1px solid rgba(128,128,128,.25)}
.lrc-tl table.lrc-table thead th,.lrc-tl table.lrc-table th.lrc-name{opacity:.75}
.lrc-tl table.lrc-table .lrc-number{text-align:right;font-variant-numeric:tabular-nums}
.lrc-tl table.lrc-table td.lrc-number{white-space:nowrap}
.lrc-tl table.lrc-map th,.lrc-tl table.lrc-map td{border:none;padding:.05em .3em;font-size:.88em}
.lrc-tl table.lrc-map td{text-align:right;font-variant-numeric:tabular-nums}
.lrc-tl table.lrc-map td,.lrc-tl table.lrc-map thead th{white-space:pre;overflow:hidden;text-overflow:ellipsis}
.lrc-tl table.lrc-map th.lrc-corner{max-width:14em}
.lrc-tl .lrc-text{line-height:1.7}
.lrc-tl .lrc-text span{border-radius:2px}
.lrc-tl .lrc-special{opacity:.5}
"""


class Html(str):
    """Markup that is shown as it is; every other string is escaped."""

    __slots__ = ()


Cell: TypeAlias = str | int | float | None
"""What a display shows: text, which is escaped unless it is `Html`; a number, to four digits; None as a dash."""


def number(value: float) -> str:
    """Four digits at most, and all of a whole number."""
    if isinstance(value, int):  # bool too
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def counted(number: int, word: str) -> str:
    """`1 relation`, `2 relations`."""
    return f"{number} {word}{'s' * (number != 1)}"


def html_of(value: Cell) -> Html:
    """Markup that shows the value; control characters and marks of direction are seen as escapes."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("-")
    return Html(escape(printable(value if isinstance(value, str) else number(value))))


def joined(parts: Iterable[str]) -> Html:
    """Markup from parts that are markup already."""
    return Html("".join(parts))


def colour(value: float, scale: float) -> str:
    """Of a value between `-scale` and `scale`: the farther from 0, the stronger; none for what is not finite."""
    if not math.isfinite(value) or not scale:
        return f"rgba({NEUTRAL},0)"
    share = min(abs(value) / scale, 1.0) * STRONGEST
    return f"rgba({POSITIVE if value >= 0 else NEGATIVE},{share:.3f})"


def note(text: str) -> Html:
    """A remark in small letters."""
    return Html(f'<div class="lrc-note">{html_of(text)}</div>')


def side_by_side(*parts: Html) -> Html:
    """Parts beside each other where there is room."""
    inner = "".join(f"<div>{part}</div>" for part in parts)
    return Html(f'<div style="display:flex;flex-wrap:wrap;gap:.4em 2em;align-items:flex-start">{inner}</div>')


def display(title: Cell, *parts: Html) -> str:
    """A whole display: a title, then parts below each other. It brings its style along and loads nothing.

    JupyterLab removes the style from notebooks that are not trusted, so what would not be readable without it
    (white space, bars, pictures) has its style in its own tags.
    """
    head = f'<div class="lrc-head"><b>{html_of(title)}</b></div>'
    return f'<div class="lrc-tl"><style>{_STYLE}</style>{head}{"".join(parts)}</div>'
