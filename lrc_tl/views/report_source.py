"""What a report is made of: a sweep, a benchmark's JSON file or its folder of results, or a tidy frame."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lrc_tl.errors import ArtifactError
from lrc_tl.experiments.record import LeftOutRelation
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.experiments.resuming import read_record, record_files
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.experiments.sweep_rows import COLUMNS
from lrc_tl.views.aggregating import described
from lrc_tl.views.figure import Figure
from lrc_tl.views.method_figures import plot_curve_summaries
from lrc_tl.views.plots import figures_of
from lrc_tl.views.tidy import CELL, tidy_frame

_BENCHMARK = "lrc_tl.benchmark"
_PROTOCOL = "lrc_tl.protocol_result"
_SWEEP = "lrc_tl.sweep"
_EDIT_FIELDS = {
    "causality": "causality",
    "hard_causality": "hard_causality",
    "edit_share": "edit_share",
    "unrelated_kl": "kl_elsewhere",
    "same_subject_kl": "kl_same_subject",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportSource:
    """The rows of a run, and what is known of how they came about."""

    kind: str
    """In the page's title: `Sweep`, `Benchmark`."""
    frame: pd.DataFrame
    figures: Mapping[str, Figure]
    model: Mapping[str, Any] = field(default_factory=dict)
    """The fingerprint's plain values."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[tuple[str, str]] = ()
    """What, and why."""
    comparisons: Sequence[Mapping[str, Any]] = ()
    """As in a benchmark's JSON file."""
    best: pd.DataFrame | None = None
    """Of a sweep: chosen on validation facts, with the value on test facts."""
    seconds: float | None = None
    command: str | None = None
    """What was typed, where that is stored."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Of a sweep: the `model` if it was given by name, and whether all relations are `built_in`."""
    origin: str = ""
    """The file or folder."""


def report_source(source: Any) -> ReportSource:
    """What a report is made of.

    Args:
        source: the folder of a sweep or of a benchmark's results, a JSON file of `lrc-tl benchmark` or of
            `ProtocolResult.save`, a `ProtocolResult`, a sweep's result, or a tidy frame.

    Raises:
        ArtifactError: a file or folder holds no results, or cannot be read.
        ResumeError: a folder's results are damaged or of different runs.
        TypeError, LookupError, ValueError: an object has no rows; see `tidy_frame`.
    """
    if not isinstance(source, (str, Path)):
        return _from_protocol(source) if isinstance(source, ProtocolResult) else _from_sweep(source)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; give the folder of a sweep, or a benchmark's JSON file")
    return _from_json(path)


def _from_folder(folder: Path) -> ReportSource:
    if (folder / "sweep.json").is_file():
        return _from_sweep(SweepResult.load(folder), origin=str(folder))
    files = record_files(folder)
    if not files:
        raise ArtifactError(
            f"{folder} holds neither a sweep nor a benchmark's results; give the --out folder of either, or the "
            "benchmark's --json file"
        )
    stored = read_record(files[0])
    return _from_protocol(
        ProtocolResult.load(folder), model=stored.model, settings=stored.settings, origin=str(folder)
    )


def _from_json(path: Path) -> ReportSource:
    try:
        data = json.loads(path.read_bytes().decode("utf-8"))
        schema = data["schema"]["name"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is no result file of lrc-tl ({error})") from error
    if schema == _PROTOCOL:
        return _from_protocol(ProtocolResult.load(path), origin=str(path))
    reads = _from_sweep_file if schema == _SWEEP and "rows" in data else _from_benchmark
    if schema != _BENCHMARK and reads is _from_benchmark:
        raise ArtifactError(
            f"{path} is a result of {schema}; a report is made of a benchmark's JSON file, or of a sweep's folder"
        )
    try:
        return reads(data, path)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is no whole result of {schema.replace('lrc_tl.', 'lrc-tl ')} ({error!r:.300})"
        ) from error


def _from_benchmark(data: Mapping[str, Any], path: Path) -> ReportSource:
    """The JSON file has each relation's numbers at the first beta, and curves as means with their intervals."""
    facts = {(row["relation"], row["seed"]): row for row in data["relations"]}
    rows = [
        row
        for method in data["methods"]
        for of_relation in method["per_relation"]
        for row in _relation_rows(method, of_relation, facts)
    ]
    frame = tidy_frame(pd.DataFrame(rows, columns=list(COLUMNS)))
    figures = figures_of(frame)
    last = {"relations": figures.pop("relations")} if "relations" in figures else {}
    for metric in ("causality", "hard_causality"):
        curves = {entry["method"]: entry["curve"] for entry in data["methods"]}
        if any(sum(point["beta"] > 0 for point in curve) > 1 for curve in curves.values()):
            name = "curves" if metric == "causality" else "curves_hard"
            figures[name] = plot_curve_summaries(curves, metric=metric)
    settings = {name: value for name, value in data["settings"].items() if name != "command"}
    return ReportSource(
        kind="Benchmark",
        frame=frame,
        figures=figures | last,
        model=data["model"] or {},
        settings=settings,
        left_out=_left_out(data["relations_left_out"], data["seeds_left_out"]),
        comparisons=data["comparisons"],
        seconds=sum(data["seconds_by_stage"].values()),
        command=data["settings"].get("command"),
        origin=path.name,
    )


