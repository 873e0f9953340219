"""What the commands of `lrc-tl` share: options, the result file, and how they print. Needs no torch."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import lrc_tl as lrc
from lrc_tl.errors import in_one_line
from lrc_tl.json_results import check_target, write_result

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")]
Model = Annotated[
    str, typer.Option("--model", help="packaged:gemma-3-270m, a TransformerLens name, or a Hugging Face folder.")
]
Concepts = Annotated[
    Path, typer.Option("--concepts", exists=True, dir_okay=False, help="A file that fit has written.")
]
Device = Annotated[str, typer.Option("--device", help="Where to run the model, such as cpu or cuda:0.")]


class Run:
    """One command's settings, clock and result file; a file that cannot be written fails before anything runs."""

    def __init__(self, kind: str, arguments: Mapping[str, Any]) -> None:
        self.kind = kind
        self.settings = {name: value for name, value in arguments.items() if name != "json_file"}
        self.file: Path | None = arguments["json_file"]
        self.started = time.perf_counter()
        if self.file is not None:
            check_target(self.file)

    def finish(self, results: Mapping[str, Any], *, model: Any = None) -> None:
        if self.file is not None:
            write_result(
                self.file,
                kind=self.kind,
                results=results,
                settings=self.settings,
                model=None if model is None else lrc.ModelFingerprint.of(model).to_dict(),
                seconds=time.perf_counter() - self.started,
            )


@contextmanager
def bad_usage() -> Iterator[None]:
    """Values that the library refuses here are bad usage, not a failure."""
    try:
        yield
    except (LookupError, ValueError) as error:
        raise typer.BadParameter(str(error.args[0])) from error


def say(message: str) -> None:
    """One line on stderr, without what would steer the terminal."""
    print("lrc-tl:", in_one_line(message), file=sys.stderr)


def console() -> Console:
    """Of stdout, at a fixed width where that is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 120)


def print_text(text: str) -> None:
    """On stdout, as it stands: brackets are no markup."""
    console().print(text, markup=False, highlight=False)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """On stdout, with the fields of the first row as columns; numbers stand to the right."""
    table = Table(box=SIMPLE_HEAD)
    for column, value in rows[0].items():
        table.add_column(
            column.replace("_", " "), overflow="fold", justify="left" if isinstance(value, str) else "right"
        )
    for row in rows:
        cells = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
        table.add_row(*(Text(cell) for cell in cells))
    console().print(table)
