"""The benchmark: every figure as the pieces give it, and what is left out and why."""

import json
from dataclasses import replace

import pytest
import torch
from spoken import spoken_relation, spoken_relations
from tiny_benchmark import BETAS, METHODS, SEEDS, SETTINGS

import lrc_tl as lrc
from lrc_tl.evaluation.control_tasks import random_weights
from lrc_tl.experiments.run import run_protocol
from lrc_tl.experiments.settings import ExperimentSettings


@pytest.fixture(scope="module")
def model(one_word_model):
    return one_word_model


@pytest.fixture(scope="module")
def relations(model):
    return spoken_relations(model, 2)


@pytest.fixture(scope="module")
def whole(model, relations):
    settings = replace(SETTINGS, betas=BETAS)
    return run_protocol(model, relations, methods=METHODS, seeds=SEEDS, settings=settings)


def test_every_figure_is_what_the_pieces_give_by_hand(word_model):
    relations = spoken_relations(word_model, 2)
    settings = replace(SETTINGS, betas=BETAS)
    whole = run_protocol(word_model, relations, methods=METHODS, seeds=SEEDS, settings=settings)
    frame = whole.to_frame().set_index(["method", "relation", "seed"])
    assert len(frame) == len(METHODS) * len(relations) * len(SEEDS)
    for relation in relations:
        for seed in SEEDS:
            train, test = relation.split(seed=seed)
            known = lrc.filter_known(word_model, train.prompts(shots=0, seed=seed), seed=seed)
            asked = test.prompts(shots=0, seed=seed, templates="all")
            unseen = lrc.filter_known(word_model, asked, seed=seed).one_per_fact()
            sets = lrc.fit_baselines(word_model, known.prompts, layer=0, methods=("svm", "mean"), seed=seed)
            for method, layer, aggregation in (("lrc", 1, "mean"), ("lrc-final", 2, "first_token")):
                lre = lrc.LinearRelationalEmbedding.fit(
                    word_model, known.sample(4, seed=seed), subject_layer=0, object_layer=layer,
                    object_aggregation=aggregation, progress=False,
                )  # fmt: skip
                sets[method] = lre.concepts(word_model, known.prompts, rank=4)
            for method, concepts in sets.items():
                expected = lrc.evaluate(word_model, concepts, unseen.prompts, beta=0.3, seed=seed)
                row = frame.loc[method, relation.name, seed]
                assert (row.accuracy, row.causality) == (expected.accuracy, expected.causality)
                assert (row.n_prompts, row.n_edits) == (len(unseen.prompts), len(expected.edits))
                assert row.edit_share == pytest.approx(expected.causality_result.edit_share)


def test_baselines_alone_need_no_object_layer_and_no_rank(model, relations, whole):
    settings = replace(SETTINGS, betas=BETAS, object_layers=(), ranks=())
    alone = run_protocol(model, relations, methods=("svm", "mean"), seeds=SEEDS, settings=settings)
    for record, same in zip(alone.records, whole.records, strict=True):
        assert record.methods["svm"].predicted == same.methods["svm"].predicted
        assert (record.object_layer, record.rank) == (None, None)


def test_the_json_holds_the_documented_fields(whole, relations):
    data = json.loads(json.dumps(whole.to_dict()))
    assert data["relations_left_out"] == {}
    assert [entry["method"] for entry in data["methods"]] == list(METHODS)
    for entry in data["methods"]:
        for figure in (entry["accuracy"], entry["causality"]):
            assert set(figure) == {"mean", "std", "ci95"}
            low, high = figure["ci95"]
            assert low <= figure["mean"] <= high
        rows = entry["per_relation"]
        assert {"relation", "seed", "accuracy", "causality", "n_prompts", "n_edits"} <= set(rows[0])
        assert (entry["n_relations"], len(rows)) == (2, 4)
        assert entry["n_prompts"] == sum(row["n_prompts"] for row in rows)
        assert entry["n_edits"] == sum(row["n_edits"] for row in rows)
        assert min(entry["seconds_train"], entry["seconds_evaluate"]) > 0
        assert [point["beta"] for point in entry["curve"]] == list(BETAS)
        assert entry["curve"][0]["causality"] == entry["causality"]
    stages = {"filter", "select", "activations", "fit", "accuracy", "causality", "side effects"}
    assert set(data["seconds_by_stage"]) == stages


