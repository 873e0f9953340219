"""The tables of a benchmark result, as Markdown, from its plain values."""

import math
from collections.abc import Mapping
from typing import Any


def benchmark_markdown(data: Mapping[str, Any]) -> str:
    """The main table, then the causality curves with their side effects, all accuracies, and the comparisons."""
    lines = [
        "| method | accuracy | 95 % interval | causality | 95 % interval | relations | prompts | edits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in data["methods"]:
        cells = [method["method"]]
        for key in ("accuracy", "causality"):
            cells += [_with_std(method[key]), _interval(method[key]["ci95"])]
        cells += [str(method[key]) for key in ("n_relations", "n_prompts", "n_edits")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Mean over relations, +- standard deviation over seeds {', '.join(map(str, data['seeds']))}; bootstrap "
        "over relations.",
        *_accuracies(data),
        *_curves(data, "curve", "Edits at every layer"),
        *_curves(data, "curve_single_layer", "Edits at the subject layer alone"),
        *_comparisons(data),
    ]
    if data["relations_left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {name}: {reason}" for name, reason in data["relations_left_out"].items()]
    if data["seeds_left_out"]:
        lines += ["", "Left out for single seeds:", ""]
        lines += [
            f"- {left_out['relation']}, seed {left_out['seed']}: {left_out['reason']}"
            for left_out in data["seeds_left_out"]
        ]
    return "\n".join(lines)


_ACCURACIES = {
    "accuracy": "accuracy",
    "top3": "in the first 3",
    "accuracy_centred": "centred",
    "accuracy_calibrated": "centred and calibrated",
    "control_shuffled": "shuffled labels",
    "control_random": "random directions",
    "control_random_model": "random model",
    "selectivity": "selectivity",
}
_COMPARED = {
    "accuracy": "accuracy",
    "accuracy_centred": "accuracy, centred",
    "accuracy_centred_over_plain": "accuracy, centred less plain",
    "causality": "causality",
    "causality_at_equal_kl": "causality at equal KL elsewhere",
}
_POINT = {
    "causality": "causality",
    "hard_causality": "generated",
    "mean_log_odds_change": "log-odds change",
    "wrong_way": "wrong way",
    "unrelated_kl": "KL elsewhere",
    "unrelated_kept": "kept elsewhere",
    "same_subject_kl": "KL, same subject",
    "same_subject_kept": "kept, same subject",
}


def _accuracies(data: Mapping[str, Any]) -> list[str]:
    rows = [
        [method["method"], *(_number(method[key]["mean"]) for key in _ACCURACIES)] for method in data["methods"]
    ]
    return ["", *_table(["method", *_ACCURACIES.values()], rows)]


def _curves(data: Mapping[str, Any], name: str, title: str) -> list[str]:
    rows = [
        [method["method"], f"{point['beta']:g}", *(_number(point[key]["mean"]) for key in _POINT)]
        for method in data["methods"]
        for point in sorted(method[name], key=lambda point: float(point["beta"]))
    ]
    return ["", f"{title}:", "", *_table(["method", "beta", *_POINT.values()], rows)] if rows else []


def _comparisons(data: Mapping[str, Any]) -> list[str]:
    rows = []
    for entry in data["comparisons"]:
        for statistic in _COMPARED:
            if statistic not in entry:
                continue
            comparison = entry[statistic]
            seeds = comparison["per_seed"]
            rows.append(
                [
                    f"{entry['method']} - {entry['against']}",
                    _COMPARED[statistic] + _matched(comparison),
                    _number(comparison["difference"]),
                    _interval(comparison["ci95"]),
                    _interval(comparison["paired_bootstrap"]["ci95"]),
                    _number(comparison["sign_test"]["p_holm"]),
                    ", ".join(_number(tests["mcnemar"]["p_holm"]) for tests in seeds),
                    ", ".join(_number(tests["z_test"]["p_holm"]) for tests in seeds),
                ]
            )
    if not rows:
        return []
    head = ["methods", "figure", "difference", "95 % over relations", "95 % over facts"]
    head += ["sign test", "McNemar by seed", "z-test by seed"]
    return ["", *_table(head, rows), "", "p-values are corrected for the number of methods (Holm)."]


def _matched(comparison: Mapping[str, Any]) -> str:
    """The betas that a comparison at equal KL could be made at: often few."""
    betas = comparison.get("betas")
    return f" (beta {', '.join(f'{beta:g}' for beta in sorted(betas))})" if betas else ""


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _with_std(summary: Mapping[str, Any]) -> str:
    if not math.isfinite(summary["mean"]):
        return "-"
    spread = f" +- {summary['std']:.3f}" if math.isfinite(summary["std"]) else ""
    return f"{summary['mean']:.3f}{spread}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if all(map(math.isfinite, bounds)) else "-"
