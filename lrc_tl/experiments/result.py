"""ProtocolResult: what a benchmark found, as JSON, a tidy DataFrame and a Markdown table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from lrc_tl.errors import ResultFileError, ResumeError
from lrc_tl.experiments.comparison import compare
from lrc_tl.experiments.record import require_record
from lrc_tl.experiments.resuming import part_files, read_part, require_one_run
from lrc_tl.experiments.tables import benchmark_markdown
from lrc_tl.numerics.statistics import bootstrap_interval, mean_and_std
from lrc_tl.storage.json_results import read_sealed_result, write_result

_KIND = "protocol_result"
Figure = Callable[[dict[str, Any]], float | None]
_PLACE = ("subject_layer", "object_layer", "rank")
_CONTROLS = ("control_shuffled", "control_random", "control_random_model")
_ACCURACIES = ("top3", "accuracy_centred", "accuracy_calibrated", *_CONTROLS)
_WITH_INTERVAL = ("causality", "hard_causality", "unrelated_kl")
_POINT = (
    *_WITH_INTERVAL,
    "mean_log_odds_change",
    "wrong_way",
    "edit_share",
    "unrelated_kept",
    "unrelated_log_prob_change",
    "same_subject_kl",
    "same_subject_kept",
    "same_subject_log_prob_change",
)
_ROW = ("beta", *_POINT[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class ProtocolResult:
    """Accuracy and causality of each method, for each relation and seed, with the counts behind them.

    `mean` is over relations, each of which counts once, with its mean over seeds; `ci95` is its bootstrap interval
    over relations. `std` is over seeds, of the means over the relations of each.
    """

    records: tuple[dict[str, Any], ...]
    """One for each relation and seed, in the order in which they were asked for; plain values."""
    methods: tuple[str, ...]
    compare: tuple[str, ...] = ()
    """Methods that `to_dict` and `to_markdown` compare with all others; empty for the first."""

    def save(self, path: str | Path) -> None:
        """Write everything to a JSON file; it appears whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        write_result(
            Path(path),
            kind=_KIND,
            results={"methods": self.methods, "compare": self.compare, "records": self.records},
            settings={},
            model=None,
            seconds=sum(self._seconds().values()),
            sealed=True,
        )

    @classmethod
    def load(cls, path: str | Path) -> "ProtocolResult":
        """A result from the file that `save` wrote, or from the folder that `run_protocol` kept its results in.

        A folder may hold what several processes found, copied together; it gives its relations and seeds in sorted
        order. Where they were run on other devices or with other versions of torch, that is warned about.

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
            for record in data["records"]:
                require_record(record)
            return cls(
                records=tuple(data["records"]), methods=tuple(data["methods"]), compare=tuple(data["compare"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ResumeError(f"{source} is no stored result: {error}") from error

    def require_nonempty(self) -> None:
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

    def curve_frame(self) -> pd.DataFrame:
        """One row for each method, relation, seed and beta: causality with the side effects beside it.

        `layers` is `"all"`, or `"own"` for edits at the subject layer alone, where these were asked for.
        """
        return pd.DataFrame(
            [
                {
                    "method": method,
                    "relation": record["relation"],
                    "seed": record["seed"],
                    "layers": layers,
                    "beta": point["beta"],
                    **{key: point.get(key) for key in _POINT},
                }
                for method in self.methods
                for record in self._used
                for layers, name in (("all", "curve"), ("own", "curve_single_layer"))
                for point in record["methods"][method].get(name) or ()
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the fields of `lrc-tl benchmark`."""
        return {
            "seeds": list(self.seeds),
            "relations_left_out": self.relations_left_out,
            "seeds_left_out": self.seeds_left_out,
            "without_edits": [
                {"relation": record["relation"], "seed": record["seed"]}
                for record in self._used
                if not record["n_edits"]
            ],
            "methods": [self._method(method) for method in self.methods],
            "comparisons": [one for first in self.compare or self.methods[:1] for one in self.comparisons(first)],
            "by_object_tokens": self._object_token_rows(),
            "relations": [
                {key: value for key, value in record.items() if key not in ("methods", "left_out")}
                for record in self._used
            ],
            "seconds_by_stage": self._seconds(),
        }

    def to_markdown(self) -> str:
        """The table of arXiv:2311.08968, section 4, with counts; accuracies, curves and comparisons."""
        return benchmark_markdown(self.to_dict())

    def comparisons(self, first: str | None = None) -> list[dict[str, Any]]:
        """One method, by default the first, against each other one; see `lrc_tl.experiments.comparison.compare`.

        Raises:
            LookupError: the result has no such method.
        """
        used = self.methods[0] if first is None else first
        if used not in self.methods:
            raise LookupError(f"the result has no method {used!r}; it has {', '.join(self.methods)}")
        return compare(self._used, [used, *(method for method in self.methods if method != used)])

    def by_object_tokens(self) -> pd.DataFrame:
        """Accuracy and causality of each method for objects of one token and of several, over all seeds.

        Averaged per relation and then over relations (arXiv:2311.08968, figures 4 and 5).
        """
        return pd.DataFrame(self._object_token_rows())

    def _object_token_rows(self) -> list[dict[str, Any]]:
        rows = []
        for method in self.methods:
            place = self._used[0]["methods"][method]
            for kind, several in (("single-token", False), ("multi-token", True)):
                correct, success = [], []
                for record in self._used:
                    own = record["methods"][method]
                    multi = [count > 1 for count in record["object_tokens"]]
                    of_several = {p[2] for p, more in zip(record["test_prompts"], multi, strict=True) if more}
                    right = [x for x, more in zip(own["correct"], multi, strict=True) if more == several]
                    correct.append((record["relation"], right))
                    if own["curve"]:
                        hits = zip(own["curve"][0]["success"], record["edits"], strict=True)
                        same = [hit for hit, edit in hits if (edit[1] in of_several) == several]
                        success.append((record["relation"], same))
                rows.append(
                    {
                        "method": method,
                        **{key: place.get(key) for key in _PLACE},
                        "object": kind,
                        "accuracy": _mean_of_shares(correct),
                        "n_prompts": sum(len(own) for _, own in correct),
                        "causality": _mean_of_shares(success),
                        "n_edits": sum(len(own) for _, own in success),
                    }
                )
        return rows

    def _method(self, method: str) -> dict[str, Any]:
        rows = self._rows(method)
        figures = [record["methods"][method] for record in self._used]
        return {
            "method": method,
            "accuracy": self._summary(method, _accuracy),
            "causality": self._summary(method, _causality),
            **{key: figures[0].get(key) for key in _PLACE},
            **{key: self._summary(method, _plain(key)) for key in _ACCURACIES},
            "selectivity": self._summary(method, _selectivity),
            "n_relations": len({row["relation"] for row in rows}),
            "n_prompts": sum(row["n_prompts"] for row in rows),
            "n_edits": sum(row["n_edits"] for row in rows),
            "seconds_train": sum(figure["seconds_train"] for figure in figures),
            "seconds_evaluate": sum(figure["seconds_evaluate"] for figure in figures),
            "curve": self._curve(method, "curve"),
            "curve_single_layer": self._curve(method, "curve_single_layer"),
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
                    **{key: found.get(key) for key in (*_PLACE, *_ACCURACIES)},
                    **{key: point.get(key) for key in _ROW},
                }
            )
        return rows

    def _curve(self, method: str, name: str) -> list[dict[str, Any]]:
        """Figures for each beta; empty where each relation has a beta of its own, or there are none."""
        betas = {tuple(record["betas"]) for record in self._used}
        if len(betas) != 1 or not any(record["methods"][method].get(name) for record in self._used):
            return []
        return [
            {
                "beta": beta,
                **{key: self._summary(method, _at(name, place, key), key in _WITH_INTERVAL) for key in _POINT},
            }
            for place, beta in enumerate(betas.pop())
        ]

    def _summary(self, method: str, figure: Figure, interval: bool = True) -> dict[str, Any]:
        values = [
            (record["seed"], value)
            for record in self._used
            if (value := figure(record["methods"][method])) is not None
        ]
        seeds = dict.fromkeys(seed for seed, _ in values)
        per_seed = [mean_and_std([value for at, value in values if at == seed])[0] for seed in seeds]
        by_relation = list(self._by_relation(method, figure).values())
        found: dict[str, Any] = {"mean": mean_and_std(by_relation)[0], "std": mean_and_std(per_seed)[1]}
        if interval:
            found["ci95"] = list(bootstrap_interval(by_relation))
        return found

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


