"""ProtocolResult: what a benchmark found, as JSON, a tidy DataFrame and a Markdown table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from lrc_tl.errors import ResultFileError, ResumeError
from lrc_tl.experiments.comparison import compare
from lrc_tl.experiments.displays import protocol_html, protocol_text
from lrc_tl.experiments.method_outcome import CurvePoint, MethodOutcome
from lrc_tl.experiments.object_tokens import place_of, rows_by_object_tokens
from lrc_tl.experiments.record import LeftOutRelation, Record, RelationRecord, record_from_dict
from lrc_tl.experiments.resuming import read_record, record_files, require_one_run
from lrc_tl.experiments.tables import benchmark_markdown
from lrc_tl.numerics.statistics import bootstrap_interval, mean_and_std
from lrc_tl.storage.json_fields import conforms
from lrc_tl.storage.json_results import read_sealed_result, write_result

_KIND = "protocol_result"
_Statistic: TypeAlias = Callable[[MethodOutcome], float | None]
_Curve: TypeAlias = Callable[[MethodOutcome], Sequence[CurvePoint] | None]
_WITH_INTERVAL = ("causality", "hard_causality", "unrelated_kl")


@dataclass(frozen=True, kw_only=True, eq=False)
class ProtocolResult:
    """Accuracy and causality of each method, for each relation and seed, with the counts behind them.

    `mean` is over relations, each of which counts once, with its mean over seeds; `ci95` is its bootstrap interval
    over relations. `std` is over seeds, of the means over the relations of each.
    """

    records: tuple[Record, ...]
    """One for each relation and seed, in the order in which they were asked for."""
    methods: tuple[str, ...]
    compared: tuple[str, ...] = ()
    """Methods that `to_dict` and `to_markdown` compare with all others; empty for the first."""

    __repr__ = protocol_text
    _repr_html_ = protocol_html

    def save(self, path: str | Path) -> None:
        """Write everything to a JSON file; it appears whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        write_result(
            Path(path),
            kind=_KIND,
            results={
                "methods": self.methods,
                "compare": self.compared,
                "records": [record.to_dict() for record in self.records],
            },
            settings={},
            model=None,
            seconds=sum(self._seconds().values()),
            sealed=True,
        )

    @classmethod
    def load(cls, path: str | Path) -> "ProtocolResult":
        """A result from the file that `save` wrote, or from the folder that `run_protocol` kept its results in.

        A folder may hold the records of several processes, copied together; its relations and seeds come in
        sorted order. Where they were run on other devices or with other versions of torch, that is warned about.

        Raises:
            ResumeError: there is nothing, a file is damaged, or two results of a folder are of different settings,
                models, precisions or versions of this library.
        """
        source = Path(path)
        if source.is_dir():
            return cls(**_from_folder(source))
        try:
            data = read_sealed_result(source, kind=_KIND, schema_version=1)
        except ResultFileError as error:
            raise ResumeError(
                f"{error}; give a file of ProtocolResult.save, or a folder of results (out=, or FILE.parts beside "
                "a benchmark's FILE)"
            ) from error
        try:
            result = cls(
                records=tuple(map(record_from_dict, data["records"])),
                methods=_names(data["methods"], "methods"),
                compared=_names(data["compare"], "compare"),
            )
            for record in result._evaluated:
                if missing := [name for name in result.methods if name not in record.methods]:
                    raise ValueError(f"{record.relation!r}, seed {record.seed}, has no {', '.join(missing)}")
            return result
        except (KeyError, TypeError, ValueError) as error:
            raise ResumeError(f"{source} is no stored result: {error}") from error

    def require_nonempty(self) -> None:
        """Fail where no relation was evaluated.

        Raises:
            ValueError: the text says why each was left out.
        """
        if not self._evaluated:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.relations_left_out.items())
            raise ValueError(f"no relation could be evaluated: {reasons or 'none were given'}")

    @property
    def _evaluated(self) -> list[RelationRecord]:
        return [record for record in self.records if isinstance(record, RelationRecord)]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the evaluated relations."""
        return tuple(dict.fromkeys(record.seed for record in self._evaluated))

    @property
    def n_relations(self) -> int:
        """Relations that were evaluated with some seed."""
        return len({record.relation for record in self._evaluated})

    @property
    def relations_left_out(self) -> dict[str, str]:
        """Relations that were evaluated with no seed -> reason (the first seed's)."""
        evaluated = {record.relation for record in self._evaluated}
        reasons: dict[str, str] = {}
        for record in self.records:
            if isinstance(record, LeftOutRelation) and record.relation not in evaluated:
                reasons.setdefault(record.relation, record.left_out)
        return reasons

    @property
    def seeds_left_out(self) -> list[dict[str, Any]]:
        """Single seeds of relations that were evaluated with others: relation, seed, reason."""
        left_out = self.relations_left_out
        return [
            {"relation": record.relation, "seed": record.seed, "reason": record.left_out}
            for record in self.records
            if isinstance(record, LeftOutRelation) and record.relation not in left_out
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row for each method, relation and seed."""
        return pd.DataFrame([{"method": m, **row} for m in self.methods for row in self._rows(m)])

    def curve_frame(self) -> pd.DataFrame:
        """One row for each method, relation, seed and beta: causality with the side effects beside it.

        `layers` is `"all"`, or `"own"` for edits at the subject layer alone, where these were asked for.
        """
        return pd.DataFrame(
            [
                {
                    "method": method,
                    "relation": record.relation,
                    "seed": record.seed,
                    "layers": layers,
                    "beta": point.beta,
                    **point.statistics(),
                }
                for method in self.methods
                for record in self._evaluated
                for layers, curve in (("all", _curve), ("own", _curve_single_layer))
                for point in curve(record.methods[method]) or ()
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the fields of `lrc-tl benchmark`."""
        return {
            "seeds": list(self.seeds),
            "relations_left_out": self.relations_left_out,
            "seeds_left_out": self.seeds_left_out,
            "without_edits": [
                {"relation": record.relation, "seed": record.seed}
                for record in self._evaluated
                if not record.n_edits
            ],
            "methods": [self._method(method) for method in self.methods],
            "comparisons": [
                entry for first in self.compared or self.methods[:1] for entry in self.comparisons(first)
            ],
            "by_object_tokens": rows_by_object_tokens(self._evaluated, self.methods),
            "relations": [
                {key: value for key, value in record.to_dict().items() if key not in ("methods", "left_out")}
                for record in self._evaluated
            ],
            "seconds_by_stage": self._seconds(),
        }

    def to_markdown(self) -> str:
        """The table of arXiv:2311.08968, section 4, with counts; accuracies, curves and comparisons."""
        return benchmark_markdown(self.to_dict())

    def plot(self, **options: Any) -> Any:
        """A figure of what the result shows best: `lrc_tl.views.plot_sweep`, whose options it takes.

        A sweep as a heat map or lines over its layers or ranks; else causality over several betas; else two
        methods, relation by relation. It shows itself in a notebook, and `save` writes PNG, SVG, PDF or HTML.
        `plot(kind="relations", methods=["lrc", "svm"])` is another one.

        Raises:
            LookupError: there is one method, at one setting and beta; or nothing of what the options ask for.
            ValueError: there is no such kind.
            TypeError: there is no such option.
        """
        from lrc_tl.views import plot_sweep  # views import results, so only here and now

        return plot_sweep(self, **options)

    def comparisons(self, first: str | None = None) -> list[dict[str, Any]]:
        """One method, by default the first, against each other one; see `lrc_tl.experiments.comparison.compare`.

        Raises:
            LookupError: the result has no such method.
        """
        used = self.methods[0] if first is None else first
        if used not in self.methods:
            raise LookupError(f"the result has no method {used!r}; it has {', '.join(self.methods)}")
        return compare(self._evaluated, [used, *(method for method in self.methods if method != used)])

    def by_object_tokens(self) -> pd.DataFrame:
        """Accuracy and causality of each method for objects of one token and of several, over all seeds.

        Averaged per relation and then over relations (arXiv:2311.08968, figures 4 and 5).
        """
        return pd.DataFrame(rows_by_object_tokens(self._evaluated, self.methods))

    def summaries(self, *, interval: bool = True) -> list[dict[str, Any]]:
        """For each method accuracy and causality (mean, std, with `interval` ci95), and the counts behind them."""
        rows = self._rows(self.methods[0])
        return [
            {
                "method": method,
                "accuracy": self._summary(method, lambda outcome: outcome.accuracy, interval),
                "causality": self._summary(method, _causality, interval),
                "n_relations": self.n_relations,
                "n_prompts": sum(row["n_prompts"] for row in rows),
                "n_edits": sum(row["n_edits"] for row in rows),
            }
            for method in self.methods
        ]

    def _method(self, method: str) -> dict[str, Any]:
        rows = self._rows(method)
        outcomes = [record.methods[method] for record in self._evaluated]
        return {
            "method": method,
            "accuracy": self._summary(method, lambda outcome: outcome.accuracy),
            "causality": self._summary(method, _causality),
            **place_of(outcomes[0]),
            **{name: self._summary(method, statistic) for name, statistic in _ACCURACIES.items()},
            "selectivity": self._summary(method, lambda outcome: outcome.accuracy - outcome.control_shuffled),
            "n_relations": len({row["relation"] for row in rows}),
            "n_prompts": sum(row["n_prompts"] for row in rows),
            "n_edits": sum(row["n_edits"] for row in rows),
            "seconds_train": sum(outcome.seconds_train for outcome in outcomes),
            "seconds_evaluate": sum(outcome.seconds_evaluate for outcome in outcomes),
            "curve": self._curve(method, _curve),
            "curve_single_layer": self._curve(method, _curve_single_layer),
            "per_relation": rows,
        }

    def _rows(self, method: str) -> list[dict[str, Any]]:
        rows = []
        for record in self._evaluated:
            outcome = record.methods[method]
            point = outcome.at_first_beta
            statistics = point.statistics() if point else dict.fromkeys(CurvePoint.STATISTICS)
            causality = statistics.pop("causality")
            rows.append(
                {
                    "relation": record.relation,
                    "seed": record.seed,
                    "accuracy": outcome.accuracy,
                    "causality": causality,
                    "n_prompts": record.n_prompts,
                    "n_edits": record.n_edits,
                    "n_correct": sum(outcome.correct),
                    "n_objects": record.n_objects,
                    "chance": record.chance,
                    "mean_reciprocal_rank": outcome.mean_reciprocal_rank,
                    **place_of(outcome),
                    **{name: statistic(outcome) for name, statistic in _ACCURACIES.items()},
                    "beta": point.beta if point else None,
                    **statistics,
                }
            )
        return rows

    def _curve(self, method: str, curve: _Curve) -> list[dict[str, Any]]:
        """Statistics for each beta; empty where each relation has a beta of its own, or there are none."""
        betas = {record.betas for record in self._evaluated}
        if len(betas) != 1 or not any(curve(record.methods[method]) for record in self._evaluated):
            return []
        return [
            {
                "beta": beta,
                **{
                    name: self._summary(method, _at(curve, place, name), name in _WITH_INTERVAL)
                    for name in CurvePoint.STATISTICS
                },
            }
            for place, beta in enumerate(betas.pop())
        ]

    def _summary(self, method: str, statistic: _Statistic, interval: bool = True) -> dict[str, Any]:
        values = [
            (record.seed, value)
            for record in self._evaluated
            if (value := statistic(record.methods[method])) is not None
        ]
        seeds = dict.fromkeys(seed for seed, _ in values)
        per_seed = [mean_and_std([value for of, value in values if of == seed])[0] for seed in seeds]
        by_relation = list(self._by_relation(method, statistic).values())
        summary: dict[str, Any] = {"mean": mean_and_std(by_relation)[0], "std": mean_and_std(per_seed)[1]}
        if interval:
            summary["ci95"] = list(bootstrap_interval(by_relation))
        return summary

    def _by_relation(self, method: str, statistic: _Statistic) -> dict[str, float]:
        """Mean over seeds for each relation that has the statistic."""
        values: dict[str, list[float]] = {}
        for record in self._evaluated:
            if (value := statistic(record.methods[method])) is not None:
                values.setdefault(record.relation, []).append(value)
        return {name: mean_and_std(over_seeds)[0] for name, over_seeds in values.items()}

    def _seconds(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for record in self._evaluated:
            for stage, seconds in record.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total


def _from_folder(folder: Path) -> dict[str, Any]:
    paths = record_files(folder)
    if not paths:
        raise ResumeError(f"{folder} holds no results of a benchmark; give the folder that it kept them in")
    stored = [read_record(path) for path in paths]
    require_one_run(stored)
    records = sorted((file.record for file in stored), key=lambda record: (record.relation, record.seed))
    for record, following in pairwise(records):
        if (record.relation, record.seed) == (following.relation, following.seed):
            raise ResumeError(f"{folder} holds {record.relation!r}, seed {record.seed}, twice; delete one")
    methods = {tuple(record.methods) for record in records if isinstance(record, RelationRecord)}
    if len(methods) > 1:
        raise ResumeError(f"{folder} holds results of different methods; give a folder of one run")
    if not methods:  # all relations are left out
        try:
            methods = {_names(stored[0].settings.get("methods"), "methods")}
        except ValueError as error:
            raise ResumeError(f"{stored[0].path} cannot be used: {error}; delete it") from error
    return {"records": tuple(records), "methods": next(iter(methods))}


def _names(value: Any, field: str) -> tuple[str, ...]:
    if not conforms(value, list[str]):
        raise ValueError(f"its {field} are {value!r:.60}, and must be a list of names")
    return tuple(value)


_ACCURACIES: Mapping[str, _Statistic] = {
    "top3": lambda outcome: outcome.top3,
    "accuracy_centred": lambda outcome: outcome.accuracy_centred,
    "accuracy_calibrated": lambda outcome: outcome.accuracy_calibrated,
    "control_shuffled": lambda outcome: outcome.control_shuffled,
    "control_random": lambda outcome: outcome.control_random,
    "control_random_model": lambda outcome: outcome.control_random_model,
}


def _causality(outcome: MethodOutcome) -> float | None:
    return outcome.at_first_beta.causality if outcome.at_first_beta else None


def _curve(outcome: MethodOutcome) -> tuple[CurvePoint, ...]:
    return outcome.curve


def _curve_single_layer(outcome: MethodOutcome) -> tuple[CurvePoint, ...] | None:
    return outcome.curve_single_layer


def _at(curve: _Curve, place: int, name: str) -> _Statistic:
    def statistic(outcome: MethodOutcome) -> float | None:
        points = curve(outcome)
        return points[place].statistics()[name] if points else None

    return statistic
