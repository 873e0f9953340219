"""The tidy rows that figures are drawn from: one per relation, seed, setting, edit, reading and metric."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lrc_tl.experiments.method_outcome import CurvePoint, MethodOutcome
from lrc_tl.experiments.record import RelationRecord
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS
from lrc_tl.experiments.sweep_rows import COLUMNS, EDIT_COLUMNS, INTEGERS, KEY

CELL = tuple(name for name in CELL_COLUMNS if name != "method")
"""What, with the method, directions are made with."""
EDIT = EDIT_COLUMNS
_WORDS = ("relation", "method", "place", "reading", "metric")
_CHECKED = "lrc_tl.tidy"
_MOST_KEYS = 2**62


class Metric(NamedTuple):
    """What a metric is called on axes and in tables, and which way it is better."""

    label: str
    is_share: bool = True
    smaller_is_better: bool = False
    of_edits: bool = False

    @property
    def title(self) -> str:
        """The label at the beginning of a sentence."""
        return self.label[:1].upper() + self.label[1:]


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("accuracy"),
    "top3": Metric("object in the first 3"),
    "selectivity": Metric("selectivity", is_share=False),
    "faithfulness": Metric("LRE faithfulness"),
    "causality": Metric("causality", of_edits=True),
    "hard_causality": Metric("new object said", of_edits=True),
    "edit_share": Metric("size of the edit, as a share of |h|", is_share=False, of_edits=True),
    "kl_elsewhere": Metric("KL on unrelated statements (nats)", False, True, True),
    "kl_same_subject": Metric("KL on the same subject (nats)", False, True, True),
    "chance": Metric("chance"),
    "chosen_noise": Metric("chosen noise", is_share=False),
}


def metric_of(name: str) -> Metric:
    """What is known of a metric; one that is not known is a number whose larger values are better."""
    if name in METRICS:
        return METRICS[name]
    if name.startswith("validation_") and name.removeprefix("validation_") in METRICS:
        inner = METRICS[name.removeprefix("validation_")]
        return inner._replace(label=f"{inner.label}, validation facts")
    return Metric(name.replace("_", " "), is_share=False)


def leading_metric(frame: pd.DataFrame) -> str:
    """What a frame is about where nothing is asked for: accuracy, else the first of `METRICS` that it has."""
    there = in_order(frame["metric"])
    return str(next((name for name in METRICS if name in there), there[0]))


def tidy_frame(result: Any) -> pd.DataFrame:
    """The tidy rows of a sweep, of a `ProtocolResult`, or of a frame that has them, with layers as integers.

    Raises:
        TypeError: it is none of these.
        LookupError: a frame lacks columns; the text names them.
        ValueError: two rows have the same key, or there is none.
    """
    if isinstance(result, ProtocolResult):
        return protocol_rows(result)
    frame = result if isinstance(result, pd.DataFrame) else getattr(result, "to_frame", lambda: None)()
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"a {type(result).__name__} has no rows to draw; give a sweep's result, a ProtocolResult, or a frame"
        )
    if missing := [name for name in COLUMNS if name not in frame]:
        raise LookupError(f"the frame has no column {', '.join(missing)}; a tidy frame has {', '.join(COLUMNS)}")
    if frame.empty:
        raise ValueError("the frame has no rows; nothing was measured")
    return frame if frame.attrs.get(_CHECKED) else _typed(frame[list(COLUMNS)])


def protocol_rows(result: ProtocolResult) -> pd.DataFrame:
    """The tidy rows of a benchmark; a method's setting behind an `@` stands in the columns of layers and rank."""
    rows: list[dict[str, Any]] = []
    for record in result.records:
        if isinstance(record, RelationRecord):
            for name in result.methods:
                rows += _outcome_rows(record, name.split("@")[0], record.methods[name])
    if not rows:
        raise ValueError("the result holds no relation that was evaluated; nothing can be drawn")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    # One method at settings of which some are the same, such as a sweep over ranks with methods that have none.
    return _typed(frame.drop_duplicates(list(KEY)))


def _outcome_rows(record: RelationRecord, method: str, outcome: MethodOutcome) -> list[dict[str, Any]]:
    facts = len({(prompt.subject, prompt.object) for prompt in record.test_prompts})
    key = {
        "relation": record.relation,
        "seed": record.seed,
        "method": method,
        "subject_layer": outcome.subject_layer,
        "object_layer": outcome.object_layer,
        "rank": outcome.rank,
        "noise": outcome.noise,
        "n_lre_prompts": None if outcome.object_layer is None else record.n_lre_prompts,
    }
    on_prompts = {"n": record.n_prompts, "n_facts": facts}
    rows = []
    for reading, accuracy, correct in (
        ("plain", outcome.accuracy, outcome.correct),
        ("centred", outcome.accuracy_centred, outcome.correct_centred),
        ("calibrated", outcome.accuracy_calibrated, outcome.correct_calibrated),
    ):
        measured = {"metric": "accuracy", "value": accuracy, "count": sum(correct)}
        rows.append({**key, "reading": reading, **measured, **on_prompts})
    rows.append({**key, "reading": "plain", "metric": "top3", "value": outcome.top3, **on_prompts})
    selectivity = outcome.accuracy - outcome.control_shuffled
    rows.append({**key, "reading": "plain", "metric": "selectivity", "value": selectivity, **on_prompts})
    rows.append({**key, "metric": "chance", "value": record.chance, **on_prompts})
    for place, curve in (("all", outcome.curve), ("subject", outcome.curve_single_layer or ())):
        for point in curve:
            rows += _point_rows({**key, "place": place, "beta": point.beta}, record, point)
    return rows


