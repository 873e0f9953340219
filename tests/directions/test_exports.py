"""Concepts leave and come back: plain tensors and GGUF control vectors."""

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import lrc_tl as lrc
from lrc_tl.directions import layer_vectors

gguf = pytest.importorskip("gguf")


def concepts(layer=1, seed=0, width=12, fingerprint=None, suffix="hook_resid_post", names=("France", "Chad")):
    generator = torch.Generator().manual_seed(seed)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(width, generator=generator),
                relation="capital",
                object_name=name,
                hook_name=f"blocks.{layer}.{suffix}",
                fingerprint=fingerprint,
            )
            for name in names
        }
    )


def test_a_concept_is_exported_at_its_own_layer_or_copied_over_layers():
    made = concepts(layer=2)
    assert list(layer_vectors(made, "Chad")) == [2]
    assert torch.equal(layer_vectors(made, "Chad", scale=40.0)[2], made["Chad"].vector * 40)
    copied = layer_vectors(made, "France", layers=[5, 1, 5], scale=-2.0)
    assert list(copied) == [1, 5]
    for vector in copied.values():
        assert torch.equal(vector, made["France"].vector * -2)
    copied[1].zero_()
    assert copied[5].norm() > 1


def test_sets_of_several_layers_leave_and_come_back():
    sets = [concepts(layer=3, seed=3), concepts(layer=1, seed=1, names=("France",))]
    assert list(layer_vectors(sets, "France", scale=7.0)) == [1, 3]
    back = lrc.directions.concepts_by_layer(
        {
            "France": layer_vectors(sets, "France", scale=7.0),
            "Chad": layer_vectors(sets[0], "Chad"),
        },
        relation="capital",
    )
    assert {layer: list(one) for layer, one in back.items()} == {1: ["France"], 3: ["France", "Chad"]}
    assert back[3].hook_name == "blocks.3.hook_resid_post"
    assert back[3]["France"].norm == pytest.approx(7.0)
    assert (back[3].relation, back[3]["France"].method) == ("capital", "imported")
    torch.testing.assert_close(back[3].vectors, sets[0].vectors)
    torch.testing.assert_close(back[1].vectors, sets[1].vectors)


@dataclass
class OfRepeng:
    model_type: str
    directions: dict


@dataclass
class OfSteeringVectors:
    layer_activations: dict
    layer_type: str = "decoder_block"


def test_vectors_of_other_libraries_come_in_and_go_out():
    made = concepts(layer=2)
    vectors = layer_vectors(made, "Chad", layers=[1, 2], scale=30.0)
    arrays = {layer: vector.numpy() for layer, vector in vectors.items()}
    control = lrc.directions.ControlVector(vectors=vectors, model_hint="gemma3", name="Chad")
    for given in (vectors, arrays, OfRepeng("gemma3", arrays), OfSteeringVectors(vectors), control):
        back = lrc.directions.concepts_by_layer({"Chad": given})
        assert list(back) == [1, 2]
        torch.testing.assert_close(back[2]["Chad"].vector, made["Chad"].vector)
        again = layer_vectors(list(back.values()), "Chad", scale=back[2]["Chad"].norm)
        for layer, vector in vectors.items():
            torch.testing.assert_close(again[layer], vector)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.ones(12), TypeError, "'Chad' has a Tensor; give {layer: vector}, or a control vector"),
        ({"blocks.1": torch.ones(12)}, TypeError, "'Chad' has a dict; give {layer: vector}"),
        ({1: [1.0, 2.0]}, TypeError, "the vector for 'Chad' is a list; give a tensor or a NumPy array"),
        (OfSteeringVectors({1: torch.ones(12)}, "mlp"), ValueError, "for layer_type 'mlp'; .* 'decoder_block'"),
    ],
)
def test_what_holds_no_vectors_by_layer_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        lrc.directions.concepts_by_layer({"Chad": given})


def test_a_direction_is_made_of_a_numpy_array_as_of_a_tensor():
    array = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    array.setflags(write=False)
    given = {"relation": "r", "object_name": "a", "hook_name": "blocks.1.hook_resid_post"}
    made = lrc.ConceptDirection.from_unscaled(array, write_vector=array + 1, **given)
    same = lrc.ConceptDirection.from_unscaled(torch.tensor(array), write_vector=torch.tensor(array + 1), **given)
    torch.testing.assert_close(made.vector, same.vector, rtol=0, atol=0)
    torch.testing.assert_close(made.write_vector, same.write_vector, rtol=0, atol=0)
    assert made.norm == same.norm


