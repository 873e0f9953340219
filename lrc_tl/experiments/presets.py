"""Named sets of benchmark settings: the tables and figures of the paper, in two sizes. Needs no torch.

`NAME` is the paper's size: all facts, 20 LRE prompts, five seeds; hours on a GPU with Llama-2-7b or GPT-J.
`NAME-small` fits two CPU cores and a packaged model: 60 facts of each relation, 10 LRE prompts, fewer seeds and
settings.
"""

from collections.abc import Mapping
from typing import Any

from lrc_tl.arguments.near_names import did_you_mean

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
    "subject_layers": (),
    "object_layers": (),
    "ranks": (),
    "single_layer": False,
    "random_model": False,
    "fit_method": "exact",
    "split_seed": None,
}
_PAPER_BETA = 0.1
"""Of the paper's edits (arXiv:2311.08968); heads every preset. The default elsewhere is in
`lrc_tl.directions.beta`."""
_FULL: dict[str, Any] = {"beta": (_PAPER_BETA,), "seeds": (42, 43, 44, 45, 46)}
_SMALL: dict[str, Any] = {"beta": (_PAPER_BETA,), "seeds": (42,), "max_lre_prompts": 10, "max_facts": 60}
_CURVE: dict[str, Any] = {"beta": (_PAPER_BETA, 0.01, 0.05, 0.2, 0.4), "seeds": (42, 43, 44)}
_PAIR: dict[str, Any] = {"methods": ("lrc", "svm")}
_BY_OBJECT: dict[str, Any] = {"methods": ("lrc-same-object", "lrc-other-objects")}
_LRC: dict[str, Any] = {"methods": ("lrc",)}

PRESETS: dict[str, dict[str, Any]] = {
    # arXiv:2311.08968. Table 5: all methods, accuracy and causality; the small one with a curve over beta.
    "table5": _FULL,
    "table5-small": _SMALL | _CURVE,
    # Table 6: each direction from an LRE of its own object's prompts, or from all others'.
    "table6": _FULL | _BY_OBJECT,
    "table6-small": _SMALL | _BY_OBJECT,
    # Tables 7 and 8 (one for each of the paper's models): z-tests per seed, under `comparisons` in the result.
    "table7": _FULL,
    "table7-small": _SMALL | {"seeds": (42, 43, 44)},
    "table8": _FULL,
    "table8-small": _SMALL | {"seeds": (42, 43, 44)},
    # Figure 3: LRC against the SVM, relation by relation; drawn by `plot_relations`.
    "fig3": _FULL | _PAIR,
    "fig3-small": _SMALL | _PAIR,
    # Figures 4 and 5: over object layers, apart for objects of one token and of several (`by_object_tokens`).
    "fig4": _FULL | _LRC | {"object_layers": 1},
    "fig4-small": _SMALL | _LRC | {"object_layers": 2},
    "fig5": _FULL | _LRC | {"object_layers": 1},
    "fig5-small": _SMALL | _LRC | {"object_layers": 2},
    # Figure 6: over ranks.
    "fig6": _FULL | _LRC | {"ranks": (16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)},
    "fig6-small": _SMALL | _LRC | {"ranks": (8, 16, 32, 64, 128, 192, 256)},
    # Figure 7: over subject layers.
    "fig7": _FULL | _LRC | {"subject_layers": 1},
    "fig7-small": _SMALL | _LRC | {"subject_layers": 2},
    # The size of the edit, for every method, with single-layer edits beside. On Gemma edits of .003 at all layers
    # do most of what larger ones do.
    "betas": _FULL
    | {"beta": (_PAPER_BETA, 0.001, 0.003, 0.01, 0.02, 0.05, 0.15, 0.2, 0.3, 0.4, 0.6), "single_layer": True},
    "betas-small": _SMALL | {"beta": (_PAPER_BETA, 0.001, 0.003, 0.01, 0.05, 0.2, 0.4), "single_layer": True},
}
"""Settings by name. A whole number for a range of layers is its step, over the model's layers."""
# The paper's for its two models; for Gemma, those of the comparison with the authors' library; for SmolLM2, at the
# same shares of the depth and width as for Llama.
_MODELS = {
    "llama-2-7b": {"subject_layer": 17, "object_layer": 21, "rank": 192, "n_layers": 32},
    "gpt-j-6b": {"subject_layer": 14, "object_layer": 20, "rank": 192, "n_layers": 28},
    "gemma-3-270m": {"subject_layer": 9, "object_layer": 13, "rank": 64, "n_layers": 18},
    "smollm2-135m": {"subject_layer": 16, "object_layer": 20, "rank": 64, "n_layers": 30},
}
_ONE_OF = {"subject_layers": "subject_layer", "object_layers": "object_layer", "ranks": "rank"}


def benchmark_settings(
    given: Mapping[str, Any], *, model: str, preset: str | None = None, select: bool = False
) -> dict[str, Any]:
    """Settings for `run_protocol`: what is given (not None), else the preset's, else the defaults.

    A preset brings layers and rank for the models that it knows; with `select` it brings neither these nor betas.
    What is given for a layer or rank takes the place of the preset's range, and the other way round.

    Raises:
        LookupError: no such preset; the text lists them.
        ValueError: layers or rank are neither given nor known for the model, and are not to be selected; or they
            are to be selected and the preset sweeps over them.
    """
    own: dict[str, Any] = {}
    if preset is not None:
        if preset not in PRESETS:
            raise LookupError(f"no preset {preset!r}; {did_you_mean(preset, PRESETS, n=2)}")
        own = dict(PRESETS[preset])
        swept = [name for name in _ONE_OF if name in own]
        if select and swept:
            raise ValueError(f"preset {preset!r} sweeps over {', '.join(swept)}, which --select would choose")
        own |= {"beta": None} if select else _places(model, own)
    chosen = {name: value for name, value in given.items() if value is not None}
    for several, one in _ONE_OF.items():
        if one in chosen:
            own.pop(several, None)
        if several in chosen or several in own:
            own.pop(one, None)
        if isinstance(own.get(several), int):
            if several not in chosen:
                raise ValueError(
                    f"preset {preset!r} does not know the layers of {model!r}; give --{several.replace('_', '-')}"
                )
            own.pop(several)
    settings = _DEFAULTS | own | chosen
    if not select and (
        missing := [one for several, one in _ONE_OF.items() if settings[one] is None and not settings[several]]
    ):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise ValueError(f"{options} must be given, or --select, which chooses on training facts")
    return settings


def _places(model: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Layers and rank for a model by the last part of its name, whatever its case; empty where none are known."""
    last = model.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].casefold()
    known = _MODELS.get(last.removesuffix("-hf"))
    if known is None:
        return {}
    places: dict[str, Any] = {name: known[name] for name in _ONE_OF.values()}
    if "object_layers" in own:
        places["object_layers"] = tuple(range(known["subject_layer"] + 1, known["n_layers"], own["object_layers"]))
    if "subject_layers" in own:
        places["subject_layers"] = tuple(range(0, known["object_layer"], own["subject_layers"]))
    return places
