"""Notebooks as they are shown: the executed copies that `make notebooks` leaves, where they are of these cells."""

import json
from pathlib import Path
from typing import Any


def _sources(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"]]


def rendered_notebooks(notebooks: Path, executed: Path) -> dict[str, str]:
    """Text of each notebook by the path of its page: with outputs, if `executed` holds a run of the same cells."""
    pages = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        copy = executed / path.name
        if copy.exists():
            run = copy.read_text(encoding="utf-8")
            if _sources(json.loads(run)) == _sources(json.loads(text)):
                text = run
        pages[f"generated/notebooks/{path.name}"] = text
    return pages
