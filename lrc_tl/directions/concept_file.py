"""The file of a concept set: its header and tensors, and back, every field checked and nothing left over."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch
from torch import Tensor

from lrc_tl.directions.calibration import Calibration
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.probe_metrics import ProbeReport
from lrc_tl.directions.score_calibration import ScoreCalibration
from lrc_tl.directions.writing import OWN_VECTOR, WriteRule, writing_vector
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import hook_layer
from lrc_tl.storage.json_fields import checked_fields

KIND = "concepts"
_DIRECTION_FIELDS = ("relation", "method", "norm", "offset", "write_rule")
_SCORE_FIELDS = ("threshold", "slope", "intercept", "knots")
"""Of a direction's own calibration; null where it has none."""
_CALIBRATION_FIELDS = ("by", "rate", "probabilities", "multiclass")
_HEADER = {
    "relation": str | None,
    "hook_name": str,
    "layer": int | None,
    "objects": list[dict[str, Any]],
    "fingerprint": dict[str, Any] | None,
    "settings": dict[str, Any],
    "calibration": dict[str, Any] | None,
}


def file_content(
    directions: Mapping[str, ConceptDirection], *, settings: Mapping[str, Any], calibration: Calibration | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of the file of a set, from which `content_of` makes the set again.

    The tensor `write_vectors` has a row for each direction that writes with another vector than it reads with, in
    their order; it is left out where there are none.
    """
    first = next(iter(directions.values()))
    header: dict[str, Any] = {
        "relation": first.relation,
        "hook_name": first.hook_name,
        "layer": hook_layer(first.hook_name),
        "objects": [
            {
                "name": name,
                **{field: getattr(direction, field) for field in _DIRECTION_FIELDS},
                **{field: getattr(direction.calibration, field, None) for field in _SCORE_FIELDS},
            }
            for name, direction in directions.items()
        ],
        "fingerprint": None if first.fingerprint is None else first.fingerprint.to_dict(),
        "settings": settings,
    }
    tensors = {"vectors": torch.stack([direction.vector for direction in directions.values()])}
    if written := [writing_vector(each) for each in directions.values() if each.write_rule != OWN_VECTOR]:
        tensors["write_vectors"] = torch.stack(written)
    if calibration is not None:
        header["calibration"] = {
            "report": calibration.report.to_dict(),
            **{field: getattr(calibration, field) for field in _CALIBRATION_FIELDS},
        }
        if calibration.weight is not None and calibration.bias is not None:
            tensors |= {"weight": calibration.weight, "bias": calibration.bias}
    return tensors, header


def content_of(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> tuple[dict[str, ConceptDirection], dict[str, Any], Calibration | None]:
    """Directions, settings and calibration of the set whose file has these tensors and this header.

    Raises:
        ValueError: a tensor or field is missing, unknown or does not fit the others.
    """
    fields = _checked_header(header)
    if unknown := sorted(set(tensors) - {"vectors", "write_vectors", "weight", "bias"}):
        raise ValueError(f"the tensors {unknown} are none of a set's")
    if "vectors" not in tensors:
        raise ValueError("it has no vectors")
    directions = _directions_of(fields, tensors["vectors"], tensors.get("write_vectors"))
    return directions, fields["settings"], _calibration_of(fields, tensors.get("weight"), tensors.get("bias"))


def _checked_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header of a set's file, with fields of their types and objects of different names.

    Raises:
        ValueError: a field is missing, unknown or of another type, the layer is not that of the hook point, or two
            directions have one name.
    """
    # What follows from the rest may be missing, and files of before they existed have no calibration and so on.
    absent = dict.fromkeys(("relation", "layer", "calibration"))
    fields = checked_fields(header, _HEADER, what="header", defaults=absent)
    if fields["layer"] not in (None, hook_layer(fields["hook_name"])):
        raise ValueError(f"its layer is {fields['layer']}, and its hook point {fields['hook_name']!r}")
    hints: dict[str, Any] = {"name": str}
    hints |= {name: get_type_hints(ConceptDirection)[name] for name in _DIRECTION_FIELDS}
    hints["write_rule"] = WriteRule  # never null in a file
    hints |= {name: get_type_hints(ScoreCalibration)[name] | None for name in _SCORE_FIELDS}
    fields["objects"] = [
        checked_fields(entry, hints, what=f"direction {number}", defaults={"offset": 0.0, "knots": None})
        for number, entry in enumerate(fields["objects"])
    ]
    for name, count in Counter(entry["name"] for entry in fields["objects"]).items():
        if count > 1:
            raise ValueError(f"the name {name!r} stands {count} times; a set has one direction of each name")
    return fields


def _directions_of(
    header: Mapping[str, Any], vectors: Tensor, write_vectors: Tensor | None
) -> dict[str, ConceptDirection]:
    """The directions that a checked header describes, with the rows of `vectors` and of `write_vectors`.

    Raises:
        ValueError: not one row of float32 or float64 for each, or a direction that `ConceptDirection` refuses.
    """
    objects = header["objects"]
    if vectors.ndim != 2 or vectors.shape[0] != len(objects):
        raise ValueError(f"vectors of shape {tuple(vectors.shape)} for {len(objects)} objects; give one per row")
    if vectors.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"vectors are {vectors.dtype}; they must be float32 or float64")
    fingerprint = None if header["fingerprint"] is None else ModelFingerprint.from_dict(header["fingerprint"])
    directions = {}
    written = _written_rows(objects, vectors, write_vectors)
    for entry, vector in zip(objects, vectors, strict=True):
        directions[entry["name"]] = ConceptDirection(
            vector=vector.clone(),
            write_vector=written.get(entry["name"]),
            object_name=entry["name"],
            hook_name=header["hook_name"],
            fingerprint=fingerprint,
            calibration=_score_calibration_of(entry),
            **{name: entry[name] for name in _DIRECTION_FIELDS},
        )
    if directions and header["relation"] not in (None, first := next(iter(directions.values())).relation):
        raise ValueError(f"its relation is {header['relation']!r}, and that of its first direction {first!r}")
    return directions


