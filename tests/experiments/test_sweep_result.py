"""The best cells and comparisons of a sweep, on made-up records whose answers are known."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from tiny_sweep import SETTINGS

from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_choice import rows_of_metric
from lrc_tl.experiments.sweep_record import CellRecord, EditScores, ShotsRecord, SweepRecord, left_out_record
from lrc_tl.experiments.sweep_result import SweepResult

N, N_VALIDATION = 40, 10
BETTER = {"lrc": {2: (0.5, 0.9), 4: (0.9, 0.5)}}
"""By rank: the share that is right on validation facts, and on test facts."""


def cell(method="lrc", rank=2, subject_layer=0):
    is_lrc = method == "lrc"
    return SweepCell(
        method=method, subject_layer=subject_layer, object_layer=2 if is_lrc else None,
        rank=rank if is_lrc else None,
        n_lre_prompts=4 if is_lrc else None, shots=0,
    )  # fmt: skip


def places(draw, n, share):
    right = round(n * share)
    values = [1] * right + [3] * (n - right)
    draw.shuffle(values)
    return tuple(values)


def scores(draw, n, share):
    success = tuple(place == 1 for place in places(draw, n, share))
    return (EditScores(beta=0.3, place="all", success=success, hard_success=success, edit_share=0.3),)


def measured(draw, of, validation, test):
    readings = ("plain", "centred", "calibrated")
    return CellRecord(
        cell=of, n_lre_prompts=of.n_lre_prompts,
        places={reading: places(draw, N, test) for reading in readings},
        validation_places={reading: places(draw, N_VALIDATION, validation) for reading in readings},
        edits=scores(draw, 20, test), validation_edits=scores(draw, 10, validation),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return made_up_result()


def made_up_result(relations=("r0", "r1")):
    draw = random.Random(0)
    edits = tuple(AskedEdit(f"s{n}", f"o{n % 4}", f"o{(n + 1) % 4}") for n in range(20))
    shared = ShotsRecord(shots=0, n_known_train=9, edits=edits, validation_edits=edits[:10])
    records = [
        SweepRecord(
            relation=relation, seed=seed, n_facts=90,
            test_prompts=tuple(AskedPrompt("", f"s{n}", f"o{n % 4}") for n in range(N)),
            validation_prompts=tuple(AskedPrompt("", f"v{n}", f"o{n % 4}") for n in range(N_VALIDATION)),
            by_shots=(shared,), seconds={"fit": 1.0},
            cells=(
                measured(draw, cell(rank=2), 0.5, 0.9),
                measured(draw, cell(rank=4), 0.9, 0.5),
                measured(draw, cell("svm"), 0.7, 0.7),
            ),
        )
        for relation in relations
        for seed in (1, 2)
    ]  # fmt: skip
    return SweepResult.of(records, settings=SETTINGS, model={"name": "made-up"})


def test_cells_are_chosen_on_validation_facts_and_judged_on_test_facts(result):
    best = result.best().set_index("method")
    assert best.loc["lrc", "rank"] == 4  # the worse one on test facts
    assert (best.loc["lrc", "validation"], best.loc["lrc", "value"]) == (0.9, 0.5)
    assert best.loc["lrc", "low"] < 0.5 < best.loc["lrc", "high"]
    assert (best.loc["lrc", "n_facts"], best.loc["lrc", "n_relations"], best.loc["lrc", "n_cells"]) == (
        2 * N,
        2,
        2,
    )
    whole = result.best(within=())
    assert list(whole["method"]) == ["lrc"]
    by_relation = result.best(within=("relation", "method"))
    assert len(by_relation) == 4
    assert set(by_relation["n_facts"]) == {N}
    causality = result.best("causality", where={"method": "lrc"})
    assert (causality["rank"].item(), causality["beta"].item(), causality["place"].item()) == (4, 0.3, "all")
    assert (causality["validation"].item(), causality["value"].item()) == (0.9, 0.5)


def test_two_cells_are_compared_on_the_same_facts_with_all_seeds_together(result):
    compared = result.compare({"method": "lrc", "rank": 2}, "svm")
    assert compared.difference == pytest.approx(0.2)
    assert (compared.value_a, compared.value_b) == (pytest.approx(0.9), pytest.approx(0.7))
    assert (compared.n, compared.n_facts, compared.n_relations) == (4 * N, 2 * N, 2)
    # By hand: facts drawn within relations, the two seeds of each staying together.
    frame = {}
    for record in result.outcomes.records:
        first, second = (
            [int(place) == 1 for place in record["cells"][at]["places"]["plain"].split()] for at in (0, 2)
        )
        for (_, subject, _), a, b in zip(record["test_prompts"], first, second, strict=True):
            frame.setdefault(record["relation"], {}).setdefault(subject, []).append(a - b)
    generator = np.random.default_rng(1)
    means = [np.mean([facts for facts in of.values()], axis=1) for of in frame.values()]
    drawn = [np.mean([m[generator.integers(N, size=N)].mean() for m in means]) for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (compared.low, compared.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    reverse = result.compare("svm", {"method": "lrc", "rank": 2})
    assert reverse.difference == pytest.approx(-compared.difference)
    best = result.best("hard_causality")
    of_rows = result.compare(best.iloc[0], best.iloc[1], metric="hard_causality")
    assert (of_rows.a["rank"], of_rows.a["beta"], of_rows.b["rank"]) == (4, 0.3, None)
    assert of_rows.difference == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: r.compare("lrc", "svm"),
            "a: 2 cells have method lrc; they differ in rank 2, 4: give one",
        ),
        (lambda r: r.compare("svm", "mean"), "b: no cell has method mean"),
        (lambda r: r.compare("svm", {"rnk": 3}), "there is no column 'rnk'; did you mean rank"),
        (lambda r: r.compare("svm", "svm", metric="kl_elsewhere"), "no 'kl_elsewhere' of single facts; there are"),
        (lambda r: r.compare("svm", "svm", reading="plane"), "there is no reading 'plane'; did you mean plain"),
        (lambda r: r.best("acuracy"), "did you mean accuracy"),
        (lambda r: r.best(within="colour"), "there is no column 'colour' to choose within"),
        (lambda r: r.best(where={"rank": 9}), "no cell has rank 9"),
    ],
)
def test_what_names_no_cell_is_refused_with_what_would(result, call, message):
    with pytest.raises(ValueError, match=message):
        call(result)


def test_without_validation_facts_nothing_is_chosen(result):
    rows = result.rows[~result.rows["metric"].str.startswith("validation")]
    bare = SweepResult(settings=SETTINGS, model={}, rows=rows, outcomes=result.outcomes)
    with pytest.raises(ValueError, match="no accuracy on validation facts to choose by; run it with validation"):
        bare.best()
    with pytest.raises(ValueError, match="run it with validation_edits=20"):
        bare.best("causality")


def test_a_record_comes_back_from_its_plain_values(result):
    for record in result.outcomes.records:
        assert json.loads(json.dumps(SweepRecord.from_dict(record).to_dict())) == record
    with pytest.raises(ValueError, match="no record of a sweep"):
        SweepRecord.from_dict({"relation": "r"})


def test_nothing_is_loaded_from_a_folder_without_a_sweep(tmp_path):
    from lrc_tl.errors import ResumeError

    with pytest.raises(ResumeError, match=r"holds no sweep .there is no sweep\.json"):
        SweepResult.load(tmp_path)


def test_a_comparison_is_plain_json(result):
    compared = result.compare({"method": "lrc", "rank": 2}, "svm", metric="causality")
    plain = json.loads(json.dumps(compared.to_dict()))
    assert (plain["difference"], plain["n"], plain["a"]["rank"]) == (compared.difference, compared.n, 2)
    assert plain["reading"] is None


def test_a_display_names_what_was_left_out_five_at_a_time_and_escapes_it(result):
    records = [SweepRecord.from_dict(record) for record in result.outcomes.records]
    reason = "the model knows <2> facts"
    more = [left_out_record(f"z{n}", 1, reason, [cell()]) for n in range(7)]
    shown = SweepResult.of([*records, *more], settings=SETTINGS, model={"name": "made-up"})._repr_html_()
    assert shown.count("the model knows &lt;2&gt; facts") == 5
    assert "… and 2 more; .left_out has all" in shown
    assert "was chosen on validation facts" in shown


def test_where_nothing_was_held_out_the_display_says_so_and_best_what_to_do(result):
    records = [
        replace(
            record,
            validation_prompts=(),
            cells=tuple(replace(of, validation_places={}, validation_edits=()) for of in record.cells),
        )
        for record in map(SweepRecord.from_dict, result.outcomes.records)
    ]
    without = SweepResult.of(records, settings=SETTINGS, model={"name": "made-up"})
    assert "Nothing was held out to choose cells on." in without._repr_html_()
    with pytest.raises(
        ValueError, match="no accuracy on validation facts to choose by; run it with validation above 0"
    ):
        without.best()


def test_a_metric_that_was_not_measured_is_refused_with_those_that_were(result):
    with pytest.raises(ValueError, match="the sweep has no accuracy; it has causality, hard_causality"):
        rows_of_metric(result.rows[~result.rows["metric"].isin(["accuracy", "top3"])], "accuracy", "plain")
    of_kl = result.rows[result.rows["metric"] == "edit_share"]
    with pytest.raises(ValueError, match="the sweep has no accuracy; it has no metric of single facts"):
        rows_of_metric(of_kl, "accuracy", "plain")


def test_a_noise_that_each_unit_chose_for_itself_has_its_row(result):
    records = [SweepRecord.from_dict(record) for record in result.outcomes.records]
    chosen = [
        replace(record, cells=(replace(record.cells[0], chosen_noise=0.1 * number), *record.cells[1:]))
        for number, record in enumerate(records, start=1)
    ]
    with_noise = SweepResult.of(chosen, settings=SETTINGS, model={"name": "made-up"})
    rows = with_noise.rows[with_noise.rows["metric"] == "chosen_noise"]
    assert rows["value"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rows["noise"].isna().all()
    assert with_noise.best().equals(result.best())
