"""What a sweep was asked for, checked before anything runs: as far as possible before the model is loaded."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_tl.arguments.plain_numbers import is_whole_number
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import ResumeError
from lrc_tl.experiments.plan import relation_content
from lrc_tl.experiments.resuming import digest, record_files
from lrc_tl.experiments.settings import require_distinct
from lrc_tl.experiments.sweep_cells import SweepCell, sweep_cells, with_layers_from_the_start
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_store import RECORDS
from lrc_tl.methods.method import METHODS
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.relation_files import built_in_relations, is_built_in, load_relation
from lrc_tl.storage.json_results import check_folder


@dataclass(frozen=True, kw_only=True)
class UnitPlan:
    """Cells to run on one relation and seed."""

    relation: Relation
    seed: int
    cells: tuple[SweepCell, ...]


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """Relations, settings and places of one sweep; nothing of it depends on a model yet."""

    relations: tuple[Relation, ...]
    settings: SweepSettings
    """Layers as they were given."""
    others: tuple[Relation, ...]
    """Relations whose statements show the side effects."""
    out: Path | None
    resume: bool
    shard: tuple[int, int] | None

    def settings_on(self, *, n_layers: int, d_model: int) -> SweepSettings:
        """The settings on a model of this size, checked, with layers counted from the start.

        Raises:
            ValueError: a layer outside the model, no object layer above a subject layer, or a rank above the
                model's width.
        """
        for rank in self.settings.ranks:
            if rank > d_model:
                raise ValueError(f"ranks: {rank} was given, and the model's residual stream has width {d_model}")
        settings = with_layers_from_the_start(self.settings, n_layers)
        if any(METHODS[name].takes_object_layer for name in settings.methods):
            lowest = min(settings.subject_layers)
            below = [layer for layer in settings.object_layers if layer <= lowest]
            if below:
                raise ValueError(
                    f"object_layers: {', '.join(map(str, below))} is not above any subject layer, the lowest of "
                    f"which is {lowest}; leave it out"
                )
        sweep_cells(settings, n_layers)
        return settings

    def units(self, settings: SweepSettings, *, n_layers: int) -> tuple[UnitPlan, ...]:
        """Every unit of the sweep, or those of the shard."""
        cells = sweep_cells(settings, n_layers)
        units = tuple(
            UnitPlan(relation=relation, seed=seed, cells=cells)
            for relation in self.relations
            for seed in settings.seeds
        )
        if self.shard is None:
            return units
        place, of = self.shard
        return units[place::of]

    def contents(self) -> dict[str, str]:
        """A digest of all that a relation's results depend on beside the settings and the model, by its name."""
        others = [relation_content(other) for other in self.others]
        return {
            relation.name: digest({"relation": relation_content(relation), "others": others})
            for relation in self.relations
        }

    def asked(self, model: object) -> dict[str, Any]:
        """What a command that repeats the run must say beside its settings: the model if it was given by name."""
        named = isinstance(model, (str, os.PathLike))
        return {
            "shard": self.shard,
            "model": str(model) if named else None,
            "built_in": all(is_built_in(relation) for relation in self.relations),
        }


def sweep_request(
    relations: Relation | Sequence[Relation] | Mapping[str, Relation],
    *,
    settings: SweepSettings,
    out: str | Path | None,
    resume: bool,
    shard: tuple[int, int] | str | None,
    others: Sequence[Relation] | None,
) -> SweepRequest:
    """The options of `run_sweep`, checked without a model; nothing is written.

    Raises:
        ValueError: a bad or missing option; the text names it.
        ResumeError: `out` holds results of an earlier run and `resume` was not asked for.
        OSError: `out` cannot be written to.
    """
    if isinstance(relations, Relation):
        relations = [relations]
    given = as_tuple(relations.values() if isinstance(relations, Mapping) else relations, "relations", Relation)
    require_distinct([relation.name for relation in given], "relations")
    if others is None:
        others = [load_relation(name) for name in built_in_relations()]
    needed = settings.n_side_effects and {"kl_elsewhere", "kl_same_subject"} & {*settings.metrics}
    request = SweepRequest(
        relations=given,
        settings=settings,
        others=as_tuple(others, "others", Relation) if needed else (),
        out=None if out is None else Path(out),
        resume=resume,
        shard=parsed_shard(shard),
    )
    if resume and request.out is None:
        raise ValueError("resume needs out, the folder that holds the results of the earlier run")
    if request.out is not None:
        _check_out(request.out, resume=resume)
    return request


def parsed_shard(shard: tuple[int, int] | str | None) -> tuple[int, int] | None:
    """The place and number of a shard, given as `(0, 3)` or `"0/3"`.

    Raises:
        ValueError: it is none, or its place is not from 0 to below the number.
    """
    if shard is None:
        return None
    parts = shard.split("/") if isinstance(shard, str) else list(shard)
    try:
        place, of = (int(part) if isinstance(part, str) or is_whole_number(part) else None for part in parts)
    except ValueError:
        place = of = None
    if place is None or of is None:
        raise ValueError(f"shard is {shard!r}; give its place and how many there are, as in 0/3")
    if not 0 <= place < of:
        raise ValueError(f"shard is {place}/{of}; of {of} shards the places are 0 to {of - 1}")
    return place, of


def _check_out(out: Path, *, resume: bool) -> None:
    check_folder(out, what="the results")
    if of_a_benchmark := record_files(out):
        raise ResumeError(
            f"{out} holds results of a benchmark ({of_a_benchmark[0].name}); give another folder to the sweep"
        )
    stored = record_files(out / RECORDS)
    if stored and not resume:
        raise ResumeError(
            f"{out} holds {len(stored)} finished units of an earlier sweep. To go on from them add --resume "
            "(resume=True in Python); else give another folder, or delete it"
        )
