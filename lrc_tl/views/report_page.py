"""The HTML of a report: one file that names no address, with tables that sort by click or key."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lrc_tl.views.text import shown

# No request can leave the page, whatever it holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #555;
  --line: #d5d5d5; --tint: #f3f3f1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #111111; --soft: #aaa; --line: #3a3a3a; --tint: #1d1d1d; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; }
.headline { font-size: 1.15rem; margin: 0; }
.soft { color: var(--soft); font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1.8rem; }
.wide { overflow-x: auto; margin-bottom: 1.4rem; }
.wide:focus-visible, button:focus-visible, summary:focus-visible {
  outline: 2px solid #006daf; outline-offset: 2px;
}
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
.caption { margin: 1rem 0 .3rem; }
th, td { padding: .28rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--tint); vertical-align: bottom; padding: 0; }
td.number { text-align: right; }
td.words { white-space: normal; min-width: 14rem; }
th button {
  all: unset; cursor: pointer; display: block; width: 100%; padding: .35rem .6rem; box-sizing: border-box;
  min-width: 4rem; white-space: normal;
}
th button::after { content: "\\00a0\\2195"; opacity: .35; }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; opacity: 1; }
th button:hover { text-decoration: underline; }
pre { background: var(--tint); padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .88rem; }
summary { cursor: pointer; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
@media print { .wide { overflow: visible; } th button::after { content: ""; } }
"""

# A button in each head, so that keys work as the mouse does; missing numbers go to the end either way.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, row = head.parentElement, place = [...row.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = row.closest("table").tBodies[0];
    const value = line => line.children[place].dataset.value ?? line.children[place].textContent;
    const compare = (a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, {numeric: true}) : x - y;
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""


class Number(NamedTuple):
    """A cell that is sorted by its value; without one it is empty and goes last."""

    value: float | int | None
    text: str | None = None
    """None: three decimals, or a whole number as it is."""


def page(*, title: str, body: Iterable[str]) -> str:
    """A whole page; `body` is HTML."""
    parts = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{parts}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str | Number]], *, caption: str) -> str:
    """A table that sorts by each of its columns; text is escaped."""
    heads = "".join(f'<th scope="col"><button type="button">{shown(name)}</button></th>' for name in head)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return (
        f'<p class="soft caption">{shown(caption)}</p>'
        f'<div class="wide" tabindex="0" role="region" aria-label="{shown(caption, quoted=True)}">'
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody></table></div>"
    )


def _cell(value: str | Number) -> str:
    if isinstance(value, str):
        words = ' class="words"' if len(value) > 60 else ""
        return f"<td{words}>{shown(value)}</td>"
    number, text = value
    if number is None or not math.isfinite(number):
        return f'<td class="number" data-value="">{shown(text or "-")}</td>'
    text = text or (f"{number:,}" if isinstance(number, int) else f"{number:.3f}")
    return f'<td class="number" data-value="{float(number):.8g}">{shown(text)}</td>'


def pairs(entries: Iterable[tuple[str, str]]) -> str:
    """Names with what they are; text is escaped, and entries without text are left out."""
    lines = "".join(f"<dt>{shown(name)}</dt><dd>{shown(value)}</dd>\n" for name, value in entries if value)
    return f"<dl>\n{lines}</dl>"


def drawing(svg: str, *, caption: str, width: float) -> str:
    """A figure of so many pixels, which may be scrolled where the page is narrower than it can be read in."""
    limits = f"max-width:{width:.0f}px;min-width:{min(width, 560):.0f}px"
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="{shown(caption, quoted=True)}">'
        f'<div style="{limits}">{svg}</div></div></figure>'
    )