def test_a_curve_is_made_of_the_figures_of_single_betas_on_the_same_edits(model, relations, whole):
    single = run_protocol(
        model,
        relations[:1],
        methods=("mean",),
        seeds=SEEDS[:1],
        settings=replace(SETTINGS, betas=BETAS[1]),
    )
    (alone,) = single.records
    record = whole.records[0]
    assert alone.edits == record.edits != ()
    one, other = alone.methods["mean"].curve[0].to_dict(), record.methods["mean"].curve[1].to_dict()
    assert set(one) == set(other)
    for figure, value in one.items():  # batches differ, so the last bits may
        assert value == (other[figure] if value is None else pytest.approx(other[figure], abs=1e-5)), figure


def test_the_passes_that_find_known_prompts_read_them_for_all_methods(model, relations, monkeypatch):
    run = lrc.passes.residuals.run
    passes = []

    def counted(model, ids, **options):
        passes.append(len(ids))
        return run(model, ids, **options)

    monkeypatch.setattr("lrc_tl.passes.residuals.run", counted)
    result = run_protocol(model, relations[:1], methods=METHODS, settings=SETTINGS)
    (record,) = result.records
    # Only the training facts' zero-shot prompts, for centring, need a pass of their own.
    assert passes == [record.n_facts - record.n_test]


def test_side_effects_stand_beside_the_curve_of_every_method_and_beta(model, relations):
    names = {name for fact in relations[0].facts for name in (fact.subject, fact.object)}
    # Facts without a word in common with the relation, and facts about its subjects.
    first, second, *_ = (f"w{n}" for n in range(44) if f"w{n}" not in names)
    apart = lrc.Relation.from_pairs("apart", [(first, second), (second, first)], templates=["{} w40"])
    beside = spoken_relation(model, name="beside", tail="w43")
    settings = replace(SETTINGS, betas=(0.0, 0.8), n_side_effects=9)
    options = {"methods": ("lrc", "mean"), "settings": settings}
    result = run_protocol(model, relations[:1], others=[apart, beside, relations[0]], **options)
    (record,) = result.records
    assert record.n_unrelated == 9
    assert 1 <= record.n_same_subject <= 9
    for method in ("lrc", "mean"):
        none, some = record.methods[method].curve
        for kind in ("unrelated", "same_subject"):
            effects = getattr(none, kind), getattr(some, kind)
            assert effects[0].kl == pytest.approx(0, abs=1e-6)
            assert effects[0].kept == 1
            assert effects[1].kl > 1e-4
            assert effects[1].kept <= 1
    without = run_protocol(model, relations[:1], others=[relations[0]], **options)
    assert without.records[0].n_unrelated == 0
    assert without.records[0].methods["lrc"].curve[0].unrelated.kl is None


def test_a_sweep_gives_the_figures_of_single_runs_and_shares_the_jacobians(model, relations, monkeypatch):
    from lrc_tl.lre.layer_grid import fit_exact_pairs

    grids = []
    monkeypatch.setattr(
        "lrc_tl.methods.lre_grids.fit_exact_pairs",
        lambda *args, **options: grids.append(args) or fit_exact_pairs(*args, **options),
    )
    quick = replace(SETTINGS, n_side_effects=0)
    swept = run_protocol(
        model, relations[:1], methods=("lrc", "svm"),
        settings=replace(quick, subject_layers=(0, 1), object_layers=(1, 2), ranks=(2, 4)),
    )  # fmt: skip
    assert len(grids) == 1
    frame = swept.to_frame().set_index("method")
    assert len(frame) == 3 * 2 + 2  # not from layer 1 to itself; the baseline has subject layers alone
    for subject, object_, rank in ((0, 1, 2), (0, 2, 4), (1, 2, 2)):
        single = run_protocol(
            model, relations[:1], methods=("lrc", "svm"),
            settings=replace(quick, subject_layers=subject, object_layers=object_, ranks=rank),
        ).to_frame()  # fmt: skip
        row = frame.loc[f"lrc@subject={subject},object={object_},rank={rank}"]
        assert (row.subject_layer, row.object_layer, row["rank"]) == (subject, object_, rank)
        assert (row.accuracy, row.causality) == (single.accuracy[0], single.causality[0])
        assert frame.loc[f"svm@subject={subject}"].accuracy == single.accuracy[1]