def _from_folder(folder: Path) -> dict[str, Any]:
    paths = part_files(folder)
    if not paths:
        raise ResumeError(f"{folder} holds no results of a benchmark; give the folder that it kept them in")
    parts = [read_part(path, kind="benchmark_part", require_record=require_record) for path in paths]
    require_one_run(parts)
    records = sorted((part.record for part in parts), key=lambda record: (record["relation"], record["seed"]))
    for one, other in pairwise(records):
        if (one["relation"], one["seed"]) == (other["relation"], other["seed"]):
            raise ResumeError(f"{folder} holds {one['relation']!r}, seed {one['seed']}, twice; delete one")
    methods = {tuple(record["methods"]) for record in records if record["left_out"] is None}
    if len(methods) > 1:
        raise ResumeError(f"{folder} holds results of different methods; give a folder of one run")
    return {"records": tuple(records), "methods": next(iter(methods), tuple(parts[0].settings["methods"]))}


def _accuracy(found: dict[str, Any]) -> float | None:
    return float(found["accuracy"])


def _causality(found: dict[str, Any]) -> float | None:
    return float(found["curve"][0]["causality"]) if found["curve"] else None


def _plain(key: str) -> Figure:
    return lambda found: found.get(key)


def _selectivity(found: dict[str, Any]) -> float | None:
    control = found.get("control_shuffled")
    return None if control is None else float(found["accuracy"] - control)


def _at(name: str, place: int, key: str) -> Figure:
    return lambda found: found[name][place].get(key) if found.get(name) else None


def _mean_of_shares(outcomes: Sequence[tuple[str, Sequence[bool]]]) -> float | None:
    """Of the shares of each relation, all its seeds together; None without any outcome."""
    pooled: dict[str, list[bool]] = {}
    for relation, own in outcomes:
        pooled.setdefault(relation, []).extend(own)
    shares = [sum(own) / len(own) for own in pooled.values() if own]
    return sum(shares) / len(shares) if shares else None
