"""`lrc-tl rerun`: a result file made again by its own settings, and the figures compared."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lrc_tl.cli.common import Json, Run, print_table, print_text, require_finite
from lrc_tl.errors import ResultFileError
from lrc_tl.storage.json_fields import conforms
from lrc_tl.storage.json_results import HEAD

RTOL, ATOL = 1e-4, 1e-6
LEAST_COSINE = 0.9999
"""Of directions that a fit saved, where its file is still there, to those that are made again."""
_OUTPUTS = ("out", "plots", "json_file")
_NOT_REPEATED = (*_OUTPUTS, "resume", "preset", "command")
"""Settings that say where to write, or what the other settings hold in full."""
_NOT_FIGURES = (*HEAD, "out", "source", "file", "bytes", "checksum")
_SHOWN = 20
_MISSING = "(missing)"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure that came out otherwise."""

    place: str
    """Where it stands in the file, as `methods[0].accuracy.mean`."""
    before: Any
    now: Any


def rerun(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="RESULT.json", exists=True, dir_okay=False, help="What --json of a command wrote."),
    ],
    rtol: Annotated[float, typer.Option("--rtol", min=0.0, help="Figures may differ by this share ...")] = RTOL,
    atol: Annotated[float, typer.Option("--atol", min=0.0, help="... or by this much.")] = ATOL,
    model: Annotated[str | None, typer.Option("--model", help="In place of the stored one.")] = None,
    relations: Annotated[
        Path | None, typer.Option("--relations", exists=True, help="Their folder or file, where that has moved.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="In place of the stored one.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="In place of the stored one.")] = None,
    json_file: Json = None,
) -> None:
    """Run a command again by what its result file says, and compare: exit code 0 where all is the same, else 1.

    Counts, names and texts must be equal, other numbers within --rtol or --atol. Times, memory and versions are
    not compared; nothing of the first run is written over.
    """
    arguments: dict[str, Any] = {"file": file, "rtol": rtol, "atol": atol, "model": model, "relations": relations}
    run = Run(
        "rerun",
        {**arguments, "device": device, "dtype": dtype, "json_file": json_file},
        inputs={"RESULT.json": file},
    )
    for option, value in (("--rtol", rtol), ("--atol", atol)):
        require_finite(option, value)
    before = read_result(file)
    kind = before["schema"]["name"].removeprefix("lrc_tl.")
    command = _command(context, kind, before, file)
    changes = {"model": model, "folder": relations, "relation": relations, "device": device, "dtype": dtype}
    settings = {**before["settings"]}
    settings |= {name: value for name, value in changes.items() if value is not None and name in settings}
    place = Path(tempfile.mkdtemp(prefix="lrc_tl_rerun_"))
    try:
        words = arguments_of(command.params, settings, place)
        print_text(f"lrc-tl {kind} {' '.join(words)}")
        command.main(
            [*words, "--json", str(place / "result.json")], prog_name=f"lrc-tl {kind}", standalone_mode=False
        )
        now = read_result(place / "result.json")
        n_compared, differences = compared(before, now, rtol=rtol, atol=atol)
        differences = [*_of_models(before["model"], now["model"]), *differences]
        differences += _of_directions(before["settings"].get("out"), place / "out") if kind == "fit" else []
    finally:
        shutil.rmtree(place)
    if differences:
        shown = [{"figure": d.place, "before": str(d.before)[:60], "now": str(d.now)[:60]} for d in differences]
        print_table(shown[:_SHOWN])
    run.finish(
        {
            "same": not differences,
            "command": ["lrc-tl", kind, *words],
            "n_compared": n_compared,
            "differences": [asdict(difference) for difference in differences],
        },
        model=now["model"],
    )
    if differences:
        raise RuntimeError(
            f"{len(differences)} of {n_compared} figures of {file} differ, beyond rtol {rtol:g} and atol {atol:g}"
        )
    print_text(f"the same: {n_compared} figures, within rtol {rtol:g} and atol {atol:g}")


def read_result(path: Path) -> dict[str, Any]:
    """The fields of a result file of any command.

    Raises:
        ResultFileError: it cannot be read, or is none.
    """
    try:
        data = json.loads(path.read_bytes().decode("utf-8"))
        if not conforms(data, dict[str, Any]) or not conforms(data.get("schema"), dict[str, Any]):
            raise ValueError("it has no schema")
        name = data["schema"].get("name")
        if (
            not isinstance(name, str)
            or not name.startswith("lrc_tl.")
            or not isinstance(data.get("settings"), dict)
        ):
            raise ValueError(f"its schema is {name!r:.60}")
    except (OSError, ValueError, RecursionError) as error:
        raise ResultFileError(f"{path} is no result file of lrc-tl ({error})") from error
    return {**dict.fromkeys(HEAD), **data}