def test_an_lre_for_each_object_is_what_fitting_on_its_prompts_gives(model, relations):
    from lrc_tl.lre.embedding import LinearRelationalEmbedding

    methods = ("lrc-same-object", "lrc-other-objects")
    # Not at neighbouring layers: there W s vanishes for one prompt, since an RMS norm forgets the length of s.
    settings = replace(SETTINGS, object_layers=2, n_side_effects=0)
    result = run_protocol(model, relations[:1], methods=methods, settings=settings)
    (record,) = result.records
    train, test = relations[0].split(seed=42)
    known = lrc.filter_known(model, train.prompts(seed=42), seed=42)
    unseen = lrc.filter_known(model, test.prompts(seed=42, templates="all"), seed=42).one_per_fact()
    sample = known.sample(max(4, len({p.object for p in known.prompts})), seed=42)
    for method in methods:
        made = {}
        for name in dict.fromkeys(prompt.object for prompt in known.prompts):
            own = [prompt for prompt in sample if (prompt.object == name) == (method == "lrc-same-object")]
            lre = LinearRelationalEmbedding.fit(model, own, subject_layer=0, object_layer=2, progress=False)
            mine = [prompt for prompt in known.prompts if prompt.object == name]
            made[name] = lre.concepts(model, mine, rank=4)[name]
        expected = lrc.evaluate(model, lrc.ConceptSet(made), unseen.prompts, seed=42)
        assert record.methods[method].accuracy == expected.accuracy
        assert record.methods[method].curve[0].causality == expected.causality


def test_methods_with_a_ridge_are_what_the_pieces_give_and_share_their_fits(model, relations, monkeypatch):
    import lrc_tl.methods.lre_grids as lre_grids

    grids = []
    fit = lre_grids.fit_exact_pairs
    monkeypatch.setattr(lre_grids, "fit_exact_pairs", lambda *a, **k: grids.append((a, k)) or fit(*a, **k))
    settings = replace(SETTINGS, object_layers=2, n_side_effects=0)
    methods = ("lrc-combined", "lrc-ridge", "lrc", "lrc-final")
    (record,) = run_protocol(model, relations[:1], methods=methods, settings=settings).records
    assert len(grids) == 2  # the last layer is read in two ways
    train, test = relations[0].split(seed=42)
    known = lrc.filter_known(model, train.prompts(seed=42), seed=42)
    unseen = lrc.filter_known(model, test.prompts(seed=42, templates="all"), seed=42).one_per_fact()
    sets = []
    for layer, aggregation in ((1, "mean"), (2, "mean"), (-1, "first_token")):
        lre = lrc.LinearRelationalEmbedding.fit(
            model,
            known.sample(4, seed=42),
            subject_layer=0,
            object_layer=layer,
            object_aggregation=aggregation,
            progress=False,
        )
        sets.append(lre.concepts(model, known.prompts, ridge=0.2))
    ridge = lrc.evaluate(model, sets[1], unseen.prompts, seed=42)
    assert record.methods["lrc-ridge"].accuracy == ridge.accuracy
    assert record.methods["lrc-ridge"].curve[0].causality == ridge.causality
    expected = lrc.evaluate(model, lrc.combine_concepts(sets), unseen.prompts, seed=42)
    found = record.methods["lrc-combined"]
    assert found.accuracy == expected.accuracy
    assert found.curve[0].causality == expected.causality
    assert (found.object_layer, found.rank) == (2, None)
    parts = [record.methods[method].seconds_train for method in ("lrc", "lrc-final")]
    assert found.seconds_train >= sum(parts)


