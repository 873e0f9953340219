"""The schema of a benchmark's records: what `benchmark_relation` makes and stored results must hold."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from lrc_tl.evaluation.causality import CausalityResult
from lrc_tl.evaluation.collateral import SideEffects

_Check: TypeAlias = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _mapping_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_text, value))


_HEAD: dict[str, _Check] = {"relation": _is_text, "seed": _is_whole, "left_out": _or_none(_is_text)}
_EVALUATED: dict[str, _Check] = {
    **dict.fromkeys(
        (
            "n_facts",
            "n_known_train",
            "n_lre_prompts",
            "n_test",
            "n_prompts",
            "n_edits",
            "n_objects",
            "n_unrelated",
            "n_same_subject",
            "subject_layer",
        ),
        _is_count,
    ),
    "chance": _is_share,
    "object_layer": _or_none(_is_count),
    "rank": _or_none(_is_count),
    "betas": _list_of(_is_number),
    "selected": _or_none(_mapping_of(lambda _: True)),
    "test_prompts": _list_of(_is_triple),
    "object_tokens": _list_of(_is_count),
    "edits": _list_of(_is_triple),
    "methods": _mapping_of(lambda figures: isinstance(figures, dict)),
    "seconds": _mapping_of(_is_number),
}
_FIGURES: dict[str, _Check] = {
    "subject_layer": _is_count,
    "object_layer": _or_none(_is_count),
    "rank": _or_none(_is_count),
    **dict.fromkeys(("correct", "correct_centred", "correct_calibrated"), _list_of(_is_truth)),
    "predicted": _list_of(_is_text),
    **dict.fromkeys(
        (
            "accuracy",
            "mean_reciprocal_rank",
            "top3",
            "accuracy_centred",
            "accuracy_calibrated",
            "control_shuffled",
            "control_random",
        ),
        _is_share,
    ),
    "seconds_train": _is_number,
    "seconds_evaluate": _is_number,
    "curve": lambda points: isinstance(points, list),
}
_POINT: dict[str, _Check] = {
    "beta": _is_number,
    "success": _list_of(_is_truth),
    "causality": _is_share,
    "hard_success": _list_of(_is_truth),
    "hard_causality": _is_share,
    **dict.fromkeys(("edit_share", "mean_log_odds_change", "wrong_way"), _or_none(_is_number)),
}
_SHARES = {
    "accuracy": "correct",
    "accuracy_centred": "correct_centred",
    "accuracy_calibrated": "correct_calibrated",
}
"""Figures that are the share of true outcomes in a list beside them."""


def curve_point(result: CausalityResult) -> dict[str, Any]:
    """One beta of a causality curve, as plain values; its continuations must have been generated."""
    assert result.generated is not None
    return {
        "beta": result.beta,
        "success": result.success.tolist(),
        "causality": result.causality,
        "hard_success": result.generated.tolist(),
        "hard_causality": result.hard_causality,
        "edit_share": result.edit_share,
        "mean_log_odds_change": float(result.log_odds_change.mean()),
        "wrong_way": result.wrong_way,
    }


def side_effect_fields(kind: str, found: SideEffects) -> dict[str, float | None]:
    """Mean side effects of one kind at one beta, for the curve's point; None where nothing was measured."""
    if not found.n_statements:
        return {f"{kind}_{figure}": None for figure in ("kl", "kept", "log_prob_change")}
    return {
        f"{kind}_kl": found.mean_kl,
        f"{kind}_kept": found.share_kept,
        f"{kind}_log_prob_change": float(found.log_prob_change.mean()),
    }


def require_record(record: Any) -> None:
    """Check that plain values are what the benchmark found for one relation and seed.

    Every field has its type, lists of outcomes have one entry for each prompt or edit, and accuracies are the
    shares of theirs. Other fields may stand beside those that are checked.

    Raises:
        ValueError: something is missing or wrong; the text names the place.
    """
    _require_fields(record, "record", _HEAD)
    if record["left_out"] is not None:
        return
    _require_fields(record, "record", _EVALUATED)
    for name, count in (("test_prompts", "n_prompts"), ("object_tokens", "n_prompts"), ("edits", "n_edits")):
        _require_length(record[name], record[count], f"record[{name!r}]")
    if not record["methods"] or not record["n_prompts"]:
        raise ValueError("record has no method or no prompt, but is not left out")
    for method, figures in record["methods"].items():
        place = f"record['methods'][{method!r}]"
        _require_fields(figures, place, _FIGURES)
        for name in ("correct", "correct_centred", "correct_calibrated", "predicted"):
            _require_length(figures[name], record["n_prompts"], f"{place}[{name!r}]")
        _require_shares(figures, place)
        for name in ("curve", "curve_single_layer"):
            _require_curve(figures.get(name, []), record, f"{place}[{name!r}]")


def _require_curve(points: Any, record: Mapping[str, Any], place: str) -> None:
    if not isinstance(points, list):
        raise ValueError(f"{place} must be a list, not {_shown(points)}")
    if points:
        _require_length(points, len(record["betas"]), place)
    elif record["n_edits"] and place.endswith("['curve']"):
        raise ValueError(f"{place} is empty, but there are {record['n_edits']} edits")
    for number, (point, beta) in enumerate(zip(points, record["betas"], strict=False)):
        own = f"{place}[{number}]"
        _require_fields(point, own, _POINT)
        if point["beta"] != beta:
            raise ValueError(f"{own}['beta'] is {point['beta']}, and the record's is {beta}")
        for name in ("success", "hard_success"):
            _require_length(point[name], record["n_edits"], f"{own}[{name!r}]")


def _require_fields(value: Any, place: str, checks: Mapping[str, _Check]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be a mapping, not {_shown(value)}")
    for name, check in checks.items():
        if name not in value:
            raise ValueError(f"{place} has no field {name!r}")
        if not check(value[name]):
            raise ValueError(f"{place}[{name!r}] cannot be {_shown(value[name])}")


def _require_length(values: Sequence[Any], wanted: int, place: str) -> None:
    if len(values) != wanted:
        raise ValueError(f"{place} has {len(values)} entries; it must have {wanted}")


def _require_shares(figures: Mapping[str, Any], place: str) -> None:
    for name, outcomes in _SHARES.items():
        if name in figures and outcomes in figures and figures[outcomes]:
            share = sum(figures[outcomes]) / len(figures[outcomes])
            if not math.isclose(figures[name], share, abs_tol=1e-6):
                raise ValueError(f"{place}[{name!r}] is {figures[name]}, but the share of its outcomes is {share}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
