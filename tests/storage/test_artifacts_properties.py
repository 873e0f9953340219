"""What is written comes back bit for bit: random tensors, headers, sets and control vectors."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lrc_tl as lrc
from lrc_tl.storage.artifacts import read_artifact, write_artifact
from lrc_tl.storage.json_fields import as_text, parsed

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
]  # fmt: skip
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@st.composite
def tensors(draw):
    """Any bits that are finite, subnormal numbers and negative zeros among them."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(SHAPES)
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    raw = torch.tensor(list(draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8)
    if dtype == torch.bool:
        raw = raw % 2
    tensor = raw.view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    if dtype.is_floating_point:
        tensor = torch.where(tensor.isfinite(), tensor, torch.zeros_like(tensor))
    return tensor.T if draw(st.booleans()) and tensor.ndim == 2 else tensor


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)


@given(
    held=st.dictionaries(NAMES, tensors(), min_size=1, max_size=3), header=st.dictionaries(TEXT, JSON, max_size=4)
)
def test_tensors_and_header_come_back_bit_for_bit(held, header):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        write_artifact(path, kind="k", tensors=held, header=header)
        again, header_again = read_artifact(path, kind="k")
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
    assert {name: bits(tensor) for name, tensor in again.items()} == {
        name: bits(tensor) for name, tensor in held.items()
    }
    assert as_text(header_again, sort_keys=True) == as_text(header, sort_keys=True)


@given(value=JSON)
def test_json_values_come_back_as_they_were(value):
    assert as_text(parsed(as_text(value))) == as_text(value)


PLAIN_NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Cn")), min_size=1, max_size=8
).filter(lambda name: name.strip() == name)


@st.composite
def concept_sets(draw):
    names = draw(st.lists(PLAIN_NAMES, min_size=1, max_size=4, unique=True))
    width = draw(st.integers(2, 9))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    directions = {}
    for name in names:
        vector = torch.randn(width, generator=generator, dtype=torch.float64)
        write = vector + 0.3 * torch.randn(width, generator=generator, dtype=torch.float64)
        oblique = draw(st.booleans()) and float(vector @ write) / float(vector.norm() * write.norm()) > 0.1
        directions[name] = lrc.ConceptDirection.from_unscaled(
            (vector * draw(st.floats(1e-3, 1e3))).to(dtype),
            relation="r",
            object_name=name,
            hook_name="blocks.1.hook_resid_post",
            **({"write_vector": write.to(dtype), "write_rule": "given"} if oblique else {}),
        )
    return lrc.ConceptSet(directions, settings=draw(st.dictionaries(PLAIN_NAMES, JSON, max_size=3)))


@given(concepts=concept_sets())
def test_a_set_that_is_saved_and_loaded_twice_is_the_same_file(concepts):
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        concepts.save(first)
        loaded = lrc.ConceptSet.load(first)
        loaded.save(second)
        assert first.read_bytes() == second.read_bytes()
    assert list(loaded) == list(concepts)
    for name, direction in concepts.items():
        for field in ("vector", "write_vector"):
            before, after = getattr(direction, field), getattr(loaded[name], field)
            assert (before is None and after is None) or bits(before) == bits(after)
        assert direction.norm == loaded[name].norm
    assert as_text(loaded.settings) == as_text(parsed(as_text(concepts.settings)))


@given(
    layers=st.lists(st.integers(1, 90), min_size=1, max_size=5, unique=True),
    width=st.integers(1, 40),
    name=TEXT,
    seed=st.integers(0, 2**32),
)
def test_control_vectors_come_back_bit_for_bit(layers, width, name, seed):
    pytest.importorskip("gguf")
    generator = torch.Generator().manual_seed(seed)
    vectors = {layer: torch.randn(width, generator=generator) for layer in layers}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.gguf"
        lrc.write_control_vector(path, vectors, model_hint="gemma3", name=name)
        read = lrc.directions.read_control_vector(path)
    assert (read.name, read.model_hint, list(read.vectors)) == (name, "gemma3", sorted(layers))
    assert all(torch.equal(read.vectors[layer], vectors[layer]) for layer in layers)
