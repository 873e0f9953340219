"""Files of tensors with provenance: safetensors with a versioned JSON header, written whole, checked on reading.

Never pickle: reading a file runs no code.
"""

import hashlib
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lrc_tl.errors import ArtifactError
from lrc_tl.storage.json_fields import as_text, conforms, parsed
from lrc_tl.storage.own_version import NOT_INSTALLED
from lrc_tl.storage.whole_file import whole_file, written_file

SCHEMA_NAME = "lrc_tl.artifact"
SCHEMA_VERSION = 2
"""2: sets of concepts may hold writing vectors. 1: they had none."""
_KEY = "lrc_tl"
_DTYPES = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
}  # fmt: skip
_LIBRARIES = ("lrc-tl", "transformer-lens", "torch", "transformers", "safetensors")

Header: TypeAlias = dict[str, Any]
"""JSON values by name."""


def _without_write_vectors(document: Header) -> Header:
    """A document of version 1, in which every direction wrote with the vector that it read with."""
    entries = document["header"].get("objects")
    if document["kind"] != "concepts" or not conforms(entries, list[dict[str, Any]]):
        return document  # nothing to add, or damaged, which its reader will say
    objects = [{"write_rule": "vector", **entry} for entry in entries]
    return document | {"header": document["header"] | {"objects": objects}}


# For each older schema version, the function that converts its document to the next version.
_UPGRADES: dict[int, Callable[[Header], Header]] = {1: _without_write_vectors}


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that matter, where installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = NOT_INSTALLED
    return versions


def write_artifact(
    path: str | Path, *, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors and a header of JSON values; the file appears whole or not at all.

    The tensors come back bit for bit, in their own dtypes.

    Raises:
        ArtifactError: the folder is missing, `path` is a folder, a tensor is not finite, or the header is not
            JSON.
    """
    target = Path(path)
    written_file(target)  # refused before the work, not after it
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    _require_storable(target, stored)
    document: Header = {
        "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
        "kind": kind,
        "versions": library_versions(),
        "header": dict(header),
    }
    try:
        # As it will be read: JSON turns keys that are numbers into strings, and they sort in another order.
        document = parsed(as_text(document))
        document["sha256"] = _digest(document, stored)
        text = as_text(document)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{target}: the header cannot be written as JSON: {error}") from error
    data = save(stored, metadata={_KEY: text})
    with whole_file(target) as partial:
        partial.write_bytes(data)


def read_artifact(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], Header]:
    """Tensors and header of a file that `write_artifact` wrote, checked.

    Raises:
        ArtifactError: there is no such file, it is a pickle, damaged or cut short, not one of lrc_tl's, of another
            kind or a later schema version, changed after writing, or holds numbers that are not finite.
    """
    source = Path(path)
    # Read once: what is checked is what is used, even if the file changes meanwhile.
    data = file_bytes(source)
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = parsed(data[8 : 8 + length].decode("utf-8")).get("__metadata__") or {}
    except (SafetensorError, KeyError, ValueError, AssertionError, RuntimeError) as error:
        # A safetensors file begins with the length of its header, which may begin with 0x80 and a version too; but
        # it is short, so zeros follow, and a pickle has an instruction there.
        pickled = data[:1] == b"\x80" and data[1:2] in (b"\2", b"\3", b"\4", b"\5") and data[2:3] > b"\0"
        if pickled or data[:4] == b"PK\x03\x04":
            raise ArtifactError(
                f"{source}: a pickle or a torch.save file, which can run code when it is read; lrc_tl reads "
                "only safetensors"
            ) from error
        raise ArtifactError(f"{source}: damaged, cut short, or not a safetensors file ({error})") from error
    document = _checked_document(source, metadata, kind)
    _require_storable(source, tensors)
    if document.pop("sha256", None) != _digest(document, tensors):
        raise ArtifactError(
            f"{source}: its content does not match its SHA-256, so it was changed or damaged after it was "
            "written; make it again"
        )
    header: Header = _upgraded(document)["header"]
    return tensors, header


def file_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        ArtifactError: there is no such file, it is a folder, a pipe or a device, or it may not be read.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: there is no such file")
    if not path.is_file():
        raise ArtifactError(f"{path}: this is no file, but a folder, a pipe or a device")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: it cannot be read ({error.strerror})") from error


def _checked_document(source: Path, metadata: Mapping[str, str], kind: str) -> Header:
    if _KEY not in metadata:
        raise ArtifactError(
            f"{source}: a safetensors file, but not one that lrc_tl wrote (it has no lrc_tl header)"
        )
    try:
        document: Header = parsed(metadata[_KEY])
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        if not conforms(document.get("schema"), Mapping[str, Any]) or not isinstance(document.get("header"), dict):
            raise ValueError("it has no schema or no content")
    except ValueError as error:
        raise ArtifactError(f"{source}: its lrc_tl header is damaged ({error})") from error
    name, number, held = (*(document["schema"].get(key) for key in ("name", "version")), document.get("kind"))
    if name != SCHEMA_NAME or not conforms(number, int):
        raise ArtifactError(f"{source}: its lrc_tl header is damaged (schema {name!r}, version {number!r})")
    if number > SCHEMA_VERSION:
        raise ArtifactError(
            f"{source}: written with schema version {number}, and this lrc_tl reads up to {SCHEMA_VERSION}; "
            "install a newer lrc_tl"
        )
    if number < SCHEMA_VERSION and number not in _UPGRADES:
        raise ArtifactError(f"{source}: schema version {number} was never in use")
    if held != kind:
        raise ArtifactError(f"{source}: holds {held!r}, not {kind!r}")
    return document


def _upgraded(document: Header) -> Header:
    number = document["schema"]["version"]
    while number < SCHEMA_VERSION:
        document = _UPGRADES[number](document)
        number += 1
    return document


def _digest(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(as_text(document, sort_keys=True).encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _require_storable(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ArtifactError(
                f"{path}: tensor {name!r} is {tensor.dtype}; files of lrc_tl hold bool, integers, float16, "
                "bfloat16, float32 and float64"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: tensor {name!r} holds numbers that are not finite")
