"""The command line `lrc-tl`: arguments, calls of the library, tables and JSON; no logic of its own.

Exit code 0 on success, 2 on bad usage, 1 on any other failure, with one line on stderr; `--debug` shows the
traceback. Nothing here imports torch before a command runs that needs it.
"""

import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import lrc_tl as lrc
from lrc_tl.json_results import check_target, write_result
from lrc_tl.presets import benchmark_settings
from lrc_tl.ranges import parse_integers, parse_numbers

app = typer.Typer(
    help="Linear Relational Concepts on TransformerLens (arXiv:2311.08968).",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")]
Model = Annotated[
    str, typer.Option("--model", help="packaged:gemma-3-270m, a TransformerLens name, or a Hugging Face folder.")
]
Concepts = Annotated[
    Path, typer.Option("--concepts", exists=True, dir_okay=False, help="A file that fit has written.")
]
Device = Annotated[str, typer.Option("--device", help="Where to run the model, such as cpu or cuda:0.")]
# Options of benchmark that are settings as they stand.
_GIVEN_AS_THEY_ARE = (
    "subject_layer",
    "object_layer",
    "rank",
    "max_lre_prompts",
    "max_facts",
    "shots",
    "fit_method",
    "split_seed",
)
_RANGES = ("subject_layers", "object_layers", "ranks")


class _Run:
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


def _show_version(asked: bool) -> bool:
    if asked:
        print(f"lrc-tl {version('lrc-tl')}")
        raise typer.Exit
    return bool(asked)


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Linear Relational Concepts on TransformerLens (arXiv:2311.08968)."""


@app.command()
def relations(
    folder: Annotated[
        Path | None,
        typer.Argument(exists=True, file_okay=False, metavar="[DIR]", help="Searched for *.json; else built in."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Repeated facts and subjects with two objects are errors.")
    ] = False,
    json_file: Json = None,
) -> None:
    """List and check relations: those built in, or all files below a folder."""
    run = _Run("relations", locals())
    if folder is None:
        names = lrc.built_in_relations()
        found = {name: lrc.load_relation(name, strict=strict) for name in names}
        errors: dict[Path, str] = {}
    else:
        found, errors = lrc.load_relations(folder, strict=strict)
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
            "source": relation.source,
        }
        for relation in found.values()
    ]
    if rows:
        _print_table([{key: row[key] for key in row if key != "source"} for row in rows])
    results = {
        "relations": rows,
        "errors": [{"file": path, "error": error} for path, error in errors.items()],
    }
    run.finish(results)
    for error in errors.values():
        _say(error)
    if errors or not found:
        raise RuntimeError(
            f"{len(errors)} of {len(errors) + len(found)} files hold no usable relation"
            if errors
            else f"there is no *.json file below {folder}"
        )


@app.command()
def demo(
    model: Annotated[str, typer.Option("--model", help="As for fit.")] = "packaged:gemma-3-270m",
    relation: Annotated[
        str, typer.Option("--relation", help="A built-in name, or a JSON file.")
    ] = "city_in_country",
    seed: Annotated[int, typer.Option("--seed", help="Of the split, the templates and the samples.")] = 0,
    device: Device = "cpu",
    json_file: Json = None,
) -> None:
    """The main job on a real model: filter, fit, probe, swap, steer, save and load."""
    run = _Run("demo", locals())
    facts = lrc.load_relation(relation)
    loaded = lrc.load_model(model, device=device)
    result = lrc.run_demo(loaded, facts, seed=seed, say=_print, progress=sys.stderr.isatty())
    run.finish(result.to_dict(), model=loaded)


@app.command()
def fit(
    model: Model,
    relation: Annotated[str, typer.Option("--relation", help="A built-in name, or a JSON file.")],
    subject_layer: Annotated[int, typer.Option("--subject-layer", help="Negative layers count from the end.")],
    object_layer: Annotated[int, typer.Option("--object-layer", help="Negative layers count from the end.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="Where to save the concepts.")],
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Rank of the inverse.")] = None,
    ridge: Annotated[
        float,
        typer.Option("--ridge", min=0.0, help="Fades small singular values out, such as 0.2; no rank needed."),
    ] = 0.0,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Examples in each prompt.")] = 4,
    max_lre_prompts: Annotated[
        int, typer.Option("--max-lre-prompts", min=1, help="Prompts to fit on, balanced over objects.")
    ] = 20,
    first_token: Annotated[
        bool, typer.Option("--first-token", help="Use the object's first token, not the mean over its tokens.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of templates, examples and the choice of prompts.")] = 0,
    device: Device = "cpu",
    json_file: Json = None,
) -> None:
    """Fit an LRE on the facts that the model knows, and save its concept directions."""
    run = _Run("fit", locals())
    if rank is None and not ridge:
        raise typer.BadParameter("--rank, --ridge or both must be given, such as --rank 64 or --ridge 0.2")
    check_target(out)
    facts = lrc.load_relation(relation)
    prompts = facts.prompts(shots=shots, seed=seed)
    loaded = lrc.load_model(model, device=device)
    known = lrc.filter_known(loaded, prompts)
    used = known.sample(max_lre_prompts, seed=seed)
    lre = lrc.LinearRelationalEmbedding.fit(
        loaded,
        used,
        subject_layer=subject_layer,
        object_layer=object_layer,
        object_aggregation="first_token" if first_token else "mean",
    )
    concepts = lre.concepts(loaded, known.prompts, rank=rank, ridge=ridge)
    concepts.save(out)
    results = {
        "relation": facts.name,
        "n_facts": len(facts.facts),
        "n_known": len(known.prompts),
        "n_lre_prompts": len(used),
        "objects": list(concepts),
        "hook_name": concepts.hook_name,
        "out": out,
        "dropped": [
            {"text": d.prompt.text, "object": d.prompt.object, "answer": d.answer, "reason": d.reason}
            for d in known.dropped
        ],
    }
    _print_table([{key: results[key] for key in ("relation", "n_facts", "n_known", "n_lre_prompts", "hook_name")}])
    _print(f"{len(concepts)} concepts saved in {out}: {', '.join(concepts)}")
    run.finish(results, model=loaded)


@app.command()
def probe(
    model: Model,
    concepts: Concepts,
    text: Annotated[str, typer.Option("--text", help="A text that names the subject in its last line.")],
    subject: Annotated[str, typer.Option("--subject", help="The subject as the text spells it.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many objects to show.")] = 10,
    device: Device = "cpu",
    json_file: Json = None,
) -> None:
    """Rank the concepts by their score on a subject."""
    run = _Run("probe", locals())
    loaded = lrc.load_model(model, device=device)
    ranking = lrc.ConceptSet.load(concepts, model=loaded).classify(loaded, text, subject=subject)
    rows = [{"object": object_, "score": score} for object_, score in ranking]
    _print_table(rows[:top])
    run.finish({"ranking": rows}, model=loaded)


@app.command()
def steer(
    model: Model,
    concepts: Concepts,
    concept: Annotated[str, typer.Option("--concept", help="The object to steer towards.")],
    strength: Annotated[float, typer.Option("--strength", help="Share of |h| at each position; may be negative.")],
    text: Annotated[str, typer.Option("--text", help="The text to continue.")],
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 20,
    device: Device = "cpu",
    json_file: Json = None,
) -> None:
    """Continue a text greedily, without and with a concept added to the residual stream."""
    run = _Run("steer", locals())
    loaded = lrc.load_model(model, device=device)
    direction = lrc.ConceptSet.load(concepts, model=loaded)[concept]

    def continued() -> Any:
        return loaded.generate(text, max_new_tokens=max_new_tokens, do_sample=False, verbose=False)

    unsteered = continued()
    with direction.steer(loaded, strength=strength):
        steered = continued()
    _print_table([{"": "unsteered", "text": unsteered}, {"": "steered", "text": steered}])
    run.finish({"text_unsteered": unsteered, "text_steered": steered}, model=loaded)


@app.command()
def benchmark(
    model: Model,
    folder: Annotated[
        Path | None,
        typer.Option("--relations", exists=True, file_okay=False, metavar="DIR", help="Else the built-in ones."),
    ] = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="lrc, lrc-final, and baselines such as svm, logistic, mean.")
    ] = None,
    subject_layer: Annotated[int | None, typer.Option("--subject-layer")] = None,
    object_layer: Annotated[
        int | None, typer.Option("--object-layer", help="Of lrc; lrc-final has the last.")
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Rank of the inverse.")] = None,
    subject_layers: Annotated[
        str | None, typer.Option("--subject-layers", help="To sweep over, such as 4:12 or 4,8,12.")
    ] = None,
    object_layers: Annotated[str | None, typer.Option("--object-layers", help="To sweep over.")] = None,
    ranks: Annotated[str | None, typer.Option("--ranks", help="To sweep over.")] = None,
    single_layer: Annotated[
        bool | None, typer.Option("--single-layer", help="Make the edits at the subject layer alone too.")
    ] = None,
    random_model: Annotated[
        bool | None, typer.Option("--random-model", help="Also accuracy with random weights, a control; slow.")
    ] = None,
    beta: Annotated[
        str | None, typer.Option("--beta", help="Size of the edits; several give a curve, headed by the first.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Such as 42,43 or 42:47.")] = None,
    max_lre_prompts: Annotated[int | None, typer.Option("--max-lre-prompts", min=1, help="20 by default.")] = None,
    max_facts: Annotated[
        int | None, typer.Option("--max-facts", min=2, help="Of each relation; else all.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Examples in training prompts, 4 by default.")
    ] = None,
    fit_method: Annotated[
        str | None, typer.Option("--fit-method", help="Of LREs: exact, the default, or low_rank, which is faster.")
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option("--split-seed", help="Split the facts by this seed, the same for all seeds.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Methods to compare with all others; else the first.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="NAME,...", help="Relations to take.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Named settings, such as table5; options beside it win.")
    ] = None,
    select: Annotated[
        bool, typer.Option("--select", help="Choose layers, rank and beta on each relation's training facts.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Keeps each finished relation; else FILE.parts.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    device: Device = "cpu",
    json_file: Json = None,
) -> None:
    """The paper's comparison of LRCs and baselines, by accuracy and causality on many relations."""
    run = _Run("benchmark", locals())
    with _bad_usage():
        given = {
            "methods": None if methods is None else tuple(name.strip() for name in methods.split(",")),
            "beta": None if beta is None else parse_numbers(beta),
            "seeds": None if seeds is None else parse_integers(seeds),
            "single_layer": single_layer,
            "random_model": random_model,
            **{
                name: None if run.settings[name] is None else parse_integers(run.settings[name])
                for name in _RANGES
            },
            **{name: run.settings[name] for name in _GIVEN_AS_THEY_ARE},
        }
        settings = benchmark_settings(given, model=model, preset=preset, select=select)
        lrc.require_methods(settings["methods"])
        from lrc_tl.low_rank_fit import require_fit_method  # imports torch

        require_fit_method(settings["fit_method"], name="--fit-method")
    # A method at several settings has commas in its name: lrc@object=12,rank=64.
    firsts = () if compare is None else tuple(re.split(r"\s*,(?!(?:subject|object|rank)=)\s*", compare.strip()))
    for name in firsts:
        if name.split("@")[0] not in settings["methods"]:
            raise typer.BadParameter(
                f"--compare {name}: it is none of the methods, {', '.join(settings['methods'])}"
            )
    run.settings |= settings
    if out is None and json_file is not None:
        out = json_file.with_name(f"{json_file.name}.parts")
    if resume and out is None:
        raise typer.BadParameter(
            "--resume needs --out or --json, which say where the earlier run left its results"
        )
    names = lrc.built_in_relations() if folder is None else ()
    found, errors = {name: lrc.load_relation(name) for name in names}, dict[Path, str]()
    if folder is not None:
        found, errors = lrc.load_relations(folder)
    for error in errors.values():
        _say(error)
    if not found:
        raise RuntimeError(f"there is no usable relation below {folder}")
    if only is not None:
        chosen = [lrc.find_relation(found, name) for name in only.split(",")]
        found, errors = {relation.name: relation for relation in chosen}, {}
    loaded = lrc.load_model(model, device=device)
    result = lrc.run_protocol(loaded, found, out=out, resume=resume, select=select, compare=firsts, **settings)
    data = result.to_dict()
    data["relations_left_out"] |= {str(path): error for path, error in errors.items()}
    _print(result.to_markdown())
    run.finish(data, model=loaded)


# What typer raises for every kind of bad usage; it has no public name.
_UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code comes back."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Wherever it stands, so that it can be put behind a command that failed.
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
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
            _say(f"{wrong.format_message()} (see {command} --help)")
            return 2
        _say(_described(error))
        return 1
    if code == 130:
        _say("interrupted")
    if not given:
        return 2
    return code if isinstance(code, int) else 0


@contextmanager
def _bad_usage() -> Iterator[None]:
    """Values that the library refuses here are bad usage, not a failure."""
    try:
        yield
    except (LookupError, ValueError) as error:
        raise typer.BadParameter(str(error.args[0])) from error


def _described(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if text and isinstance(error, (ValueError, LookupError, OSError, RuntimeError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _say(message: str) -> None:
    print("lrc-tl:", " ".join(message.split()), file=sys.stderr)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)


def _print(text: str) -> None:
    _console().print(text, markup=False, highlight=False)


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for column, value in rows[0].items():
        table.add_column(
            column.replace("_", " "), overflow="fold", justify="left" if isinstance(value, str) else "right"
        )
    for row in rows:
        cells = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
        table.add_row(*(Text(cell) for cell in cells))
    _console().print(table)