def _relation_rows(
    method: Mapping[str, Any], row: Mapping[str, Any], facts: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    prompts = facts.get((row["relation"], row["seed"]), {}).get("test_prompts", ())
    key = {
        "relation": row["relation"],
        "seed": row["seed"],
        "method": method["method"].split("@")[0],
        **{name: row[name] for name in ("subject_layer", "object_layer", "rank")},
        "noise": row.get("noise"),
    }
    on_prompts = {"n": row["n_prompts"], "n_facts": len({tuple(prompt[1:]) for prompt in prompts}) or None}
    rows = [
        {**key, "reading": reading, "metric": metric, "value": row[name], **on_prompts}
        for name, metric, reading in (
            ("accuracy", "accuracy", "plain"),
            ("accuracy_centred", "accuracy", "centred"),
            ("accuracy_calibrated", "accuracy", "calibrated"),
            ("top3", "top3", "plain"),
        )
    ]
    rows.append({**key, "metric": "chance", "value": row["chance"], **on_prompts})
    if row.get("beta") is not None:
        rows += [
            {**key, "beta": row["beta"], "place": "all", "metric": metric, "value": row[name], "n": row["n_edits"]}
            for name, metric in _EDIT_FIELDS.items()
            if row.get(name) is not None
        ]
    return rows


def _from_protocol(
    result: ProtocolResult,
    *,
    model: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    origin: str = "",
) -> ReportSource:
    seconds = sum(
        sum(record.seconds.values()) for record in result.records if not isinstance(record, LeftOutRelation)
    )
    return ReportSource(
        kind="Benchmark",
        frame=tidy_frame(result),
        figures=figures_of(result),
        model=model or {},
        settings=settings or {},
        left_out=_left_out(result.relations_left_out, result.seeds_left_out),
        comparisons=result.to_dict()["comparisons"],
        seconds=seconds,
        origin=origin,
    )


def _left_out(relations: Mapping[str, str], seeds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    single = [(f"{entry['relation']}, seed {entry['seed']}", entry["reason"]) for entry in seeds]
    return [*relations.items(), *single]


def _from_sweep(result: Any, *, origin: str = "") -> ReportSource:
    """A `SweepResult`, or a frame, of which nothing but the rows is known."""
    frame = tidy_frame(result)
    if isinstance(result, pd.DataFrame):
        return ReportSource(kind="Sweep", frame=frame, figures=figures_of(frame), origin=origin)
    head: dict[str, Any] = {}
    if result.folder is not None:
        head = json.loads((result.folder / "sweep.json").read_text(encoding="utf-8"))
    chosen_on_validation = bool((frame["metric"] == "validation_accuracy").any())
    return ReportSource(
        kind="Sweep",
        frame=frame,
        figures=figures_of(frame),
        model=result.model,
        settings=result.settings.to_dict(),
        left_out=[(_named_row(row), str(row["reason"])) for _, row in result.left_out.iterrows()],
        best=result.best() if chosen_on_validation else None,
        seconds=sum(result.seconds.values()),
        asked=head.get("asked", {}),
        origin=origin or str(result.folder or ""),
    )


def _from_sweep_file(data: Mapping[str, Any], path: Path) -> ReportSource:
    """The JSON file of `lrc-tl sweep` has the rows, and no outcomes of single facts."""
    frame = tidy_frame(pd.DataFrame(data["rows"], columns=list(COLUMNS)))
    return ReportSource(
        kind="Sweep",
        frame=frame,
        figures=figures_of(frame),
        model=data["model"] or {},
        settings=data["settings"],
        seconds=data["seconds"],
        origin=path.name,
    )


def _named_row(row: pd.Series) -> str:
    """What was left out: a relation and seed, or one setting of them."""
    words = [str(row["relation"]), f"seed {row['seed']}"]
    if isinstance(row["method"], str):
        words.append(row["method"])
        words += [described(name, row[name]) for name in CELL if not pd.isna(row[name])]
    return ", ".join(words)
