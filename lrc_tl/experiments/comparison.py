"""Two methods on the same prompts: by how much they differ, and how sure that is."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from lrc_tl.numerics.statistics import (
    bootstrap_interval,
    holm,
    mcnemar_test,
    mean_and_std,
    paired_bootstrap,
    sign_test,
    two_proportion_z_test,
)

_Outcomes = Callable[[dict[str, Any], str], list[bool] | None]
_Families = dict[Any, list[dict[str, Any]]]
_Comparison = Callable[[Sequence[dict[str, Any]], str, str, _Families], dict[str, Any] | None]


def compare(records: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """The first method against each other one, from benchmark records: paired and unpaired tests.

    For each figure below: the mean difference over relations (each with its mean over seeds), its bootstrap
    interval over relations and its paired bootstrap interval (facts within relations, all seeds of a fact
    together), and a sign test over relations; for each seed the paper's two-proportion z-test and McNemar's test
    on the same prompts or edits. The tests of one kind and seed are corrected for the number of methods by Holm's
    rule. A figure that the records lack is left out.

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
    for figure, comparison in kinds.items():
        families: _Families = {}
        for entry in entries:
            own = comparison(records, first, entry["against"], families)
            if own is not None:
                entry[figure] = own
        for family in families.values():
            for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
                test["p_holm"] = p
    return entries


def _compared(
    outcomes: _Outcomes,
    against: _Outcomes,
    facts: Callable[[dict[str, Any]], list[tuple[str, str]]],
    records: Sequence[dict[str, Any]],
    first: str,
    other: str,
    families: _Families,
) -> dict[str, Any] | None:
    shares: dict[str, list[float]] = {}
    by_fact: dict[str, dict[tuple[str, str], list[float]]] = {}
    by_seed: dict[Any, tuple[list[bool], list[bool]]] = {}
    for record in records:
        mine, theirs = outcomes(record, first), against(record, other)
        if not mine or not theirs:
            continue
        name = record["relation"]
        shares.setdefault(name, []).append(sum(mine) / len(mine) - sum(theirs) / len(theirs))
        for fact, a, b in zip(facts(record), mine, theirs, strict=True):
            by_fact.setdefault(name, {}).setdefault(fact, []).append(float(a) - float(b))
        both = by_seed.setdefault(record["seed"], ([], []))
        both[0].extend(mine)
        both[1].extend(theirs)
    if not shares:
        return None
    found = _difference(shares, by_fact, families)
    for seed, (ours, other_own) in by_seed.items():
        n = len(ours)
        z, mcnemar = two_proportion_z_test(sum(ours), n, sum(other_own), n), mcnemar_test(ours, other_own)
        tests = {
            "seed": seed,
            "z_test": {"z": z.statistic, "p": z.p_value, "n": n},
            "mcnemar": {"share_first": mcnemar.statistic, "p": mcnemar.p_value, "n": mcnemar.n},
        }
        families.setdefault(("z", seed), []).append(tests["z_test"])
        families.setdefault(("mcnemar", seed), []).append(tests["mcnemar"])
        found["per_seed"].append(tests)
    return found


def _difference(
    shares: dict[str, list[float]],
    by_fact: dict[str, dict[tuple[str, str], list[float]]],
    families: _Families,
) -> dict[str, Any]:
    """The mean difference with its intervals and sign test, from those of each relation and of each fact in it."""
    differences = [mean_and_std(own)[0] for own in shares.values()]
    sign = sign_test(differences)
    paired = paired_bootstrap([list(own.values()) for own in by_fact.values()])
    found: dict[str, Any] = {
        "difference": mean_and_std(differences)[0],
        "ci95": list(bootstrap_interval(differences)),
        "paired_bootstrap": {"ci95": list(paired), "n_facts": sum(map(len, by_fact.values()))},
        "sign_test": {"share_positive": sign.statistic, "p": sign.p_value, "n": sign.n},
        "per_seed": [],
    }
    families.setdefault("sign", []).append(found["sign_test"])
    return found


def _at_equal_kl(
    records: Sequence[dict[str, Any]], first: str, other: str, families: _Families
) -> dict[str, Any] | None:
    """Causality of two methods where they move unrelated statements equally far; None where nothing says so."""
    used = [record for record in records if record["methods"][first]["curve"]]
    if len({tuple(record["betas"]) for record in used}) != 1:
        return None
    mine, theirs = _mean_kl(used, first), _mean_kl(used, other)
    matched = [(place, found) for place, kl in mine if (found := _between(theirs, kl)) is not None]
    if not matched:
        return None
    shares: dict[str, list[float]] = {}
    by_fact: dict[str, dict[tuple[str, str], list[float]]] = {}
    for record in used:
        own, against = ([point["success"] for point in record["methods"][m]["curve"]] for m in (first, other))
        for place, (low, high, weight) in matched:
            differences = [
                a - (1 - weight) * b - weight * c
                for a, b, c in zip(own[place], against[low], against[high], strict=True)
            ]
            shares.setdefault(record["relation"], []).append(sum(differences) / len(differences))
            for fact, one in zip(_edited(record), differences, strict=True):
                by_fact.setdefault(record["relation"], {}).setdefault(fact, []).append(one)
    betas = used[0]["betas"]
    return {**_difference(shares, by_fact, families), "betas": [betas[place] for place, _ in matched]}


def _mean_kl(records: Sequence[dict[str, Any]], method: str) -> list[tuple[int, float]]:
    """Place in the curve and KL on unrelated statements, by positive beta; of the relations' means over seeds."""
    found = []
    for place, beta in sorted(enumerate(records[0]["betas"]), key=lambda pair: float(pair[1])):
        if beta <= 0:  # an edit the other way, or none
            continue
        by_relation: dict[str, list[float]] = {}
        for record in records:
            kl = record["methods"][method]["curve"][place].get("unrelated_kl")
            if kl is not None:
                by_relation.setdefault(record["relation"], []).append(kl)
        if by_relation:
            found.append((place, mean_and_std([mean_and_std(own)[0] for own in by_relation.values()])[0]))
    return found


def _between(curve: list[tuple[int, float]], kl: float) -> tuple[int, int, float] | None:
    """The first two places between which a curve rises past `kl`, and how far that is from one to the other."""
    for (low, less), (high, more) in pairwise(curve):
        if 0 < less <= kl <= more and less < more:
            return low, high, math.log(kl / less) / math.log(more / less)
    return None


def _right(record: dict[str, Any], method: str) -> list[bool] | None:
    return list(record["methods"][method]["correct"])


def _right_centred(record: dict[str, Any], method: str) -> list[bool] | None:
    centred = record["methods"][method].get("correct_centred")
    return None if centred is None else list(centred)


def _succeeded(record: dict[str, Any], method: str) -> list[bool] | None:
    curve = record["methods"][method]["curve"]
    return list(curve[0]["success"]) if curve else None


def _tested(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(subject, name) for _, subject, name in record["test_prompts"]]


def _edited(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(subject, name) for subject, name, _ in record["edits"]]
