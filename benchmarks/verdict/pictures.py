"""The two figures of `benchmarks/verdict.md`, from result files.

    .venv/bin/python benchmarks/verdict/pictures.py

Writes `verdict_accuracy.png` and `verdict_steering.png` to `benchmarks/results/`.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lrc_tl.experiments.sweep_at_kl import HARD, KL

RESULTS = Path(__file__).parents[1] / "results"
COLOURS = {
    "lrc": "#0072b2",
    "lrc-combined": "#56b4e9",
    "lrc-map": "#009e73",
    "lrc-map-combined": "#d55e00",
    "svm": "#999999",
    "mean-difference": "#444444",
}
"""Told apart by the colour-blind (Okabe and Ito)."""


def accuracy(results: dict[str, Any]) -> None:
    """Accuracy of every method at its best reading, with its interval over relations."""
    rows = sorted(results["table"], key=lambda row: max(row[name] for name in ("plain", "centred", "calibrated")))
    figure, axes = plt.subplots(figsize=(7.5, 0.28 * len(rows) + 1.2))
    for place, row in enumerate(rows):
        best, (low, high) = row[row["best"]], row["over_relations"]
        colour = COLOURS.get(row["method"].split(",")[0], "#999999")
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([best], [place], marker="o", color=colour)
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows], fontsize=8)
    n_relations = len(results["relations"])
    said = f"accuracy on test facts at the best reading\nmean and 95 % interval over {n_relations} relations"
    axes.set_xlabel(said, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(RESULTS / "verdict_accuracy.png", dpi=110)


def steering(results: dict[str, Any]) -> None:
    """Hard success over KL elsewhere, each method at the place that validation facts choose."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    for chosen in results["at_kl"]:
        method, place = chosen["method"], chosen["place"]
        if method not in COLOURS:
            continue
        curve = [point for point in results["curves"] if (point["method"], point["place"]) == (method, place)]
        curve.sort(key=lambda point: point["beta"])
        kl, hard = ([point[name] for point in curve] for name in (KL, HARD))
        axes.plot(kl, hard, marker="o", color=COLOURS[method], label=f"{method} ({place})")
    axes.set_xlim(0, 2 * results["nats"])
    axes.axvline(results["nats"], color="#000000", linewidth=0.8, linestyle=":")
    axes.set_xlabel("KL behind statements of other relations, nats")
    axes.set_ylabel("edits after which the model says the new object")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "verdict_steering.png", dpi=110)


def main() -> None:
    """Both."""
    for draw, name in ((accuracy, "verdict_accuracy_gemma-3-270m"), (steering, "verdict_steering_gemma-3-270m")):
        draw(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
