"""`lrc-tl benchmark`: its options, and what they mean for `run_protocol`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import lrc_tl as lrc
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    METHODS_AT_LAST,
    Device,
    Dtype,
    Json,
    Model,
    Only,
    Run,
    bad_usage,
    loaded_model,
    print_text,
    read_files,
    remark,
    say,
)
from lrc_tl.cli.completing import preset_names, several_methods, solver_names
from lrc_tl.cli.ranges import parse_integers, parse_numbers
from lrc_tl.experiments.presets import PRESETS, benchmark_options
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.experiments.tables import benchmark_markdown
from lrc_tl.lre.fit_settings import solver_named
from lrc_tl.methods.method import require_methods
from lrc_tl.storage.json_results import check_folder

_DEFAULTS = ExperimentSettings()
_PRESETS = ", ".join(name for name in PRESETS if f"{name}-small" in PRESETS)


def benchmark(
    model: Model,
    folder: Annotated[
        Path | None,
        typer.Option("--relations", exists=True, file_okay=False, metavar="DIR", help="Else the built-in ones."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", metavar="NAME,...", autocompletion=several_methods, help="Of those below."),
    ] = None,
    subject_layer: Annotated[int | None, typer.Option("--subject-layer")] = None,
    object_layer: Annotated[
        int | None, typer.Option("--object-layer", help=f"Of LREs; {METHODS_AT_LAST} have the last.")
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
    max_lre_prompts: Annotated[
        int | None, typer.Option("--max-lre-prompts", min=1, help=f"{_DEFAULTS.max_lre_prompts} by default.")
    ] = None,
    max_facts: Annotated[
        int | None, typer.Option("--max-facts", min=2, help="Of each relation; else all.")
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option("--shots", min=0, help=f"Examples in training prompts, {_DEFAULTS.shots} by default."),
    ] = None,
    fit_method: Annotated[
        str | None,
        typer.Option(
            "--solver",
            autocompletion=solver_names,
            help=f"Of LREs: exact, or low_rank, which is faster; {_DEFAULTS.solver} by default.",
        ),
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option("--split-seed", help="Split the facts by this seed, the same for all seeds.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option("--noise", help="Of dual directions (lrc-map), above 0; else chosen on training facts."),
    ] = None,
    keep_test_subjects: Annotated[
        bool | None,
        typer.Option("--keep-test-subjects", help="Count them in lrc-map's covariance, to see what that changes."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Methods to compare with all others; else the first.")
    ] = None,
    only: Only = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            autocompletion=preset_names,
            help=f"One of {_PRESETS}; each also in small, as table5-small. Options beside it win.",
        ),
    ] = None,
    select: Annotated[
        bool, typer.Option("--select", help="Choose layers, rank and beta on each relation's training facts.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Keeps each finished relation; else FILE.parts.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    plots: Annotated[
        Path | None, typer.Option("--plots", file_okay=False, help="Also draw the result into PNG files there.")
    ] = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """The paper's comparison of LRCs and baselines, by accuracy and causality on many relations."""
    if out is None and json_file is not None:
        out = json_file.with_name(f"{json_file.name}.parts")
    run = Run("benchmark", locals(), outputs={"--out": out, "--plots": plots}, inputs=read_files(model))
    with bad_usage():
        if fit_method is not None:
            solver_named(fit_method, argument="--solver")
        options = benchmark_options(_given(run.settings), model=model, preset=preset, select=select)
        require_methods(options.methods)
        compared = _compared(compare, options.methods)
    if plots is not None:
        from lrc_tl.views.figure import require  # imports torch

        require("matplotlib")
        check_folder(plots, what="the plots")
    run.settings |= options.to_dict()
    if resume and out is None:
        raise typer.BadParameter(
            "--resume needs --out or --json, which say where the earlier run left its results"
        )
    relations, errors = chosen_relations(folder, only)
    run.require_apart(
        {"--relations": [Path(relation.source) for relation in relations.values()] if folder else None}
    )
    from lrc_tl.errors import ResumeError
    from lrc_tl.experiments.plan import plan_protocol
    from lrc_tl.experiments.run import run_plan  # imports torch

    if folder is not None and out is not None and out.resolve() == folder.resolve():
        raise typer.BadParameter(
            f"--out {out} is the folder of the relations, which would take results for relations; give another"
        )
    with bad_usage(but=ResumeError):
        plan = plan_protocol(
            relations,
            methods=options.methods,
            seeds=options.seeds,
            settings=options.settings,
            out=out,
            resume=resume,
            compare=compared,
            others=None,
        )
    loaded = loaded_model(model, device=device, dtype=dtype)
    result = run_plan(loaded, plan)
    data = result.to_dict()
    data["relations_left_out"] |= {str(path): error for path, error in errors.items()}
    print_text(benchmark_markdown(data))
    run.finish(data, model=loaded)
    if plots is not None:
        for path in lrc.views.save_plots(result, plots):
            remark(f"wrote {path}")


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options as `benchmark_options` takes them; None for those that were not given.

    Raises:
        ValueError: a list that cannot be read, or one value and several for the same layers or ranks.
    """
    methods, beta, seeds = arguments["methods"], arguments["beta"], arguments["seeds"]
    return {
        "methods": None if methods is None else tuple(name.strip() for name in methods.split(",")),
        "seeds": None if seeds is None else parse_integers(seeds),
        "betas": None if beta is None else parse_numbers(beta),
        **{f"{name}s": _one_or_several(arguments, name) for name in ("subject_layer", "object_layer", "rank")},
        **{
            name: arguments[name]
            for name in (
                "max_lre_prompts",
                "max_facts",
                "shots",
                "single_layer",
                "random_model",
                "split_seed",
                "noise",
                "keep_test_subjects",
            )
        },
        "solver": arguments["fit_method"],
    }


def _one_or_several(arguments: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    single, several = arguments[name], arguments[f"{name}s"]
    if several is None:
        return None if single is None else (single,)
    if single is not None:
        option = f"--{name.replace('_', '-')}"
        raise ValueError(f"{option} and {option}s were both given; give one value or several to sweep over")
    return parse_integers(several)


def _compared(compare: str | None, methods: Sequence[str]) -> tuple[str, ...]:
    """The names given to `--compare`.

    Raises:
        ValueError: one is of a method that the run has not.
    """
    # A method at several settings has commas in its name: lrc@object=12,rank=64.
    names = () if compare is None else tuple(re.split(r"\s*,(?!(?:subject|object|rank)=)\s*", compare.strip()))
    for name in names:
        if name.split("@")[0] not in methods:
            raise ValueError(f"--compare {name}: it is none of the methods, {', '.join(methods)}")
    return names


def chosen_relations(folder: Path | None, only: str | None) -> tuple[dict[str, lrc.Relation], dict[Path, str]]:
    """The relations to run, and what is wrong with files that hold none; these are said on stderr.

    Raises:
        RuntimeError: there is no relation.
        LookupError: `only` names one that is not there.
    """
    errors: dict[Path, str] = {}
    if folder is None:
        relations = {name: lrc.load_relation(name) for name in lrc.built_in_relations()}
    else:
        relations, errors = lrc.load_relations(folder)
    for error in errors.values():
        say(error)
    if not relations:
        raise RuntimeError(f"there is no usable relation below {folder}")
    if only is None:
        return relations, errors
    chosen = [lrc.find_relation(relations, name) for name in only.split(",")]
    return {relation.name: relation for relation in chosen}, {}
