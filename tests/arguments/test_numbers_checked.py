"""True and False are refused wherever the public names take a number."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from public_names import public_objects
from tiny_steering import HOOK, unit

import lrc_tl as lrc
from lrc_tl.arguments.numbers_checked import means_a_number, numbers_checked

RESULTS = {
    "CausalityResult", "Chunk", "Classification", "ConceptScores", "ControlVector", "CurvePoint", "DemoResult",
    "Evaluation",
    "Faithfulness", "FitCost", "Generated", "LeftOutRelation", "LinearRelationalEmbedding", "MethodOutcome",
    "ModelFingerprint", "PromptActivations", "RelationRecord", "Selectivity", "Settings", "SideEffectMeans",
    "SideEffects", "StrengthCalibration", "StrengthPoint", "TokenScores", "TokenizedPrompt",
}  # fmt: skip
"""What calls give back, which nobody fills in by hand."""


def public_callables():
    for name, thing in public_objects().items():
        if not getattr(thing, "__module__", "").startswith("lrc_tl"):
            continue
        if inspect.isfunction(thing):
            yield name, thing
        if not inspect.isclass(thing):
            continue
        if dataclasses.is_dataclass(thing) and name not in RESULTS:
            yield name, thing
        for attribute, method in inspect.getmembers(thing, callable):
            if not attribute.startswith("_") and getattr(method, "__module__", "").startswith("lrc_tl"):
                yield f"{name}.{attribute}", method


NUMBERS = [
    (label, called, name)
    for label, called in public_callables()
    for name, parameter in inspect.signature(called).parameters.items()
    if means_a_number(parameter.annotation)
]


def test_the_search_finds_layers_ranks_strengths_seeds_and_places():
    found = {name for _, _, name in NUMBERS}
    assert found >= {
        "layer", "subject_layer", "object_layers", "rank", "ranks", "strength", "strengths", "beta", "betas",
        "seed", "seeds", "where", "subject_start", "shots", "n", "temperature", "max_new_tokens", "threshold",
    }  # fmt: skip
    assert len(NUMBERS) > 120


@pytest.mark.parametrize("value", [True, np.False_, [2, True], {1: np.True_}, {False: 2}], ids=repr)
def test_a_boolean_is_refused_wherever_a_number_is_meant(value):
    for _, called, name in NUMBERS:
        message = rf"{name} (is|holds) .*(True|False).*, but a boolean is no number"
        with pytest.raises(TypeError, match=message):
            called(**{name: value})


def test_numbers_of_python_and_numpy_pass_and_switches_stay_booleans():
    @numbers_checked
    def called(layer: int, *, share: float | None = None, cap: bool | int = False, name: str = ""):
        return layer, share, cap, name

    assert called(3) == (3, None, False, "")
    assert called(np.int64(3), share=np.float32(0.5), cap=True, name="True") == (3, 0.5, True, "True")
    with pytest.raises(TypeError, match="layer is True"):
        called(True)
    assert inspect.signature(called).parameters["share"].annotation == (float | None)


def test_a_tensor_of_booleans_is_a_mask_and_no_strength():
    mask = torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(TypeError, match="strength is tensor"):
        lrc.steering.Add(vector=unit(), strength=mask[0])
    steering = lrc.Steering(
        operation=lrc.steering.Add(vector=unit(), strength=0.5), hook_name=HOOK, where=mask, bos=True
    )
    assert steering.where is mask
    with pytest.raises(TypeError, match="where is True, but a boolean is no number"):
        steering.at(where=True)
    with pytest.raises(TypeError, match="where holds True, but a boolean is no number"):
        dataclasses.replace(steering, where=[True, 2])


WHOLE = [
    (called, name)
    for label, called, name in NUMBERS
    if inspect.signature(called).parameters[name].annotation is int
]


@pytest.mark.parametrize("value", ["3", None, 1.5, 2.0, [3]], ids=repr)
def test_what_is_no_whole_number_is_refused_by_every_call_that_takes_one(value):
    assert {"seed", "layer", "max_new_tokens", "n", "shots"} <= {name for _, name in WHOLE}
    for called, name in WHOLE:
        with pytest.raises(TypeError, match=rf"{name} is .*; give a whole number"):
            called(**{name: value})


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), torch.tensor(3)], ids=repr)
def test_a_whole_number_of_numpy_or_torch_is_the_number(seed):
    relation = lrc.load_relation("city_in_country")
    assert relation.split(seed=seed) == relation.split(seed=3)
    assert relation.prompts(shots=2, seed=seed) == relation.prompts(shots=2, seed=3)


@pytest.mark.parametrize("value", ["0.1", [0.1], 1j], ids=repr)
def test_what_is_no_number_is_no_beta(value):
    concepts = lrc.ConceptSet(
        {"x": lrc.ConceptDirection.from_unscaled(unit(), relation="r", object_name="x", hook_name=HOOK)}
    )
    for call in (concepts.with_beta, lambda beta: lrc.evaluate(None, concepts, [], beta=beta)):
        with pytest.raises(TypeError, match=r"beta is .*give a number"):
            call(value)
    with pytest.raises(TypeError, match="beta is True, but a boolean is no number"):
        concepts.with_beta(True)
    assert concepts.with_beta(np.float32(0.5)).beta == concepts.with_beta(torch.tensor(0.5)).beta == 0.5