def test_low_rank_fits_give_the_figures_of_the_pieces(model, relations, monkeypatch):
    from lrc_tl.lre.low_rank_fit import fit_pair

    kinds = []
    monkeypatch.setattr(
        "lrc_tl.lre.layer_grid.fit_pair",
        lambda *args, **options: kinds.append(options) or fit_pair(*args, **options),
    )
    settings = replace(SETTINGS, ranks=2, n_side_effects=0, solver="low_rank")
    methods = ("lrc", "lrc-final", "svm")
    found = run_protocol(model, relations[:1], methods=methods, seeds=(1,), settings=settings)
    assert len(kinds) == 2
    (record,) = found.records
    train, test = relations[0].split(seed=1)
    known = lrc.filter_known(model, train.prompts(shots=0, seed=1), seed=1)
    asked = test.prompts(shots=0, seed=1, templates="all")
    unseen = lrc.filter_known(model, asked, seed=1).one_per_fact()
    for method, layer, aggregation in (("lrc", 1, "mean"), ("lrc-final", 2, "first_token")):
        lre = lrc.LinearRelationalEmbedding.fit(
            model, known.sample(4, seed=1), subject_layer=0, object_layer=layer,
            object_aggregation=aggregation, solver=lrc.LowRank(rank=2), progress=False,
        )  # fmt: skip
        assert lre.solver == "low_rank"
        concepts = lre.concepts(model, known.prompts, rank=2)
        expected = lrc.evaluate(model, concepts, unseen.prompts, seed=1)
        own = record.methods[method]
        assert own.accuracy == expected.accuracy
        assert own.curve[0].causality == expected.causality


def test_a_low_rank_sweep_takes_one_grid_for_the_largest_rank(model, relations, monkeypatch):
    from lrc_tl.lre.layer_grid import fit_layer_grid

    grids = []
    monkeypatch.setattr(
        "lrc_tl.methods.lre_grids.fit_layer_grid",
        lambda *args, **options: grids.append(options) or fit_layer_grid(*args, **options),
    )
    run_protocol(
        model, relations[:1], methods=("lrc",),
        settings=replace(
            SETTINGS, object_layers=(1, 2), ranks=(1, 2), solver="low_rank", n_side_effects=0
        ),
    )  # fmt: skip
    assert [options["solver"] for options in grids] == [lrc.LowRank(rank=2)]


