"""How chosen settings and strengths show themselves in a notebook."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lrc_tl.markup.curves import curves
from lrc_tl.markup.fragments import Cell, display, note, number, side_by_side
from lrc_tl.markup.tables import pairs, table

if TYPE_CHECKING:
    from lrc_tl.tuning.selection import Settings
    from lrc_tl.tuning.strength_result import StrengthCalibration

_BEST = 5


def settings_html(self: "Settings") -> str:
    """The display of settings: what was chosen, on how much, and the best of what was tried."""
    columns = ["subject_layer", "object_layer", "noise" if self.rank is None else "rank", "accuracy"]
    best = self.tried.sort_values("accuracy", ascending=False, kind="stable")[columns]
    value = self.noise if self.rank is None else self.rank
    edits = self.tried_edits[self.tried_edits[columns[2]] == value].sort_values("beta")
    return display(
        f"{self.method}: layers {self.subject_layer} → {self.object_layer}, "
        f"{columns[2]} {number(value) if value is not None else '-'}, beta {self.beta:g}",
        pairs(
            {
                "accuracy": number(self.accuracy),
                "causality": number(self.causality),
                "hard success": number(self.hard_success),
                "KL elsewhere": f"{_or_dash(self.kl_elsewhere)} nats ({self.n_statements} statements)",
                "perplexity ratio": number(self.perplexity_ratio),
                "within limits": "yes" if self.within_limits else "no beta was; the smallest was taken",
                "chosen on": f"{self.n_validation} validation facts with {self.validation_shots} examples each",
            }
        ),
        side_by_side(
            table([column.replace("_", " ") for column in columns], _rows(best.head(_BEST))),
            curves(
                [float(beta) for beta in edits.beta],
                {"hard success": _floats(edits.hard_success), "causality": _floats(edits.causality)},
                marked=self.beta,
                along="beta",
                top=1.0,
            ),
        ),
        note(f"{len(self.tried)} candidates; .tried and .tried_edits hold all"),
    )


def settings_text(self: "Settings") -> str:
    """One line: what was chosen and how it did on the validation facts."""
    of_inverse = f"rank {self.rank}" if self.noise is None else f"noise {self.noise:g}"
    return (
        f"Settings({self.method}, layers {self.subject_layer} -> {self.object_layer}, {of_inverse}, "
        f"beta {self.beta:g}; on {self.n_validation} validation facts: accuracy {self.accuracy:.3f}, "
        f"causality {self.causality:.3f}, hard success {self.hard_success:.3f}, "
        f"KL elsewhere {_or_dash(self.kl_elsewhere)}, {'within' if self.within_limits else 'beyond'} limits)"
    )


def strength_html(self: "StrengthCalibration") -> str:
    """The display of a calibration: why this strength, and the curve of success and side effects."""
    points = [point for point in self.points if point.strength > 0]
    over = [point.strength for point in points]
    limits = ", ".join(
        f"{name.replace('_', ' ')} {most:g}" for name, most in asdict(self.limits).items() if most is not None
    )
    success = curves(
        over, {"success rate": [p.success_rate for p in points]}, marked=self.strength, along="strength", top=1.0
    )
    side = curves(over, {"KL (nats)": [point.kl for point in points]}, marked=self.strength, along="strength")
    rows: list[list[Cell]] = [
        [
            point.strength,
            point.success_rate,
            point.kl,
            point.perplexity_ratio,
            point.repetition,
            "chosen" if point.strength == self.strength else _beyond(point.broken),
        ]
        for point in (self.unsteered, *self.points)
    ]
    return display(
        self.reason,
        pairs(
            {
                "operation": f"{self.operation} at {self.hook_name}, unit {self.unit}",
                "wanted": f"{self.success} at least {self.wanted:g} over {self.n_edits} edits",
                "limits": f"{limits or 'none'}, on {self.n_neutral_texts} neutral texts",
            }
        ),
        side_by_side(success, side),
        table(["strength", "success rate", "KL", "perplexity ratio", "repetition", ""], rows),
    )


def _beyond(limits: tuple[str, ...]) -> str:
    return f"over the limit: {', '.join(limits).replace('_', ' ')}" if limits else ""


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rows(frame: Any) -> list[list[Cell]]:
    return [[_plain(value) for value in row] for row in frame.itertuples(index=False)]


def _plain(value: Any) -> Cell:
    plain: Cell = value.item() if hasattr(value, "item") else value
    return plain


def _floats(column: Any) -> list[float]:
    return [float(value) for value in column]
