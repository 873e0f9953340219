"""What is made on a model of every family: kept, loaded, known again, used, and refused on another."""

import copy
from importlib.metadata import version

import pytest
import torch
from zoo_families import some_prompts

import lrc_tl as lrc


def test_directions_are_fitted_saved_loaded_and_used_on_the_same_model_only(case, tmp_path):
    prompts = some_prompts(6)
    concepts = lrc.fit_concepts(
        case.model, prompts, method="lrc", subject_layer=0, object_layer=2, rank=4, progress=False
    )
    path = tmp_path / "concepts.safetensors"
    concepts.save(path)
    loaded = lrc.ConceptSet.load(path, model=case.model)
    assert torch.equal(loaded.vectors, concepts.vectors)
    result = lrc.evaluate(case.model, loaded, prompts, beta=0.1, edits_per_object=1, progress=False)
    assert result.to_dict()["n_prompts"] == len(prompts)
    changed = copy.deepcopy(case.model)
    with torch.no_grad():
        for weight in changed.parameters():
            weight += 0.05 * torch.randn_like(weight)
    # TransformerLens 4 has functions of its own on OPT: under hooks another behaviour is warned about only.
    has_hooks = case.name == "OPT" and version("transformer-lens") >= "4"
    refused = pytest.raises(lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt")
    warned = pytest.warns(UserWarning, match="residuals of a fixed prompt")
    with warned if has_hooks else refused:
        lrc.ConceptSet.load(path, model=changed)


def test_a_model_is_known_again_when_it_is_loaded_again(case):
    fingerprint = lrc.models.ModelFingerprint.of(case.model)
    again = lrc.models.ModelFingerprint.of(lrc.load_model(case.folder, backend=case.backend, dtype=torch.float64))
    assert fingerprint == again
    assert (fingerprint.name, fingerprint.processing) == (case.folder.name, "raw")
    has_bos = case.tokenizer("a").input_ids[0] == case.tokenizer.bos_token_id
    assert fingerprint.bos == ("prepended" if has_bos else "none")


def test_both_classes_have_the_same_fingerprint(case, zoo):
    if case.backend != "hooked_transformer" or case.family.wrong_on_bridge_3:
        pytest.skip("there is one class alone")
    bridge = lrc.models.ModelFingerprint.of(zoo.model(case.name, "bridge", torch.float64))
    with pytest.warns(UserWarning, match="run differently: model_class HookedTransformer against Transf"):
        lrc.models.ModelFingerprint.of(case.model).require_match(bridge)