def test_a_control_vector_has_the_layout_that_llama_cpp_reads(tmp_path):
    made = concepts(layer=2)
    path = tmp_path / "chad.gguf"
    vectors = layer_vectors(made, "Chad", layers=[1, 2, 11], scale=30.0)
    lrc.write_control_vector(path, vectors, model_hint="gemma3", name="capital: Chad")
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "gemma3"
    assert reader.get_field("controlvector.layer_count").contents() == 3
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2", "direction.11"]
    for tensor in reader.tensors:
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.shape.tolist() == [12]
        assert torch.equal(torch.from_numpy(tensor.data.copy()), made["Chad"].vector * 30)
    assert list(tmp_path.iterdir()) == [path]


def test_a_control_vector_comes_back_bit_for_bit_and_makes_a_set(tmp_path):
    made = concepts(layer=2)
    path = tmp_path / "Côte.gguf"
    lrc.write_control_vector(path, layer_vectors(made, "France", scale=8.0), model_hint="", name="日本")
    back = lrc.directions.read_control_vector(path)
    assert (back.model_hint, back.name, list(back.vectors)) == ("", "日本", [2])
    assert torch.equal(back.vectors[2], made["France"].vector * 8)
    again = lrc.directions.concepts_by_layer({"France": back.vectors})[2]["France"]
    torch.testing.assert_close(again.vector, made["France"].vector)
    assert again.norm == pytest.approx(8.0)


def test_adding_the_exported_vectors_by_hand_is_steering_in_absolute_units(word_model):
    made = concepts(layer=1)
    ids = torch.tensor([[1, 5, 6, 7]])
    exported = layer_vectors(made, "France", layers=[1, 2], scale=3.0)
    hooks = [
        (f"blocks.{layer}.hook_resid_post", lambda residual, hook, vector=vector: residual + vector.to(residual))
        for layer, vector in exported.items()
    ]
    with word_model.hooks(fwd_hooks=hooks):
        expected = word_model(ids)
    with made["France"].steer(word_model, strength=3.0, unit="absolute", layers=[1, 2], bos=True):
        torch.testing.assert_close(word_model(ids), expected, rtol=1e-4, atol=1e-4)


def test_writing_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "v.gguf"
    lrc.write_control_vector(path, {1: torch.ones(4)}, model_hint="gemma3")
    before = path.read_bytes()

    def fail(self):
        raise OSError("disk full")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OSError, match="disk full"):
        lrc.write_control_vector(path, {1: torch.zeros(4)}, model_hint="gemma3")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_control_vector_are_refused(tmp_path):
    path = tmp_path / "v.gguf"
    with pytest.raises(lrc.errors.ArtifactError, match=r"v\.gguf: there is no such file"):
        lrc.directions.read_control_vector(path)
    lrc.write_control_vector(path, {1: torch.ones(40), 2: torch.ones(40)}, model_hint="gemma3")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(lrc.errors.ArtifactError, match=r"v\.gguf: "):
            lrc.directions.read_control_vector(path)
    path.write_bytes(b"\x80\x04 a pickle, or text")
    with pytest.raises(lrc.errors.ArtifactError, match="damaged, cut short, or not a GGUF file"):
        lrc.directions.read_control_vector(path)

    def write(architecture, tensors):
        writer = gguf.GGUFWriter(path, architecture)
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    for architecture, tensors, message in (
        ("llama", {"direction.1": torch.ones(4)}, "holds 'llama', not a control vector"),
        ("controlvector", {"token_embd": torch.ones(4)}, "'token_embd' is none of a control vector's"),
        ("controlvector", {"direction.1": torch.ones(4).half()}, "'direction.1' is float16"),
        ("controlvector", {"direction.1": torch.ones(4) / 0}, "must be a finite vector"),
        ("controlvector", {"direction.1": torch.ones(2, 4)}, r"of shape \(2, 4\)"),
        (
            "controlvector",
            {"direction.1": torch.ones(4), "direction.2": torch.ones(5)},
            "one or more of one width",
        ),
        ("controlvector", {}, "it holds 0 directions"),
    ):
        write(architecture, tensors)
        with pytest.raises(lrc.errors.ArtifactError, match=message):
            lrc.directions.read_control_vector(path)


