"""Figures of results, with matplotlib (extra `plots`)."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.storage.whole_file import whole_file

_COLOURS = ("#0b6e99", "#d1711f", "#5b8c3a", "#8a4fa3", "#7a7a7a", "#b3a125")
_STYLES = ("-", "--", ":")
_LABELS = {
    "accuracy": "accuracy",
    "accuracy_centred": "accuracy, centred",
    "causality": "causality",
    "hard_causality": "share of edits after which the new object is said",
    "unrelated_kl": "KL on unrelated statements (nats)",
    "object_layer": "object layer",
    "subject_layer": "subject layer",
    "rank": "rank",
}


def plot_relations(
    result: ProtocolResult, *, first: str = "lrc", second: str = "svm", figure: str = "accuracy"
) -> Any:
    """A matplotlib Figure: two methods on every relation, means over seeds (arXiv:2311.08968, figure 3).

    Relations are ordered by the difference; a tick marks chance where accuracy is drawn.

    Raises:
        LookupError: the result has no such method or figure.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.to_frame()
    for method in (first, second):
        if method not in set(frame["method"]):
            raise LookupError(f"the result has no method {method!r}; it has {', '.join(result.methods)}")
    _require_column(frame, figure)
    table = frame.pivot_table(index="relation", columns="method", values=figure, aggfunc="mean")
    table = table[[first, second]].dropna()
    table = table.loc[(table[first] - table[second]).sort_values(kind="stable").index]
    figure_, (axes,) = _figure(height=1.3 + 0.3 * len(table))
    places = range(len(table))
    axes.hlines(places, table[first], table[second], color="#bbbbbb", linewidth=1.5, zorder=1)
    for method, colour, marker in ((first, _COLOURS[0], "o"), (second, _COLOURS[1], "s")):
        axes.scatter(table[method], places, color=colour, marker=marker, s=34, label=method, zorder=2)
    if figure.startswith("accuracy"):
        chance = frame.groupby("relation")["chance"].mean().loc[table.index]
        axes.scatter(chance, places, color="#555555", marker="|", s=60, label="chance", zorder=1)
    axes.set_yticks(list(places), list(table.index))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set_xlabel(_LABELS.get(figure, figure))
    axes.grid(axis="x", color="#eeeeee")
    figure_.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure_


def plot_sweep(
    result: ProtocolResult,
    *,
    over: Literal["object_layer", "subject_layer", "rank"],
    figures: Sequence[str] = ("accuracy", "causality"),
    by_object_tokens: bool = False,
) -> Any:
    """A matplotlib Figure: figures of a sweep over layers or ranks (arXiv:2311.08968, figures 4 to 7).

    Means over relations, one line for each method and figure; with `by_object_tokens` apart for objects of one
    token and of several.

    Raises:
        LookupError: the result has no such figure, or none of its methods was swept over this.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.by_object_tokens() if by_object_tokens else result.to_frame()
    figures = as_tuple(figures, "figures", str)
    for name in figures:
        _require_column(frame, name)
    if over not in frame or frame[over].nunique() < 2:
        raise LookupError(f"the result holds fewer than two values of {over}; run a sweep over it")
    frame = frame.dropna(subset=[over])
    frame = frame.assign(method=frame["method"].str.split("@").str[0])
    groups = ["method", "object"] if by_object_tokens else ["method"]
    figure_, (axes,) = _figure(height=3.6)
    lines = [(keys, rows, name) for keys, rows in frame.groupby(groups) for name in figures]
    for number, (keys, rows, name) in enumerate(lines):
        # Each relation weighs the same, whatever the number of its seeds.
        inner = rows if by_object_tokens else rows.groupby([over, "relation"], as_index=False)[name].mean()
        means = inner.groupby(over)[name].mean().dropna()
        label = ", ".join([*keys, _LABELS.get(name, name)])
        axes.plot(means.index, means, marker="o", color=_COLOURS[number % len(_COLOURS)], label=label)
    axes.set_xlabel(_LABELS[over])
    axes.set_ylim(-0.03, 1.03)
    if over == "rank":
        axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(frame[over].unique()), [str(int(value)) for value in sorted(frame[over].unique())])
    axes.grid(color="#eeeeee")
    figure_.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure_


def plot_curves(
    result: ProtocolResult, *, figure: str = "causality", methods: Sequence[str] | None = None, layers: str = "all"
) -> Any:
    """A matplotlib Figure: causality over the size of the edits, and over what these do to unrelated statements.

    Means over relations (each with its mean over seeds), one line for each method, one mark for each positive
    beta. `figure` may be `"hard_causality"`, `"wrong_way"` or another figure of `ProtocolResult.curve_frame`, and
    `layers` `"own"` for edits at the subject layer alone.

    Raises:
        LookupError: the result has no such method, figure or layers, fewer than two positive betas, or other betas
            for some relations (they were selected), so that no point stands for all.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.curve_frame()
    used = as_tuple(result.methods if methods is None else methods, "methods", str)
    for method in used:
        if method not in result.methods:
            raise LookupError(f"the result has no method {method!r}; it has {', '.join(result.methods)}")
    if frame.empty or layers not in set(frame["layers"]):
        raise LookupError(f"the result has no edits of {layers!r} layers; run the benchmark with betas for them")
    figures = [name for name in frame.columns.drop(["seed", "beta", "unrelated_kl"]) if _is_drawable(frame, name)]
    if figure not in figures:
        raise LookupError(f"the curves have no figure {figure!r}; they have {', '.join(figures)}")
    frame = frame[(frame["layers"] == layers) & (frame["beta"] > 0)]
    if not _has_curves(frame):
        raise LookupError(
            "the result holds fewer than two positive betas, or not the same for all relations; run the benchmark "
            "with several, without selecting them"
        )
    beside = frame["unrelated_kl"].notna().any()
    figure_, axes = _figure(height=4.4, columns=2 if beside else 1)
    for number, method in enumerate(used):
        own = frame[frame["method"] == method].groupby(["beta", "relation"])[[figure, "unrelated_kl"]].mean()
        means = own.groupby("beta").mean()
        look = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _STYLES[number // len(_COLOURS) % len(_STYLES)],
            "marker": "o",
            "markersize": 4,
        }
        axes[0].plot(means.index, means[figure], label=method, **look)
        if beside:
            axes[1].plot(means["unrelated_kl"], means[figure], **look)
    for one in axes:
        if frame[figure].between(0, 1).all():
            one.set_ylim(-0.03, 1.03)
        one.grid(color="#eeeeee")
    axes[0].set_xscale("log")
    axes[0].set_xticks(sorted(frame["beta"].unique()), [f"{beta:g}" for beta in sorted(frame["beta"].unique())])
    axes[0].minorticks_off()
    axes[0].set_xlabel("beta")
    axes[0].set_ylabel(_LABELS.get(figure, figure))
    if beside:
        axes[1].set_xlabel(_LABELS["unrelated_kl"])
        axes[1].set_xlim(left=0)
    figure_.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure_


