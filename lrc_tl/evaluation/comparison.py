"""Two methods on the same prompts: by how much they differ, and how sure that is."""

from collections.abc import Callable, Sequence
from typing import Any

from lrc_tl.evaluation.statistics import (
    bootstrap_interval,
    holm,
    mcnemar_test,
    mean_and_std,
    paired_bootstrap,
    sign_test,
    two_proportion_z_test,
)

_Outcomes = Callable[[dict[str, Any], str], list[bool] | None]


def compare(records: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """The first method against each other one, from benchmark records: paired and unpaired tests.

    For `accuracy`, `accuracy_centred` and `causality` (at the first beta) each: the mean difference over relations
    (each with its mean over seeds), its bootstrap interval over relations and its paired bootstrap interval (facts
    within relations, all seeds of a fact together), and a sign test over relations; for each seed the paper's
    two-proportion z-test and McNemar's test on the same prompts or edits. The tests of one kind and seed are
    corrected for the number of methods by Holm's rule. A figure that the records lack is left out.
    """
    first, *others = methods
    entries: list[dict[str, Any]] = [{"method": first, "against": other} for other in others]
    for figure, outcomes, facts in (
        ("accuracy", _right, _tested),
        ("accuracy_centred", _right_centred, _tested),
        ("causality", _succeeded, _edited),
    ):
        families: dict[Any, list[dict[str, Any]]] = {}
        for entry in entries:
            own = _compared(records, first, entry["against"], outcomes, facts, families)
            if own is not None:
                entry[figure] = own
        for family in families.values():
            for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
                test["p_holm"] = p
    return entries


def _compared(
    records: Sequence[dict[str, Any]],
    first: str,
    other: str,
    outcomes: _Outcomes,
    facts: Callable[[dict[str, Any]], list[tuple[str, str]]],
    families: dict[Any, list[dict[str, Any]]],
) -> dict[str, Any] | None:
    shares: dict[str, list[float]] = {}
    by_fact: dict[str, dict[tuple[str, str], list[float]]] = {}
    by_seed: dict[Any, tuple[list[bool], list[bool]]] = {}
    for record in records:
        mine, theirs = outcomes(record, first), outcomes(record, other)
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