def test_bad_input_is_refused_with_what_to_do(tmp_path, word_model, monkeypatch):
    made, path = concepts(layer=2), tmp_path / "v.gguf"
    for layers in ([], [-1]):
        with pytest.raises(ValueError, match="give one or more, counted from 0"):
            layer_vectors(made, "Chad", layers=layers)
    with pytest.raises(ValueError, match="layers is 'all'; give 'own' or layer numbers"):
        layer_vectors(made, "Chad", layers="all")
    with pytest.raises(ValueError, match="scale is nan"):
        layer_vectors(made, "Chad", scale=float("nan"))
    with pytest.raises(KeyError, match="no concept 'Chd'; near names: Chad"):
        layer_vectors(made, "Chd")
    with pytest.raises(ValueError, match="2 sets stand at layer 2"):
        layer_vectors([made, made], "Chad")
    with pytest.raises(ValueError, match="layers are given for 2 sets"):
        layer_vectors([made, concepts(layer=1)], "Chad", layers=[3])
    with pytest.raises(ValueError, match="different widths"):
        layer_vectors([made, concepts(layer=1, width=8)], "Chad")
    with pytest.raises(ValueError, match=r"a set stands at blocks\.2\.hook_resid_mid"):
        layer_vectors(concepts(layer=2, suffix="hook_resid_mid"), "Chad")
    fingerprint = lrc.models.ModelFingerprint.of(word_model)
    others = [concepts(layer, fingerprint=replace(fingerprint, name=f"m{layer}")) for layer in (1, 2)]
    with pytest.raises(lrc.errors.FingerprintMismatch, match="name 'm1' against 'm2'"):
        layer_vectors(others, "Chad")
    with pytest.raises(ValueError, match="there are no sets"):
        layer_vectors([], "Chad")
    with pytest.raises(ValueError, match="there are no vectors"):
        lrc.directions.concepts_by_layer({"Chad": {}})
    with pytest.raises(ValueError, match="layer -1; give layers counted from 0"):
        lrc.directions.concepts_by_layer({"Chad": {-1: torch.ones(4)}})
    for vectors, message in (
        ({}, "there are no vectors to write"),
        ({0: torch.ones(4)}, "layer 0 cannot be in a control vector: llama.cpp edits the outputs of blocks 1"),
        ({1: torch.ones(4), 2: torch.ones(5)}, r"the shapes \[\(4,\), \(5,\)\]"),
        ({1: torch.ones(1, 4)}, "must be of one width"),
        ({1: torch.full((4,), 1e300, dtype=torch.float64)}, "the vector of layer 1 is not finite in float32"),
    ):
        with pytest.raises(ValueError, match=message):
            lrc.write_control_vector(path, vectors, model_hint="gemma3")
    with pytest.raises(lrc.errors.ArtifactError, match="there is no folder"):
        lrc.write_control_vector(tmp_path / "no" / "v", {1: torch.ones(4)}, model_hint="gemma3")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        ImportError, match=r"need the package gguf; install lrc-tl with its extra: lrc-tl\[local\]"
    ):
        lrc.directions.read_control_vector(path)


def pairs(layer=1):
    """The same concepts, which write with other vectors than they read with."""
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                direction.vector,
                write_vector=direction.vector + 0.2 * torch.ones(12),
                relation="capital",
                object_name=name,
                hook_name=direction.hook_name,
            )
            for name, direction in concepts(layer=layer).items()
        }
    )


def test_what_is_exported_is_the_vector_that_a_direction_writes_with(tmp_path):
    made, path = pairs(layer=2), tmp_path / "v.gguf"
    vectors = layer_vectors(made, "Chad", layers=[1, 2], scale=40.0)
    assert torch.equal(vectors[2], made["Chad"].write_vector * 40)
    assert not torch.equal(made["Chad"].write_vector, made["Chad"].vector)
    lrc.write_control_vector(path, vectors, model_hint="gemma3")
    assert torch.equal(lrc.directions.read_control_vector(path).vectors[1], made["Chad"].write_vector * 40)


def test_adding_an_exported_writing_vector_by_hand_is_steering_in_absolute_units(word_model):
    made = pairs()
    ids = torch.tensor([[1, 5, 6, 7]])
    vector = layer_vectors(made, "France", scale=3.0)[1]
    hook = ("blocks.1.hook_resid_post", lambda residual, hook: residual + vector.to(residual))
    with word_model.hooks(fwd_hooks=[hook]):
        expected = word_model(ids)
    with made["France"].steer(word_model, strength=3.0, unit="absolute", bos=True):
        torch.testing.assert_close(word_model(ids), expected, rtol=1e-4, atol=1e-4)
