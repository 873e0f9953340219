"""Methods on objects of one token and on objects of several (arXiv:2311.08968, figures 4 and 5)."""

from collections.abc import Iterable, Sequence
from typing import Any

from lrc_tl.experiments.method_outcome import MethodOutcome
from lrc_tl.experiments.record import RelationRecord


def rows_by_object_tokens(records: Sequence[RelationRecord], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Two rows per method: accuracy and causality for objects of one token, and of several, with the counts."""
    return [
        {
            "method": method,
            **place_of(records[0].methods[method]),
            "object": kind,
            **_shares(records, method, several_tokens),
        }
        for method in methods
        for kind, several_tokens in (("single-token", False), ("multi-token", True))
    ]


def place_of(outcome: MethodOutcome) -> dict[str, int | None]:
    """Where a method read its directions."""
    return {
        "subject_layer": outcome.subject_layer,
        "object_layer": outcome.object_layer,
        "rank": outcome.rank,
    }


def _shares(records: Sequence[RelationRecord], method: str, several_tokens: bool) -> dict[str, Any]:
    correct: dict[str, list[bool]] = {}
    success: dict[str, list[bool]] = {}
    for record in records:
        outcome = record.methods[method]
        is_of_kind = [(count > 1) == several_tokens for count in record.object_tokens]
        answers = zip(outcome.correct, is_of_kind, strict=True)
        correct.setdefault(record.relation, []).extend(answer for answer, counts in answers if counts)
        if point := outcome.at_first_beta:
            prompts = zip(record.test_prompts, record.object_tokens, strict=True)
            multi_token = {prompt.object for prompt, count in prompts if count > 1}
            edits = zip(point.success, record.edits, strict=True)
            success.setdefault(record.relation, []).extend(
                hit for hit, edit in edits if (edit.object in multi_token) == several_tokens
            )
    return {
        "accuracy": _mean_of_shares(correct.values()),
        "n_prompts": sum(map(len, correct.values())),
        "causality": _mean_of_shares(success.values()),
        "n_edits": sum(map(len, success.values())),
    }


def _mean_of_shares(by_relation: Iterable[Sequence[bool]]) -> float | None:
    """Mean over the relations, each with all its seeds together; None without any outcome."""
    shares = [sum(outcomes) / len(outcomes) for outcomes in by_relation if outcomes]
    return sum(shares) / len(shares) if shares else None
