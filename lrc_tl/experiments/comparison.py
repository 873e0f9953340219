"""Two methods on the same prompts: by how much they differ, and how sure that is."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

from lrc_tl.experiments.record import RelationRecord
from lrc_tl.numerics.statistics import (
    bootstrap_interval,
    holm,
    mcnemar_test,
    mean_and_std,
    paired_bootstrap,
    sign_test,
    two_proportion_z_test,
)

_Outcomes: TypeAlias = Callable[[RelationRecord, str], Sequence[bool] | None]
_Fact: TypeAlias = tuple[str, str]
"""Subject and object."""
_Families: TypeAlias = dict[Any, list[dict[str, Any]]]
"""Tests that are corrected together."""
_Comparison: TypeAlias = Callable[[Sequence[RelationRecord], str, str, _Families], dict[str, Any] | None]


def compare(records: Sequence[RelationRecord], methods: Sequence[str]) -> list[dict[str, Any]]:
    """The first method against each other one, from benchmark records: paired and unpaired tests.

    For each statistic below: the mean difference over relations (each with its mean over seeds), its bootstrap
    interval over relations and its paired bootstrap interval (facts within relations, all seeds of a fact
    together), and a sign test over relations; for each seed the paper's two-proportion z-test and McNemar's test
    on the same prompts or edits. The tests of one kind and seed are corrected for the number of methods by Holm's
    rule. A statistic that the records lack is left out.

    - `accuracy`, `accuracy_centred`: the same reading of both methods.
    - `accuracy_centred_over_plain`: the first method centred, the other as it is.
    - `causality`: at the first beta.
    - `causality_at_equal_kl`: at each positive beta of the first method, the other at the size that moves
      unrelated statements as far (mean KL over relations; outcomes interpolated between its two nearest betas,
      linearly in the logarithm of the KL), over the betas at which its own reach that far. No tests for single
      seeds.
    """
    first, *others = methods
    entries: list[dict[str, Any]] = [{"method": first, "against": other} for other in others]
    kinds: dict[str, _Comparison] = {
        "accuracy": partial(_compared, _right, _right, _tested),
        "accuracy_centred": partial(_compared, _right_centred, _right_centred, _tested),
        "accuracy_centred_over_plain": partial(_compared, _right_centred, _right, _tested),
        "causality": partial(_compared, _succeeded, _succeeded, _edited),
        "causality_at_equal_kl": _at_equal_kl,
    }
    for statistic, comparison in kinds.items():
        families: _Families = {}
        for entry in entries:
            difference = comparison(records, first, entry["against"], families)
            if difference is not None:
                entry[statistic] = difference
        for family in families.values():
            for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
                test["p_holm"] = p
    return entries


class _Differences:
    """The first method less the other: of the shares of each relation and seed, and of each fact in it."""

    def __init__(self) -> None:
        self.shares: dict[str, list[float]] = {}
        self.by_fact: dict[str, dict[_Fact, list[float]]] = {}

    def add(self, relation: str, facts: Sequence[_Fact], differences: Sequence[float], of_shares: float) -> None:
        """The differences of one relation and seed, one per fact, and that of the shares."""
        self.shares.setdefault(relation, []).append(of_shares)
        for fact, difference in zip(facts, differences, strict=True):
            self.by_fact.setdefault(relation, {}).setdefault(fact, []).append(difference)

    def summary(self, families: _Families) -> dict[str, Any]:
        """The mean difference with its intervals and sign test."""
        by_relation = [mean_and_std(over_seeds)[0] for over_seeds in self.shares.values()]
        sign = sign_test(by_relation)
        paired = paired_bootstrap([list(of_relation.values()) for of_relation in self.by_fact.values()])
        summary: dict[str, Any] = {
            "difference": mean_and_std(by_relation)[0],
            "ci95": list(bootstrap_interval(by_relation)),
            "paired_bootstrap": {"ci95": list(paired), "n_facts": sum(map(len, self.by_fact.values()))},
            "sign_test": {"share_positive": sign.statistic, "p": sign.p_value, "n": sign.n},
            "per_seed": [],
        }
        families.setdefault("sign", []).append(summary["sign_test"])
        return summary


def _compared(
    outcomes: _Outcomes,
    against: _Outcomes,
    facts: Callable[[RelationRecord], list[_Fact]],
    records: Sequence[RelationRecord],
    first: str,
    other: str,
    families: _Families,
) -> dict[str, Any] | None:
    differences = _Differences()
    by_seed: dict[int, tuple[list[bool], list[bool]]] = {}
    for record in records:
        of_first, of_other = outcomes(record, first), against(record, other)
        if not of_first or not of_other:
            continue
        by_fact = [float(a) - float(b) for a, b in zip(of_first, of_other, strict=True)]
        of_shares = sum(of_first) / len(of_first) - sum(of_other) / len(of_other)
        differences.add(record.relation, facts(record), by_fact, of_shares)
        both = by_seed.setdefault(record.seed, ([], []))
        both[0].extend(of_first)
        both[1].extend(of_other)
    if not differences.shares:
        return None
    summary = differences.summary(families)
    for seed, (of_first, of_other) in by_seed.items():
        n = len(of_first)
        z = two_proportion_z_test(sum(of_first), n, sum(of_other), n)
        mcnemar = mcnemar_test(of_first, of_other)
        tests: dict[str, Any] = {
            "seed": seed,
            "z_test": {"z": z.statistic, "p": z.p_value, "n": n},
            "mcnemar": {"share_first": mcnemar.statistic, "p": mcnemar.p_value, "n": mcnemar.n},
        }
        families.setdefault(("z", seed), []).append(tests["z_test"])
        families.setdefault(("mcnemar", seed), []).append(tests["mcnemar"])
        summary["per_seed"].append(tests)
    return summary


def _at_equal_kl(
    records: Sequence[RelationRecord], first: str, other: str, families: _Families
) -> dict[str, Any] | None:
    """Causality of two methods where they move unrelated statements equally far; None where nothing says so."""
    with_edits = [record for record in records if record.methods[first].curve]
    if len({record.betas for record in with_edits}) != 1:
        return None
    kl_of_first, kl_of_other = _mean_kl(with_edits, first), _mean_kl(with_edits, other)
    matched = [(place, between) for place, kl in kl_of_first if (between := _between(kl_of_other, kl)) is not None]
    if not matched:
        return None
    differences = _Differences()
    for record in with_edits:
        of_first, of_other = ([point.success for point in record.methods[m].curve] for m in (first, other))
        for place, (low, high, weight) in matched:
            by_fact = [
                a - (1 - weight) * b - weight * c
                for a, b, c in zip(of_first[place], of_other[low], of_other[high], strict=True)
            ]
            differences.add(record.relation, _edited(record), by_fact, sum(by_fact) / len(by_fact))
    betas = with_edits[0].betas
    return {**differences.summary(families), "betas": [betas[place] for place, _ in matched]}


def _mean_kl(records: Sequence[RelationRecord], method: str) -> list[tuple[int, float]]:
    """Place in the curve and KL on unrelated statements, by positive beta; of the relations' means over seeds."""
    curve = []
    for place, beta in sorted(enumerate(records[0].betas), key=lambda place_and_beta: place_and_beta[1]):
        if beta <= 0:  # an edit the other way, or none
            continue
        by_relation: dict[str, list[float]] = {}
        for record in records:
            effects = record.methods[method].curve[place].unrelated
            if effects is not None and effects.kl is not None:
                by_relation.setdefault(record.relation, []).append(effects.kl)
        if by_relation:
            over_seeds = [mean_and_std(kls)[0] for kls in by_relation.values()]
            curve.append((place, mean_and_std(over_seeds)[0]))
    return curve


def _between(curve: list[tuple[int, float]], kl: float) -> tuple[int, int, float] | None:
    """The first two places between which a curve rises past `kl`, and how far that is from one to the other."""
    for (low, less), (high, more) in pairwise(curve):
        if 0 < less <= kl <= more and less < more:
            return low, high, math.log(kl / less) / math.log(more / less)
    return None


def _right(record: RelationRecord, method: str) -> Sequence[bool]:
    return record.methods[method].correct


def _right_centred(record: RelationRecord, method: str) -> Sequence[bool]:
    return record.methods[method].correct_centred


def _succeeded(record: RelationRecord, method: str) -> Sequence[bool] | None:
    point = record.methods[method].at_first_beta
    return point.success if point else None


def _tested(record: RelationRecord) -> list[_Fact]:
    return [(prompt.subject, prompt.object) for prompt in record.test_prompts]


def _edited(record: RelationRecord) -> list[_Fact]:
    return [(edit.subject, edit.object) for edit in record.edits]
