"""Averages, intervals and tests of hand-made benchmark records."""

import math
from dataclasses import replace

import pytest

import lrc_tl as lrc
from lrc_tl.experiments.method_outcome import CurvePoint, MethodOutcome, SideEffectMeans
from lrc_tl.experiments.record import AskedEdit, AskedPrompt, LeftOutRelation, RelationRecord
from lrc_tl.numerics.statistics import bootstrap_interval, holm, mcnemar_test, sign_test, two_proportion_z_test


def record(relation, seed, **methods):
    """`methods` holds for each method the right answers and the successes of the edits, one list for each beta."""
    correct, *successes = next(iter(methods.values()))
    n_edits = len(successes[0]) if successes else 0
    return RelationRecord(
        relation=relation,
        seed=seed,
        n_facts=2 * len(correct),
        n_known_train=len(correct),
        n_lre_prompts=len(correct),
        n_test=len(correct),
        n_prompts=len(correct),
        n_edits=n_edits,
        n_unrelated=0,
        n_same_subject=0,
        n_objects=4,
        chance=0.25,
        subject_layer=1,
        object_layer=None,
        rank=None,
        betas=(0.1, 0.2)[: len(successes)] or (0.1, 0.2),
        selected=None,
        test_prompts=tuple(AskedPrompt(f"s{n} is", f"s{n}", "x") for n in range(len(correct))),
        object_tokens=tuple(1 + n % 2 for n in range(len(correct))),
        edits=tuple(AskedEdit(f"s{n}", "x", "y") for n in range(n_edits)),
        methods={name: outcome(*lists) for name, lists in methods.items()},
        seconds={"filter": 1.0},
    )


def outcome(correct, *successes):
    accuracy = sum(correct) / len(correct)
    centred = tuple(number == 0 for number in range(len(correct)))
    return MethodOutcome(
        subject_layer=1,
        object_layer=None,
        rank=None,
        correct=tuple(correct),
        predicted=("x",) * len(correct),
        accuracy=accuracy,
        mean_reciprocal_rank=0.5,
        top3=1.0,
        correct_centred=centred,
        accuracy_centred=1 / len(correct),
        correct_calibrated=tuple(correct),
        accuracy_calibrated=accuracy,
        control_shuffled=0.25,
        control_random=0.25,
        seconds_train=2.0,
        seconds_evaluate=3.0,
        curve=tuple(map(point, (0.1, 0.2), successes)),
    )


def point(beta, success):
    return CurvePoint(
        beta=beta,
        success=tuple(success),
        causality=sum(success) / len(success),
        hard_success=(False,) * len(success),
        hard_causality=0.0,
        edit_share=0.1,
        mean_log_odds_change=1.0,
        wrong_way=0.0,
    )


def share(right, of):
    return [True] * right + [False] * (of - right)


RECORDS = (
    record("a", 1, lrc=(share(4, 4), share(3, 4), share(4, 4)), mean=(share(2, 4), share(1, 4), share(2, 4))),
    record("a", 2, lrc=(share(2, 4), share(2, 4), share(2, 4)), mean=(share(3, 4), share(1, 4), share(2, 4))),
    record("b", 1, lrc=(share(4, 8), share(6, 6), share(6, 6)), mean=(share(2, 8), share(3, 6), share(4, 6))),
    LeftOutRelation(relation="b", seed=2, left_out="too few"),
    LeftOutRelation(relation="c", seed=1, left_out="one-to-one"),
    LeftOutRelation(relation="c", seed=2, left_out="another reason"),
    record("d", 1, lrc=(share(3, 5),), mean=(share(1, 5),)),
    record("d", 2, lrc=(share(5, 5),), mean=(share(1, 5),)),
)
RESULT = lrc.ProtocolResult(records=RECORDS, methods=("lrc", "mean"))


def changed(records, change):
    """The records, those of evaluated relations with what `change` gives for their methods."""
    return tuple(
        replace(one, methods=change(one.methods)) if isinstance(one, RelationRecord) else one for one in records
    )


def test_a_relation_counts_once_with_its_mean_over_seeds():
    lrc_, mean = RESULT.to_dict()["methods"]
    assert lrc_["accuracy"]["mean"] == pytest.approx((0.75 + 0.5 + 0.8) / 3)
    # seed 1: (1 + 1/2 + 3/5) / 3; seed 2: (1/2 + 1) / 2
    assert lrc_["accuracy"]["std"] == pytest.approx(0.05 / math.sqrt(2))
    assert lrc_["accuracy"]["ci95"] == pytest.approx(bootstrap_interval([0.75, 0.5, 0.8]))
    # without d, which has no edits
    assert lrc_["causality"]["mean"] == pytest.approx((0.625 + 1) / 2)
    assert lrc_["causality"]["ci95"] == pytest.approx(bootstrap_interval([0.625, 1]))
    assert (lrc_["n_relations"], lrc_["n_prompts"], lrc_["n_edits"]) == (3, 26, 14)
    assert (lrc_["seconds_train"], lrc_["seconds_evaluate"]) == (10, 15)
    assert [point["beta"] for point in mean["curve"]] == [0.1, 0.2]
    assert mean["curve"][1]["causality"]["mean"] == pytest.approx((0.5 + 4 / 6) / 2)
    # What is drawn and compared is the same mean.
    assert RESULT.comparisons()[0]["accuracy"]["difference"] == pytest.approx(
        lrc_["accuracy"]["mean"] - mean["accuracy"]["mean"]
    )


