"""Steering compared fairly: each method's best cell and place by validation facts, read at one KL elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.experiments.at_kl import AtKl, value_at_kl
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS
from lrc_tl.experiments.sweep_choice import matching, plain_values
from lrc_tl.experiments.sweep_metrics import validation_name
from lrc_tl.experiments.sweep_outcomes import Outcomes, Trial, by_fact
from lrc_tl.numerics.statistics import bootstrap_interval, mean_and_std, paired_bootstrap

HARD, SOFT, KL = "hard_causality", "causality", "kl_elsewhere"


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SteeringAtKl:
    """One method's edits at the same side effect as those of others."""

    method: str
    cell: Mapping[str, Any]
    """The columns of the cell that was chosen."""
    place: str
    nats: float
    reached: bool
    """Whether test edits reach this KL; if not, the values are those of the best size below."""
    betas: tuple[float, ...]
    weights: tuple[float, ...]
    """What each beta counts for on test edits."""
    validation: float
    """Hard success at this KL on validation facts, by which cell and place were chosen."""
    hard: float
    """Hard success on test facts: mean over relations, each with all its seeds."""
    soft: float
    kl: float
    """Of the test edits at these weights: `nats`, or less where that is not reached."""
    n_chosen_from: int
    """Pairs of a cell and a place."""
    hard_outcomes: Mapping[Trial, float]
    """For each test edit, the same mean over betas."""
    soft_outcomes: Mapping[Trial, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, without the outcomes of single edits."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_outcomes")}


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class DifferenceAtKl:
    """`a` less `b` on the edits that both have, each at its own best cell and place."""

    a: str
    b: str
    metric: str
    difference: float
    over_facts: tuple[float, float]
    """95 %: facts drawn again within relations, with all their seeds and edits together."""
    over_relations: tuple[float, float]
    """95 %: relations drawn again."""
    n_relations: int
    n_edits: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))


def steering_at_kl(
    rows: pd.DataFrame, outcomes: Outcomes, *, nats: float, methods: Sequence[str] | None = None
) -> tuple[SteeringAtKl, ...]:
    """What `SweepResult.at_kl` gives."""
    if missing := [
        metric
        for metric in (HARD, KL, validation_name(HARD), validation_name(KL))
        if not (rows["metric"] == metric).any()
    ]:
        raise ValueError(
            f"the sweep has no {', '.join(missing)}; run it with the metrics {SOFT!r}, {HARD!r} and {KL!r}, "
            "validation_edits above 0 and n_side_effects above 0"
        )
    known = [str(name) for name in rows["method"].unique()]
    names = known if methods is None else list(as_tuple(methods, "methods", str))
    for name in names:
        if name not in known:
            raise ValueError(f"the sweep has no method {name!r}; {did_you_mean(name, known, otherwise='it has')}")
    return tuple(_of_method(rows[rows["method"] == name], outcomes, name, nats) for name in names)


def _of_method(rows: pd.DataFrame, outcomes: Outcomes, name: str, nats: float) -> SteeringAtKl:
    chosen = [
        (value_at_kl(hard, kls, at=nats), cell, place, betas)
        for cell, place, betas, hard, kls in _curves(rows, validation_name(HARD), validation_name(KL))
    ]
    if not chosen:
        raise ValueError(f"{name}: there is no curve of validation edits to choose by")
    on_validation, cell, place, betas = max(chosen, key=lambda candidate: candidate[0].value)
    on_tests = list(_curves(matching(rows, {**cell, "place": place}), HARD, KL))
    if not on_tests:
        raise ValueError(
            f"{name}: validation edits choose a cell (place {place!r}) without {HARD} and {KL} of test edits; run "
            "the sweep with more facts, so that test edits can be made"
        )
    ((_, _, _, hard, kls),) = on_tests
    on_test = value_at_kl(hard, kls, at=nats)
    hard_outcomes, soft_outcomes = (
        _mixed(outcomes, cell, place, betas, on_test, metric) for metric in (HARD, SOFT)
    )
    return SteeringAtKl(
        method=name,
        cell=cell,
        place=place,
        nats=nats,
        reached=on_test.reached,
        betas=betas,
        weights=on_test.weights,
        validation=on_validation.value,
        hard=_mean_over_relations(hard_outcomes),
        soft=_mean_over_relations(soft_outcomes),
        kl=on_test.mixed(kls),
        n_chosen_from=len(chosen),
        hard_outcomes=hard_outcomes,
        soft_outcomes=soft_outcomes,
    )


