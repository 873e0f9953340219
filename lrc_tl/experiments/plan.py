"""What a benchmark was asked for, checked before anything runs: as far as possible before the model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.beta import DEFAULT_BETA
from lrc_tl.experiments.resuming import StoredRecords, read_record, record_path, require_no_records
from lrc_tl.experiments.settings import ExperimentSettings, require_distinct, spelled_out
from lrc_tl.lre.jacobian import check_layers
from lrc_tl.methods.method import require_exact_fit, require_methods
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.relation_files import built_in_relations, load_relation
from lrc_tl.storage.json_results import check_folder


@dataclass(frozen=True, kw_only=True)
class ProtocolPlan:
    """Relations, methods, settings and places of one benchmark; nothing of it depends on a model yet."""

    relations: tuple[Relation, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: ExperimentSettings
    """Layers as they were given; `on` counts them from the start."""
    others: tuple[Relation, ...]
    compared: tuple[str, ...]
    out: Path | None
    resume: bool

    def on(self, model: HookedModel) -> ExperimentSettings:
        """The settings on a model, checked before it runs, with layers counted from the start.

        Raises:
            ValueError: a layer outside the model, an object layer below its subject layer, a rank above
                the model's width, or `compare` names a method that the run has not.
        """
        n_layers, d_model = int(model.cfg.n_layers), int(model.cfg.d_model)
        for rank in self.settings.ranks:
            if rank > d_model:
                raise ValueError(f"rank is {rank}, but the model's residual stream has width {d_model}")
        settings = replace(
            self.settings,
            subject_layers=tuple(layer_number(model, layer) for layer in self.settings.subject_layers),
            object_layers=tuple(layer_number(model, layer) for layer in self.settings.object_layers),
        )
        if settings.object_layers and not settings.select and not settings.swept:
            check_layers(model, settings.subject_layers[0], settings.object_layers[0])
        _require_compared(self.compared, self.method_names(settings, n_layers))
        return settings

    def stored_records(self, model: HookedModel, settings: ExperimentSettings) -> StoredRecords | None:
        """Where finished records are kept; None without a folder."""
        if self.out is None:
            return None
        return StoredRecords(
            folder=self.out,
            settings={"methods": self.methods, **settings.to_dict()},
            fingerprint=ModelFingerprint.of(model),
        )

    def content(self, relation: Relation) -> Any:
        """What a relation's result depends on beside the settings and the model, as JSON values."""
        return {
            "relation": relation_content(relation),
            "others": [relation_content(other) for other in self.others],
        }

    def method_names(self, settings: ExperimentSettings, n_layers: int) -> tuple[str, ...]:
        """Names of the methods in the result: with what they are swept over, unless that is selected per relation.

        Raises:
            ValueError: no object layer of a method lies above a subject layer.
        """
        if settings.select:
            return self.methods
        return tuple(variant.name for variant in settings.variants(self.methods, n_layers))


def plan_protocol(
    relations: Sequence[Relation] | Mapping[str, Relation],
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    settings: ExperimentSettings,
    out: str | Path | None,
    resume: bool,
    compare: Sequence[str],
    others: Sequence[Relation] | None,
) -> ProtocolPlan:
    """The options of `run_protocol`, checked without a model; nothing is written.

    Raises:
        ValueError: a bad or missing option; the text names it.
        ResumeError: `out` holds results of an earlier run and `resume` was not asked for, or one of those that are
            to be gone on from is damaged.
        OSError: `out` cannot be written to.
    """
    seeds = spelled_out(seeds, "seeds")
    require_distinct(seeds, "seeds")
    methods, compare = as_tuple(methods, "methods", str), as_tuple(compare, "compare", str)
    others = None if others is None else as_tuple(others, "others", Relation)
    given = as_tuple(relations.values() if isinstance(relations, Mapping) else relations, "relations", Relation)
    require_distinct([relation.name for relation in given], "relations")
    settings = _checked(methods, settings)
    if resume and out is None:
        raise ValueError("resume needs out, the folder that holds the results of the earlier run")
    if others is None:
        others = tuple(load_relation(name) for name in built_in_relations())
    plan = ProtocolPlan(
        relations=given,
        methods=methods,
        seeds=seeds,
        settings=settings,
        others=others if settings.n_side_effects else (),
        compared=tuple(dict.fromkeys(compare)),
        out=None if out is None else Path(out),
        resume=resume,
    )
    if (highest := _highest_layer(settings)) is not None:
        _require_compared(compare, plan.method_names(settings, highest + 2))
    if plan.out is not None:
        _check_out(plan, plan.out)
    return plan


def record_name(relation: Relation, seed: int) -> str:
    """What the stored record of a relation and seed is called."""
    return f"{relation.name} seed {seed}"


def _checked(methods: Sequence[str], settings: ExperimentSettings) -> ExperimentSettings:
    """The settings with their betas, checked against the methods."""
    require_methods(methods)
    require_exact_fit(methods, settings.solver)
    if settings.select:
        if settings.swept:
            raise ValueError(f"select chooses one of {', '.join(settings.swept)}, so they cannot be swept over")
        return settings
    if missing := settings.missing_for(methods):
        raise ValueError(f"{', '.join(missing)} must be given, or chosen on training facts with select")
    if settings.object_layers and not settings.swept:
        subject, object_ = settings.subject_layers[0], settings.object_layers[0]
        # Of layers that are counted from the same end, no model is needed to tell which is the higher one.
        if (subject < 0) == (object_ < 0) and object_ < subject:
            raise ValueError(
                f"object layer {object_} lies below subject layer {subject}; read the object at the same layer or "
                "a later one"
            )
    return replace(settings, betas=DEFAULT_BETA if settings.betas is None else settings.betas)


def _check_out(plan: ProtocolPlan, out: Path) -> None:
    """Refuse a folder that cannot be written to or gone on in; what the model must match is checked later."""
    check_folder(out, what="the results")
    if not plan.resume:
        require_no_records(out)
        return
    for relation in plan.relations:
        for seed in plan.seeds:
            path = record_path(out, record_name(relation, seed))
            if path.exists():
                read_record(path)


def _highest_layer(settings: ExperimentSettings) -> int | None:
    """The highest layer asked for, where all count from the start, so that a model has at least one more."""
    layers = (*settings.subject_layers, *settings.object_layers)
    return max(layers) if layers and min(layers) >= 0 else None


def _require_compared(compare: Sequence[str], names: Sequence[str]) -> None:
    for name in compare:
        if name not in names:
            raise ValueError(f"compare: there is no method {name!r} in this run; there are {', '.join(names)}")


def relation_content(relation: Relation) -> Any:
    """All of a relation that results depend on, as JSON values."""
    return {
        "name": relation.name,
        "facts": [[fact.subject, fact.object] for fact in relation.facts],
        "shot_facts": [[fact.subject, fact.object] for fact in relation.shot_facts],
        "templates": list(relation.templates),
        "zero_shot_templates": list(relation.zero_shot_templates),
    }
