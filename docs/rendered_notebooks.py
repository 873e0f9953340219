"""Notebooks as they are shown: the executed copies that `make notebooks` leaves, where they are of these cells."""

import json
import re
from pathlib import Path
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
NOTHING = re.compile(r"\s*<pre[^>]*>\s*</pre>\s*")
"""What a progress bar of rich leaves behind."""


def _sources(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"]]


def still(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook as it can be read without a kernel and without scripts.

    Progress bars go. A figure keeps its drawing, and loses what needs plotly's script.
    """
    cells = []
    for cell in notebook["cells"]:
        if "outputs" in cell:
            outputs = [_without_plotly(output) for output in cell["outputs"] if not _is_progress(output)]
            cell = {**cell, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _is_progress(output: dict[str, Any]) -> bool:
    data = output.get("data", {})
    return WIDGET in data or NOTHING.fullmatch("".join(data.get("text/html", ""))) is not None


def _without_plotly(output: dict[str, Any]) -> dict[str, Any]:
    data = output.get("data", {})
    if PLOTLY not in data or "text/html" not in data:
        return output
    return {**output, "data": {kind: value for kind, value in data.items() if kind != PLOTLY}}


def rendered_notebooks(notebooks: Path, executed: Path) -> dict[str, str]:
    """Text of each notebook by the path of its page: with outputs, if `executed` holds a run of the same cells."""
    pages = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        copy = executed / path.name
        if copy.exists():
            run = json.loads(copy.read_text(encoding="utf-8"))
            if _sources(run) == _sources(json.loads(text)):
                text = json.dumps(still(run), ensure_ascii=False, indent=1)
        pages[f"generated/notebooks/{path.name}"] = text
    return pages
