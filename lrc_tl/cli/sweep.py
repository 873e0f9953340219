"""`lrc-tl sweep` and `lrc-tl merge`: their options, and what they mean for `run_sweep` and `merge_sweeps`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lrc_tl as lrc
from lrc_tl.cli.benchmark import chosen_relations
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    METHODS_AT_LAST,
    METHODS_LISTED,
    Device,
    Dtype,
    Json,
    Model,
    Only,
    Run,
    bad_usage,
    print_table,
    print_text,
    remark,
    torch_dtype,
)
from lrc_tl.cli.completing import several_methods, several_metrics, several_places, solver_names
from lrc_tl.cli.ranges import parse_integers, parse_numbers
from lrc_tl.experiments.sweep_metrics import METRICS, OF_EDITS, WITH_OUTCOMES, validation_name
from lrc_tl.experiments.sweep_settings import PLACES, SweepSettings

if TYPE_CHECKING:  # imports torch
    from lrc_tl.experiments.sweep_plan import SweepPlan
    from lrc_tl.experiments.sweep_record import SweepRecord
    from lrc_tl.experiments.sweep_result import SweepResult

_DEFAULTS = SweepSettings(subject_layers=0, methods="mean")
_METRICS_LISTED = "\b\nMetrics:\n" + "\n".join(f"  {name:18}{summary}." for name, summary in METRICS.items())
SWEEP_EPILOG = f"{METHODS_LISTED}\n\n{_METRICS_LISTED}"


def _by_default(name: str) -> str:
    value = getattr(_DEFAULTS, name)
    values = value if isinstance(value, tuple) else (value,)
    return f"{','.join(map(str, values))} by default"


def sweep(
    model: Model,
    folder: Annotated[
        Path | None,
        typer.Option("--relations", exists=True, file_okay=False, metavar="DIR", help="Else the built-in ones."),
    ] = None,
    only: Only = None,
    methods: Annotated[
        str,
        typer.Option("--methods", metavar="NAME,...", autocompletion=several_methods, help="Of those below."),
    ] = ",".join(SweepSettings.methods),
    subject_layers: Annotated[
        str | None, typer.Option("--subject-layers", metavar="A:B", help="Such as 4:12 or 4,8,-1.")
    ] = None,
    object_layers: Annotated[
        str | None,
        typer.Option("--object-layers", metavar="A:B", help=f"{METHODS_AT_LAST} have the last."),
    ] = None,
    ranks: Annotated[str | None, typer.Option("--ranks", help="Such as 64,128.")] = None,
    ridges: Annotated[str | None, typer.Option("--ridges", help="Of methods with one; else their own.")] = None,
    noises: Annotated[
        str | None, typer.Option("--noises", help="Of lrc-map and lrc-map-given; else chosen on training facts.")
    ] = None,
    betas: Annotated[str | None, typer.Option("--betas", help=f"Sizes of edits, {_by_default('betas')}.")] = None,
    places: Annotated[
        str | None,
        typer.Option(
            "--places",
            autocompletion=several_places,
            help="Where edits act: " + "; ".join(f"{k}: {v}" for k, v in PLACES.items()),
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="NAME,...", autocompletion=several_metrics, help=f"{_by_default('metrics')}."
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Such as 42,43 or 42:47.")] = None,
    max_lre_prompts: Annotated[
        str | None, typer.Option("--max-lre-prompts", help=f"Of each LRE, {_by_default('max_lre_prompts')}.")
    ] = None,
    shots: Annotated[
        str | None, typer.Option("--shots", help=f"Examples in training prompts, {_by_default('shots')}.")
    ] = None,
    max_facts: Annotated[
        int | None, typer.Option("--max-facts", min=2, help="Of each relation; else all.")
    ] = None,
    max_edits: Annotated[
        int | None, typer.Option("--max-edits", min=1, help="Of each relation and seed; else five per object.")
    ] = None,
    validation: Annotated[
        float, typer.Option("--validation", help="Share of the training facts held out to choose cells on.")
    ] = _DEFAULTS.validation,
    validation_edits: Annotated[
        int, typer.Option("--validation-edits", min=0, help="Edits of these, to choose by causality.")
    ] = _DEFAULTS.validation_edits,
    n_side_effects: Annotated[
        int, typer.Option("--side-effects", min=0, help="(edit, statement) pairs for the KL of each kind.")
    ] = _DEFAULTS.n_side_effects,
    solver: Annotated[
        str, typer.Option("--solver", autocompletion=solver_names, help="Of LREs: exact, or low_rank.")
    ] = _DEFAULTS.solver,
    split_seed: Annotated[
        int | None, typer.Option("--split-seed", help="Split the facts by this seed, the same for all seeds.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Keeps each finished unit; else FILE.parts.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from --out; axes may have grown, and only new cells run.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes, sharing threads.")] = None,
    devices: Annotated[
        str | None, typer.Option("--devices", metavar="D,...", help="One process each, such as cuda:0,cuda:1.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="The units of this shard of N; merge joins them.")
    ] = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Compare methods at many layers, ranks and strengths in one run that shares what it can."""
    if out is None and json_file is not None and not dry_run:
        out = json_file.with_name(f"{json_file.name}.parts")
    run = Run("sweep", locals(), outputs={"--out": out})
    with bad_usage():
        settings = _settings(run.settings)
        if workers is not None and devices is not None:
            raise ValueError("--workers and --devices were both given; each says where units run, so give one")
    if resume and out is None:
        raise typer.BadParameter(
            "--resume needs --out or --json, which say where the earlier run left its results"
        )
    run.settings |= settings.to_dict()
    relations, _ = chosen_relations(folder, only)
    run.require_apart(
        {"--relations": [Path(relation.source) for relation in relations.values()] if folder else None}
    )
    from lrc_tl.errors import ResumeError

    with bad_usage(but=ResumeError):
        plan = lrc.plan_sweep(model, relations, settings=settings, out=out, resume=resume, shard=shard)
    print_text(str(plan))
    if dry_run:
        from lrc_tl.models.sizes import model_sizes
        from lrc_tl.numerics import product_rate

        rate = product_rate(model_sizes(model).d_model, dtype=torch_dtype(dtype), device=device)
        seconds = plan.seconds(rate)
        print_text(
            f"time: at most about {_duration(seconds)}, one unit after another, at the {rate / 1e9:,.0f} x 10^9 "
            "operations a second that products of this width have here"
        )
        run.finish({"plan": plan.to_dict(), "rate": rate, "seconds_predicted": seconds})
        return
    on_record = _Said(plan)
    result = lrc.run_sweep(
        model,
        relations,
        settings=settings,
        out=out,
        resume=resume,
        workers=workers,
        devices=None if devices is None else [name.strip() for name in devices.split(",")],
        device=device,
        dtype=torch_dtype(dtype),
        shard=shard,
        on_record=on_record,
    )
    _finish(run, result)


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="A new folder for the whole sweep.")],
    json_file: Json = None,
) -> None:
    """Put the folders of a sweep's shards together."""
    run = Run("sweep", locals(), outputs={"--out": out})
    from lrc_tl.experiments import merge_sweeps  # imports torch

    _finish(run, merge_sweeps(folders, out=out))


