"""`lrc-tl readout`: what directions say in words, or the hidden states of a text (logit lens)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import lrc_tl as lrc
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    ConceptNames,
    Device,
    Dtype,
    Json,
    Model,
    Run,
    bad_usage,
    loaded_model,
    print_table,
    print_text,
    read_files,
    show,
)
from lrc_tl.cli.ranges import parse_integers
from lrc_tl.markup.printable import printable

if TYPE_CHECKING:  # imports torch
    from lrc_tl.directions.prompt_lens import PromptLens
    from lrc_tl.directions.readouts import Readout

READOUT_EPILOG = (
    "\b\nJSON: of directions hook_name and readouts, a list of {concept, top, bottom},\n"
    "  each end a list of {word, token, logit}, the outermost first.\n"
    "  Of a text: text, tokens, special (places of tokens that are no words), layers\n"
    "  and words, a list of {layer, position, place, word, token, probability}."
)


def readout(
    model: Model,
    concepts: Annotated[
        Path | None,
        typer.Option("--concepts", exists=True, dir_okay=False, help="A file that fit has written."),
    ] = None,
    names: ConceptNames = None,
    text: Annotated[
        str | None, typer.Option("--text", help="In place of --concepts: its hidden states, by the logit lens.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--words", min=1, help="Words of each direction, or of each cell.")] = 8,
    writing: Annotated[
        bool, typer.Option("--writing", help="Of the vector that edits add, where it is another one.")
    ] = False,
    layers: Annotated[str | None, typer.Option("--layers", help="Of a text, such as 4:12 or 4,8,-1.")] = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Say directions in words, or what each layer says at each token of a text."""
    run = Run("readout", locals(), inputs={"--concepts": concepts, **read_files(model)})
    if (concepts is None) == (text is None):
        raise typer.BadParameter("give --concepts, for its directions in words, or --text, for its hidden states")
    if concepts is not None:
        if layers is not None:
            raise typer.BadParameter("--layers belongs to --text; a direction has the layer of its file")
        fields, loaded = _of_directions(concepts, names, model, k=k, writing=writing, device=device, dtype=dtype)
        run.finish(fields, model=loaded)
    elif text is not None:
        if names or writing:
            raise typer.BadParameter("--concept and --writing belong to --concepts, not to --text")
        if not text.strip():
            raise typer.BadParameter("--text is empty; give at least one word")
        with bad_usage():
            numbers = None if layers is None else parse_integers(layers)
        loaded = loaded_model(model, device=device, dtype=dtype)
        lens = lrc.directions.logit_lens(loaded, text, k=k, layers=numbers)
        show(lens_table(lens))
        run.finish({"text": text, **_lens_fields(lens)}, model=loaded)


def _of_directions(
    file: Path, names: list[str] | None, model: str, *, k: int, writing: bool, device: str, dtype: str
) -> tuple[dict[str, Any], Any]:
    stored = lrc.ConceptSet.load(file)
    chosen = [stored[name] for name in names or stored]
    loaded = loaded_model(model, device=device, dtype=dtype)
    stored.require_model(loaded)
    readouts = {each.object_name: each.readout(loaded, k=k, writing=writing) for each in chosen}
    if len(readouts) == 1:
        (only,) = readouts.values()
        print_text(only.label)
        print_table(
            [
                {"top": repr(high.text), "logit": high.logit, "bottom": repr(low.text), "logit ": low.logit}
                for high, low in zip(only.top, only.bottom, strict=True)
            ]
        )
    else:
        print_table(
            [
                {
                    "concept": name,
                    "top": ", ".join(repr(word.text) for word in each.top),
                    "bottom": ", ".join(repr(word.text) for word in each.bottom),
                }
                for name, each in readouts.items()
            ]
        )
    rows = [{"concept": name, **_ends(each)} for name, each in readouts.items()]
    return {"hook_name": stored.hook_name, "readouts": rows}, loaded


def _ends(readout: "Readout") -> dict[str, Any]:
    return {
        end: [{"word": word.text, "token": word.token, "logit": word.logit} for word in words]
        for end, words in (("top", readout.top), ("bottom", readout.bottom))
    }


def lens_table(lens: "PromptLens") -> Table:
    """A row per token, a column per layer: the most probable word of each cell, bold from one half on."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("token", overflow="fold")
    for layer in lens.layers:
        table.add_column(str(layer), overflow="fold")
    for place, token in enumerate(lens.tokens):
        pale = "dim" if place in lens.special else ""
        cells = []
        for layer in lens.layers:
            word, probability = lens.top(layer=layer, position=place)[0]
            cells.append(
                Text(printable(word.strip() or repr(word)), style=pale or ("bold" if probability >= 0.5 else ""))
            )
        table.add_row(Text(printable(repr(token)), style=pale), *cells)
    return table


def _lens_fields(lens: "PromptLens") -> dict[str, Any]:
    names = {"id": "token"}
    rows = lens.to_frame().drop(columns="token").rename(columns=names).to_dict("records")
    return {
        "tokens": list(lens.tokens),
        "special": list(lens.special),
        "layers": list(lens.layers),
        "words": rows,
    }
