"""Lists that are given as something else: generators give the same result, what is no list is refused."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from test_activations import random_prompts

import lrc_tl as lrc
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.relations.prompts import prompts_hash

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def made(one_word_model):
    """What the entry points need, made from lists."""
    generator = torch.Generator().manual_seed(0)
    prompts = [lrc.Prompt(text=f"w{n} w{n + 1} w20", subject=f"w{n}", object=f"w{n % 3 + 30}") for n in range(12)]
    concepts = lrc.mean_concepts(one_word_model, prompts, layer=1)
    edits = lrc.evaluation.counterfactual_edits(prompts, per_object=1)
    return {
        "prompts": prompts,
        "objects": [prompt.object for prompt in prompts],
        "acts": torch.randn(12, 12, generator=generator, dtype=torch.float64).to(concepts.vectors),
        "concepts": concepts,
        "edits": list(edits),
        "differences": torch.randn(len(edits), 12, generator=generator).to(concepts.vectors),
        "lre": lrc.LinearRelationalEmbedding.fit(
            one_word_model,
            prompts,
            subject_layer=0,
            object_layer=2,
            object_aggregation="first_token",
            progress=False,
        ),
    }


# For each entry point: the name of the argument, its list, and the call with it.
PROMPTS = {
    "filter_known": lambda m, d, given: lrc.filter_known(m, given).report(),
    "prompt_activations": lambda m, d, given: lrc.passes.prompt_activations(m, given, subject_layers=[1]).subject[
        1
    ],
    "subject_activations": lambda m, d, given: lrc.subject_activations(m, given, layer=1),
    "object_activations": lambda m, d, given: lrc.passes.object_activations(m, given, layer=1),
    "fit": lambda m, d, given: _told(
        lrc.LinearRelationalEmbedding.fit(m, given, subject_layer=0, object_layer=1, progress=False)
    ),
    "fit low-rank": lambda m, d, given: _told(
        lrc.LinearRelationalEmbedding.fit(
            m, given, subject_layer=0, object_layer=1, solver=lrc.LowRank(rank=1, oversample=1), progress=False
        )
    ),
    "fit_layer_grid": lambda m, d, given: _told(
        *lrc.fit_layer_grid(m, given, subject_layers=[0, 1], object_layers=[2], progress=False).values()
    ),
    "fit_cost": lambda m, d, given: lrc.lre.fit_cost(m, given, subject_layers=[0], object_layers=[2]),
    "concepts": lambda m, d, given: d["lre"].concepts(m, given, rank=2).vectors,
    "fit_concepts": lambda m, d, given: lrc.fit_concepts(m, given, method="svm", subject_layer=1).vectors,
    "fit_baselines": lambda m, d, given: lrc.fit_baselines(m, given, layer=1)["svm"].vectors,
    "mean_concepts": lambda m, d, given: lrc.mean_concepts(m, given, layer=1).vectors,
    "evaluate": lambda m, d, given: repr(lrc.evaluate(m, d["concepts"], given)),
    "counterfactual_edits": lambda m, d, given: lrc.evaluation.counterfactual_edits(given),
    "edits_towards": lambda m, d, given: lrc.edits_towards(given, "w30"),
    "lre_faithfulness": lambda m, d, given: lrc.evaluation.lre_faithfulness(m, d["lre"], given),
    "lre_causality": lambda m, d, given: (
        lrc.evaluation.lre_causality(m, d["lre"], d["edits"], given, rank=2).edited
    ),
    "unrelated_statements": lambda m, d, given: lrc.evaluation.unrelated_statements(d["edits"], given, n=5),
    "same_subject_statements": lambda m, d, given: lrc.evaluation.same_subject_statements(d["edits"], given),
    "prompts_hash": lambda m, d, given: prompts_hash(given),
}
EDITS = {
    "causality_curves": lambda m, d, given: (
        lrc.evaluation.causality_curves(m, given, {"a": d["differences"]}, betas=[0.1])["a"][0].edited
    ),
    "lre_causality": lambda m, d, given: (
        lrc.evaluation.lre_causality(m, d["lre"], given, d["prompts"], rank=2).edited
    ),
    "unrelated_statements": lambda m, d, given: lrc.evaluation.unrelated_statements(given, d["prompts"], n=5),
    "same_subject_statements": lambda m, d, given: lrc.evaluation.same_subject_statements(given, d["prompts"]),
    "calibrate_strength": lambda m, d, given: (
        lrc.calibrate_strength(
            m,
            d["concepts"]["w30"].add(strength=1.0),
            given,
            strengths=[0.1, 0.2],
            refinements=0,
            neutral_texts=["w1 w2 w3 w4 w5 w6"],
        ).points
    ),
}
OBJECTS = {
    "concepts_from_activations": lambda m, d, given: (
        d["lre"].concepts_from_activations(d["acts"], given, rank=2).vectors
    ),
    "baseline_concepts": lambda m, d, given: (
        lrc.methods.baseline_concepts(d["acts"], given, method="svm", hook_name=HOOK).vectors
    ),
    "calibrate": lambda m, d, given: repr(d["concepts"].calibrate(d["acts"], given).calibration),
    "report": lambda m, d, given: d["concepts"].report(d["acts"], given).to_dict(),
    "classify_activations": lambda m, d, given: (
        lrc.evaluation.classify_activations(d["concepts"], d["acts"], given).places
    ),
}
TEXTS = {
    "generate": lambda m, d, given: [one.text for one in lrc.generate(m, given, max_new_tokens=2)],
    "pool_texts": lambda m, d, given: d["concepts"].pool_texts(m, given, by="mean"),
    "free_text_edits": lambda m, d, given: lrc.free_text_edits(given, "w1"),
}
LAYERS = {
    "steering": lambda m, d, given: _steered(m, d["concepts"]["w30"].add(strength=0.5).at(layers=given)),
    "prompt_activations": lambda m, d, given: lrc.passes.prompt_activations(
        m, d["prompts"], subject_layers=given
    ).subject[2],
    "fit_layer_grid": lambda m, d, given: _told(
        *lrc.fit_layer_grid(m, d["prompts"], subject_layers=given, object_layers=[2], progress=False).values()
    ),
    "fit_cost": lambda m, d, given: lrc.lre.fit_cost(m, d["prompts"], subject_layers=given, object_layers=[2]),
    "causality_curves": lambda m, d, given: (
        lrc.evaluation.causality_curves(m, d["edits"], {"a": d["differences"]}, betas=[0.1, 0.2], layers=given)[
            "a"
        ][1].edited
    ),
    "side_effects": lambda m, d, given: (
        lrc.evaluation.side_effects(
            m,
            lrc.evaluation.unrelated_statements(d["edits"], d["prompts"], n=4),
            {"a": d["differences"]},
            betas=[0.1],
            layers=given,
        )["a"][0].kl
    ),
    "layer_vectors": lambda m, d, given: lrc.directions.layer_vectors(d["concepts"], "w30", layers=given)[2],
}
NUMBERS = {
    "betas": lambda m, d, given: (
        lrc.evaluation.causality_curves(
            m, d["edits"], {"a": d["differences"], "b": d["differences"]}, betas=given
        )["b"][1].edited
    ),
    "strengths": lambda m, d, given: [
        one.text
        for one in lrc.generate(
            m, "w1 w2", steering=d["concepts"]["w30"].add(strength=1.0), strengths=given, max_new_tokens=2
        )
    ],
}


def _told(*lres):
    return [(lre.relation, lre.prompts_hash, lre.n_prompts, lre.weight) for lre in lres]


def _steered(model, steering):
    with steering.on(model):
        return model(torch.tensor([[1, 5, 6, 7]]))


def _cases(table, argument, listed):
    return [pytest.param(call, argument, listed, id=f"{argument} {name}") for name, call in table.items()]


CASES = [
    *_cases(PROMPTS, "prompts", lambda d: d["prompts"]),
    *_cases(EDITS, "edits", lambda d: d["edits"]),
    *_cases(OBJECTS, "objects|actual", lambda d: d["objects"]),
    *_cases(TEXTS, "prompts|texts", lambda d: ["w1 w2", "w3 w4 w5"]),
    *_cases(LAYERS, "layers", lambda d: [1, 2]),
    *_cases(NUMBERS, "betas|strengths", lambda d: [0.25, 0.5]),
]


@pytest.mark.parametrize(("call", "argument", "listed"), CASES)
def test_a_generator_gives_what_the_list_gives_or_is_refused(one_word_model, made, call, argument, listed):
    expected = call(one_word_model, made, listed(made))
    for given in (tuple(listed(made)), (item for item in listed(made)), dict.fromkeys(listed(made)).keys()):
        if argument == "objects|actual" and not isinstance(given, tuple):
            given = (item for item in listed(made))
        result = _outcome(call, one_word_model, made, given)
        if isinstance(result, TypeError):  # of functions that check every argument's type, and ask for a sequence
            assert not isinstance(given, tuple)
            assert re.search(argument, str(result))
        else:
            _assert_same(result, expected)


def _outcome(call, *arguments):
    try:
        return call(*arguments)
    except TypeError as error:
        return error


def _assert_same(result, expected):
    if isinstance(result, torch.Tensor):
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
    elif isinstance(result, list) and result and isinstance(result[0], tuple):
        for one, other in zip(result, expected, strict=True):
            assert one[:-1] == other[:-1]
            torch.testing.assert_close(one[-1], other[-1], rtol=0, atol=0)
    else:
        assert result == expected


@pytest.mark.parametrize(("call", "argument", "listed"), CASES)
def test_one_string_a_single_item_and_a_set_are_refused_before_the_model_runs(
    one_word_model, made, call, argument, listed, request
):
    def ran(residual, hook):
        raise AssertionError("the model ran")

    single = listed(made)[0]
    wrong = ["w1", single, frozenset(listed(made)), [*listed(made), None]]
    if argument in ("prompts|texts", "betas|strengths", "layers"):
        one_is_meant = argument == "prompts|texts" or "layers steering" in request.node.name
        wrong = [{single}, *([] if one_is_meant else ["w1", single])]
    with one_word_model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", ran)]):
        for given in wrong:
            with pytest.raises((TypeError, ValueError), match=argument):
                call(one_word_model, made, given)


def test_items_of_another_class_are_named_with_their_place():
    with pytest.raises(TypeError, match=r"prompts\[1\] is 'w1' \(str\); each must be a Prompt"):
        as_tuple([lrc.Prompt(text="a is", subject="a", object="b"), "w1"], "prompts", lrc.Prompt)
    with pytest.raises(
        TypeError, match=r"prompts is one string, 'Lyon is in'; give a list, as in \['Lyon is in'\]"
    ):
        as_tuple("Lyon is in", "prompts", lrc.Prompt)
    with pytest.raises(TypeError, match="prompts is one Prompt; give a list"):
        as_tuple(lrc.Prompt(text="a is", subject="a", object="b"), "prompts", lrc.Prompt)
    with pytest.raises(TypeError, match=r"prompts is of the type PromptActivations, .*; give a list"):
        as_tuple(lrc.passes.PromptActivations(subject={}, object={}), "prompts", lrc.Prompt)
    with pytest.raises(TypeError, match=r"prompts is of the type Relation, .*; give its \.prompts\(\)$"):
        as_tuple(lrc.load_relation("animal_class"), "prompts", lrc.Prompt)
    with pytest.raises(TypeError, match="layers is of the type int, which holds no items; give a list"):
        as_tuple(3, "layers")


@pytest.mark.parametrize(
    "given", [np.array([1, 2]), torch.tensor([1, 2]), pd.Series([1, 2], index=[7, 7]), range(1, 3), iter([1, 2])]
)
def test_arrays_and_series_give_plain_items(given):
    items = as_tuple(given, "layers", int)
    assert items == (1, 2)
    assert all(type(item) is int for item in items)


def test_a_method_given_as_one_string_is_not_taken_for_its_letters(one_word_model):
    relation = lrc.load_relation("animal_class")
    with pytest.raises(TypeError, match="methods"):
        lrc.methods.require_methods("lrc")
    for options in (
        {"methods": "lrc"},
        {"compare": "lrc"},
        {"seeds": 3},
        {"others": relation},
    ):
        with pytest.raises(TypeError, match=next(iter(options))):
            lrc.run_protocol(one_word_model, [relation], settings=lrc.ExperimentSettings(), **options)
    with pytest.raises(TypeError, match="relations"):
        lrc.run_protocol(one_word_model, relation, settings=lrc.ExperimentSettings())
    with pytest.raises(TypeError, match="subject_layers is one string, '12'"):
        lrc.ExperimentSettings(subject_layers="12")
    with pytest.raises(TypeError, match=r"words"):
        lrc.tuning.object_named(words={"France": "French"})


def test_settings_to_choose_from_may_be_a_generator(one_word_model, monkeypatch):
    """Each is gone through once for every pair of layers."""
    from lrc_tl.tuning import selection

    seen = []
    monkeypatch.setattr(selection, "filter_known", lambda model, prompts, **options: seen.append(prompts) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lrc.select_settings(
            one_word_model,
            lrc.load_relation("animal_class"),
            space=lrc.SearchSpace(ranks=iter([2]), betas=np.array([0.1])),
        )
    assert seen
    for options in ({"ranks": 3}, {"betas": 0.1}, {"subject_layers": 1}, {"object_layers": "2"}):
        with pytest.raises(TypeError, match=next(iter(options))):
            lrc.SearchSpace(**options)


def test_steerings_sets_and_both_sides_of_a_selectivity_may_be_generators(one_word_model, made):
    concepts, prompts = made["concepts"], made["prompts"]
    steering = concepts["w30"].add(strength=0.5)
    expected = _steered(one_word_model, steering)
    with lrc.steer(one_word_model, (one for one in [steering])):
        torch.testing.assert_close(one_word_model(torch.tensor([[1, 5, 6, 7]])), expected, rtol=0, atol=0)
    with pytest.raises(TypeError, match="steerings"), lrc.steer(one_word_model, {steering}):
        pass
    combined = lrc.combine_concepts(one for one in [concepts, concepts])
    torch.testing.assert_close(combined.vectors, lrc.combine_concepts([concepts, concepts]).vectors)
    with pytest.raises(TypeError, match="sets is one ConceptSet; give a list"):
        lrc.combine_concepts(concepts)

    def make(model, train):
        return lrc.mean_concepts(model, train, layer=1)

    told = lrc.evaluation.selectivity(one_word_model, iter(prompts), iter(prompts), make)
    assert told == lrc.evaluation.selectivity(one_word_model, prompts, prompts, make)
    with pytest.raises(TypeError, match="test is one Prompt"):
        lrc.evaluation.selectivity(one_word_model, prompts, prompts[0], make)


def test_random_prompts_keep_their_order():
    prompts = random_prompts(5)
    assert as_tuple(prompts, "prompts", lrc.Prompt) == tuple(prompts)
    assert prompts_hash(iter(prompts)) == prompts_hash(prompts) != prompts_hash(prompts[::-1])