class _Said:
    """One line per finished unit, with the time that is left."""

    def __init__(self, plan: "SweepPlan") -> None:
        self._plan, self._started = plan, time.perf_counter()
        self._records: list[SweepRecord] = []

    def __call__(self, record: "SweepRecord") -> None:
        self._records.append(record)
        reason = f" left out: {record.left_out}" if record.left_out else ""
        of = f"{len(self._records)} of {len(self._plan.units)}"
        left = self._left()
        remark(
            f"{record.relation} seed {record.seed}{reason} ({of}"
            f"{'' if left is None else f', about {_duration(left)} left'})"
        )

    def _left(self) -> float | None:
        """Seconds; None before a unit was evaluated."""
        if all(record.left_out for record in self._records):
            return None
        expected = self._plan.seconds_of_units(self._records)
        done = sum(expected[record.relation, record.seed] for record in self._records if not record.left_out)
        # On the clock, since several processes may be at work.
        return (time.perf_counter() - self._started) * self._plan.seconds_left(self._records) / done


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _settings(given: Mapping[str, Any]) -> SweepSettings:
    """The options as settings.

    Raises:
        ValueError: a list that cannot be read, or what the settings refuse.
    """
    readers = {
        **dict.fromkeys(("subject_layers", "object_layers", "ranks"), parse_integers),
        **dict.fromkeys(("seeds", "max_lre_prompts", "shots"), parse_integers),
        **dict.fromkeys(("ridges", "noises", "betas"), parse_numbers),
        **dict.fromkeys(("methods", "places", "metrics"), _names),
    }
    values: dict[str, Any] = {name: read(given[name]) for name, read in readers.items() if given[name] is not None}
    for name in ("max_facts", "max_edits", "validation", "validation_edits", "n_side_effects"):
        values[name] = given[name]
    return SweepSettings(**values, solver=given["solver"], split_seed=given["split_seed"])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _finish(run: Run, result: "SweepResult") -> None:
    """Show the best cells, and write the rows."""
    best = {}
    metrics = {*result.rows["metric"]}
    for by in WITH_OUTCOMES:
        if validation_name(by) in metrics:
            frame = result.best(by)
            best[by] = [
                {name: None if value is None or value != value else value for name, value in row.items()}
                for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
            ]
    for by, rows in best.items():
        if by in ("accuracy", "hard_causality"):
            print_text(f"Best cell of each method, chosen by {by} on validation facts; value is on test facts:")
            hidden = {"n_lre_prompts", "shots", "reading", *(() if by in OF_EDITS else ("beta", "place"))}
            shown = [name for name in rows[0] if name not in hidden and any(r[name] is not None for r in rows)]
            print_table([{name: "" if row[name] is None else row[name] for name in shown} for row in rows])
    if not best:
        print_text(f"{len(result.rows):,} rows; nothing to choose cells by, since there are no validation facts")
    if len(result.left_out):
        print_text(f"{len(result.left_out)} cells or relations were left out:")
        for reason, n in result.left_out["reason"].value_counts().items():
            print_text(f"  {n}: {reason}")
    if result.folder is not None:
        remark(f"wrote {result.folder / 'rows'}")
    frame = result.to_frame()
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records") if run.file is not None else []
    run.finish({"rows": rows, "best": best}, model=dict(result.model))