def test_what_is_left_out_is_listed_apart_for_relations_and_single_seeds():
    data = RESULT.to_dict()
    assert data["relations_left_out"] == {"c": "one-to-one"}
    assert data["seeds_left_out"] == [{"relation": "b", "seed": 2, "reason": "too few"}]
    assert data["without_edits"] == [{"relation": "d", "seed": 1}, {"relation": "d", "seed": 2}]
    rows = data["methods"][0]["per_relation"]
    assert [(row["relation"], row["seed"]) for row in rows] == [("a", 1), ("a", 2), ("b", 1), ("d", 1), ("d", 2)]
    assert rows[3]["causality"] is None
    assert rows[3]["n_edits"] == 0
    assert {"methods", "left_out"}.isdisjoint(data["relations"][0])


def test_the_table_and_the_frame_show_the_same_figures():
    table = RESULT.to_markdown()
    assert "| lrc | 0.683 +- 0.035 | " in table
    assert "- c: one-to-one" in table
    assert "- b, seed 2: too few" in table
    frame = RESULT.to_frame()
    assert list(frame["method"]) == ["lrc"] * 5 + ["mean"] * 5
    assert frame.loc[0, "accuracy"] == 1
    assert math.isnan(frame.loc[3, "causality"])


def test_methods_are_compared_on_the_same_prompts_with_a_correction_for_their_number():
    three = changed(RECORDS, lambda methods: {**methods, "svm": methods["mean"]})
    first, second = lrc.ProtocolResult(records=three, methods=("lrc", "mean", "svm")).comparisons()
    assert (first["method"], first["against"], second["against"]) == ("lrc", "mean", "svm")
    differences = [0.75 - 0.625, 0.5 - 0.25, 0.8 - 0.2]
    found = first["accuracy"]
    assert found["difference"] == pytest.approx(sum(differences) / 3)
    assert found["ci95"] == pytest.approx(bootstrap_interval(differences))
    assert found["sign_test"]["p"] == sign_test(differences).p_value
    lrc_ = [*share(4, 4), *share(4, 8), *share(3, 5)]
    mean = [*share(2, 4), *share(2, 8), *share(1, 5)]
    at_seed = found["per_seed"][0]
    z = two_proportion_z_test(sum(lrc_), 17, sum(mean), 17)
    assert at_seed["z_test"] == {"z": z.statistic, "p": z.p_value, "n": 17, "p_holm": holm([z.p_value] * 2)[0]}
    assert at_seed["mcnemar"]["p"] == mcnemar_test(lrc_, mean).p_value
    assert at_seed["mcnemar"]["p_holm"] == min(1, 2 * at_seed["mcnemar"]["p"])
    assert first["causality"]["per_seed"][0]["z_test"]["n"] == 10
    assert lrc.ProtocolResult(records=RECORDS, methods=("lrc",)).comparisons() == []


def test_any_method_may_be_the_one_that_is_compared_with_the_others():
    (found,) = RESULT.comparisons()
    (turned,) = RESULT.comparisons("mean")
    assert (turned["method"], turned["against"]) == ("mean", "lrc")
    assert turned["accuracy"]["difference"] == -found["accuracy"]["difference"]
    with pytest.raises(LookupError, match="no method 'svn'; it has lrc, mean"):
        RESULT.comparisons("svn")
    both = lrc.ProtocolResult(records=RECORDS, methods=RESULT.methods, compared=("mean", "lrc"))
    assert both.to_dict()["comparisons"] == [turned, found]
    assert RESULT.to_dict()["comparisons"] == [found]
    assert "| mean - lrc | accuracy |" in both.to_markdown()


def with_kl(records, **kl):
    """The records with KLs on unrelated statements at their betas, by method."""

    def change(methods):
        return {
            name: replace(
                method,
                curve=tuple(
                    replace(point, unrelated=SideEffectMeans(kl=value, kept=None, log_prob_change=None))
                    for point, value in zip(method.curve, kl[name], strict=False)
                ),
            )
            for name, method in methods.items()
        }

    return changed(records, change)


