"""The command line `lrc-tl`: arguments, calls of the library, tables and JSON; no logic of its own.

Exit code 0 on success, 2 on bad usage, 1 on any other failure, with one line on stderr; `--debug` shows the
traceback. Nothing here imports torch before a command runs that needs it.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

import lrc_tl as lrc
from lrc_tl.cli.benchmark import benchmark
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    METHODS_AT_LAST,
    METHODS_LISTED,
    Concepts,
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
    require_finite,
    say,
    write_whatever_can_be_shown,
)
from lrc_tl.cli.report import report
from lrc_tl.cli.rerun import rerun
from lrc_tl.cli.sweep import SWEEP_EPILOG, merge, sweep
from lrc_tl.methods.method import METHODS, OBJECT_SHARE, Method, default_method, meant_method, require_methods
from lrc_tl.methods.settings import FitSettings
from lrc_tl.relations.prompts import find_subject
from lrc_tl.storage.json_results import check_target
from lrc_tl.storage.own_version import own_version

if TYPE_CHECKING:  # imports torch
    from lrc_tl.passes.known_prompts import KnownPrompts

app = typer.Typer(
    help="Linear Relational Concepts on TransformerLens (arXiv:2311.08968).",
    add_completion=False,
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
    model: Annotated[str, typer.Option("--model", help="As for fit.")] = "packaged:gemma-3-270m",
    relation: Annotated[
        str, typer.Option("--relation", help="A built-in name, or a JSON file.")
    ] = "city_in_country",
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


@app.command(epilog=METHODS_LISTED)
def fit(
    model: Model,
    relation: Annotated[str, typer.Option("--relation", help="A built-in name, or a JSON file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="Where to save the concepts.")],
    subject_layer: Annotated[
        int | None,
        typer.Option("--subject-layer", help="Negative layers count from the end; half way by default."),
    ] = None,
    object_layer: Annotated[
        int | None,
        typer.Option(
            "--object-layer",
            help=f"Above the subject layer; {OBJECT_SHARE} of the depth by default, and the last layer for "
            f"{METHODS_AT_LAST}.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"One of those below; else {default_method(rank=1)} with a rank or ridge, and "
            f"{default_method(rank=None)} without.",
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Rank of the inverse.")] = None,
    ridge: Annotated[
        float,
        typer.Option("--ridge", min=0.0, help="Fades small singular values out, such as 0.2; no rank needed."),
    ] = 0.0,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Examples in each prompt.")] = 4,
    max_lre_prompts: Annotated[
        int, typer.Option("--max-lre-prompts", min=1, help="Prompts to fit on, balanced over objects.")
    ] = FitSettings.max_lre_prompts,
    noise: Annotated[
        float | None,
        typer.Option("--noise", help="Of dual directions (lrc-map), above 0; else chosen on the training facts."),
    ] = None,
    first_token: Annotated[
        bool, typer.Option("--first-token", help="Use the object's first token, not the mean over its tokens.")
    ] = False,
    centre: Annotated[
        bool, typer.Option("--centre", help="Take what all subjects share (zero-shot prompts) from the scores.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of templates, examples and the choice of prompts.")] = 0,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Make concept directions from the facts that the model knows, by an LRE or a baseline, and save them."""
    method = default_method(rank=rank, ridge=ridge) if method is None else method
    run = Run("fit", locals(), outputs={"--out": out}, inputs=read_files(relation, model))
    import lrc_tl.methods.options as needs  # imports torch
    from lrc_tl.methods.fitting import lre_prompts

    with bad_usage():
        settings = FitSettings(max_lre_prompts=max_lre_prompts, noise=noise)
        require_methods([method])
        asked = meant_method(METHODS[method], object_layer=object_layer)
        _require_own_options(asked, rank=rank, ridge=ridge, first_token=first_token, noise=noise)
        needs.require_method_options(asked, rank=rank, ridge=ridge, solver=settings.solver)
        needs.require_layer_order(asked, subject_layer=subject_layer, object_layer=object_layer)
    check_target(out)
    if ignored := needs.ignored_options(asked, object_layer=object_layer, rank=rank):
        say(ignored)
    facts = lrc.load_relation(relation)
    prompts = facts.prompts(shots=shots, seed=seed)
    plain = facts.prompts(seed=seed)
    loaded = loaded_model(model, device=device, dtype=dtype)
    with bad_usage():
        places = needs.require_places(
            loaded, asked, subject_layer=subject_layer, object_layer=object_layer, rank=rank
        )
    subject_layer = places.subject_layer if subject_layer is None else subject_layer
    object_layer = places.object_layer if object_layer is None else object_layer
    known = lrc.filter_known(loaded, prompts)
    known.require_nonempty()
    used = lre_prompts(known, asked, most=settings.max_lre_prompts, seed=seed)
    if asked.open_settings:
        assert object_layer is not None
        lre = lrc.LinearRelationalEmbedding.fit(
            loaded,
            used,
            subject_layer=subject_layer,
            object_layer=object_layer,
            object_aggregation="first_token" if first_token else "mean",
            solver=settings.solver,
        )
        concepts = lre.concepts(loaded, known.prompts, rank=rank, ridge=ridge)
    else:
        concepts = lrc.fit_concepts(
            loaded,
            known.prompts,
            method=asked.name,
            subject_layer=subject_layer,
            object_layer=object_layer if asked.takes_object_layer else None,
            rank=rank if asked.needs_rank else None,
            seed=seed,
            settings=settings,
        )
    if centre:
        concepts = concepts.centred(lrc.subject_activations(loaded, plain, layer=subject_layer))
    out.parent.mkdir(parents=True, exist_ok=True)
    concepts.save(out)
    counts: dict[str, Any] = {"relation": facts.name, "n_facts": len(facts.facts)}
    counts |= {"n_known": len(known.prompts), "n_lre_prompts": len(used)}
    print_table([{**counts, "hook_name": concepts.hook_name}])
    print_text(f"{len(concepts)} concepts saved in {out}: {', '.join(concepts)}")
    results = {**counts, "objects": list(concepts), "hook_name": concepts.hook_name, "out": out}
    run.finish({**results, "dropped": _dropped_rows(known)}, model=loaded)


