"""ProtocolResult: what a benchmark found, as JSON, a tidy DataFrame and a Markdown table."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lrc_tl.evaluation.statistics import (
    bootstrap_interval,
    holm,
    mcnemar_test,
    mean_and_std,
    sign_test,
    two_proportion_z_test,
)

Figure = Callable[[dict[str, Any]], float | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProtocolResult:
    """Accuracy and causality of each method, for each relation and seed, with the counts behind them.

    A figure of a method is averaged over its relations for each seed; `mean` and `std` are over seeds. `ci95` is
    the bootstrap interval over relations, each of which counts with its mean over seeds.
    """

    records: tuple[dict[str, Any], ...]
    """One for each relation and seed, in the order in which they were asked for; plain values."""
    methods: tuple[str, ...]

    def require_some(self) -> None:
        """Fail where no relation was evaluated.

        Raises:
            ValueError: the text says why each was left out.
        """
        if not self._used:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.relations_left_out.items())
            raise ValueError(f"no relation could be evaluated: {reasons or 'none were given'}")

    @property
    def _used(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["left_out"] is None]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the evaluated relations."""
        return tuple(dict.fromkeys(record["seed"] for record in self._used))

    @property
    def relations_left_out(self) -> dict[str, str]:
        """Relations that were evaluated with no seed -> reason (the first seed's)."""
        used = {record["relation"] for record in self._used}
        left: dict[str, str] = {}
        for record in self.records:
            if record["relation"] not in used:
                left.setdefault(record["relation"], record["left_out"])
        return left

    @property
    def seeds_left_out(self) -> list[dict[str, Any]]:
        """Single seeds of relations that were evaluated with others: relation, seed, reason."""
        left = self.relations_left_out
        return [
            {"relation": record["relation"], "seed": record["seed"], "reason": record["left_out"]}
            for record in self.records
            if record["left_out"] is not None and record["relation"] not in left
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row for each method, relation and seed."""
        return pd.DataFrame([{"method": m, **row} for m in self.methods for row in self._rows(m)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the fields of `lrc-tl benchmark`."""
        return {
            "relations_left_out": self.relations_left_out,
            "seeds_left_out": self.seeds_left_out,
            "without_edits": [
                {"relation": record["relation"], "seed": record["seed"]}
                for record in self._used
                if not record["n_edits"]
            ],
            "methods": [self._method(method) for method in self.methods],
            "comparisons": self.comparisons(),
            "relations": [
                {key: value for key, value in record.items() if key not in ("methods", "left_out")}
                for record in self._used
            ],
            "seconds_by_stage": self._seconds(),
        }

    def to_markdown(self) -> str:
        """The table of arXiv:2311.08968, section 4, with intervals and counts."""
        lines = [
            "| method | accuracy | 95 % interval | causality | 95 % interval | relations | prompts | edits |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for method in self.methods:
            found = self._method(method)
            cells = [method]
            for key in ("accuracy", "causality"):
                cells += [_with_std(found[key]), _interval(found[key]["ci95"])]
            cells += [str(found[key]) for key in ("n_relations", "n_prompts", "n_edits")]
            lines.append(f"| {' | '.join(cells)} |")
        seeds = ", ".join(map(str, self.seeds))
        lines += [
            "",
            f"Mean over relations, +- standard deviation over seeds {seeds}; bootstrap over relations.",
        ]
        if self.relations_left_out:
            lines += ["", "Left out:", ""]
            lines += [f"- {name}: {reason}" for name, reason in self.relations_left_out.items()]
        if self.seeds_left_out:
            lines += ["", "Left out for single seeds:", ""]
            lines += [f"- {one['relation']}, seed {one['seed']}: {one['reason']}" for one in self.seeds_left_out]
        return "\n".join(lines)

    def comparisons(self) -> list[dict[str, Any]]:
        """The first method against each other one: differences, paired and unpaired tests, corrected by Holm.

        For accuracy and causality each: the mean difference over relations with its bootstrap interval and a sign
        test; for each seed the paper's two-proportion z-test and McNemar's test on the same prompts or edits. All
        tests of one kind and seed are corrected for the number of methods.
        """
        first, *others = self.methods
        if not others:
            return []
        entries: list[dict[str, Any]] = [{"method": first, "against": other} for other in others]
        for key, figure, outcomes in (("accuracy", _accuracy, _correct), ("causality", _causality, _success)):
            tests: dict[Any, list[dict[str, Any]]] = {}
            for entry, other in zip(entries, others, strict=True):
                mine, theirs = (self._by_relation(method, figure) for method in (first, other))
                differences = [mine[name] - theirs[name] for name in mine]
                sign = sign_test(differences)
                own: dict[str, Any] = {
                    "difference": mean_and_std(differences)[0],
                    "ci95": list(bootstrap_interval(differences)),
                    "sign_test": {"share_positive": sign.statistic, "p": sign.p_value, "n": sign.n},
                    "per_seed": [],
                }
                tests.setdefault("sign", []).append(own["sign_test"])
                for seed in self.seeds:
                    a, b = (
                        [x for record in self._used if record["seed"] == seed for x in outcomes(record, method)]
                        for method in (first, other)
                    )
                    if not a:
                        continue
                    z, paired = two_proportion_z_test(sum(a), len(a), sum(b), len(b)), mcnemar_test(a, b)
                    at_seed: dict[str, Any] = {
                        "seed": seed,
                        "z_test": {"z": z.statistic, "p": z.p_value, "n": len(a)},
                        "mcnemar": {"share_first": paired.statistic, "p": paired.p_value, "n": paired.n},
                    }
                    tests.setdefault(("z", seed), []).append(at_seed["z_test"])
                    tests.setdefault(("mcnemar", seed), []).append(at_seed["mcnemar"])
                    own["per_seed"].append(at_seed)
                entry[key] = own
            for family in tests.values():
                for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
                    test["p_holm"] = p
        return entries

    def _method(self, method: str) -> dict[str, Any]:
        rows = self._rows(method)
        figures = [record["methods"][method] for record in self._used]
        return {
            "method": method,
            "accuracy": self._summary(method, _accuracy),
            "causality": self._summary(method, _causality),
            "n_relations": len({row["relation"] for row in rows}),
            "n_prompts": sum(row["n_prompts"] for row in rows),
            "n_edits": sum(row["n_edits"] for row in rows),
            "seconds_train": sum(figure["seconds_train"] for figure in figures),
            "seconds_evaluate": sum(figure["seconds_evaluate"] for figure in figures),
            "curve": self._curve(method),
            "per_relation": rows,
        }

    def _rows(self, method: str) -> list[dict[str, Any]]:
        rows = []
        for record in self._used:
            found = record["methods"][method]
            point = found["curve"][0] if found["curve"] else {}
            rows.append(
                {
                    "relation": record["relation"],
                    "seed": record["seed"],
                    "accuracy": found["accuracy"],
                    "causality": point.get("causality"),
                    "n_prompts": record["n_prompts"],
                    "n_edits": record["n_edits"],
                    "n_correct": sum(found["correct"]),
                    "n_objects": record["n_objects"],
                    "chance": record["chance"],
                    "mean_reciprocal_rank": found["mean_reciprocal_rank"],
                    **{key: point.get(key) for key in ("beta", "edit_share", "mean_log_odds_change", "wrong_way")},
                }
            )
        return rows

    def _curve(self, method: str) -> list[dict[str, Any]]:
        """Figures for each beta; empty where each relation has a beta of its own."""
        betas = {tuple(record["betas"]) for record in self._used}
        if len(betas) != 1:
            return []
        curve: list[dict[str, Any]] = []
        for place, beta in enumerate(betas.pop()):
            point: dict[str, Any] = {"beta": beta}
            for key in ("causality", "mean_log_odds_change", "wrong_way", "edit_share"):
                point[key] = self._summary(method, _at(place, key))
            curve.append(point)
        return curve

    def _summary(self, method: str, figure: Figure) -> dict[str, Any]:
        values = [
            (record["seed"], value)
            for record in self._used
            if (value := figure(record["methods"][method])) is not None
        ]
        seeds = dict.fromkeys(seed for seed, _ in values)
        per_seed = [mean_and_std([value for at, value in values if at == seed])[0] for seed in seeds]
        mean, std = mean_and_std(per_seed)
        interval = bootstrap_interval(list(self._by_relation(method, figure).values()))
        return {"mean": mean, "std": std, "ci95": list(interval)}

    def _by_relation(self, method: str, figure: Figure) -> dict[str, float]:
        """Mean over seeds for each relation that has the figure."""
        values: dict[str, list[float]] = {}
        for record in self._used:
            if (value := figure(record["methods"][method])) is not None:
                values.setdefault(record["relation"], []).append(value)
        return {name: mean_and_std(own)[0] for name, own in values.items()}

    def _seconds(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for record in self._used:
            for stage, seconds in record["seconds"].items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total


def _accuracy(found: dict[str, Any]) -> float | None:
    return float(found["accuracy"])


def _causality(found: dict[str, Any]) -> float | None:
    return float(found["curve"][0]["causality"]) if found["curve"] else None


def _at(place: int, key: str) -> Figure:
    return lambda found: float(found["curve"][place][key]) if found["curve"] else None


def _correct(record: dict[str, Any], method: str) -> list[bool]:
    return list(record["methods"][method]["correct"])


def _success(record: dict[str, Any], method: str) -> list[bool]:
    curve = record["methods"][method]["curve"]
    return list(curve[0]["success"]) if curve else []


def _with_std(summary: dict[str, Any]) -> str:
    if not math.isfinite(summary["mean"]):
        return "-"
    spread = f" +- {summary['std']:.3f}" if math.isfinite(summary["std"]) else ""
    return f"{summary['mean']:.3f}{spread}"


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if all(map(math.isfinite, bounds)) else "-"
