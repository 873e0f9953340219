"""Concepts for use outside TransformerLens: plain `{layer: vector}` tensors and GGUF control vectors.

A control vector is what llama.cpp and repeng add to the residual stream. Its tensor `direction.N` is added to the
output of block N, counted from 0, which is `blocks.N.hook_resid_post` here, for every token. llama.cpp never edits
block 0 and refuses a file with `direction.0`. What is added is in residual-stream units, times the strength that
llama.cpp is given, and does not grow with `|h|`; the edits of several layers add up.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import Vector, writing_vector
from lrc_tl.errors import ArtifactError
from lrc_tl.markup.brief import brief_fields
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import RESIDUAL, block_hook
from lrc_tl.storage.artifacts import file_bytes
from lrc_tl.storage.whole_file import whole_file

_ARCHITECTURE = "controlvector"
_SHA256 = "lrc_tl.sha256"
"""Key of the content's hash; readers that do not know it, such as llama.cpp, skip it."""


class HoldsDirections(Protocol):
    """A control vector of repeng: `directions` holds arrays by layer."""

    directions: Any


class HoldsActivations(Protocol):
    """A steering vector of steering-vectors: `layer_activations` holds tensors by layer."""

    layer_activations: Any


class HoldsVectors(Protocol):
    """A `ControlVector`, as `read_control_vector` gives."""

    vectors: Any


ByLayer: TypeAlias = Mapping[int, Vector] | HoldsDirections | HoldsActivations | HoldsVectors


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlVector:
    """What a GGUF control-vector file holds."""

    vectors: dict[int, Float[Tensor, " d_model"]]
    """By layer; in residual-stream units, float32."""
    model_hint: str
    """llama.cpp's name of the model's architecture; empty: not in the file."""
    name: str
    """What the vectors are of; empty: not in the file."""

    __repr__ = brief_fields


@numbers_checked
def layer_vectors(
    concepts: ConceptSet | Sequence[ConceptSet],
    concept: str,
    *,
    layers: Literal["own"] | Sequence[int] = "own",
    scale: float = 1.0,
) -> dict[int, Float[Tensor, " d_model"]]:
    """`{layer: scale * w}` for one concept, on the CPU, in the dtype of the sets; layers in growing order.

    w is the unit vector that the direction writes with, since such vectors are there to be added.
    `scale` is in residual-stream units: a share of 0.1 of `|h|` is about `0.1 * |h|` at that layer. With `"own"`
    each set gives its vector at its own layer; with layer numbers the vector of one set is copied over them.

    Raises:
        KeyError: a set has no such concept.
        ValueError: no sets, two of one layer, sets of different models or widths, at other hook points than
            `hook_resid_post`, several sets with layers given, no or negative layers, or a scale that is not a
            finite number.
    """
    sets = as_tuple([concepts] if isinstance(concepts, ConceptSet) else concepts, "concepts", ConceptSet)
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; it must be a finite number of residual-stream units")
    _check_sets(sets)
    vectors = [writing_vector(concept_set[concept]).detach().cpu() * scale for concept_set in sets]
    if isinstance(layers, str):
        if layers != "own":
            raise ValueError(f"layers is {layers!r}; give 'own' or layer numbers")
        own_layers = [concept_set.layer for concept_set in sets]
        return dict(sorted(zip(own_layers, vectors, strict=True), key=lambda pair: pair[0]))
    if len(sets) > 1:
        raise ValueError(f"layers are given for {len(sets)} sets; copy one set over layers, or leave them out")
    layers = as_tuple(layers, "layers")
    if not layers or min(layers) < 0:
        raise ValueError(f"layers {list(layers)}; give one or more, counted from 0")
    return {layer: vectors[0].clone() for layer in sorted(set(layers))}


