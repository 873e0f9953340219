"""The pages of the API reference: one for each public name, and one list for each wing, made from the stubs."""

import inspect
import re
import textwrap
from types import ModuleType
from typing import Any

import lrc_tl

FOLDER = "generated/api"
HELD = (
    "directions.calibration.Calibration",
    "directions.hub.OnHub",
    "directions.linear_probe.LinearProbe",
    "directions.probe_metrics.BinaryMetrics",
    "directions.probe_metrics.MulticlassMetrics",
    "directions.probe_metrics.ProbeReport",
    "directions.readouts.Word",
    "experiments.record.AskedEdit",
    "experiments.record.AskedPrompt",
    "experiments.sweep_costs.UnitCost",
    "experiments.sweep_outcomes.Outcomes",
    "experiments.sweep_record.CellRecord",
    "experiments.sweep_record.EditScores",
    "experiments.sweep_record.ShotsRecord",
    "experiments.sweep_request.UnitPlan",
    "lre.dual.NoiseChoice",
    "methods.method.MethodVariant",
    "models.hooking.Block",
    "models.hooking.Session",
    "models.jacobian_lens.JacobianLens",
    "numerics.contrasts.Separation",
    "numerics.covariance.Covariance",
    "numerics.dual.DualMap",
    "numerics.low_rank.Factors",
    "relations.prompts.Item",
    "relations.special_tokens.Tokenizing",
    "steering.along_vector.AlongVector",
    "steering.generation.SteersByStrength",
    "steering.places.LastTokenOf",
    "tuning.strength_result.StrengthPoint",
    "views.figure.Axis",
    "views.figure.HeatMap",
    "views.figure.Panel",
    "views.figure.Series",
    "views.figure.Spans",
)
"""Classes without a public name that public names take or hand out."""


def wings() -> dict[str, ModuleType]:
    """The public wings by name."""
    return {name: value for name in lrc_tl.__all__ if inspect.ismodule(value := getattr(lrc_tl, name))}


def names_of(wing: ModuleType) -> list[str]:
    """The public names of a wing; a wing of one file shows the classes that it defines."""
    listed = getattr(wing, "__all__", None)
    if listed is not None:
        return list(listed)
    return [name for name, value in vars(wing).items() if getattr(value, "__module__", None) == wing.__name__]


def places() -> dict[str, str]:
    """Where each public name is described, as `{"directions.ConceptSet": "lrc_tl.ConceptSet"}`.

    What stands at the top is described there, all else in its wing.
    """
    top = {name for name in lrc_tl.__all__ if name not in wings()}
    described = {name: f"lrc_tl.{name}" for name in sorted(top)}
    for wing_name, wing in wings().items():
        for name in names_of(wing):
            at_top = name in top and getattr(lrc_tl, name) is getattr(wing, name)
            described[f"{wing_name}.{name}"] = f"lrc_tl.{name}" if at_top else f"lrc_tl.{wing_name}.{name}"
    return described


def first_sentence(value: Any) -> str:
    """What a table says of a name: the first paragraph of its docstring up to the first full stop."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return ""
    paragraph = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<!et al)(?<!eq)\. ", paragraph)[0].rstrip(".:") + "."


def _underlined(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def _name_page(place: str, value: Any) -> str:
    kind = "autoclass" if inspect.isclass(value) else "autofunction" if inspect.isfunction(value) else "autodata"
    options = "\n   :no-value:" if kind == "autodata" else ""
    module, name = place.rsplit(".", 1)
    return f"{_underlined(name)}\n.. currentmodule:: {module}\n\n.. {kind}:: {place}{options}\n"


def _table(rows: list[tuple[str, Any]]) -> str:
    lines = [".. list-table::", "   :widths: 1 2", "   :class: names", ""]
    for place, value in rows:
        lines += [f"   * - :doc:`{place.split('.')[-1]} <{place}>`", f"     - {first_sentence(value)}"]
    return "\n".join(lines) + "\n"


def _toctree(documents: list[str]) -> str:
    return ".. toctree::\n   :hidden:\n\n" + textwrap.indent("\n".join(documents), "   ") + "\n"


def reference_pages() -> dict[str, str]:
    """All pages by path: `index`, one list for the top and for each wing, and a page for each name."""
    described = places()
    top = [name for name in described if "." not in name]
    pages = {f"{FOLDER}/{described[name]}.rst": _name_page(described[name], getattr(lrc_tl, name)) for name in top}
    lists = {"top": ("The names at the top", "What stands in ``lrc_tl`` itself.", [])}
    lists["top"][2].extend((described[name], getattr(lrc_tl, name)) for name in top)
    for wing_name, wing in wings().items():
        rows = [(described[f"{wing_name}.{name}"], getattr(wing, name)) for name in names_of(wing)]
        for place, value in rows:
            pages.setdefault(f"{FOLDER}/{place}.rst", _name_page(place, value))
        lists[wing_name] = (f"lrc_tl.{wing_name}", inspect.getdoc(wing).split("\n")[0], rows)
    held = "\n".join(f".. autoclass:: lrc_tl.{path}\n" for path in HELD)
    pages[f"{FOLDER}/held.rst"] = (
        f"{_underlined('What public names take and hand out')}\n"
        f"Classes that are met on the way. They are reached by what holds them, not imported.\n\n{held}"
    )
    for name, (title, sentence, rows) in lists.items():
        documents = [place for place, _ in rows if name == "top" or place.startswith(f"lrc_tl.{name}.")]
        body = f"{_underlined(title)}\n{sentence}\n\n{_table(rows)}\n{_toctree(documents)}"
        pages[f"{FOLDER}/{name}.rst"] = body
    return pages
