"""The command line `lrc-tl`: arguments, calls of the library, tables and JSON; no logic of its own.

Exit code 0 on success, 2 on bad usage, 1 on any other failure, with one line on stderr; `--debug` shows the
traceback. Nothing here imports torch before a command runs that needs it.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

import lrc_tl as lrc
from lrc_tl.cli.benchmark import benchmark
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    METHODS_LISTED,
    Concepts,
    Device,
    Dtype,
    Json,
    Model,
    RelationName,
    Run,
    bad_usage,
    loaded_model,
    print_table,
    print_text,
    read_files,
    require_finite,
    say,
    write_whatever_can_be_shown,
)
from lrc_tl.cli.completing import model_names
from lrc_tl.cli.fit import fit
from lrc_tl.cli.read import READ_EPILOG, read
from lrc_tl.cli.readout import READOUT_EPILOG, readout
from lrc_tl.cli.report import report
from lrc_tl.cli.rerun import rerun
from lrc_tl.cli.sweep import SWEEP_EPILOG, merge, sweep
from lrc_tl.markup.terminal import shown_as
from lrc_tl.relations.prompts import find_subject
from lrc_tl.storage.own_version import own_version

app = typer.Typer(
    help="Linear Relational Concepts on TransformerLens (arXiv:2311.08968).",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> bool:
    if asked:
        print(f"lrc-tl {own_version()}")
        raise typer.Exit
    return bool(asked)


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no notes: results and errors.")] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours; the variable NO_COLOR does the same.")
    ] = False,
) -> None:
    """Linear Relational Concepts on TransformerLens (arXiv:2311.08968)."""


@app.command()
def relations(
    folder: Annotated[
        Path | None,
        typer.Argument(exists=True, file_okay=False, metavar="[DIR]", help="Searched for *.json; else built in."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Repeated facts, subjects with two objects and unknown keys are errors."),
    ] = False,
    json_file: Json = None,
) -> None:
    """List and check relations: those built in, or all files below a folder."""
    run = Run("relations", locals())
    if folder is None:
        names = lrc.built_in_relations()
        usable = {name: lrc.load_relation(name, strict=strict) for name in names}
        errors: dict[Path, str] = {}
    else:
        usable, errors = lrc.load_relations(folder, strict=strict)
        run.require_apart({"DIR": [Path(relation.source) for relation in usable.values()]})
    rows = [
        {
            "name": relation.name,
            "kind": relation.kind,
            "facts": len(relation.facts),
            "objects": len(relation.objects),
            "templates": len(relation.templates),
            "zero_shot_templates": len(relation.zero_shot_templates),
            "duplicates": len(relation.duplicates),
            "ambiguous": len(relation.ambiguous),
            "rewritten": len(relation.rewritten),
            "lookalikes": len(relation.lookalikes),
            "source": relation.source,
        }
        for relation in usable.values()
    ]
    if rows:
        unshown = ("rewritten", "lookalikes", "source")
        print_table([{key: row[key] for key in row if key not in unshown} for row in rows])
    results = {
        "relations": rows,
        "errors": [{"file": path, "error": error} for path, error in errors.items()],
    }
    run.finish(results)
    for error in errors.values():
        say(error)
    if errors or not usable:
        raise RuntimeError(
            f"{len(errors)} of {len(errors) + len(usable)} files hold no usable relation"
            if errors
            else f"there is no *.json file below {folder}"
        )


@app.command()
def demo(
    model: Annotated[
        str, typer.Option("--model", autocompletion=model_names, help="As for fit.")
    ] = "packaged:gemma-3-270m",
    relation: RelationName = "city_in_country",
    seed: Annotated[int, typer.Option("--seed", help="Of the split, the templates and the samples.")] = 0,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """The main job on a real model: filter, fit, probe, swap, steer, save and load."""
    run = Run("demo", locals(), inputs=read_files(relation, model))
    facts = lrc.load_relation(relation)
    facts.split(seed=seed)  # one that cannot be split fails before the model is loaded
    loaded = loaded_model(model, device=device, dtype=dtype)
    from lrc_tl.demo import run_demo  # imports torch

    result = run_demo(loaded, facts, seed=seed, say=print_text, progress=sys.stderr.isatty())
    run.finish(result.to_dict(), model=loaded)


app.command(epilog=METHODS_LISTED)(fit)


@app.command()
def probe(
    model: Model,
    concepts: Concepts,
    text: Annotated[str, typer.Option("--text", help="A text that names the subject in its last line.")],
    subject: Annotated[str, typer.Option("--subject", help="The subject as the text spells it.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many objects to show.")] = 10,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Rank the concepts by their score on a subject."""
    run = Run("probe", locals(), inputs={"--concepts": concepts, **read_files(model)})
    with bad_usage():
        find_subject(text, subject)
    read = lrc.ConceptSet.load(concepts)
    loaded = loaded_model(model, device=device, dtype=dtype)
    read.require_model(loaded)
    ranking = read.classify(loaded, text, subject=subject)
    rows = [{"object": object_, "score": score} for object_, score in ranking]
    print_table(rows[:top])
    run.finish({"ranking": rows}, model=loaded)