def _dropped_rows(known: "KnownPrompts") -> list[dict[str, str]]:
    """Prompts that the model does not answer correctly, for JSON."""
    return [
        {
            "text": dropped.prompt.text,
            "object": dropped.prompt.object,
            "answer": dropped.answer,
            "reason": dropped.reason,
        }
        for dropped in known.dropped
    ]


def _require_own_options(
    asked: Method, *, rank: int | None, ridge: float, first_token: bool, noise: float | None
) -> None:
    """Refuse a ridge, a noise or a way of reading objects where a method has none, or no inverse."""
    if asked.open_settings and rank is None and not ridge:
        raise typer.BadParameter("--rank, --ridge or both must be given, such as --rank 64 or --ridge 0.2")
    if not asked.open_settings and (ridge or first_token):
        theirs = ", ".join(other.name for other in METHODS.values() if other.open_settings)
        raise typer.BadParameter(f"--ridge and --first-token belong to --method {theirs}, not to {asked.name}")
    require_finite("--ridge", ridge)
    if noise is not None and not asked.is_dual:
        theirs = ", ".join(other.name for other in METHODS.values() if other.is_dual)
        raise typer.BadParameter(f"--noise belongs to --method {theirs}, not to {asked.name}")


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


app.command(epilog=METHODS_LISTED)(benchmark)
app.command(epilog=SWEEP_EPILOG)(sweep)
app.command()(merge)
app.command()(report)
app.command()(rerun)


# What typer raises for every kind of bad usage; it has no public name.
_UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code comes back."""
    write_whatever_can_be_shown()
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
