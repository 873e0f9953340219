"""Lines as inline SVG: a sparkline, and curves over a logarithmic axis. Plain numbers in, markup out."""

import math
from collections.abc import Mapping, Sequence

from lrc_tl.markup.fragments import NEGATIVE, POSITIVE, Html, html_of, number

_WIDTH, _HEIGHT = 220, 44
_COLOURS = (f"rgb({POSITIVE})", f"rgb({NEGATIVE})", "currentColor")


def sparkline(values: Sequence[float], *, logarithmic: bool = False) -> Html:
    """A small line through the values, in their order; each of at most 200 is there on hover.

    With `logarithmic` heights are logarithms, and values that have none are left out.
    """
    places = [
        place for place, value in enumerate(values) if math.isfinite(value) and (value > 0 or not logarithmic)
    ]
    if not places:
        return Html("")
    heights = {place: math.log10(values[place]) if logarithmic else values[place] for place in places}
    low, high = min(heights.values()), max(heights.values())
    points = [(_along(place, 0, max(len(values) - 1, 1)), _down(heights[place], low, high)) for place in places]
    step = -(-len(places) // 200)
    hovers = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="transparent"><title>{place + 1}: '
        f"{html_of(number(values[place]))}</title></circle>"
        for place, (x, y) in list(zip(places, points, strict=True))[::step]
    )
    return Html(f"{_svg(_HEIGHT)}{_line(points, _COLOURS[0])}{hovers}</svg>")


def curves(
    over: Sequence[float],
    lines: Mapping[str, Sequence[float | None]],
    *,
    marked: float | None = None,
    along: str = "",
    top: float | None = None,
) -> Html:
    """Lines over the same growing positive numbers, on a logarithmic axis, with every value on hover.

    The vertical axis goes from 0 to `top`, or to the largest finite value. Larger ones stand at its upper end.

    Args:
        marked: where a vertical line stands.
        along: what the horizontal axis counts.
    """
    finite = [v for values in lines.values() for v in values if v is not None and math.isfinite(v)]
    highest = max(finite, default=1.0) if top is None else top
    if not over or highest <= 0:
        return Html("")
    low, high = math.log10(over[0]), math.log10(over[-1])
    height = 2.5 * _HEIGHT
    parts = [_svg(height + 14)]
    if marked is not None and marked > 0:
        x = _along(math.log10(marked), low, high)
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height:.0f}" stroke="currentColor" ')
        parts.append(f'stroke-dasharray="3 3"><title>{html_of(number(marked))}</title></line>')
    for (name, values), tint in zip(lines.items(), _COLOURS, strict=False):
        points, dots = [], []
        for at, value in zip(over, values, strict=True):
            if value is None or math.isnan(value):
                continue
            x = _along(math.log10(at), low, high)
            y = (1 - min(max(value / highest, 0.0), 1.0)) * height
            points.append((x, y))
            dots.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{tint}"><title>{html_of(name)} at '
                f"{html_of(number(at))}: {html_of(number(value))}</title></circle>"
            )
        parts += [_line(points, tint), *dots]
    parts.append(f'<text x="0" y="{height + 12:.0f}">{html_of(number(over[0]))}</text>')
    parts.append(f'<text x="{_WIDTH}" y="{height + 12:.0f}" text-anchor="end">{html_of(number(over[-1]))}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{height + 12:.0f}" text-anchor="middle">{html_of(along)}</text>')
    parts.append(f'<text x="{_WIDTH + 4}" y="9">{html_of(number(highest))}</text>')
    parts.append(f'<text x="{_WIDTH + 4}" y="{height:.0f}">0</text></svg>')
    keys = "".join(
        f'<span style="color:{tint}">●</span> {html_of(name)} &nbsp;'
        for name, tint in zip(lines, _COLOURS, strict=False)
    )
    return Html(f'<div>{"".join(parts)}</div><div class="lrc-note">{keys}</div>')


def _svg(height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 60}" height="{height:.0f}" '
        f'viewBox="0 0 {_WIDTH + 60} {height:.0f}" role="img">'
    )


def _line(points: Sequence[tuple[float, float]], tint: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{tint}" stroke-width="1.6"/>'


def _along(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) * _WIDTH if high > low else _WIDTH / 2


def _down(value: float, low: float, high: float) -> float:
    return (high - value) / (high - low) * (_HEIGHT - 4) + 2 if high > low else _HEIGHT / 2
