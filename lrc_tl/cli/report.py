"""`lrc-tl report`: a result as one HTML file, with the command that repeats it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrc_tl.cli.common import Json, Run, print_text, remark
from lrc_tl.storage.json_results import check_target

if TYPE_CHECKING:  # imports torch
    from lrc_tl.views.report_source import ReportSource


def report(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, help="A sweep's folder, or a benchmark's --out folder or --json file."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="F.html", dir_okay=False, help="Else DIR/report.html.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Write a sweep or a benchmark as one HTML file: headline, figures, tables that sort, what was left out."""
    from lrc_tl.views.figure import require  # imports torch
    from lrc_tl.views.report import headline, report_path, write_report
    from lrc_tl.views.report_source import report_source

    target = report_path(source) if out is None else out
    arguments = {"source": source, "out": target, "json_file": json_file}
    run = Run("report", arguments, outputs={"--out": target}, inputs={"DIR": source if source.is_file() else None})
    require("matplotlib")
    check_target(target)
    read = report_source(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_report(read, target, command=read.command or _command(context, read))
    print_text(headline(read))
    size = target.stat().st_size
    remark(f"wrote {target} ({size / 1024:.0f} KiB)")
    run.finish({"out": target, "bytes": size, "headline": headline(read), "figures": list(read.figures)})


def _command(context: typer.Context, source: "ReportSource") -> str | None:
    """The command line of the stored settings; None where they do not say which layers."""
    name = source.kind.lower()
    group = context.parent.command if context.parent is not None else None
    command = getattr(group, "commands", {}).get(name)
    if command is None or not source.settings:
        return None
    given = {"model": source.asked.get("model") or source.model.get("name"), **source.settings}
    if "betas" in given:
        given.setdefault("beta", given["betas"])
    if not given.get("folder") and not given.get("only"):
        if not source.asked.get("built_in", True):
            given["folder"] = "DIR"
        given["only"] = list(map(str, source.frame["relation"].cat.categories))
    return repeating_command(name, command.params, given)


def repeating_command(name: str, parameters: Any, given: Mapping[str, Any]) -> str:
    """`lrc-tl NAME` with the options that have other values than by default."""
    words = ["lrc-tl", name]
    for parameter in parameters:
        value = given.get(parameter.name)
        if parameter.name == "resume" or value is None or value is False or value == parameter.default:
            continue
        if isinstance(value, (list, tuple)):
            if not value:
                continue
            value = ",".join(f"{entry:g}" if isinstance(entry, float) else str(entry) for entry in value)
        words.append(parameter.opts[0])
        if value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.join(words)
