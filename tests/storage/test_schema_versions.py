"""Sets that write with other vectors are kept whole, and files of the first schema version load bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import lrc_tl as lrc
from lrc_tl.errors import ArtifactError
from lrc_tl.storage import artifacts
from lrc_tl.storage.artifacts import read_artifact, write_artifact

OLD = Path(__file__).parent / "schema_1"
"""Files that were written before there were writing vectors."""
HOOK = "blocks.1.hook_resid_post"
RULES = {"France": "covariance", "日本": "vector", "x y": "given"}


def a_set(rules, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    directions = {}
    for name, rule in rules.items():
        vector = torch.randn(12, generator=generator, dtype=dtype)
        directions[name] = lrc.ConceptDirection.from_unscaled(
            vector,
            write_vector=None if rule == "vector" else vector + torch.randn(12, generator=generator, dtype=dtype),
            write_rule=rule,
            offset=1 / 3,
            relation="r",
            object_name=name,
            hook_name=HOOK,
        )
    return lrc.ConceptSet(directions)


def document_of(path):
    with safe_open(path, framework="pt") as opened:
        return json.loads(opened.metadata()["lrc_tl"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pairs_of_vectors_come_back_bit_for_bit_with_their_rules(tmp_path, dtype):
    concepts = a_set(RULES, dtype)
    concepts.save(tmp_path / "c")
    loaded = lrc.ConceptSet.load(tmp_path / "c")
    assert torch.equal(loaded.vectors, concepts.vectors)
    assert torch.equal(loaded.write_vectors, concepts.write_vectors)
    assert loaded.write_vectors.dtype == dtype
    assert not torch.equal(loaded.write_vectors, loaded.vectors)
    assert {name: direction.write_rule for name, direction in loaded.items()} == RULES
    acts = torch.randn(5, 12, dtype=dtype, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.scores(acts), concepts.scores(acts))


def test_a_writing_vector_is_stored_only_where_a_direction_has_one_of_its_own(tmp_path):
    a_set(RULES).save(tmp_path / "some")
    a_set(dict.fromkeys(RULES, "vector")).save(tmp_path / "none")
    assert load_file(tmp_path / "some")["write_vectors"].shape == (2, 12)
    assert set(load_file(tmp_path / "none")) == {"vectors"}


def test_a_set_of_the_first_schema_version_loads_bit_for_bit():
    path = OLD / "concepts.safetensors"
    document, tensors = document_of(path), load_file(path)
    assert document["schema"]["version"] == 1
    concepts = lrc.ConceptSet.load(path)
    assert torch.equal(concepts.vectors, tensors["vectors"])
    assert torch.equal(concepts.write_vectors, tensors["vectors"])
    assert torch.equal(concepts.calibration.weight, tensors["weight"])
    assert torch.equal(concepts.calibration.bias, tensors["bias"])
    assert concepts.settings == document["header"]["settings"]
    for entry, (name, direction) in zip(document["header"]["objects"], concepts.items(), strict=True):
        assert name == entry["name"]
        assert (direction.norm, direction.offset) == (entry["norm"], entry["offset"])
        assert direction.threshold == entry["threshold"]
        assert (direction.write_rule, direction.scale) == ("vector", 1.0)
    acts = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    offsets = torch.tensor([entry["offset"] for entry in document["header"]["objects"]], dtype=torch.float64)
    assert torch.equal(concepts.scores(acts), acts @ tensors["vectors"].T - offsets.float())


def test_what_is_saved_again_differs_from_the_first_version_in_the_rule_alone(tmp_path):
    lrc.ConceptSet.load(OLD / "concepts.safetensors").save(tmp_path / "new")
    old, new = document_of(OLD / "concepts.safetensors"), document_of(tmp_path / "new")
    assert new["schema"]["version"] == 2
    assert {entry.pop("write_rule") for entry in new["header"]["objects"]} == {"vector"}
    assert new["header"] == old["header"]
    old_tensors, new_tensors = load_file(OLD / "concepts.safetensors"), load_file(tmp_path / "new")
    assert old_tensors.keys() == new_tensors.keys()
    assert all(torch.equal(tensor, new_tensors[name]) for name, tensor in old_tensors.items())


def test_an_lre_of_the_first_schema_version_loads_bit_for_bit():
    path = OLD / "lre.safetensors"
    assert document_of(path)["schema"]["version"] == 1
    lre, tensors = lrc.LinearRelationalEmbedding.load(path), load_file(path)
    assert torch.equal(lre.weight, tensors["weight"])
    assert torch.equal(lre.bias, tensors["bias"])
    assert (lre.solver, lre.rank_limit) == ("low_rank", 3)


def test_a_damaged_file_of_the_first_version_is_refused_by_the_field_that_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "SCHEMA_VERSION", 1)
    tensors, header = read_artifact(OLD / "concepts.safetensors", kind="concepts")
    write_artifact(tmp_path / "old", kind="concepts", tensors=tensors, header=header | {"objects": [3]})
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="header field 'objects' is"):
        lrc.ConceptSet.load(tmp_path / "old")


def without_vectors(tensors, header):
    del tensors["write_vectors"]


def too_few(tensors, header):
    tensors["write_vectors"] = tensors["write_vectors"][:1]


def too_wide(tensors, header):
    tensors["write_vectors"] = torch.ones(2, 13)


def other_dtype(tensors, header):
    tensors["write_vectors"] = tensors["write_vectors"].double()


def without_rules(tensors, header):
    for entry in header["objects"]:
        entry["write_rule"] = "vector"


def no_rule(tensors, header):
    del header["objects"][1]["write_rule"]


def null_rule(tensors, header):
    header["objects"][1]["write_rule"] = None


def unknown_rule(tensors, header):
    header["objects"][0]["write_rule"] = "mean"


def not_unit(tensors, header):
    tensors["write_vectors"] = 2 * tensors["write_vectors"]


def turned(tensors, header):
    tensors["write_vectors"] = -tensors["write_vectors"]


def no_length(tensors, header):
    header["objects"][0]["norm"] = None


def negative_length(tensors, header):
    header["objects"][0]["norm"] = -2.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_vectors, "it has no write_vectors, and 'France' writes with another vector"),
        (too_few, r"write_vectors are torch.float32 of shape \(1, 12\); .* torch.float32 of shape \(2, 12\)"),
        (too_wide, r"write_vectors are torch.float32 of shape \(2, 13\)"),
        (other_dtype, r"write_vectors are torch.float64 of shape .* must be torch.float32"),
        (without_rules, r"write_vectors are .* must be torch.float32 of shape \(0, 12\)"),
        (no_rule, "'write_rule' missing from direction 1"),
        (
            null_rule,
            "direction 1 field 'write_rule' is None; it must be a word of 'vector', 'covariance', 'given'",
        ),
        (unknown_rule, "direction 0 field 'write_rule' is 'mean'"),
        (not_unit, "the writing vector of 'France' has shape .* and norm .*; it must be one finite unit vector"),
        (
            turned,
            r"the reading and the writing vector of 'France' have the cosine -0\.\d+; it must be 0.001 or more",
        ),
        (no_length, "the norm of 'France' is None"),
        (negative_length, r"the norm of 'France' is -2\.0"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_writing_vectors_that_do_not_add_up_are_refused_by_name(tmp_path, damage, message):
    a_set(RULES).save(tmp_path / "c")
    tensors, header = read_artifact(tmp_path / "c", kind="concepts")
    damage(tensors, header)
    write_artifact(tmp_path / "c", kind="concepts", tensors=tensors, header=header)
    with pytest.raises(ArtifactError, match=message):
        lrc.ConceptSet.load(tmp_path / "c")
