"""Figures of results, with matplotlib (extra `plots`): a figure is a drawing, a statistic is a number in it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.storage.whole_file import whole_file

Swept: TypeAlias = Literal["object_layer", "subject_layer", "rank"]
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
    result: ProtocolResult, *, first: str = "lrc", second: str = "svm", statistic: str = "accuracy"
) -> Any:
    """A matplotlib Figure: two methods on every relation, means over seeds (arXiv:2311.08968, figure 3).

    Relations are ordered by the difference; a tick marks chance where accuracy is drawn.

    Raises:
        LookupError: the result has no such method or statistic.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.to_frame()
    for method in (first, second):
        if method not in set(frame["method"]):
            raise LookupError(f"the result has no method {method!r}; it has {', '.join(result.methods)}")
    _require_column(frame, statistic)
    table = frame.pivot_table(index="relation", columns="method", values=statistic, aggfunc="mean")
    table = table[[first, second]].dropna()
    table = table.loc[(table[first] - table[second]).sort_values(kind="stable").index]
    figure, (axes,) = _figure(height=1.3 + 0.3 * len(table))
    places = range(len(table))
    axes.hlines(places, table[first], table[second], color="#bbbbbb", linewidth=1.5, zorder=1)
    for method, colour, marker in ((first, _COLOURS[0], "o"), (second, _COLOURS[1], "s")):
        axes.scatter(table[method], places, color=colour, marker=marker, s=34, label=method, zorder=2)
    if statistic.startswith("accuracy"):
        chance = frame.groupby("relation")["chance"].mean().loc[table.index]
        axes.scatter(chance, places, color="#555555", marker="|", s=60, label="chance", zorder=1)
    axes.set_yticks(list(places), list(table.index))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set_xlabel(_LABELS.get(statistic, statistic))
    axes.grid(axis="x", color="#eeeeee")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def plot_sweep(
    result: ProtocolResult,
    *,
    over: Swept,
    statistics: Sequence[str] = ("accuracy", "causality"),
    by_object_tokens: bool = False,
) -> Any:
    """A matplotlib Figure: statistics of a sweep over layers or ranks (arXiv:2311.08968, figures 4 to 7).

    Means over relations, one line for each method and statistic; with `by_object_tokens` apart for objects of
    one token and of several.

    Raises:
        LookupError: the result has no such statistic, or none of its methods was swept over this.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.by_object_tokens() if by_object_tokens else result.to_frame()
    statistics = as_tuple(statistics, "statistics", str)
    for name in statistics:
        _require_column(frame, name)
    if over not in frame or frame[over].nunique() < 2:
        raise LookupError(f"the result holds fewer than two values of {over}; run a sweep over it")
    frame = frame.dropna(subset=[over])
    frame = frame.assign(method=frame["method"].str.split("@").str[0])
    groups = ["method", "object"] if by_object_tokens else ["method"]
    figure, (axes,) = _figure(height=3.6)
    lines = [(keys, rows, name) for keys, rows in frame.groupby(groups) for name in statistics]
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
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def plot_curves(
    result: ProtocolResult,
    *,
    statistic: str = "causality",
    methods: Sequence[str] | None = None,
    layers: str = "all",
) -> Any:
    """A matplotlib Figure: causality over the size of the edits, and over what these do to unrelated statements.

    Means over relations (each with its mean over seeds), one line for each method, one mark for each positive
    beta. `statistic` may be `"hard_causality"`, `"wrong_way"` or another one of `ProtocolResult.curve_frame`, and
    `layers` `"own"` for edits at the subject layer alone.

    Raises:
        LookupError: the result has no such method, statistic or layers, fewer than two positive betas, or other
            betas for some relations (they were selected), so that no point stands for all.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    frame = result.curve_frame()
    used = as_tuple(result.methods if methods is None else methods, "methods", str)
    for method in used:
        if method not in result.methods:
            raise LookupError(f"the result has no method {method!r}; it has {', '.join(result.methods)}")
    if frame.empty or layers not in set(frame["layers"]):
        raise LookupError(f"the result has no edits of {layers!r} layers; run the benchmark with betas for them")
    candidates = frame.columns.drop(["seed", "beta", "unrelated_kl"])
    drawable = [name for name in candidates if _is_drawable(frame, name)]
    if statistic not in drawable:
        raise LookupError(f"the curves have no statistic {statistic!r}; they have {', '.join(drawable)}")
    frame = frame[(frame["layers"] == layers) & (frame["beta"] > 0)]
    if not _has_curves(frame):
        raise LookupError(
            "the result holds fewer than two positive betas, or not the same for all relations; run the benchmark "
            "with several, without selecting them"
        )
    beside = frame["unrelated_kl"].notna().any()
    figure, axes = _figure(height=4.4, columns=2 if beside else 1)
    for number, method in enumerate(used):
        by_relation = (
            frame[frame["method"] == method].groupby(["beta", "relation"])[[statistic, "unrelated_kl"]].mean()
        )
        means = by_relation.groupby("beta").mean()
        look = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _STYLES[number // len(_COLOURS) % len(_STYLES)],
            "marker": "o",
            "markersize": 4,
        }
        axes[0].plot(means.index, means[statistic], label=method, **look)
        if beside:
            axes[1].plot(means["unrelated_kl"], means[statistic], **look)
    for panel in axes:
        if frame[statistic].between(0, 1).all():
            panel.set_ylim(-0.03, 1.03)
        panel.grid(color="#eeeeee")
    axes[0].set_xscale("log")
    axes[0].set_xticks(sorted(frame["beta"].unique()), [f"{beta:g}" for beta in sorted(frame["beta"].unique())])
    axes[0].minorticks_off()
    axes[0].set_xlabel("beta")
    axes[0].set_ylabel(_LABELS.get(statistic, statistic))
    if beside:
        axes[1].set_xlabel(_LABELS["unrelated_kl"])
        axes[1].set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def plot_result(result: ProtocolResult) -> Any:
    """A matplotlib Figure of what the result shows best; `ProtocolResult.plot` gives it.

    A sweep as lines over what has the most values; else causality over several betas; else the first method
    against the SVM (or against the second), relation by relation.

    Raises:
        LookupError: there is one method, at one setting and beta.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    if swept := _swept(result):
        return plot_sweep(result, over=max(swept, key=lambda over: swept[over]))
    if _has_drawable_curves(result):
        return plot_curves(result)
    if len(result.methods) > 1:
        return plot_relations(result, first=result.methods[0], second=_second(result))
    raise LookupError(
        f"the result holds one method, {result.methods[0]}, at one setting and beta, which no figure can compare; "
        "run more methods, layers, ranks or betas, or take to_markdown()"
    )


def save_plots(result: ProtocolResult, folder: str | Path) -> tuple[Path, ...]:
    """Every figure that the result has the numbers for, as PNG files in a folder, which is made.

    `relations.png` is the first method against the SVM (or against the second), `curves.png` and `curves_hard.png`
    are causality and hard success over beta, `sweep_<what>.png` goes over object layers, subject layers or ranks,
    and `sweep_object_layer_by_tokens.png` tells objects of one token and of several apart.

    Raises:
        ImportError: matplotlib is missing; the text says how to install it.
    """
    figures = {}
    if len(result.methods) > 1:
        figures["relations"] = plot_relations(result, first=result.methods[0], second=_second(result))
    if _has_drawable_curves(result):
        figures["curves"] = plot_curves(result)
        figures["curves_hard"] = plot_curves(result, statistic="hard_causality")
    for over in _swept(result):
        figures[f"sweep_{over}"] = plot_sweep(result, over=over)
    if "sweep_object_layer" in figures:
        apart = result.by_object_tokens()
        if apart.loc[apart["n_prompts"] > 0, "object"].nunique() > 1:
            figures["sweep_object_layer_by_tokens"] = plot_sweep(
                result, over="object_layer", by_object_tokens=True
            )
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, to / f"{name}.png")
    return tuple(to / f"{name}.png" for name in figures)


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


def _second(result: ProtocolResult) -> str:
    """What the first method is drawn against."""
    return "svm" if "svm" in result.methods[1:] else result.methods[1]


def _swept(result: ProtocolResult) -> dict[Swept, int]:
    """What methods were swept over, with the number of values."""
    frame = result.to_frame()
    swept = frame[frame["method"].str.contains("@")]
    by_method = swept.groupby(swept["method"].str.split("@").str[0])
    counts: dict[Swept, int] = {}
    for over in get_args(Swept):
        if (most := by_method[over].nunique().max()) > 1:
            counts[over] = int(most)
    return counts


def _has_drawable_curves(result: ProtocolResult) -> bool:
    frame = result.curve_frame()
    return not frame.empty and _has_curves(frame[(frame["layers"] == "all") & (frame["beta"] > 0)])


def _has_curves(frame: pd.DataFrame) -> bool:
    """Whether every relation and seed has the same betas, two or more."""
    betas = frame.groupby(["relation", "seed"])["beta"].agg(lambda values: tuple(sorted(set(values))))
    return betas.nunique() == 1 and len(betas.iloc[0]) > 1


def _is_drawable(frame: pd.DataFrame, name: str) -> bool:
    values = frame[name].dropna().infer_objects() if name in frame else ()
    return len(values) > 0 and pd.api.types.is_numeric_dtype(values)


def _require_column(frame: pd.DataFrame, name: str) -> None:
    if name not in frame or not pd.api.types.is_numeric_dtype(frame[name].dropna().infer_objects()):
        numeric = [column for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
        raise LookupError(f"the result has no statistic {name!r}; it has {', '.join(numeric)}")


def _figure(*, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    require_matplotlib()
    # Not pyplot: a Figure of one's own leaves the caller's backend and open figures alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if columns == 1 else 9, height), layout="constrained", dpi=110)
    axes = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for panel in axes:
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, axes