def test_a_split_seed_keeps_the_halves_and_the_seeds_draw_from_them(model, relations):
    relation = relations[0]
    halves = [{fact.subject for fact in half.facts} for half in relation.split(seed=7)]
    settings = replace(SETTINGS, n_side_effects=0, split_seed=7)

    def run(settings):
        return run_protocol(model, [relation], methods=("mean",), seeds=(1, 2, 3), settings=settings)

    every = run(settings)
    for record in every.records:
        assert {prompt.subject for prompt in record.test_prompts} <= halves[1]
        assert record.n_test == len(halves[1])
        assert record.n_known_train <= len(halves[0])
    most = len(relation.facts) - 3
    drawn = run(replace(settings, max_facts=most))
    assert [record.n_test for record in drawn.records] == [min(most // 2, len(halves[1]))] * 3
    own = run(replace(settings, split_seed=None))
    assert any({prompt.subject for prompt in record.test_prompts} - halves[1] for record in own.records)


def test_controls_and_single_layer_edits_are_those_of_the_pieces(model, relations):
    settings = replace(SETTINGS, n_side_effects=0, single_layer=True, betas=0.6, random_model=True)
    (record,) = run_protocol(model, relations[:1], methods=("mean",), settings=settings).records
    found = record.methods["mean"]
    train, test = relations[0].split(seed=42)
    known = lrc.filter_known(model, train.prompts(seed=42), seed=42)
    unseen = lrc.filter_known(model, test.prompts(seed=42, templates="all"), seed=42).one_per_fact()
    concepts = lrc.mean_concepts(model, known.prompts, layer=0)
    acts = lrc.subject_activations(model, unseen.prompts, layer=0)
    actual = [prompt.object for prompt in unseen.prompts]
    centre = lrc.subject_activations(model, train.prompts(seed=42), layer=0).mean(0)
    centred = lrc.evaluation.classify_activations(concepts, acts, actual, centre=centre)
    assert found.accuracy_centred == centred.accuracy
    facts = train.prompts(seed=42)
    plain = lrc.subject_activations(model, facts, layer=0) - centre
    inside = [row for row, prompt in enumerate(facts) if prompt.object in concepts]
    ready = concepts.calibrate(plain[inside], [facts[row].object for row in inside], multiclass="standardised")
    calibrated = lrc.evaluation.classify_activations(ready, acts, actual, centre=centre, calibrated=True)
    assert found.accuracy_calibrated == calibrated.accuracy
    random = lrc.evaluation.classify_activations(lrc.evaluation.random_concepts(concepts, seed=42), acts, actual)
    assert found.control_random == random.accuracy
    assert 0 <= found.control_shuffled <= 1
    with random_weights(model, seed=42):
        untrained = lrc.mean_concepts(model, known.prompts, layer=0)
        read = lrc.subject_activations(model, unseen.prompts, layer=0)
        assert found.control_random_model == lrc.evaluation.classify_activations(untrained, read, actual).accuracy
    assert found.control_random_model != found.accuracy
    edits = lrc.evaluation.counterfactual_edits([p for p in unseen.prompts if p.object in concepts], seed=42)
    differences = torch.stack([concepts[e.target].vector - concepts[e.prompt.object].vector for e in edits])
    (single,) = lrc.evaluation.causality_curve(model, edits, differences, betas=[0.6], layers=[0], generated=True)
    assert found.curve_single_layer[0].success == tuple(single.success.tolist())
    assert found.curve_single_layer[0].hard_success == tuple(single.generated.tolist())
    assert found.curve[0].mean_log_odds_change != found.curve_single_layer[0].mean_log_odds_change


def test_a_random_model_that_gives_no_numbers_costs_no_more_than_the_control(model, relations, monkeypatch):
    import lrc_tl.experiments.one_relation as benchmark

    read, calls = benchmark.training_activations, []

    def broken(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 1:
            raise ValueError("the residual stream is not finite")
        return read(*arguments, **options)

    monkeypatch.setattr(benchmark, "training_activations", broken)
    settings = replace(SETTINGS, n_side_effects=0, random_model=True)
    (record,) = run_protocol(model, relations[:1], methods=("mean",), settings=settings).records
    assert record.methods["mean"].control_random_model is None
    assert record.methods["mean"].accuracy > 0


def test_relations_that_cannot_be_evaluated_are_listed_with_the_reason(model, relations):
    single = lrc.Relation.from_pairs(
        "one to one", [(f"w{n}", f"w{n + 20}") for n in range(20)], templates=["{} w41"]
    )
    spoken = spoken_relation(model, tail="w0")
    shifted = [*spoken.facts[1:], spoken.facts[0]]
    wrong = lrc.Relation.from_pairs(
        "unknown", [(f.subject, f"{g.object} w9 w9") for f, g in zip(spoken.facts, shifted, strict=True)],
        templates=["{} w0"],
    )  # fmt: skip
    result = run_protocol(model, [single, wrong, relations[0]], methods=("mean",), settings=SETTINGS)
    left = result.relations_left_out
    assert left["one to one"] == "it is one-to-one: fewer than two objects have two facts or more"
    assert left["unknown"].startswith("the model knows 0 of ")
    assert left["unknown"].endswith("test facts zero-shot, and 5 are needed")
    assert set(left) == {"one to one", "unknown"}
    assert "- one to one: it is one-to-one" in result.to_markdown()
    with pytest.raises(
        ValueError, match=r"no relation could be evaluated: one to one: it is.*; unknown: the model"
    ):
        run_protocol(model, {r.name: r for r in (single, wrong)}, methods=("mean",), settings=SETTINGS)


def test_too_few_facts_for_the_shots_is_a_reason(model, relations):
    many = replace(SETTINGS, shots=30)
    with pytest.raises(ValueError, match="30 shots were asked for, but relation 'r0' has only"):
        run_protocol(model, relations[:1], methods=("mean",), settings=many)


def test_settings_are_chosen_on_training_facts_alone(model, monkeypatch):
    relation = max(spoken_relations(model, 6), key=lambda relation: len(relation.facts))
    result = run_protocol(
        model,
        [relation],
        methods=("lrc", "mean"),
        seeds=(1,),
        settings=ExperimentSettings(select=True, shots=0),
    )
    (record,) = result.records
    train, _ = relation.split(seed=1)
    chosen = lrc.select_settings(model, train, shots=0, seed=1, progress=False)
    assert record.selected == chosen.to_dict()
    for field in ("subject_layer", "object_layer", "rank"):
        assert getattr(record, field) == getattr(chosen, field)
    assert record.betas == (chosen.beta,)