def _point_rows(key: dict[str, Any], record: RelationRecord, point: CurvePoint) -> list[dict[str, Any]]:
    edits = {"n": record.n_edits, "n_facts": len({(edit.subject, edit.object) for edit in record.edits})}
    successes = {"causality": sum(point.success), "hard_causality": sum(point.hard_success)}
    values = point.statistics()
    named = {
        "causality": values["causality"],
        "hard_causality": values["hard_causality"],
        "edit_share": values["edit_share"],
        "kl_elsewhere": values["unrelated_kl"],
        "kl_same_subject": values["same_subject_kl"],
    }
    pairs = {"kl_elsewhere": record.n_unrelated, "kl_same_subject": record.n_same_subject}
    return [
        {
            **key,
            "metric": name,
            "value": value,
            "count": successes.get(name),
            "n": pairs.get(name, edits["n"]),
            "n_facts": edits["n_facts"],
        }
        for name, value in named.items()
        if value is not None
    ]


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows with whole numbers as `Int64`, words as categories (which group fast), and checked keys."""
    columns = {name: frame[name].astype("Int64") for name in INTEGERS}
    columns |= {name: frame[name].astype("float64") for name in ("ridge", "noise", "beta", "value")}
    for name in _WORDS:
        # In the order in which they come, which is that of panels and lines.
        columns[name] = frame[name].astype(pd.CategoricalDtype(frame[name].dropna().unique()))
    typed = pd.DataFrame(columns, columns=list(COLUMNS))
    if (again := _repeated(typed)).any():
        first = typed[again].iloc[0][list(KEY)].dropna().to_dict()
        raise ValueError(f"{int(again.sum())} rows repeat the key of another, such as {first}; keep one of each")
    typed.attrs[_CHECKED] = True
    return typed


def _repeated(typed: pd.DataFrame) -> pd.Series:
    """Which rows have the key of one before; `DataFrame.duplicated` takes over twice the time and memory."""
    keys = np.zeros(len(typed), dtype=np.int64)
    n_keys = 1
    for name in KEY:
        codes, values = pd.factorize(typed[name], use_na_sentinel=False)
        if n_keys > _MOST_KEYS // len(values):  # the product would not fit: number the keys so far anew
            keys = pd.factorize(keys)[0].astype(np.int64)
            n_keys = int(keys.max()) + 1
        keys = keys * len(values) + codes
        n_keys *= len(values)
    return pd.Series(keys, index=typed.index).duplicated()


def rows_where(frame: pd.DataFrame, where: Mapping[str, Any] | None) -> pd.DataFrame:
    """The rows whose columns have the values, or one of the lists of values, of `where`.

    Raises:
        LookupError: there is no such column, or no row is left; the text says what there is.
    """
    for column, wanted in (where or {}).items():
        if column not in KEY:
            raise LookupError(f"where={column!r} is no column of the key; it has {', '.join(KEY)}")
        values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Sequence) else list(wanted)
        # A method without the column, such as a baseline without a rank, stays.
        keep = frame[column].isin(values)
        if column not in ("relation", "seed", "method", "metric"):
            keep |= frame[column].isna()
        if not frame[column].isin(values).any():
            raise LookupError(f"no row has {column} {wanted!r}; there are {_listed(frame[column])}")
        frame = frame[keep]
    return frame


def measured(frame: pd.DataFrame, metric: str, reading: str = "plain") -> pd.DataFrame:
    """The rows of a metric, and of one reading where it has readings.

    Raises:
        LookupError: there are none; the text says what there is.
    """
    rows = frame[frame["metric"] == metric]
    if rows.empty:
        raise LookupError(f"the result has no metric {metric!r}; it has {_listed(frame['metric'])}")
    of_reading = rows[rows["reading"].isna() | (rows["reading"] == reading)]
    if of_reading.empty:
        raise LookupError(f"{metric} has no reading {reading!r}; it has {_listed(rows['reading'])}")
    finite = of_reading[of_reading["value"].notna()]
    if finite.empty:
        raise LookupError(f"{metric} has no value that is a number")
    return finite


def varies(rows: pd.DataFrame, column: str) -> int:
    """The most values of a column for one relation, seed and method; one chosen for each relation is no axis."""
    if rows[column].nunique(dropna=False) < 2:
        return min(len(rows), 1)
    groups = rows[["relation", "seed", "method", column]].drop_duplicates()
    counts = groups.groupby(["relation", "seed", "method"], observed=True)[column].nunique()
    return int(counts.max()) if len(counts) else 0


def in_order(values: pd.Series) -> list[Any]:
    """The different values: words as they first come, numbers by size, nothing for missing ones."""
    unique = values.dropna().drop_duplicates()
    return list(unique) if isinstance(values.dtype, pd.CategoricalDtype) else sorted(unique)


def _listed(values: pd.Series) -> str:
    unique = in_order(values)
    text = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in unique[:30])
    return text + (f" and {len(unique) - 30} more" if len(unique) > 30 else "") or "none"
