"""Named sets of benchmark settings. Needs no torch."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

TABLE_METHODS = ("lrc", "lrc-final", "svm", "logistic", "mean")
"""The methods of the paper's table 5, with logistic regression beside them."""

_DEFAULTS: dict[str, Any] = {
    "methods": TABLE_METHODS,
    "beta": None,
    "seeds": (42,),
    "max_lre_prompts": 20,
    "max_facts": None,
    "shots": 4,
    "subject_layer": None,
    "object_layer": None,
    "rank": None,
}
PRESETS: dict[str, dict[str, Any]] = {
    # arXiv:2311.08968, table 5: all facts; hours on a GPU with a 7-billion-parameter model.
    "table5": {"beta": (0.1,), "seeds": (42, 43, 44, 45, 46)},
    # The same with fewer facts and a causality curve, for two CPU cores and a small model.
    "table5-small": {
        "beta": (0.1, 0.01, 0.05, 0.2, 0.4),
        "seeds": (42, 43, 44),
        "max_lre_prompts": 10,
        "max_facts": 60,
    },
}
# The paper's for its two models; for Gemma, those of the comparison with the authors' library.
_LAYERS = {
    "llama-2-7b": {"subject_layer": 17, "object_layer": 21, "rank": 192},
    "gpt-j-6b": {"subject_layer": 14, "object_layer": 20, "rank": 192},
    "gemma-3-270m": {"subject_layer": 9, "object_layer": 13, "rank": 64},
}


def benchmark_settings(
    given: Mapping[str, Any], *, model: str, preset: str | None = None, select: bool = False
) -> dict[str, Any]:
    """Settings for `run_protocol`: what is given (not None), else the preset's, else the defaults.

    A preset brings layers and rank for the models that it knows; with `select` it brings neither these nor betas.

    Raises:
        LookupError: no such preset; the text lists them.
        ValueError: layers or rank are neither given nor known for the model, and are not to be selected.
    """
    settings = dict(_DEFAULTS)
    if preset is not None:
        if preset not in PRESETS:
            near = get_close_matches(preset, PRESETS, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(PRESETS)}"
            raise LookupError(f"no preset {preset!r}; {hint}")
        settings |= PRESETS[preset]
        settings |= {"beta": None} if select else _layers(model)
    settings |= {name: value for name, value in given.items() if value is not None}
    if not select and (
        missing := [name for name in ("subject_layer", "object_layer", "rank") if settings[name] is None]
    ):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise ValueError(f"{options} must be given, or --select, which chooses on training facts")
    return settings


def _layers(model: str) -> dict[str, int]:
    """Layers and rank for a model by the last part of its name, whatever its case; empty where none are known."""
    last = model.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].casefold()
    return _LAYERS.get(last.removesuffix("-hf"), {})
