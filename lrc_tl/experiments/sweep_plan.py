"""What a sweep will do before it does: units, passes, products with Jacobians, memory, and what sharing saves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import OutOfMemoryError
from lrc_tl.experiments.relation_prompts import LeftOut
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_costs import STAGES, SweepCosts, UnitCost
from lrc_tl.experiments.sweep_record import SweepRecord
from lrc_tl.experiments.sweep_request import SweepRequest, UnitPlan, sweep_request
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_store import cells_of, stored_units
from lrc_tl.lre.costs import bytes_left, in_mebibytes
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.sizes import model_sizes, token_counter
from lrc_tl.numerics.precision import HOST
from lrc_tl.relations.relation import Relation


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
    costs: tuple[UnitCost, ...]
    """Of each unit, operations in matrix products; none of one that is left out."""
    lre_bytes: int
    """Of the LREs with their decompositions that a unit holds at once."""
    memory_bytes: int
    """At the peak beside the model: LREs, what is under way while they are fitted, a full batch of texts."""

    @property
    def operations(self) -> int:
        """Of all units that are left."""
        return sum(cost.operations for cost in self.costs)

    @numbers_checked
    def seconds(self, rate: float) -> float:
        """At so many operations a second (`lrc.numerics.product_rate` measures them), one unit after another.

        Raises:
            ValueError: a rate that is not above 0.
        """
        if not rate > 0:
            raise ValueError(f"rate is {rate}; give operations a second, above 0")
        return self.operations / rate

    def seconds_of_units(self, records: Sequence[SweepRecord]) -> dict[tuple[str, int], float]:
        """Seconds of each unit (relation, seed) that are to be expected, from what finished ones took.

        Each kind of work (finding and reading prompts, fitting, editing) goes on as fast as it did on average in
        `records`, which thereby also say how much of the plan's upper bounds is needed. Where a kind took no time
        yet, it is counted as fast as all work together.

        Raises:
            ValueError: no record is of a unit of this plan that was evaluated.
        """
        of_unit = {
            (unit.relation.name, unit.seed): cost for unit, cost in zip(self.units, self.costs, strict=True)
        }
        finished = [
            (of_unit[record.relation, record.seed], record.seconds)
            for record in records
            if record.left_out is None and (record.relation, record.seed) in of_unit
        ]
        if not sum(cost.operations for cost, _ in finished):
            raise ValueError(
                "no record is of a unit of this plan that was evaluated; give one that run_sweep gave"
            )
        whole = sum(sum(seconds.values()) for _, seconds in finished)
        overall = whole / sum(cost.operations for cost, _ in finished)
        per_operation = {}
        for kind, stages in STAGES.items():
            counted = sum(getattr(cost, kind) for cost, _ in finished)
            taken = sum(seconds.get(stage, 0.0) for _, seconds in finished for stage in stages)
            per_operation[kind] = taken / counted if counted and taken else overall
        return {
            unit: sum(getattr(cost, kind) * seconds for kind, seconds in per_operation.items())
            for unit, cost in of_unit.items()
        }

    def seconds_left(self, records: Sequence[SweepRecord]) -> float:
        """The sum of `seconds_of_units` over the units that have no record yet.

        Raises:
            ValueError: as there.
        """
        done = {(record.relation, record.seed) for record in records}
        return sum(seconds for unit, seconds in self.seconds_of_units(records).items() if unit not in done)

    @numbers_checked
    def require_memory(self, device: str | torch.device = HOST, *, n_at_once: int = 1) -> None:
        """Go on where so many units at once have the memory they need on a device, as far as it says what is free.

        Raises:
            OutOfMemoryError: they have not; the text has both numbers.
        """
        needed, free = n_at_once * self.memory_bytes, bytes_left(torch.device(device))
        if free is None or needed <= free:
            return
        of_units = "a unit of this sweep takes" if n_at_once == 1 else f"{n_at_once} units of this sweep take"
        raise OutOfMemoryError(
            f"{of_units} about {in_mebibytes(needed)} beside the model (the LREs of one unit: "
            f"{in_mebibytes(self.lre_bytes)}), and {in_mebibytes(free)} are free; give fewer workers, or fewer "
            "layers, and add the others later with resume"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        del values["costs"]
        values["operations"] = self.operations
        values["units"] = [
            {"relation": unit.relation.name, "seed": unit.seed, "cells": len(unit.cells), **asdict(cost)}
            for unit, cost in zip(self.units, self.costs, strict=True)
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
            f"operations:           {self.operations / 1e12:>14,.2f} x 10^12, in matrix products",
            f"memory beside model:  {in_mebibytes(self.memory_bytes):>14}   "
            f"(LREs of a unit: {in_mebibytes(self.lre_bytes)})",
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
    return plan_of(model, request)


def plan_of(model: HookedModel | str | Path, request: SweepRequest) -> SweepPlan:
    """The plan of a checked request; what its folder holds is left out.

    Raises:
        ValueError: the model has not what is asked for.
        ModelError: the model is named, and its sizes or its tokenizer cannot be read.
    """
    sizes = model_sizes(model)
    settings = request.settings_on(n_layers=sizes.n_layers, d_model=sizes.d_model)
    units = request.units(settings, n_layers=sizes.n_layers)
    there = cells_of(stored_units(request.out)) if request.out is not None else {}
    left = remaining(units, there)
    costs, left_out = SweepCosts(settings, sizes, token_counter(model)), {}
    of_units = []
    for unit in left:
        try:
            of_units.append(costs.add(unit))
        except LeftOut as reason:
            of_units.append(UnitCost())
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
        costs=tuple(of_units),
        lre_bytes=costs.lre_bytes,
        memory_bytes=costs.n_bytes,
    )


def remaining(units: Sequence[UnitPlan], there: Mapping[tuple[str, int], set[SweepCell]]) -> tuple[UnitPlan, ...]:
    """The units with those of their cells that are not there yet."""
    left = []
    for unit in units:
        done = there.get((unit.relation.name, unit.seed), set())
        if cells := tuple(cell for cell in unit.cells if cell not in done):
            left.append(UnitPlan(relation=unit.relation, seed=unit.seed, cells=cells))
    return tuple(left)


def _times(cell_by_cell: int, shared: int) -> str:
    return f"{cell_by_cell / shared:.1f} times as many" if shared else "the same"
