"""`lrc-tl read`: the score of every concept at every token of texts, as a coloured table."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.color import Color
from rich.style import Style
from rich.table import Table
from rich.text import Text

import lrc_tl as lrc
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    ConceptNames,
    Concepts,
    Device,
    Dtype,
    Json,
    Model,
    Run,
    loaded_model,
    print_text,
    read_files,
    show,
)
from lrc_tl.markup.fragments import NEGATIVE, POSITIVE
from lrc_tl.markup.printable import printable

if TYPE_CHECKING:  # imports torch
    from lrc_tl.directions.token_scores import ConceptScores

READ_EPILOG = (
    "\b\nJSON: hook_name, concepts (all that were read) and texts, a list of\n"
    "  {text, tokens, special (places of tokens that are no words), scores};\n"
    "  scores has a row per token and a column per concept."
)
_FAINT, _BRIGHT = 0.1, 0.75
"""Of the way to the full colour of a score: below the one a cell has none, above the other its text is black."""


def read(
    model: Model,
    concepts: Concepts,
    texts: Annotated[list[str], typer.Option("--text", help="A text to read; may be given several times.")],
    names: ConceptNames = None,
    top: Annotated[
        int, typer.Option("--top", min=1, help="Concepts to show: those that reach the highest scores.")
    ] = 6,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Score every token of a text, or of several, by concepts."""
    run = Run("read", locals(), inputs={"--concepts": concepts, **read_files(model)})
    for text in texts:
        if not text.strip():
            raise typer.BadParameter("--text is empty; give at least one word")
    stored = lrc.ConceptSet.load(concepts)
    chosen = lrc.ConceptSet({stored[name].object_name: stored[name] for name in names}) if names else stored
    loaded = loaded_model(model, device=device, dtype=dtype)
    chosen.require_model(loaded)
    scores = chosen.read_texts(loaded, texts)
    for text, of_text in zip(texts, scores, strict=True):
        print_text(text)
        shown = of_text.highest(top)
        show(score_table(of_text, shown))
        if len(shown) < len(chosen):
            print_text(f"the {len(shown)} highest of {len(chosen)} concepts; --top and --concept show others")
    results: dict[str, Any] = {"hook_name": chosen.hook_name, "concepts": list(chosen)}
    rows = [
        {"text": text, "tokens": list(own.tokens), "special": list(own.special), "scores": own.scores.tolist()}
        for text, own in zip(texts, scores, strict=True)
    ]
    run.finish({**results, "texts": rows}, model=loaded)


def score_table(scores: "ConceptScores", concepts: Sequence[str]) -> Table:
    """A row per token, a column per concept; cells have the colour of their score, and special tokens are pale."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("token", overflow="fold")
    for name in concepts:
        table.add_column(Text(printable(name)), justify="right", overflow="fold")
    columns = [scores.concepts.index(name) for name in concepts]
    for place, token in enumerate(scores.tokens):
        pale = place in scores.special
        values = [float(scores.scores[place, column]) for column in columns]
        styles = [Style(dim=True) if pale else score_style(value, scores.scale) for value in values]
        cells = [Text(f"{value:+.4g}", style=style) for value, style in zip(values, styles, strict=True)]
        table.add_row(Text(printable(repr(token)), style="dim" if pale else ""), *cells)
    return table


def score_style(value: float, scale: float) -> Style:
    """The background of a score between `-scale` and `scale`: orange above 0, blue below, none near it."""
    share = min(abs(value) / scale, 1.0) if scale and math.isfinite(value) else 0.0
    if share < _FAINT:
        return Style()
    red, green, blue = (int(int(part) * share) for part in (POSITIVE if value >= 0 else NEGATIVE).split(","))
    return Style(bgcolor=Color.from_rgb(red, green, blue), color="black" if share > _BRIGHT else "white")