def save_plots(result: ProtocolResult, folder: str | Path) -> tuple[Path, ...]:
    """Every figure that the result has the numbers for, as PNG files in a folder, which is made.

    `relations.png` is the first method against the SVM (or against the second), `curves.png` and `curves_hard.png`
    are causality and hard success over beta, `sweep_<what>.png` goes over object layers, subject layers or ranks,
    and `sweep_object_layer_by_tokens.png` tells objects of one token and of several apart.

    Raises:
        ImportError: matplotlib is missing; the text says how to install it.
    """
    made = {}
    methods = result.methods
    if len(methods) > 1:
        second = "svm" if "svm" in methods[1:] else methods[1]
        made["relations"] = plot_relations(result, first=methods[0], second=second)
    curves = result.curve_frame()
    if not curves.empty and _has_curves(curves[(curves["layers"] == "all") & (curves["beta"] > 0)]):
        made["curves"] = plot_curves(result)
        if _is_drawable(curves, "hard_causality"):
            made["curves_hard"] = plot_curves(result, figure="hard_causality")
    frame = result.to_frame()
    swept = frame[frame["method"].str.contains("@")]
    for over in ("object_layer", "subject_layer", "rank"):
        if swept.groupby(swept["method"].str.split("@").str[0])[over].nunique().max() > 1:
            made[f"sweep_{over}"] = plot_sweep(result, over=over)
    if "sweep_object_layer" in made:
        apart = result.by_object_tokens()
        if apart.loc[apart["n_prompts"] > 0, "object"].nunique() > 1:
            made["sweep_object_layer_by_tokens"] = plot_sweep(result, over="object_layer", by_object_tokens=True)
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    for name, figure in made.items():
        save_figure(figure, to / f"{name}.png")
    return tuple(to / f"{name}.png" for name in made)


def save_figure(figure: Any, path: Path) -> None:
    """Write a matplotlib Figure as a PNG file; it appears whole or not at all.

    Raises:
        ArtifactError: the folder is missing, or `path` is no file.
    """
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def require_matplotlib() -> None:
    """Raise ImportError, which says what to install, where there is no matplotlib."""
    if find_spec("matplotlib") is None:
        raise ImportError("plots need matplotlib; install lrc-tl[plots]")


def _has_curves(frame: pd.DataFrame) -> bool:
    """Whether every relation and seed has the same betas, two or more."""
    betas = frame.groupby(["relation", "seed"])["beta"].agg(lambda own: tuple(sorted(set(own))))
    return betas.nunique() == 1 and len(betas.iloc[0]) > 1


def _is_drawable(frame: pd.DataFrame, name: str) -> bool:
    own = frame[name].dropna().infer_objects() if name in frame else ()
    return len(own) > 0 and pd.api.types.is_numeric_dtype(own)


def _require_column(frame: pd.DataFrame, name: str) -> None:
    if name not in frame or not pd.api.types.is_numeric_dtype(frame[name].dropna().infer_objects()):
        numeric = [column for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
        raise LookupError(f"the result has no figure {name!r}; it has {', '.join(numeric)}")


def _figure(*, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    require_matplotlib()
    # Not pyplot: a Figure of one's own leaves the caller's backend and open figures alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if columns == 1 else 9, height), layout="constrained", dpi=110)
    axes = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for one in axes:
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return figure, axes
