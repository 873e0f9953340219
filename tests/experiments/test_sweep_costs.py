"""What a sweep takes is known before: operations by what they are for, memory, and seconds after a first unit."""

from dataclasses import replace

import pytest
from spoken import spoken_relations
from tiny_sweep import SETTINGS

import lrc_tl as lrc
from lrc_tl.errors import OutOfMemoryError
from lrc_tl.experiments.sweep_costs import STAGES, SweepCosts
from lrc_tl.lre import costs
from lrc_tl.models.sizes import model_sizes

ONE = replace(SETTINGS, subject_layers=0, ranks=2, seeds=1, methods="lrc", betas=0.3)


@pytest.fixture(scope="module")
def relations(word_model):
    return spoken_relations(word_model, 2)


@pytest.fixture(scope="module")
def measured(word_model, relations):
    """A plan, and the records of its units."""
    plan = lrc.plan_sweep(word_model, relations, settings=SETTINGS)
    records = []
    lrc.run_sweep(word_model, relations, settings=SETTINGS, on_record=records.append, progress=False)
    return plan, records


def test_operations_are_those_of_the_units_and_grow_with_what_is_asked_for(word_model, relations):
    plan = lrc.plan_sweep(word_model, relations[0], settings=ONE)
    (cost,) = plan.costs
    assert plan.operations == cost.operations == cost.reading + cost.fitting + cost.editing
    assert min(cost.reading, cost.fitting, cost.editing) > 0
    twice = lrc.plan_sweep(word_model, relations[0], settings=replace(ONE, betas=(0.3, 0.8), max_lre_prompts=8))
    assert twice.costs[0].reading == cost.reading
    assert cost.editing < twice.costs[0].editing < 2 * cost.editing  # the unedited run is shared
    assert cost.fitting < twice.costs[0].fitting < 2 * cost.fitting  # the decomposition is shared
    no_edits = lrc.plan_sweep(word_model, relations[0], settings=replace(ONE, metrics="accuracy"))
    assert no_edits.costs[0].editing == 0
    baseline = lrc.plan_sweep(word_model, relations[0], settings=replace(ONE, methods="mean"))
    assert (baseline.costs[0].fitting, baseline.lre_bytes) == (0, 0)
    two = lrc.plan_sweep(word_model, relations[0], settings=replace(ONE, seeds=(1, 2)))
    assert two.operations == pytest.approx(2 * plan.operations, rel=0.1)


def test_memory_is_that_of_lres_and_of_what_is_under_way(word_model, relations):
    square = 4 * 12**2
    plan = lrc.plan_sweep(word_model, relations[0], settings=ONE)
    assert plan.lre_bytes == 3 * square
    more = lrc.plan_sweep(word_model, relations[0], settings=replace(ONE, subject_layers=(0, 1)))
    assert more.lre_bytes == 2 * 3 * square
    sizes = model_sizes(word_model)
    assert plan.memory_bytes >= sizes.pass_bytes(n_tokens=4096, n_logits=256)
    assert "MiB   (LREs of a unit: 0 MiB)" in str(plan)


def test_a_low_rank_sweep_takes_fewer_operations_where_the_model_is_wide_enough(word_model, relations):
    exact = lrc.plan_sweep(word_model, relations[0], settings=ONE)
    narrow = lrc.plan_sweep(word_model, relations[0], settings=replace(ONE, solver="low_rank", ranks=10))
    assert narrow.costs == exact.costs  # the whole Jacobian takes fewer products
    wide = replace(model_sizes(word_model), d_model=1024, layer_weights=12 * 2**20, mlp_weights=8 * 2**20)

    def fitting(solver):
        return SweepCosts(replace(ONE, solver=solver), wide, lambda text: 5).add(exact.units[0]).fitting

    assert 0 < fitting("low_rank") < fitting("exact") / 10


def test_seconds_follow_from_a_rate(measured):
    plan, _ = measured
    assert plan.seconds(1e9) == plan.operations / 1e9
    with pytest.raises(ValueError, match=r"rate is 0\.0; give operations a second, above 0"):
        plan.seconds(0.0)


def test_after_a_unit_the_seconds_of_the_others_are_known_by_what_they_do(measured):
    plan, records = measured
    first = records[0]
    expected = plan.seconds_of_units([first])
    assert set(expected) == {(unit.relation.name, unit.seed) for unit in plan.units}
    taken = sum(first.seconds.values())
    assert expected[first.relation, first.seed] == pytest.approx(taken)
    assert plan.seconds_left([first]) == pytest.approx(sum(expected.values()) - taken)
    assert plan.seconds_left(records) == 0
    # Units of the same size take the same time here, but for what a first one pays once.
    assert sum(plan.seconds_of_units(records).values()) == pytest.approx(
        sum(sum(record.seconds.values()) for record in records), rel=0.05
    )


def test_each_kind_of_work_has_a_speed_of_its_own(measured):
    plan, records = measured
    slow = replace(records[0], seconds={"filter": 0.0, "fit": 10.0, "causality": 1.0})
    cost = plan.costs[0]
    other = plan.units[-1].relation.name, plan.units[-1].seed
    expected = plan.seconds_of_units([slow])[other]
    of_other = plan.costs[-1]
    by_hand = 10 * of_other.fitting / cost.fitting + of_other.editing / cost.editing
    by_hand += 11 * of_other.reading / cost.operations  # took no time: as fast as all work together
    assert expected == pytest.approx(by_hand)
    assert {stage for stages in STAGES.values() for stage in stages} >= set(records[0].seconds)


def test_records_of_other_units_and_of_those_left_out_say_nothing(measured):
    plan, records = measured
    for record in (replace(records[0], relation="another"), replace(records[0], left_out="too few")):
        with pytest.raises(ValueError, match="no record is of a unit of this plan that was evaluated"):
            plan.seconds_of_units([record])


def test_a_sweep_that_memory_is_not_enough_for_is_refused_before_anything_runs(word_model, relations, monkeypatch):
    plan = lrc.plan_sweep(word_model, relations, settings=SETTINGS)
    monkeypatch.setattr(costs, "host_free_bytes", lambda: plan.memory_bytes - 1)
    message = r"a unit of this sweep takes about [\d,]+ MiB beside the model \(the LREs of one unit: 0 MiB\), and"
    records = []
    with pytest.raises(OutOfMemoryError, match=message):
        lrc.run_sweep(word_model, relations, settings=SETTINGS, on_record=records.append, progress=False)
    assert not records
    with pytest.raises(OutOfMemoryError, match="3 units of this sweep take about"):
        plan.require_memory(n_at_once=3)
    monkeypatch.setattr(costs, "host_free_bytes", lambda: plan.memory_bytes)
    plan.require_memory()


def test_a_plan_in_json_has_the_costs_of_its_units(measured):
    plan, _ = measured
    values = plan.to_dict()
    assert "costs" not in values
    assert values["operations"] == plan.operations
    assert sum(unit["reading"] + unit["fitting"] + unit["editing"] for unit in values["units"]) == plan.operations
