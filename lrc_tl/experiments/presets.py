"""Named sets of benchmark settings: the tables and figures of the paper, in two sizes. Needs no torch.

`NAME` is the paper's size: all facts, 20 LRE prompts, five seeds; hours on a GPU with Llama-2-7b or GPT-J.
`NAME-small` fits two CPU cores and a packaged model: 60 facts of each relation, 10 LRE prompts, fewer seeds and
settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.experiments.settings import DEFAULT_SEEDS, TABLE_METHODS, ExperimentSettings
from lrc_tl.methods.method import require_methods

_PAPER_BETA = 0.1
"""Of the paper's edits (arXiv:2311.08968); heads every preset. The default elsewhere is in
`lrc_tl.directions.beta`."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A table or figure of the paper, without the layers and rank that belong to a model."""

    settings: ExperimentSettings
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    methods: tuple[str, ...] = TABLE_METHODS
    object_layer_step: int | None = None
    """Sweep over the object layers above the model's subject layer, in steps of this."""
    subject_layer_step: int | None = None
    """Sweep over the subject layers below the model's object layer, in steps of this."""

    @property
    def swept(self) -> tuple[str, ...]:
        """Names of the layers or ranks that the preset sweeps over."""
        steps = {"object_layers": self.object_layer_step, "subject_layers": self.subject_layer_step}
        return (*self.settings.swept, *(name for name, step in steps.items() if step is not None))


_FULL = Preset(settings=ExperimentSettings(betas=_PAPER_BETA), seeds=(42, 43, 44, 45, 46))
_SMALL = Preset(settings=replace(_FULL.settings, max_lre_prompts=10, max_facts=60))
_SMALL_THREE_SEEDS = replace(_SMALL, seeds=(42, 43, 44))
_FULL_LRC = replace(_FULL, methods=("lrc",))
_SMALL_LRC = replace(_SMALL, methods=("lrc",))
_PAIR = ("lrc", "svm")
_BY_OBJECT = ("lrc-same-object", "lrc-other-objects")
_CURVE = (_PAPER_BETA, 0.01, 0.05, 0.2, 0.4)
_RANKS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
_FEW_RANKS = (8, 16, 32, 64, 128, 192, 256)
_BETAS = (_PAPER_BETA, 0.001, 0.003, 0.01, 0.02, 0.05, 0.15, 0.2, 0.3, 0.4, 0.6)
_FEW_BETAS = (_PAPER_BETA, 0.001, 0.003, 0.01, 0.05, 0.2, 0.4)

PRESETS: dict[str, Preset] = {
    # arXiv:2311.08968. Table 5: all methods, accuracy and causality; the small one with a curve over beta.
    "table5": _FULL,
    "table5-small": replace(_SMALL_THREE_SEEDS, settings=replace(_SMALL.settings, betas=_CURVE)),
    # Table 6: each direction from an LRE of its own object's prompts, or from all others'.
    "table6": replace(_FULL, methods=_BY_OBJECT),
    "table6-small": replace(_SMALL, methods=_BY_OBJECT),
    # Tables 7 and 8 (one for each of the paper's models): z-tests per seed, under `comparisons` in the result.
    "table7": _FULL,
    "table7-small": _SMALL_THREE_SEEDS,
    "table8": _FULL,
    "table8-small": _SMALL_THREE_SEEDS,
    # Figure 3: LRC against the SVM, relation by relation; drawn by `plot_relations`.
    "fig3": replace(_FULL, methods=_PAIR),
    "fig3-small": replace(_SMALL, methods=_PAIR),
    # Figures 4 and 5: over object layers, apart for objects of one token and of several (`by_object_tokens`).
    "fig4": replace(_FULL_LRC, object_layer_step=1),
    "fig4-small": replace(_SMALL_LRC, object_layer_step=2),
    "fig5": replace(_FULL_LRC, object_layer_step=1),
    "fig5-small": replace(_SMALL_LRC, object_layer_step=2),
    # Figure 6: over ranks.
    "fig6": replace(_FULL_LRC, settings=replace(_FULL.settings, ranks=_RANKS)),
    "fig6-small": replace(_SMALL_LRC, settings=replace(_SMALL.settings, ranks=_FEW_RANKS)),
    # Figure 7: over subject layers.
    "fig7": replace(_FULL_LRC, subject_layer_step=1),
    "fig7-small": replace(_SMALL_LRC, subject_layer_step=2),
    # The size of the edit, for every method, with single-layer edits beside. On Gemma edits of .003 at all layers
    # do most of what larger ones do.
    "betas": replace(_FULL, settings=replace(_FULL.settings, betas=_BETAS, single_layer=True)),
    "betas-small": replace(_SMALL, settings=replace(_SMALL.settings, betas=_FEW_BETAS, single_layer=True)),
}