def _command(context: typer.Context, kind: str, data: Mapping[str, Any], file: Path) -> Any:
    """The command that wrote a file of this kind.

    Raises:
        ResultFileError: there is none, or the file does not say what the command was given.
    """
    group = context.parent.command if context.parent is not None else None
    command = getattr(group, "commands", {}).get(kind)
    if command is None or kind in ("rerun", "report"):
        raise ResultFileError(f"{file} is a result of lrc_tl.{kind}, which is no command that can be run again")
    given = data["settings"]
    if missing := [
        parameter.name for parameter in command.params if parameter.required and parameter.name not in given
    ]:
        merged = "; a merged sweep is repeated shard by shard" if "folders" in given else ""
        raise ResultFileError(f"{file} does not say its {', '.join(missing)}, so it cannot be run again{merged}")
    return command


def arguments_of(parameters: Sequence[Any], settings: Mapping[str, Any], place: Path) -> list[str]:
    """The words of a command line that stands for these settings and writes nowhere but into the folder `place`.

    Settings that no parameter is called by are what others were turned into, and are left out.
    """
    words: list[str] = []
    for parameter in parameters:
        value = settings.get(parameter.name)
        if parameter.name == "out" and parameter.required:
            value = place / "out"
        elif parameter.name in _NOT_REPEATED:
            continue
        if value is None or value is False or value == [] or value == ():
            continue
        if parameter.param_type_name == "argument":
            words += [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
            continue
        words.append(parameter.opts[0])
        if value is not True:
            words.append(",".join(map(_word, value)) if isinstance(value, (list, tuple)) else _word(value))
    return words


def _word(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def compared(before: Any, now: Any, *, rtol: float, atol: float) -> tuple[int, list[Difference]]:
    """How many figures two results have, and those that differ: of their results, not of their heads."""
    pairs = list(_pairs(before, now, ""))
    differing = [(place, old, new) for place, old, new in pairs if not _is_same(old, new, rtol, atol)]
    return len(pairs), [Difference(place=place, before=old, now=new) for place, old, new in differing]


def _pairs(before: Any, now: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if key in _NOT_FIGURES or key.startswith("seconds"):
                continue
            inner = f"{place}.{key}" if place else key
            yield from _pairs(before.get(key, _MISSING), now.get(key, _MISSING), inner)
    elif isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            yield f"{place} (how many)", len(before), len(now)
        for number, (old, new) in enumerate(zip(before, now, strict=False)):
            yield from _pairs(old, new, f"{place}[{number}]")
    else:
        yield place, before, now


def _is_same(before: Any, now: Any, rtol: float, atol: float) -> bool:
    # A whole number is a count, but JSON writes 1.0 of some programs as 1.
    if isinstance(before, float) or isinstance(now, float):
        numbers = [
            value for value in (before, now) if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        return len(numbers) == 2 and math.isclose(before, now, rel_tol=rtol, abs_tol=atol)
    return type(before) is type(now) and bool(before == now)


def _of_models(before: Any, now: Any) -> list[Difference]:
    """One difference where it is another model, or the same in another precision."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return []
    from lrc_tl.experiments.resuming import model_difference  # imports torch

    difference = model_difference(before, now)
    return [Difference(place="model", before=before.get("name"), now=difference)] if difference else []


def _of_directions(stored: Any, made: Path) -> list[Difference]:
    """Directions of a fit that now point elsewhere, where the file that it saved is still there."""
    if not isinstance(stored, str) or not Path(stored).is_file() or not made.is_file():
        return []
    import lrc_tl as lrc

    before, now = lrc.ConceptSet.load(stored), lrc.ConceptSet.load(made)
    if set(before) != set(now):
        return []  # the objects are figures of the result
    cosines = {name: float(before[name].vector.double() @ now[name].vector.double()) for name in before}
    return [
        Difference(place=f"cosine of {name!r} to itself in {stored}", before=1.0, now=cosine)
        for name, cosine in cosines.items()
        if not cosine >= LEAST_COSINE
    ]