_Curve = tuple[dict[str, Any], str, tuple[float, ...], list[float], list[float]]


def _curves(rows: pd.DataFrame, metric: str, kl: str) -> Iterator[_Curve]:
    """Of every cell and place: betas in increasing order, with both metrics as means over relations."""
    keys = [*CELL_COLUMNS, "place"]
    both = rows[rows["metric"].isin([metric, kl])]
    by_relation = both.groupby([*keys, "beta", "metric", "relation"], dropna=False, sort=False)["value"].mean()
    means = by_relation.groupby([*keys, "beta", "metric"], dropna=False, sort=False).mean().reset_index()
    for _, of_place in means.groupby(keys, dropna=False, sort=False):
        first = plain_values(of_place.iloc[0])
        values, kls = (
            of_place[of_place["metric"] == name].sort_values("beta").set_index("beta")["value"]
            for name in (metric, kl)
        )
        betas = [beta for beta in values.index if beta in kls.index]
        if betas:
            cell = {name: first[name] for name in CELL_COLUMNS}
            yield cell, str(first["place"]), tuple(betas), list(values[betas]), list(kls[betas])


def _mixed(
    outcomes: Outcomes, cell: Mapping[str, Any], place: str, betas: Sequence[float], at: AtKl, metric: str
) -> dict[Trial, float]:
    """For each test edit the mean outcome over betas, by their weights."""
    mixed: dict[Trial, float] = {}
    for beta, weight in zip(betas, at.weights, strict=True):
        if weight:
            of_beta = outcomes.of_cell(cell, metric=metric, reading="plain", beta=beta, place=place)
            for trial, outcome in of_beta.items():
                mixed[trial] = mixed.get(trial, 0.0) + weight * outcome
    return mixed


def _by_relation(values: Mapping[Trial, float]) -> list[float]:
    return [mean_and_std([value for fact in facts for value in fact])[0] for facts in by_fact(values)]


def _mean_over_relations(values: Mapping[Trial, float]) -> float:
    return mean_and_std(_by_relation(values))[0]


@numbers_checked
def difference_at_kl(a: SteeringAtKl, b: SteeringAtKl, *, metric: str = HARD) -> DifferenceAtKl:
    """`a` less `b`, on the test edits that both have.

    The weights of the betas are kept when facts are drawn again: the interval does not count how sure the KL is.

    Raises:
        ValueError: they are of different KLs or have no edit in common, or a metric other than hard or soft
            causality.
    """
    if a.nats != b.nats:
        raise ValueError(f"a is read at {a.nats:g} nats and b at {b.nats:g}; compare at one KL")
    if metric not in (HARD, SOFT):
        raise ValueError(f"metric is {metric!r}; allowed are {HARD!r} and {SOFT!r}")
    of_a, of_b = ((m.hard_outcomes if metric == HARD else m.soft_outcomes) for m in (a, b))
    differences = {trial: value - of_b[trial] for trial, value in of_a.items() if trial in of_b}
    if not differences:
        raise ValueError("a and b have no edit in common, so nothing pairs them")
    by_relation = _by_relation(differences)
    return DifferenceAtKl(
        a=a.method,
        b=b.method,
        metric=metric,
        difference=mean_and_std(by_relation)[0],
        over_facts=paired_bootstrap(by_fact(differences)),
        over_relations=bootstrap_interval(by_relation),
        n_relations=len(by_relation),
        n_edits=len(differences),
    )