class _Places(NamedTuple):
    subject_layer: int
    object_layer: int
    rank: int
    n_layers: int


# The paper's for its two models; for Gemma, those of the comparison with the authors' library; for SmolLM2, at the
# same shares of the depth and width as for Llama.
_MODELS = {
    "llama-2-7b": _Places(subject_layer=17, object_layer=21, rank=192, n_layers=32),
    "gpt-j-6b": _Places(subject_layer=14, object_layer=20, rank=192, n_layers=28),
    "gemma-3-270m": _Places(subject_layer=9, object_layer=13, rank=64, n_layers=18),
    "smollm2-135m": _Places(subject_layer=16, object_layer=20, rank=64, n_layers=30),
}
_AXES = {"subject_layers": "subject_layer", "object_layers": "object_layer", "ranks": "rank"}
"""Settings that may be swept over, with what the command line calls a single value."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What a benchmark runs with: options of `run_protocol`."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: ExperimentSettings

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the command line's names, which has one name for a single layer and one for several."""
        settings = self.settings
        values = {name: getattr(settings, name) for name in _AXES}
        return {
            "methods": self.methods,
            "beta": settings.betas,
            "seeds": self.seeds,
            "max_lre_prompts": settings.max_lre_prompts,
            "max_facts": settings.max_facts,
            "shots": settings.shots,
            **{single: values[name][0] if len(values[name]) == 1 else None for name, single in _AXES.items()},
            **{name: values[name] if len(values[name]) > 1 else () for name in _AXES},
            "single_layer": settings.single_layer,
            "random_model": settings.random_model,
            "fit_method": settings.solver,
            "split_seed": settings.split_seed,
            **settings.of_dual_directions(),
        }


def benchmark_options(
    given: Mapping[str, Any], *, model: str, preset: str | None = None, select: bool = False
) -> BenchmarkOptions:
    """What is given (not None), else the preset's, else the defaults.

    `given` holds `methods`, `seeds` and fields of `ExperimentSettings`. A preset brings layers and rank for the
    models that it knows; with `select` it brings neither these nor betas.

    Raises:
        LookupError: no such preset; the text lists them.
        ValueError: layers or rank are neither given nor known for the model, and are not to be selected; or they
            are to be selected and the preset sweeps over them.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    base = Preset(settings=ExperimentSettings())
    if preset is not None:
        base = _preset(preset)
        if select and base.swept:
            raise ValueError(f"preset {preset!r} sweeps over {', '.join(base.swept)}, which --select would choose")
        base = replace(base, settings=replace(base.settings, betas=None) if select else _placed(base, model))
    methods, seeds = chosen.pop("methods", base.methods), chosen.pop("seeds", base.seeds)
    settings = replace(base.settings, select=select, **chosen)
    for name in base.swept:
        if not getattr(settings, name):
            raise ValueError(
                f"preset {preset!r} does not know the layers of {model!r}; give --{name.replace('_', '-')}"
            )
    require_methods(methods)
    if not select and (missing := settings.missing_for(methods)):
        options = ", ".join(f"--{_AXES[name].replace('_', '-')}" for name in missing)
        raise ValueError(f"{options} must be given, or --select, which chooses on training facts")
    return BenchmarkOptions(methods=tuple(methods), seeds=tuple(seeds), settings=settings)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise LookupError(f"no preset {name!r}; {did_you_mean(name, PRESETS, n=2)}")
    return PRESETS[name]


def _placed(preset: Preset, model: str) -> ExperimentSettings:
    """The preset's settings with layers and rank for a model; without, where none are known for it.

    Models go by the last part of their name, whatever its case.
    """
    last = model.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].casefold()
    known = _MODELS.get(last.removesuffix("-hf"))
    if known is None:
        return preset.settings
    subject_layers: Sequence[int] = (known.subject_layer,)
    object_layers: Sequence[int] = (known.object_layer,)
    if preset.object_layer_step is not None:
        object_layers = range(known.subject_layer + 1, known.n_layers, preset.object_layer_step)
    if preset.subject_layer_step is not None:
        subject_layers = range(0, known.object_layer, preset.subject_layer_step)
    return replace(
        preset.settings,
        subject_layers=subject_layers,
        object_layers=object_layers,
        ranks=preset.settings.ranks or known.rank,
    )