def _written_rows(
    objects: list[dict[str, Any]], vectors: Tensor, write_vectors: Tensor | None
) -> dict[str, Tensor]:
    """The writing vector of each direction that has one of its own, by name.

    Raises:
        ValueError: not one row for each, or rows of another dtype or width than the reading ones.
    """
    names = [entry["name"] for entry in objects if entry["write_rule"] != OWN_VECTOR]
    if write_vectors is None:
        if names:
            raise ValueError(f"it has no write_vectors, and {names[0]!r} writes with another vector than it reads")
        return {}
    expected = (len(names), vectors.shape[1])
    if not names or write_vectors.shape != expected or write_vectors.dtype != vectors.dtype:
        raise ValueError(
            f"write_vectors are {write_vectors.dtype} of shape {tuple(write_vectors.shape)}; by the header and "
            f"the reading vectors they must be {vectors.dtype} of shape {expected}"
        )
    return {name: row.clone() for name, row in zip(names, write_vectors, strict=True)}


def _score_calibration_of(entry: Mapping[str, Any]) -> ScoreCalibration | None:
    """The calibration of the direction that a checked entry describes; None: it has none.

    Raises:
        ValueError: it has no threshold, or numbers that `ScoreCalibration` refuses.
    """
    fields = {name: entry[name] for name in _SCORE_FIELDS}
    if all(value is None for value in fields.values()):
        return None
    if fields["threshold"] is None:
        raise ValueError(f"the calibration of {entry['name']!r} has no threshold")
    if fields["knots"] is not None:
        fields["knots"] = tuple((score, probability) for score, probability in fields["knots"])
    try:
        return ScoreCalibration(**fields)
    except ValueError as error:
        raise ValueError(f"the calibration of {entry['name']!r}: {error}") from error


def _calibration_of(header: Mapping[str, Any], weight: Tensor | None, bias: Tensor | None) -> Calibration | None:
    """The calibration that a checked header describes; None: the set is not calibrated.

    Raises:
        ValueError: a field is missing, unknown or of another type, or the tensors do not fit.
    """
    if header["calibration"] is None:
        if weight is not None or bias is not None:
            raise ValueError("there are weights of a calibration, but the header says nothing of one")
        return None
    hints = get_type_hints(Calibration)
    fields = checked_fields(
        header["calibration"],
        {"report": dict[str, Any], **{name: hints[name] for name in _CALIBRATION_FIELDS}},
        what="calibration",
    )
    n = len(header["objects"])
    for name, tensor, shape in (("weight", weight, (n, n)), ("bias", bias, (n,))):
        if tensor is not None and (tensor.dtype != torch.float64 or tensor.shape != shape):
            raise ValueError(
                f"the {name} of the calibration is {tensor.dtype} of shape {tuple(tensor.shape)}; it must be "
                f"torch.float64 of shape {shape}"
            )
    report = ProbeReport.from_dict(fields.pop("report"))
    return Calibration(weight=weight, bias=bias, report=report, **fields)
