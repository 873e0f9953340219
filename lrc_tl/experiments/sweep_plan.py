"""What a sweep will do before it does: units, passes, products with Jacobians, memory, and what sharing saves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.experiments.relation_prompts import LeftOut, split_facts
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_metrics import OF_EDITS, READINGS
from lrc_tl.experiments.sweep_request import SweepRequest, UnitPlan, sweep_request
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_store import cells_of, stored_units
from lrc_tl.experiments.sweep_unit import with_validation
from lrc_tl.methods.method import METHODS
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.sizes import model_sizes
from lrc_tl.relations.relation import Relation

_BYTES = 4
_EDITS_OF_EACH_OBJECT = 5


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep takes at most, if the model knows every fact; `print` shows it.

    Texts are sequences that go forward through the model, in batches: prompts and edited statements. What a
    decoded answer takes beyond its first token is not counted.
    """

    units: tuple[UnitPlan, ...]
    """Those that are left to run, each with its cells."""
    left_out: Mapping[str, str]
    """`relation, seed` that have too few facts -> reason."""
    n_cells: int
    """Of each unit."""
    n_finished: int
    """Cells of all units that are in the folder already."""
    texts: int
    """Forward, with all sharing."""
    texts_cell_by_cell: int
    products: int
    """Products with a Jacobian: rows of reverse passes."""
    products_cell_by_cell: int
    rows: int
    memory_bytes: int
    """Of the LREs with their decompositions that a unit holds at once, beside the model."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        values["units"] = [
            {"relation": unit.relation.name, "seed": unit.seed, "cells": len(unit.cells)} for unit in self.units
        ]
        return values

    def __str__(self) -> str:
        units = "unit" if len(self.units) == 1 else "units"
        lines = [
            f"{len(self.units)} {units} (a relation and seed each) of up to {self.n_cells} cells",
            f"texts forward:        {self.texts:>14,}   (cell by cell {self.texts_cell_by_cell:,}: "
            f"{_times(self.texts_cell_by_cell, self.texts)})",
            f"Jacobian products:    {self.products:>14,}   (cell by cell {self.products_cell_by_cell:,}: "
            f"{_times(self.products_cell_by_cell, self.products)})",
            f"rows of results:      {self.rows:>14,}",
            f"memory beside model:  {self.memory_bytes / 2**20:>11,.0f} MiB   (LREs of a unit)",
            "Counts are upper bounds: they take every fact for known.",
        ]
        if self.n_finished:
            lines.insert(1, f"finished already: {self.n_finished} cells of these units and others")
        lines += [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)

    __repr__ = __str__


@numbers_checked
def plan_sweep(
    model: HookedModel | str | Path,
    relations: Relation | Sequence[Relation] | Mapping[str, Relation],
    *,
    settings: SweepSettings,
    out: str | Path | None = None,
    resume: bool = False,
    shard: tuple[int, int] | str | None = None,
    others: Sequence[Relation] | None = None,
) -> SweepPlan:
    """What `run_sweep` with these options would do; no model runs, and of a name only the sizes are looked up.

    Raises:
        ValueError: as `run_sweep`.
        ResumeError: `out` holds results and `resume` is not given.
    """
    request = sweep_request(relations, settings=settings, out=out, resume=resume, shard=shard, others=others)
    sizes = model_sizes(model)
    on_model = request.settings_on(n_layers=sizes.n_layers, d_model=sizes.d_model)
    return planned(request, on_model, n_layers=sizes.n_layers, d_model=sizes.d_model)


def planned(request: SweepRequest, settings: SweepSettings, *, n_layers: int, d_model: int) -> SweepPlan:
    """The plan of a checked request; what its folder holds is left out."""
    units = request.units(settings, n_layers=n_layers)
    there = cells_of(stored_units(request.out)) if request.out is not None else {}
    left = remaining(units, there)
    costs, left_out = _Costs(settings, n_layers, d_model), {}
    for unit in left:
        try:
            costs.add(unit)
        except LeftOut as reason:
            left_out[f"{unit.relation.name}, seed {unit.seed}"] = str(reason)
    return SweepPlan(
        units=left,
        left_out=left_out,
        n_cells=max((len(unit.cells) for unit in units), default=0),
        n_finished=sum(map(len, there.values())),
        texts=costs.texts,
        texts_cell_by_cell=costs.texts_cell_by_cell,
        products=costs.products,
        products_cell_by_cell=costs.products_cell_by_cell,
        rows=costs.rows,
        memory_bytes=costs.memory,
    )


def remaining(units: Sequence[UnitPlan], there: Mapping[tuple[str, int], set[SweepCell]]) -> tuple[UnitPlan, ...]:
    """The units with those of their cells that are not there yet."""
    left = []
    for unit in units:
        done = there.get((unit.relation.name, unit.seed), set())
        if cells := tuple(cell for cell in unit.cells if cell not in done):
            left.append(UnitPlan(relation=unit.relation, seed=unit.seed, cells=cells))
    return tuple(left)


class _Costs:
    """Upper bounds of what units take, with sharing and with each cell run by itself."""

    def __init__(self, settings: SweepSettings, n_layers: int, d_model: int) -> None:
        self.settings, self.n_layers, self.d_model = settings, n_layers, d_model
        self.texts = self.texts_cell_by_cell = self.products = self.products_cell_by_cell = 0
        self.rows = self.memory = 0

    def add(self, unit: UnitPlan) -> None:
        """Counts a unit.

        Raises:
            LeftOut: it has too few facts.
        """
        settings = self.settings
        train, test = split_facts(unit.relation, unit.seed, settings.of_shots(settings.shots[0]))
        train, validation = with_validation(train, unit.seed, settings.validation)
        n_train, n_test = len(train.facts), len(test.facts)
        n_validation = len(validation.facts) if validation else 0
        n_templates = max(1, len(unit.relation.zero_shot_templates or unit.relation.templates))
        asked = (n_test + n_validation) * n_templates  # to find what is known
        read = n_train + n_test + n_validation
        edits = self._edits(test, settings.max_edits)
        validation_edits = self._edits(validation, settings.validation_edits) if validation else 0
        self.texts += asked + read
        self.texts_cell_by_cell += len(unit.cells) * (asked + read)
        for shots in {cell.shots for cell in unit.cells}:
            cells = [cell for cell in unit.cells if cell.shots == shots]
            self.texts += 2 * n_train
            self.texts_cell_by_cell += 2 * n_train * len(cells)
            shared = {(self._passes(cell), cell.n_lre_prompts) for cell in cells if cell.n_lre_prompts}
            for (_, object_layers), n in shared:
                n_prompts = min(n or 0, n_train)
                self.texts += n_prompts
                self.products += n_prompts * self.d_model * len(object_layers)
            for cell in cells:
                if cell.n_lre_prompts:
                    n_prompts = min(cell.n_lre_prompts, n_train)
                    own = len(self._object_layers(cell))
                    self.texts_cell_by_cell += n_prompts
                    self.products_cell_by_cell += n_prompts * self.d_model * own
            # Edits share what lies before the subject and the unedited run; their texts are the same either way.
            edited = self._edited_texts(edits, validation_edits)
            self.texts += len(cells) * edited + edits + validation_edits
            self.texts_cell_by_cell += len(cells) * (edited + edits + validation_edits)
            pairs = {(cell.subject_layer, layer) for cell in cells for layer in self._object_layers(cell)}
            numbers = {cell.n_lre_prompts for cell in cells if cell.n_lre_prompts}
            self.memory = max(self.memory, len(pairs) * len(numbers) * 3 * self.d_model**2 * _BYTES)
        self.rows += len(unit.cells) * self._rows(edits, validation_edits, n_validation)
        # The noise that was chosen, and faithfulness where the LRE has one.
        self.rows += sum(METHODS[cell.method].is_dual and cell.noise is None for cell in unit.cells)
        if "faithfulness" in settings.metrics:
            self.rows += sum(cell.object_layer == self.n_layers - 1 for cell in unit.cells)

    def _passes(self, cell: SweepCell) -> tuple[Any, tuple[int, ...]]:
        """A key of cells whose LREs come from the same passes, with the object layers of all of them."""
        method = METHODS[cell.method]
        key = (method.aggregation, method.lre_for_each is not None, method.object_layer == "last")
        if method.combines:
            return (cell.method, cell.subject_layer), self._object_layers(cell)
        layers = (self.n_layers - 1,) if method.object_layer == "last" else self.settings.object_layers
        return key, tuple(layers)

    def _object_layers(self, cell: SweepCell) -> tuple[int, ...]:
        if cell.object_layer is None:
            return ()
        parts = cell.variant.components(self.n_layers)
        return tuple(part.object_layer for part in parts if part.object_layer is not None)

    def _edits(self, relation: Relation, most: int | None) -> int:
        if not {*self.settings.metrics} & {*OF_EDITS}:
            return 0
        objects = {fact.object for fact in relation.facts}
        n = len(objects) * _EDITS_OF_EACH_OBJECT if len(objects) > 1 else 0
        return n if most is None else min(n, most)

    def _edited_texts(self, edits: int, validation_edits: int) -> int:
        settings = self.settings
        kinds = len({"kl_elsewhere", "kl_same_subject"} & {*settings.metrics})
        statements = kinds * bool(edits) + ("kl_elsewhere" in settings.metrics) * bool(validation_edits)
        of_each = edits + validation_edits + statements * settings.n_side_effects
        return of_each * len(settings.betas) * len(settings.places)

    def _rows(self, edits: int, validation_edits: int, n_validation: int) -> int:
        metrics = {*self.settings.metrics}
        points = len(self.settings.betas) * len(self.settings.places)
        of_edits = 2 + len(metrics & {"hard_causality", "kl_elsewhere", "kl_same_subject"})
        of_validation = 1 + len(metrics & {"hard_causality", "kl_elsewhere"})
        rows = 2 * len(READINGS) * (2 if n_validation else 1) + ("selectivity" in metrics)
        return rows + points * (of_edits * bool(edits) + of_validation * bool(validation_edits))


def _times(cell_by_cell: int, shared: int) -> str:
    return f"{cell_by_cell / shared:.1f} times as many" if shared else "the same"
