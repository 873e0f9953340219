"""What the commands of `lrc-tl` share: options, the result file, and how they print. Needs no torch."""

import io
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import lrc_tl as lrc
from lrc_tl.cli.completing import model_names, relation_names, several_relations
from lrc_tl.errors import in_one_line
from lrc_tl.markup.printable import printable
from lrc_tl.markup.terminal import console, is_quiet
from lrc_tl.methods.method import METHODS
from lrc_tl.storage.file_roles import require_distinct_files
from lrc_tl.storage.json_results import check_target, write_result

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        autocompletion=model_names,
        help="packaged:gemma-3-270m, a TransformerLens name, or a Hugging Face folder.",
    ),
]
RelationName = Annotated[
    str,
    typer.Option("--relation", autocompletion=relation_names, help="A built-in name, or a JSON file."),
]
Only = Annotated[
    str | None,
    typer.Option("--only", metavar="NAME,...", autocompletion=several_relations, help="Relations to take."),
]
Concepts = Annotated[
    Path, typer.Option("--concepts", exists=True, dir_okay=False, help="A file that fit has written.")
]
ConceptNames = Annotated[
    list[str] | None,
    typer.Option("--concept", help="A concept of the file; may be given several times, else all."),
]
Device = Annotated[str, typer.Option("--device", help="Where to run the model, such as cpu or cuda:0.")]
DEFAULT_DEVICE = "cpu"
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16", "float64"],
    typer.Option("--dtype", help="Of the model's weights; bfloat16 halves the memory."),
]
DEFAULT_DTYPE: Literal["float32"] = "float32"
METHODS_LISTED = "\b\nMethods:\n" + "\n".join(f"  {name:18}{method.summary}" for name, method in METHODS.items())
"""For the end of a command's help; `\\b` keeps the lines as they are."""
METHODS_AT_LAST = " and ".join(name for name, method in METHODS.items() if method.object_layer == "last")


def loaded_model(model: str, *, device: str, dtype: str) -> Any:
    """`load_model` with the options of a command."""
    return lrc.load_model(model, device=device, dtype=torch_dtype(dtype))


def torch_dtype(name: str) -> Any:
    """The dtype of this name."""
    import torch

    return getattr(torch, name)


class Run:
    """One command's settings, clock and result file.

    A file that cannot be written, or that would take the place of another one of the command, fails before
    anything runs. `outputs` and `inputs` are the command's other files, by the option that names them.
    """

    def __init__(
        self,
        kind: str,
        arguments: Mapping[str, Any],
        *,
        outputs: Mapping[str, Path | None] | None = None,
        inputs: Mapping[str, Path | None] | None = None,
    ) -> None:
        self.kind = kind
        self.settings = {name: value for name, value in arguments.items() if name != "json_file"}
        self.file: Path | None = arguments["json_file"]
        self.started = time.perf_counter()
        self.outputs = {"--json": self.file, **(outputs or {})}
        self.require_apart(inputs or {})
        if self.file is not None:
            check_target(self.file)

    def require_apart(self, inputs: Mapping[str, Path | Iterable[Path] | None]) -> None:
        """Refuse an output that is one of the inputs, or another output."""
        with bad_usage():
            require_distinct_files(self.outputs, inputs)

    def finish(self, results: Mapping[str, Any], *, model: Any = None) -> None:
        if self.file is not None:
            write_result(
                self.file,
                kind=self.kind,
                results=results,
                settings=self.settings,
                model=_fingerprint(model),
                seconds=time.perf_counter() - self.started,
            )


def _fingerprint(model: Any) -> Mapping[str, Any] | None:
    """The plain values of a model's fingerprint; those that are given already stay as they are."""
    if model is None or isinstance(model, Mapping):
        return model
    return lrc.models.ModelFingerprint.of(model).to_dict()


def read_files(*given: str) -> dict[str, Path]:
    """Those of the values of `--relation` and `--model` that are paths, by what the messages call them."""
    return {f"the argument {value!r}": Path(value) for value in given if os.path.exists(value)}


def require_finite(option: str, value: float) -> None:
    """Refuse what typer takes for numbers too: nan and inf."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{option} is {value}; it must be a finite number")


@contextmanager
def bad_usage(*, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Values that the library refuses here are bad usage, not a failure; `but` is an error that stays as it is."""
    try:
        yield
    except but:
        raise
    except (LookupError, ValueError) as error:
        raise typer.BadParameter(str(error.args[0])) from error


def say(message: str) -> None:
    """One line on stderr; control characters in names are shown as escapes."""
    print("lrc-tl:", in_one_line(message), file=sys.stderr)


def write_whatever_can_be_shown() -> None:
    """Show a character that the encoding of stdout lacks as an escape, not as a failure after the work is done."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def remark(message: str) -> None:
    """A note on stderr: `say`, unless `--quiet` was given."""
    if not is_quiet():
        say(message)


def show(what: Table | Text | str) -> None:
    """On stdout, at a fixed width where that is no terminal; brackets are no markup."""
    console(width=None if sys.stdout.isatty() else 120).print(what, markup=False, highlight=False)


def print_text(text: str) -> None:
    """On stdout; brackets are no markup, and control characters are shown as escapes."""
    show(printable(text))


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """On stdout, with the fields of the first row as columns; numbers stand to the right."""
    table = Table(box=SIMPLE_HEAD)
    for column, value in rows[0].items():
        table.add_column(
            column.replace("_", " "), overflow="fold", justify="left" if isinstance(value, str) else "right"
        )
    for row in rows:
        cells = (f"{cell:.4g}" if isinstance(cell, float) else printable(str(cell)) for cell in row.values())
        table.add_row(*(Text(cell) for cell in cells))
    show(table)