@numbers_checked
def concepts_by_layer(
    vectors: Mapping[str, ByLayer],
    *,
    relation: str = "",
    method: str = "imported",
    fingerprint: ModelFingerprint | None = None,
) -> dict[int, ConceptSet]:
    """A set for each layer from `{object: {layer: vector}}`, the inverse of `layer_vectors`.

    Vectors are scaled to unit length and `norm` keeps the length that they had. Each direction reads and writes
    with its one vector, since `layer_vectors` gives only what a direction writes with. An object may be missing at
    some layers.

    In place of `{layer: vector}` an object may have a control vector of repeng, a steering vector of
    steering-vectors, or what `read_control_vector` gives: all count a layer as the output of that block, as
    `hook_resid_post` does. The other way, both take what `layer_vectors` gives:
    `repeng.ControlVector(model_type=..., directions={layer: v.numpy() for ...})` and
    `steering_vectors.SteeringVector(layer_activations=...)`.

    >>> sets = concepts_by_layer({"honest": {9: torch.ones(4), 10: torch.ones(4)}})
    >>> sets[9]["honest"].norm, layer_vectors(sets[9], "honest", scale=2.0)
    (2.0, {9: tensor([1., 1., 1., 1.])})

    Raises:
        TypeError: an object has something else than vectors by layer (tensors or NumPy arrays).
        ValueError: no vectors, a negative layer, or a vector that is zero, not finite or of another width than
            those of its layer.
    """
    by_object = {name: _by_layer(given, name) for name, given in vectors.items()}
    layers = sorted({layer for of_object in by_object.values() for layer in of_object})
    if not layers:
        raise ValueError("there are no vectors; give {object: {layer: vector}}")
    if layers[0] < 0:
        raise ValueError(f"layer {layers[0]}; give layers counted from 0, since the model is not known here")
    return {
        layer: ConceptSet(
            {
                name: ConceptDirection.from_unscaled(
                    of_object[layer],
                    relation=relation,
                    object_name=name,
                    hook_name=block_hook(layer),
                    method=method,
                    fingerprint=fingerprint,
                )
                for name, of_object in by_object.items()
                if layer in of_object
            },
            settings={"method": method},
        )
        for layer in layers
    }


@numbers_checked
def write_control_vector(
    path: str | Path, vectors: Mapping[int, Tensor], *, model_hint: str, name: str = ""
) -> None:
    """Write `{layer: vector}` in the GGUF control-vector format, in float32; the file appears whole or not at all.

    `layer_vectors` makes the vectors. `model_hint` is llama.cpp's name of the model's architecture, e.g. `gemma3`;
    llama.cpp itself checks the width only.

    Raises:
        ArtifactError: the folder is missing.
        ImportError: the package gguf is missing.
        ValueError: no vectors, one for layer 0 or below, vectors that are not finite, or of several widths.
    """
    gguf = _gguf()
    arrays = {layer: vector.detach().cpu().float().numpy() for layer, vector in vectors.items()}
    if not arrays:
        raise ValueError("there are no vectors to write; give {layer: vector}")
    if min(arrays) < 1:
        raise ValueError(
            f"layer {min(arrays)} cannot be in a control vector: llama.cpp edits the outputs of blocks 1 and "
            "later, counted from 0; leave it out or copy the vector to another layer"
        )
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"the vectors have the shapes {sorted(shapes)}; they must be of one width")
    if bad := [layer for layer, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"the vector of layer {bad[0]} is not finite in float32")
    with whole_file(Path(path)) as partial:
        writer = gguf.GGUFWriter(partial, _ARCHITECTURE)
        try:
            writer.add_string("general.name", name)
            writer.add_string(f"{_ARCHITECTURE}.model_hint", model_hint)
            writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(arrays))
            writer.add_string(_SHA256, _digest(arrays, model_hint=model_hint, name=name))
            for layer in sorted(arrays):
                writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(arrays[layer]))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def read_control_vector(path: str | Path) -> ControlVector:
    """What a GGUF control-vector file holds, whoever wrote it.

    Raises:
        ArtifactError: the file is missing, damaged, no GGUF file, or one that holds something else.
        ImportError: the package gguf is missing.
    """
    gguf, source = _gguf(), Path(path)
    file_bytes(source)  # refused where it cannot be read
    try:
        with np.errstate(all="ignore"):  # sizes that a damaged header multiplies
            reader = gguf.GGUFReader(source)
        texts = {
            key: _text(reader, key)
            for key in ("general.architecture", "general.name", f"{_ARCHITECTURE}.model_hint", _SHA256)
        }
        tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    # The reader checks little: what a damaged file raises depends on where it is damaged.
    except Exception as error:
        raise ArtifactError(f"{source}: damaged, cut short, or not a GGUF file ({error!r})") from error
    if texts["general.architecture"] != _ARCHITECTURE:
        raise ArtifactError(
            f"{source}: a GGUF file that holds {texts['general.architecture']!r}, not a control vector"
        )
    vectors = {}
    for name, array in tensors.items():
        number = name.removeprefix("direction.")
        if number == name or not number.isdecimal() or number != str(int(number)):
            raise ArtifactError(f"{source}: tensor {name!r} is none of a control vector's `direction.N`")
        if array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
            raise ArtifactError(
                f"{source}: tensor {name!r} is {array.dtype} of shape {array.shape}; it must be a finite "
                "vector of float32"
            )
        vectors[int(number)] = torch.from_numpy(array)
    if len({vector.shape for vector in vectors.values()}) != 1:
        raise ArtifactError(f"{source}: it holds {len(vectors)} directions; they must be one or more of one width")
    hint, title = texts[f"{_ARCHITECTURE}.model_hint"], texts["general.name"]
    if texts[_SHA256]:
        arrays = {layer: vector.numpy() for layer, vector in vectors.items()}
        if texts[_SHA256] != _digest(arrays, model_hint=hint, name=title):
            raise ArtifactError(
                f"{source}: its content does not match its SHA-256, so it was changed or damaged after it was "
                "written; make it again"
            )
    return ControlVector(vectors=dict(sorted(vectors.items())), model_hint=hint, name=title)


