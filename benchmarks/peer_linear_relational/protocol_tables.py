"""Sums, shares and agreement over the relations of the protocol, as plain values and as tables."""

import math
import statistics
from typing import Any

from protocol_runs import METHODS, STAGES

RUNS = {
    "exact": "lrc_tl, exact",
    "low_rank": "lrc_tl, low rank",
    "peer": "linear-relational, cache mended",
    "peer_shipped": "linear-relational, as shipped",
}


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of seconds, largest peaks, and accuracy and causality over all relations."""
    found: dict[str, Any] = {"timing": {}, "methods": {}, "agreement": {}}
    for name in ("exact", "low_rank", "peer"):
        seconds = {stage: sum(r["runs"][name]["seconds"][stage] for r in records) for stage in STAGES}
        found["timing"][name] = {
            "seconds": {**seconds, "whole": sum(seconds.values())},
            "peak_rss_bytes": {
                stage: max(r["runs"][name]["peak_rss_bytes"][stage] for r in records) for stage in STAGES
            },
        }
    theirs = found["timing"]["peer"]["seconds"]
    for name in ("exact", "low_rank"):
        own = found["timing"][name]
        own["times_faster"] = {stage: theirs[stage] / own["seconds"][stage] for stage in theirs}
    for name in RUNS:
        used = [r for r in records if name in r["runs"]]
        if not used:
            continue
        found["methods"][name] = {method: over_relations(used, name, method) for method in METHODS}
        against = {"exact": [], "low_rank": ["exact"], "peer": ["exact"], "peer_shipped": ["peer"]}[name]
        for other in against:
            found["agreement"][f"{name} with {other}"] = {
                method: {
                    kind: same(used, name, other, method, key)
                    for kind, key in (("equal_predictions", "predicted"), ("equal_edits", "success"))
                }
                for method in METHODS
            }
    return found


def over_relations(records: list[dict[str, Any]], run: str, method: str) -> dict[str, Any]:
    """Counts and shares, pooled and averaged over the relations."""
    own = [record["runs"][run]["methods"][method] for record in records]
    with_edits = [one["causality"] for one in own if one["causality"] is not None]
    n_test, n_edits = sum(r["n_test"] for r in records), sum(r["n_edits"] for r in records)
    return {
        "n_relations": len(records),
        "n_test": n_test,
        "n_edits": n_edits,
        "accuracy_pooled": sum(one["n_correct"] for one in own) / n_test,
        "accuracy_macro": statistics.mean(one["accuracy"] for one in own),
        "causality_pooled": sum(one["n_success"] for one in own) / n_edits if n_edits else None,
        "causality_macro": statistics.mean(with_edits) if with_edits else None,
    }


def same(records: list[dict[str, Any]], run: str, other: str, method: str, key: str) -> float | None:
    """Share of test prompts or edits on which two runs say the same."""
    equal = [
        one == two
        for record in records
        for one, two in zip(*(record["runs"][name]["methods"][method][key] for name in (run, other)), strict=True)
    ]
    return statistics.mean(equal) if equal else None


def tables(records: list[dict[str, Any]], found: dict[str, Any]) -> str:
    """The Markdown tables."""
    timing = found["timing"]
    lines = [
        "| stage | exact, s | low rank, s | linear-relational, s | times faster, exact | low rank | "
        "peak GiB, exact | low rank | the peer's |",
        "|---|" + "---|" * 8,
    ]
    for stage in (*STAGES, "whole"):
        peaks = [
            max(own["peak_rss_bytes"].values()) if stage == "whole" else own["peak_rss_bytes"][stage]
            for own in timing.values()
        ]
        cells = [f"{own['seconds'][stage]:.1f}" for own in timing.values()]
        cells += [f"{timing[name]['times_faster'][stage]:.2f}" for name in ("exact", "low_rank")]
        lines.append(f"| {stage} | {' | '.join(cells + [f'{peak / 2**30:.2f}' for peak in peaks])} |")
    names = list(found["methods"])
    lines += [
        "",
        f"| method | figure | {' | '.join(RUNS[name] for name in names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for method in METHODS:
        for figure in ("accuracy_pooled", "accuracy_macro", "causality_pooled", "causality_macro"):
            values = (found["methods"][name][method][figure] for name in names)
            lines.append(f"| {method} | {figure.replace('_', ', ')} | {' | '.join(map(share, values))} |")
    lines += [
        "",
        "| relation | test | edits | " + " | ".join(METHODS) + " |",
        "|---|---|---|" + "---|" * len(METHODS),
    ]
    for record in records:
        cells = []
        for method in METHODS:
            pairs = (
                "/".join(
                    share(record["runs"][name]["methods"][method][figure]) if name in record["runs"] else "-"
                    for name in RUNS
                )
                for figure in ("accuracy", "causality")
            )
            cells.append(", ".join(pairs))
        lines.append(f"| {record['relation']} | {record['n_test']} | {record['n_edits']} | {' | '.join(cells)} |")
    lines += ["", "| runs | method | equal predictions | equal edits |", "|---|---|---|---|"]
    for pair, methods in found["agreement"].items():
        for method, one in methods.items():
            cells = [share(one[kind]) for kind in ("equal_predictions", "equal_edits")]
            lines.append(f"| {pair} | {method} | {' | '.join(cells)} |")
    lines += ["", *errors(records)]
    return "\n".join(lines)


def errors(records: list[dict[str, Any]]) -> list[str]:
    """The largest errors of W and b and the cosines of the directions, as a table."""
    sources = {
        "exact, mended peer": [r["against_exact"]["peer"] for r in records],
        "exact, low rank": [r["against_exact"]["low_rank"] for r in records],
        "mended peer, as shipped": [r["shipped_against_mended"] for r in records if "shipped_against_mended" in r],
    }
    lines = [
        "| compared | method | largest error of W | of b | least cosine | median cosine |",
        "|---|" + "---|" * 5,
    ]
    for pair, found in sources.items():
        for method in METHODS if found else ():
            cells = []
            for kind in ("weight", "bias"):
                own = [one.get(f"relative_error_{kind}", {}).get(method) for one in found]
                cells.append("-" if None in own else f"{max(own):.1e}")
            values = [value for one in found for value in one["cosines"][method].values()]
            cells += [f"{min(values):.6f}", f"{statistics.median(values):.6f}"]
            lines.append(f"| {pair} | {method} | {' | '.join(cells)} |")
    return lines


def share(value: float | None) -> str:
    """A share as this project writes it."""
    return "-" if value is None else "1.000" if math.isclose(value, 1) else f"{value:.3f}"[1:]
