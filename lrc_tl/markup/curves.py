"""Lines as small pictures: a sparkline, and curves over a logarithmic axis. Plain numbers in, markup out.

The lines are an image within the markup, and all text stands over it as HTML: in a notebook that is not trusted,
JupyterLab removes inline SVG, but leaves the words of SVG standing in the middle of the page.
"""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence

from lrc_tl.markup.fragments import NEGATIVE, NEUTRAL, POSITIVE, Html, html_of, number

_WIDTH, _HEIGHT = 220, 44
_ROOM = 4
"""Pixels around the lines, so that a dot at the edge is whole."""
_LABEL = 10
"""Pixels: size of the letters at an axis."""
_COLOURS = (f"rgb({POSITIVE})", f"rgb({NEGATIVE})", f"rgb({NEUTRAL})")


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
    hovers = [
        _hover(x, y, f"{place + 1}: {number(values[place])}")
        for place, (x, y) in list(zip(places, points, strict=True))[::step]
    ]
    return _over(_image(_HEIGHT, [_line(points, _COLOURS[0])], "a line"), hovers, _HEIGHT)


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
    drawn, words = [], []
    if marked is not None and marked > 0:
        x = _along(math.log10(marked), low, high)
        drawn.append(
            f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height:.0f}" stroke="rgb({NEUTRAL})" '
            'stroke-dasharray="3 3"/>'
        )
        words.append(_hover(x, height / 2, number(marked)))
    for (name, values), tint in zip(lines.items(), _COLOURS, strict=False):
        points = []
        for at, value in zip(over, values, strict=True):
            if value is None or math.isnan(value):
                continue
            x = _along(math.log10(at), low, high)
            y = (1 - min(max(value / highest, 0.0), 1.0)) * height
            points.append((x, y))
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{tint}"/>')
            words.append(_hover(x, y, f"{name} at {number(at)}: {number(value)}"))
        drawn.append(_line(points, tint))
    below = height + 5
    words += [
        _label(0, below, number(over[0])),
        _label(_WIDTH / 3, below, along, align="center"),
        _label(2 * _WIDTH / 3, below, number(over[-1]), align="right"),
        _label(_WIDTH + 6, -_LABEL / 2, number(highest)),
        _label(_WIDTH + 6, height - _LABEL / 2, "0"),
    ]
    picture = _over(_image(height, drawn, f"{', '.join(lines)} over {along}"), words, below + 1.5 * _LABEL)
    keys = "".join(
        f'<span style="color:{tint}">●</span> {html_of(name)} &nbsp;'
        for name, tint in zip(lines, _COLOURS, strict=False)
    )
    return Html(f'{picture}<div class="lrc-note">{keys}</div>')


def _image(height: float, drawn: Sequence[str], words: str) -> str:
    width, tall = _WIDTH + 2 * _ROOM, height + 2 * _ROOM
    box = f'width="{width}" height="{tall:.0f}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} viewBox="-{_ROOM} -{_ROOM} {width} {tall:.0f}">'
        f"{''.join(drawn)}</svg>"
    )
    source = f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
    return f'<img alt="{html_of(words)}" {box} style="display:block;margin:0;max-width:none" src="{source}"/>'


def _over(image: str, words: Sequence[str], height: float) -> Html:
    """The image, and what stands over it."""
    size = f"width:{_WIDTH + 60:.0f}px;height:{height + 2 * _ROOM:.0f}px"
    return Html(f'<div style="position:relative;margin:.4em 0 .2em;{size}">{image}{"".join(words)}</div>')


def _hover(x: float, y: float, words: str) -> str:
    """Around a point eight pixels wide and high; the point lies `_ROOM` from the corner of the image."""
    place = f"position:absolute;left:{x + _ROOM - 4:.1f}px;top:{y + _ROOM - 4:.1f}px"
    return f'<span title="{html_of(words)}" style="{place};width:8px;height:8px"></span>'


def _label(x: float, y: float, words: str, *, align: str = "left") -> str:
    place = f"position:absolute;left:{x + _ROOM:.0f}px;top:{y + _ROOM:.0f}px;width:{_WIDTH / 3:.0f}px"
    looks = f"font-size:{_LABEL}px;line-height:1;white-space:nowrap;opacity:.8;text-align:{align}"
    return f'<span style="{place};{looks}">{html_of(words)}</span>'


def _line(points: Sequence[tuple[float, float]], tint: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{tint}" stroke-width="1.6"/>'


def _along(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) * _WIDTH if high > low else _WIDTH / 2


def _down(value: float, low: float, high: float) -> float:
    return (high - value) / (high - low) * (_HEIGHT - 4) + 2 if high > low else _HEIGHT / 2