@app.command()
def steer(
    model: Model,
    concepts: Concepts,
    concept: Annotated[str, typer.Option("--concept", help="The object to steer towards.")],
    strength: Annotated[float, typer.Option("--strength", help="How much, in --unit; may be negative.")],
    text: Annotated[str, typer.Option("--text", help="The text to continue.")],
    unit: Annotated[
        Literal["share", "absolute", "score"],
        typer.Option(
            "--unit",
            help="Of the strength: a share of |h| at each position, residual-stream units, or units of the score.",
        ),
    ] = "share",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 20,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Continue a text greedily, without and with a concept added to the residual stream."""
    run = Run("steer", locals(), inputs={"--concepts": concepts, **read_files(model)})
    require_finite("--strength", strength)
    if not text.strip():
        raise typer.BadParameter("--text is empty; give a text to continue")
    read = lrc.ConceptSet.load(concepts)
    direction = read[concept]
    loaded = loaded_model(model, device=device, dtype=dtype)
    read.require_model(loaded)

    def continued() -> Any:
        return loaded.generate(text, max_new_tokens=max_new_tokens, do_sample=False, verbose=False)

    unsteered = continued()
    with direction.steer(loaded, strength=strength, unit=unit):
        steered = continued()
    print_table([{"": "unsteered", "text": unsteered}, {"": "steered", "text": steered}])
    run.finish({"text_unsteered": unsteered, "text_steered": steered}, model=loaded)


app.command(epilog=READ_EPILOG)(read)
app.command(epilog=READOUT_EPILOG)(readout)
app.command(epilog=METHODS_LISTED)(benchmark)
app.command(epilog=SWEEP_EPILOG)(sweep)
app.command()(merge)
app.command()(report)
app.command()(rerun)


_ANYWHERE = ("--debug", "--quiet", "--no-color")

# What typer raises for every kind of bad usage; it has no public name.
_UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code comes back."""
    write_whatever_can_be_shown()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Wherever they stand, so that they can be put behind a command that was run without.
    asked = {flag for flag in _ANYWHERE if flag in given}
    given = [argument for argument in given if argument not in _ANYWHERE]
    with shown_as(quiet="--quiet" in asked, colours="--no-color" not in asked):
        return _exit_code(given, debug="--debug" in asked)


def _exit_code(given: list[str], *, debug: bool) -> int:
    try:
        code = typer.main.get_command(app).main(given or ["--help"], prog_name="lrc-tl", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, _UsageError):
            wrong = cast(typer.BadParameter, error)
            command = wrong.ctx.command_path if wrong.ctx else "lrc-tl"
            say(f"{wrong.format_message()} (see {command} --help)")
            return 2
        say(_described(error))
        return 1
    if code == 130:
        say("interrupted")
    if not given:
        return 2
    return code if isinstance(code, int) else 0


def _described(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if text and isinstance(error, (ValueError, LookupError, OSError, RuntimeError, ImportError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"
