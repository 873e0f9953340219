"""The drawings of the documentation: `.venv/bin/python docs/pictures.py` writes them to `docs/pictures/`.

`result.svg` and `beta.svg` are drawn from committed files of `benchmarks/results/`, `concept.svg` is a sketch.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

matplotlib.use("Agg")
plt.rcParams |= {"svg.hashsalt": "lrc_tl", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
INK, SUBJECT, OBJECT, OTHERS = "#222222", "#1f6f8b", "#c0562f", "#9aa3ab"
NAMES = {
    "lrc-map-given": "dual LRC (lrc-map-given)",
    "lrc-combined": "LRC, combined",
    "lrc": "LRC (the paper's)",
    "logistic": "logistic regression",
    "svm": "linear SVM",
    "mean": "mean activation",
    "mean-difference": "difference of means",
}
COLOURS = {"lrc-map-given": OBJECT, "lrc": SUBJECT, "mean-difference": OTHERS, "svm": INK}


def main() -> None:
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for name, figure in (("concept", concept()), ("result", result()), ("beta", beta())):
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})
        plt.close(figure)


def stored(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def result() -> plt.Figure:
    """Accuracy by method, and what edits do to the object beside what they do elsewhere."""
    data = stored("dual_evaluation.json")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.5), gridspec_kw={"wspace": 0.3})
    accuracies = {}
    for method in NAMES:
        readings = data["runs"]["chosen"][method]["accuracy"].values()
        accuracies[method] = max(readings, key=lambda reading: reading["all"])
    order = sorted(accuracies, key=lambda method: accuracies[method]["all"])
    for place, method in enumerate(order):
        value, (low, high) = accuracies[method]["all"], accuracies[method]["interval_over_relations"]
        left.barh(place, value, color=COLOURS.get(method, OTHERS) if method.startswith("lrc") else OTHERS)
        left.plot([low, high], [place, place], color=INK, linewidth=1)
    left.set_yticks(range(len(order)), [NAMES[method] for method in order])
    left.set_xlabel("accuracy on unseen subjects")
    left.set_title("Reading", loc="left")
    for method, run in (
        ("lrc-map-given", "noise1"),
        ("lrc", "chosen"),
        ("mean-difference", "chosen"),
        ("svm", "chosen"),
    ):
        points = data["runs"][run][method]["subject_layer"]
        x, y = [point["kl_elsewhere"] for point in points], [point["hard"] for point in points]
        right.plot(x, y, marker="o", markersize=4, color=COLOURS[method], label=NAMES[method].split(" (")[0])
    right.set_xlabel("change of other statements (KL, nats)")
    right.set_ylabel("model says the new object")
    right.set_ylim(0, 0.6)
    right.set_title("Writing", loc="left")
    right.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def beta() -> plt.Figure:
    """What the size of an edit does: success, and the price elsewhere."""
    effects = stored("beta_table_gemma-3-270m.json")["effects"]
    betas = [effect["beta"] for effect in effects]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.0), gridspec_kw={"wspace": 0.25})
    left.plot(betas, [effect["causality"] for effect in effects], marker="o", color=SUBJECT, label="causality")
    left.plot(
        betas, [effect["hard_success"] for effect in effects], marker="s", color=OBJECT, label="hard success"
    )
    left.set_ylim(0, 1.05)
    left.set_ylabel("share of edits")
    left.legend(frameon=False, loc="center right")
    right.plot(betas, [effect["perplexity_ratio"] for effect in effects], marker="o", color=INK)
    right.set_yscale("log")
    right.set_ylabel("perplexity of neutral texts,\nedited / unedited")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(betas, [f"{value:g}" for value in betas], fontsize=8, rotation=30)
        axes.minorticks_off()
        axes.set_xlabel("beta (share of |h|, eq. 7)")
    return figure


def concept() -> plt.Figure:
    """From the subject's activation to the object's and back."""
    figure, axes = plt.subplots(figsize=(8.4, 4.2))
    axes.set_xlim(-2, 80)
    axes.set_ylim(0, 42)
    axes.axis("off")
    words = ("Lyon", "is", "located", "in", "the", "country", "of")
    for number, word in enumerate(words):
        x = 6 + 9.5 * number
        for layer in range(4):
            edge = SUBJECT if (number, layer) == (0, 1) else OBJECT if (number, layer) == (6, 3) else "#d5dadd"
            _box(axes, x - 3, 7 + 8.5 * layer, 6, 5, edge=edge, filled=edge != "#d5dadd")
        axes.text(x, 2.5, word, ha="center", color=INK)
    axes.text(69, 2.5, "→ France", ha="left", color=OBJECT)
    axes.text(6, 18, "s", ha="center", va="center", color="white", weight="bold")
    axes.text(63, 35, "o", ha="center", va="center", color="white", weight="bold")
    axes.text(-1.5, 18, "subject\nlayer", ha="right", va="center", color=SUBJECT, fontsize=9)
    axes.text(-1.5, 35, "object\nlayer", ha="right", va="center", color=OBJECT, fontsize=9)
    _arrow(axes, (9.5, 19.5), (59.5, 34.5), OBJECT, curve=-0.13)
    axes.text(34, 40.5, "forward: o ≈ W s + b", ha="center", color=OBJECT, weight="bold")
    _arrow(axes, (59.5, 32.5), (9.5, 17.5), SUBJECT, curve=-0.2)
    axes.text(34.5, 13.0, "back: s ≈ W⁺ (o \N{MINUS SIGN} b)", ha="center", color=SUBJECT, weight="bold")
    return figure


def _box(axes: Axes, x: float, y: float, width: float, height: float, *, edge: str, filled: bool) -> None:
    style = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=1", edgecolor=edge, linewidth=1.4,
        facecolor=edge if filled else "white",
    )  # fmt: skip
    axes.add_patch(style)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, *, curve: float) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={curve}",
            arrowstyle="-|>",
            mutation_scale=14,
            color=colour,
            linewidth=1.8,
        )
    )


if __name__ == "__main__":
    main()