def _by_layer(given: ByLayer, name: str) -> Mapping[int, Vector]:
    """The vectors of one object by layer, from a mapping or from what holds one."""
    kind = getattr(given, "layer_type", "decoder_block")
    if kind != "decoder_block":
        raise ValueError(
            f"{name!r} has a steering vector for layer_type {kind!r}; sets are of blocks' outputs, so give one "
            "for 'decoder_block'"
        )
    held: Any = given
    for attribute in ("directions", "layer_activations", "vectors"):
        held = getattr(held, attribute, held)
    if not isinstance(held, Mapping) or not all(isinstance(layer, int | np.integer) for layer in held):
        raise TypeError(
            f"{name!r} has a {type(given).__name__}; give {{layer: vector}}, or a control vector of repeng, "
            "steering-vectors or read_control_vector"
        )
    return {int(layer): vector for layer, vector in held.items()}


def _digest(arrays: Mapping[int, Any], *, model_hint: str, name: str) -> str:
    digest = hashlib.sha256(repr((model_hint, name)).encode())
    for layer in sorted(arrays):
        digest.update(f"|{layer}|{arrays[layer].shape}|".encode())
        digest.update(np.ascontiguousarray(arrays[layer], dtype="<f4").tobytes())
    return digest.hexdigest()


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "control vectors need the package gguf; install lrc-tl with its extra: lrc-tl[local]"
        ) from error
    return gguf


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())


def _check_sets(sets: tuple[ConceptSet, ...]) -> None:
    if not sets:
        raise ValueError("there are no sets; give at least one")
    if wrong := [concepts.hook_name for concepts in sets if not concepts.hook_name.endswith(f".{RESIDUAL}")]:
        raise ValueError(
            f"a set stands at {wrong[0]}; a `{{layer: vector}}` export is for blocks' outputs ({RESIDUAL}) only"
        )
    layer, count = Counter(concepts.layer for concepts in sets).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} sets stand at layer {layer}; give one for each layer")
    if len({concepts.vectors.shape[1] for concepts in sets}) > 1:
        raise ValueError("the sets have different widths; give sets of one model")
    known = [concepts.fingerprint for concepts in sets if concepts.fingerprint is not None]
    for fingerprint in known[1:]:
        known[0].require_match(fingerprint, what="the first set was made")
