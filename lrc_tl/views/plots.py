"""Which figure shows a result best, and all figures that it has the numbers for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd

from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.views.figure import Figure
from lrc_tl.views.layer_figures import plot_layer_grid, plot_layers, plot_object_tokens, plot_ranks
from lrc_tl.views.method_figures import has_curves, plot_curves, plot_relations, plot_trade_off, second_method
from lrc_tl.views.tidy import in_order, leading_metric, tidy_frame, varies

Kind: TypeAlias = Literal["grid", "layers", "ranks", "curves", "trade_off", "relations"]
_Plot: TypeAlias = Callable[..., Figure]
_PLOTS: Mapping[Kind, _Plot] = {
    "grid": plot_layer_grid,
    "layers": plot_layers,
    "ranks": plot_ranks,
    "curves": plot_curves,
    "trade_off": plot_trade_off,
    "relations": plot_relations,
}


def plot_sweep(
    result: Any,
    *,
    kind: Kind | None = None,
    metric: str | None = None,
    reading: str = "plain",
    methods: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """A figure of a sweep, a `ProtocolResult` or a tidy frame, of one kind or of what it shows best.

    - `"grid"`: a heat map of subject by object layers (default where there are several of both);
    - `"layers"`: lines over subject or object layers (default where there are several of one);
    - `"ranks"`: lines over ranks (default where there are several);
    - `"curves"`: causality over beta, and over the KL on unrelated statements (default with several betas);
    - `"trade_off"`: causality against that KL alone;
    - `"relations"`: two methods relation by relation (default where there are two methods).

    What is neither drawn nor fixed by `where` stands at its best value, which the note names; nothing but
    relations and seeds is averaged. Each kind has a function of its own: `plot_layer_grid`, `plot_layers`, ...

    Args:
        metric: `"accuracy"`, `"causality"`, `"hard_causality"`, ...; by default what the kind is about.
        reading: `"plain"`, `"centred"` or `"calibrated"`, of accuracies.
        methods: to draw; by default all.
        where: columns of the frame with the values to draw, such as `{"rank": 64, "relation": ["a", "b"]}`.

    Raises:
        LookupError: the result has nothing of this kind, or of what was asked for; the text says what it has.
        ValueError: there is no such kind.
    """
    frame = tidy_frame(result)
    chosen = best_kind(frame) if kind is None else kind
    if chosen not in _PLOTS:
        raise ValueError(f"kind={kind!r} is no kind of figure; there are {', '.join(get_args(Kind))}")
    if metric is None and chosen not in ("curves", "trade_off"):
        metric = _named(frame)
    options: dict[str, Any] = {"where": where}
    if chosen in ("layers", "ranks"):
        options |= {"metrics": None if metric is None else [metric], "reading": reading, "methods": methods}
    elif chosen == "relations":
        names = [None, None] if methods is None else [*methods, None, None]
        options |= {"reading": reading, "first": names[0], "second": names[1]}
    else:
        options |= {"methods": methods} | ({"reading": reading} if chosen == "grid" else {})
    if metric is not None and "metrics" not in options:
        options["metric"] = metric
    return _PLOTS[chosen](frame, **options)


def best_kind(frame: pd.DataFrame) -> Kind:
    """The kind of figure that tidy rows show best.

    Raises:
        LookupError: there is one method, at one setting and beta.
    """
    kinds = drawable_kinds(frame)
    if not kinds:
        method = frame["method"].iloc[0]
        raise LookupError(
            f"the result holds one method, {method}, at one setting and beta, which no figure can compare; run "
            "more methods, layers, ranks or betas, or take the numbers"
        )
    return kinds[0]


def _named(frame: pd.DataFrame) -> str | None:
    """The metric to draw where there is no accuracy, which figures are about by default; None where there is."""
    leading = leading_metric(frame)
    return None if leading == "accuracy" else leading


def drawable_kinds(frame: pd.DataFrame) -> list[Kind]:
    """The kinds of figure that tidy rows have the numbers for, the one that shows most first."""
    metrics = in_order(frame["metric"])
    rows = frame[frame["metric"] == leading_metric(frame)]
    counts = {axis: varies(rows, axis) for axis in ("subject_layer", "object_layer", "rank")}
    kinds: list[Kind] = []
    if any(
        min(varies(of_method, "subject_layer"), varies(of_method, "object_layer")) > 1
        for of_method in (rows[rows["method"] == method] for method in in_order(rows["method"]))
    ):
        kinds.append("grid")
    by_count: dict[Kind, int] = {
        "layers": max(counts["subject_layer"], counts["object_layer"]),
        "ranks": counts["rank"],
    }
    kinds += sorted((kind for kind, count in by_count.items() if count > 1), key=lambda kind: -by_count[kind])
    if "causality" in metrics and has_curves(frame, "causality"):
        kinds.append("curves")
        if "kl_elsewhere" in metrics:
            kinds.append("trade_off")
    if rows["method"].nunique() > 1:
        kinds.append("relations")
    return kinds


def figures_of(result: Any) -> dict[str, Figure]:
    """Every figure that a result has the numbers for, by the name of its file without ending; see `save_plots`."""
    frame = tidy_frame(result)
    kinds = drawable_kinds(frame)
    figures: dict[str, Figure] = {}
    metrics, leading, named = set(frame["metric"]), leading_metric(frame), _named(frame)
    rows = frame[frame["metric"] == leading]
    lines = None if named is None else [named]
    if "grid" in kinds:
        for metric in dict.fromkeys((leading, "causality", "hard_causality")):
            if metric in metrics:
                figures[f"grid_{metric}"] = plot_layer_grid(frame, metric=metric)
    for axis in ("object_layer", "subject_layer"):
        if varies(rows, axis) > 1:
            figures[f"sweep_{axis}"] = plot_layers(frame, over=axis, metrics=lines)
    if "sweep_object_layer" in figures and isinstance(result, ProtocolResult):
        apart = result.by_object_tokens()
        if apart.loc[apart["n_prompts"] > 0, "object"].nunique() > 1:
            figures["sweep_object_layer_by_tokens"] = plot_object_tokens(result)
    if "ranks" in kinds:
        figures["sweep_rank"] = plot_ranks(frame, metrics=lines)
    if "curves" in kinds:
        figures["curves"] = plot_curves(frame)
        if "hard_causality" in metrics:
            figures["curves_hard"] = plot_curves(frame, metric="hard_causality")
    if "relations" in kinds:
        second = second_method(in_order(rows["method"]))
        figures["relations"] = plot_relations(frame, second=second, metric=leading)
    return figures


def save_plots(result: Any, folder: str | Path) -> tuple[Path, ...]:
    """Every figure that a result has the numbers for, as PNG files in a folder, which is made.

    `grid_<metric>.png` are heat maps of layers by layers, `sweep_<axis>.png` lines over layers or ranks,
    `sweep_object_layer_by_tokens.png` tells objects of one token and of several apart, `curves.png` and
    `curves_hard.png` are causality and hard success over beta and side effects, and `relations.png` is the first
    method against the SVM (or against the second).

    Raises:
        ImportError: matplotlib is missing; the text says how to install it.
    """
    figures = figures_of(result)
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    return tuple(figure.save(to / f"{name}.png") for name, figure in figures.items())