def test_a_centred_method_is_compared_with_another_one_as_it_is():
    records = with_kl(RECORDS, lrc=(1, 2), mean=(1, 2))
    (entry,) = lrc.ProtocolResult(records=records, methods=("lrc", "mean")).comparisons()
    assert entry["accuracy_centred"]["difference"] == 0
    a, b, d = (2 / 8 - 5 / 8), (1 / 8 - 2 / 8), (2 / 10 - 2 / 10)
    assert entry["accuracy_centred_over_plain"]["difference"] == pytest.approx((a + b + d) / 3)
    assert "causality_at_equal_kl" in entry
    assert "causality_at_equal_kl" not in RESULT.comparisons()[0], "without KLs nothing is compared at equal ones"


def test_edits_are_compared_where_both_methods_move_unrelated_statements_equally_far():
    # lrc's KL of .1 is half way, in logarithms, between the mean's two; its .4 is beyond them.
    records = with_kl(RECORDS, lrc=(0.1, 0.4), mean=(0.05, 0.2))
    (entry,) = lrc.ProtocolResult(records=records, methods=("lrc", "mean")).comparisons()
    found = entry["causality_at_equal_kl"]
    a = ((3 / 4 - (1 + 2) / 8) + (2 / 4 - (1 + 2) / 8)) / 2
    b = 1 - (3 + 4) / 12
    assert found["betas"] == [0.1]
    assert found["difference"] == pytest.approx((a + b) / 2)
    assert found["paired_bootstrap"]["n_facts"] == 10
    assert found["sign_test"]["share_positive"] == 1
    assert (
        "causality at equal KL elsewhere"
        in lrc.ProtocolResult(records=records, methods=("lrc", "mean")).to_markdown()
    )


@pytest.mark.parametrize("kl", [(0.5, 0.9), (0.2, 0.1), (None, None)], ids=["beyond", "falling", "not measured"])
def test_edits_that_nowhere_reach_the_same_kl_are_not_compared(kl):
    records = with_kl(RECORDS, lrc=(0.1, 0.4), mean=kl)
    (entry,) = lrc.ProtocolResult(records=records, methods=("lrc", "mean")).comparisons()
    assert "causality_at_equal_kl" not in entry
    assert "causality" in entry


def at_betas(one, betas):
    methods = {
        name: replace(
            method, curve=tuple(replace(p, beta=beta) for p, beta in zip(method.curve, betas, strict=False))
        )
        for name, method in one.methods.items()
    }
    return replace(one, betas=betas, methods=methods)


def test_edits_the_other_way_are_not_taken_for_edits_of_the_same_kl():
    records = with_kl(RECORDS, lrc=(0.1, 0.2), mean=(0.1, 0.2))
    turned = tuple(at_betas(one, (-0.1, 0.2)) if isinstance(one, RelationRecord) else one for one in records)
    (entry,) = lrc.ProtocolResult(records=turned, methods=("lrc", "mean")).comparisons()
    assert "causality_at_equal_kl" not in entry


def test_a_method_has_the_causality_of_itself_at_equal_kl():
    records = with_kl(RECORDS, lrc=(0.1, 0.4), mean=(0.1, 0.4))
    twice = changed(records, lambda methods: {**methods, "same": methods["lrc"]})
    (entry,) = lrc.ProtocolResult(records=twice, methods=("lrc", "same")).comparisons()
    assert entry["causality_at_equal_kl"]["betas"] == [0.1, 0.2]
    assert entry["causality_at_equal_kl"]["difference"] == 0
    assert entry["causality_at_equal_kl"]["ci95"] == [0, 0]


def test_a_result_without_a_figure_is_refused_with_the_reasons():
    empty = lrc.ProtocolResult(records=RECORDS[3:6], methods=("lrc",))
    with pytest.raises(ValueError, match="no relation could be evaluated: b: too few; c: one-to-one"):
        empty.require_nonempty()
    RESULT.require_nonempty()


def test_one_seed_and_one_relation_have_no_spread():
    alone = lrc.ProtocolResult(records=RECORDS[:1], methods=("lrc",))
    (found,) = alone.to_dict()["methods"]
    assert found["accuracy"]["mean"] == 1
    assert math.isnan(found["accuracy"]["std"])
    assert all(math.isnan(bound) for bound in found["accuracy"]["ci95"])
    assert "| lrc | 1.000 | - | 0.750 | - | 1 | 4 | 4 |" in alone.to_markdown()


def test_the_curve_frame_has_a_row_for_every_beta():
    frame = RESULT.curve_frame()
    assert len(frame) == 2 * 2 * 3, "two methods and betas on the three records with edits"
    own = frame[(frame["method"] == "mean") & (frame["relation"] == "b")]
    assert own[["seed", "beta", "causality", "layers"]].to_numpy().tolist() == [
        [1, 0.1, 0.5, "all"],
        [1, 0.2, pytest.approx(4 / 6), "all"],
    ]
