"""How directions, sets of them and rankings of objects show themselves in a notebook."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, overload

from lrc_tl.directions.writing import OWN_VECTOR
from lrc_tl.markup.brief import some_of
from lrc_tl.markup.fragments import Cell, Html, display, note, number, side_by_side
from lrc_tl.markup.tables import MOST_IN_MAP, MOST_ROWS, bars, heat_map, pairs, table

if TYPE_CHECKING:
    from lrc_tl.directions.concept_direction import ConceptDirection
    from lrc_tl.directions.concept_set import ConceptSet
    from lrc_tl.directions.score_calibration import ScoreCalibration


class Ranking(list[tuple[str, float]]):
    """Objects with their scores, best first; a list that shows itself as bars in a notebook."""

    @overload  # type: ignore[override]
    def __getitem__(self, place: slice) -> "Ranking": ...
    @overload
    def __getitem__(self, place: int) -> tuple[str, float]: ...
    def __getitem__(self, place: int | slice) -> "tuple[str, float] | Ranking":
        entries = super().__getitem__(place)
        return Ranking(entries) if isinstance(entries, list) else entries

    def __repr__(self) -> str:
        return f"[{some_of([repr(entry) for entry in self])}]"

    def _repr_html_(self) -> str:
        return display("Objects by score", bars(self))


def direction_html(self: "ConceptDirection") -> str:
    """The display of a direction: what it is of, where, how it was made and what it writes with."""
    dual = self.write_rule != OWN_VECTOR
    cosine = None
    if dual and self.write_vector is not None:
        cosine = float(self.vector.cpu().double() @ self.write_vector.cpu().double())
    return display(
        self.object_name,
        pairs(
            {
                "relation": self.relation,
                "object": self.object_name,
                "layer": f"{self.layer} ({self.hook_name})",
                "method": self.method,
                "norm": "not recorded" if self.norm is None else number(self.norm),
                "offset": number(self.offset) if self.offset else None,
                "writes with": None if cosine is None else f"another vector, cosine {cosine:.2g}",
                "written by": str(self.write_rule) if dual else None,
                "calibration": _calibration(self.calibration),
                "model": None if self.fingerprint is None else self.fingerprint.name,
            }
        ),
    )


def set_html(self: "ConceptSet") -> str:
    """The display of a set: its objects with their nearest others, and the cosines as a small heat map."""
    names, directions = list(self), list(self.values())
    cosines = self.similarity().cpu().double()
    rows = []
    for place, direction in enumerate(directions[:MOST_ROWS]):
        others = cosines[place].clone()
        others[place] = -2.0
        nearest = int(others.argmax())
        beside = f"{names[nearest]} ({float(others[nearest]):.2f})" if len(names) > 1 else None
        rows.append([direction.object_name, direction.norm, direction.threshold, beside])
    head = ["object", "norm", "threshold", "nearest (cosine)"]
    if not any(direction.threshold is not None for direction in directions):
        head, rows = [*head[:2], head[3]], [[*row[:2], row[3]] for row in rows]
    objects = table(head, rows, most=MOST_ROWS)
    if len(names) > MOST_ROWS:
        objects = Html(objects + note(f"… and {len(names) - MOST_ROWS} objects more"))
    parts = [objects]
    if len(names) > 1:
        first = cosines[:MOST_IN_MAP, :MOST_IN_MAP].tolist()
        parts.append(Html(note("cosines between reading vectors") + heat_map(names, names, first, scale=1.0)))
    made_with = {
        key: value
        for key, value in self.settings.items()
        if isinstance(value, str | int | float) and not key.endswith("_hash")
    }
    said = ", ".join(
        f"{key} {value if isinstance(value, str | int) else number(value)}" for key, value in made_with.items()
    )
    return display(
        f"{self.relation}: {len(self)} concepts at layer {self.layer}",
        pairs(
            {
                "hook point": self.hook_name,
                "methods": ", ".join(dict.fromkeys(direction.method for direction in directions)),
                "made with": said or None,
                **_checks(self.settings.get("checks")),
                "calibrated": None if self.calibration is None else f"by {self.calibration.by}",
                "model": None if self.fingerprint is None else self.fingerprint.name,
            }
        ),
        side_by_side(*parts),
    )


def _checks(checks: object) -> dict[str, Cell]:
    """What `contrast_concepts` found by holding texts out, in words; empty for sets made otherwise."""
    if not isinstance(checks, Mapping):
        return {}
    counts = {name: found for name, found in checks.items() if isinstance(found, Mapping)}
    sides = [
        f"{f'{name}: ' * (len(counts) > 1)}{found['n_right']} of {found['n']}" for name, found in counts.items()
    ]
    pairs_agreeing = None
    if "agreement" in checks:
        of = max((found["n"] // 2 for found in counts.values()), default=0)
        pairs_agreeing = f"{checks['n_agreeing']} of {of}, mean cosine {checks['agreement']:.2f}"
    return {
        "texts on their side when held out": "; ".join(sides) or None,
        "pairs that differ the same way": pairs_agreeing,
    }


def _calibration(calibration: "ScoreCalibration | None") -> str:
    if calibration is None:
        return "none"
    said = f"threshold {calibration.threshold:.4g}"
    if calibration.slope is not None:
        return f"{said}, slope {calibration.slope:.4g}, intercept {calibration.intercept:.4g}"
    return said if calibration.knots is None else f"{said}, {len(calibration.knots)} knots"
