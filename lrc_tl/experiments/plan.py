"""What a benchmark was asked for, checked before anything runs: as far as possible before the model is loaded."""

from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.beta import DEFAULT_BETA
from lrc_tl.experiments.resuming import StoredRecords, read_record, record_path, require_no_records
from lrc_tl.experiments.settings import BenchmarkSettings
from lrc_tl.lre.fit_settings import FitMethod, require_fit_method
from lrc_tl.lre.jacobian import check_layers
from lrc_tl.methods.method import require_exact_fit, require_methods
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.loading import HookedModel, layer_number
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.relation_files import built_in_relations, load_relation
from lrc_tl.storage.json_results import check_folder

N_SIDE_EFFECTS = 16
_MOST_VALUES = 10_000
"""Of layers, ranks or seeds in one run; more are a slip in a range."""


@dataclass(frozen=True, kw_only=True)
class ProtocolPlan:
    """Relations, settings and places of one benchmark; nothing of it depends on a model yet."""

    relations: tuple[Relation, ...]
    settings: BenchmarkSettings
    """Layers as they were given; `on` counts them from the start."""
    swept: tuple[str, ...]
    """Names of the settings that were given as several values."""
    seeds: tuple[int, ...]
    others: tuple[Relation, ...]
    compare: tuple[str, ...]
    out: Path | None
    resume: bool

    def on(self, model: HookedModel) -> BenchmarkSettings:
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
        for name, values in (("subject_layer", settings.subject_layers), ("object_layer", settings.object_layers)):
            if values:
                _require_distinct(name, values)
        if not settings.select and not self.swept:
            check_layers(model, settings.subject_layers[0], settings.object_layers[0])
        _require_compared(self.compare, method_names(settings, n_layers))
        return settings

    def stored_records(self, model: HookedModel, settings: BenchmarkSettings) -> StoredRecords | None:
        """Where finished records are kept; None without a folder."""
        if self.out is None:
            return None
        return StoredRecords(folder=self.out, settings=asdict(settings), fingerprint=ModelFingerprint.of(model))

    def content(self, relation: Relation) -> Any:
        """What a relation's result depends on beside the settings and the model, as JSON values."""
        return {"relation": _content(relation), "others": [_content(other) for other in self.others]}


def plan_protocol(
    relations: Sequence[Relation] | Mapping[str, Relation],
    *,
    methods: Sequence[str],
    subject_layer: int | None,
    object_layer: int | None,
    rank: int | None,
    beta: float | Sequence[float] | None,
    seeds: Sequence[int],
    max_lre_prompts: int,
    max_facts: int | None,
    shots: int,
    out: str | Path | None,
    resume: bool,
    select: bool,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    ranks: Sequence[int],
    single_layer: bool,
    random_model: bool,
    fit_method: FitMethod,
    split_seed: int | None,
    compare: Sequence[str],
    n_side_effects: int = N_SIDE_EFFECTS,
    others: Sequence[Relation] | None = None,
) -> ProtocolPlan:
    """The options of `run_protocol`, checked without a model; nothing is written.

    Raises:
        ValueError: a bad or missing option; the text names it.
        ResumeError: `out` holds results of an earlier run and `resume` was not asked for, or one of those that are
            to be gone on from is damaged.
        OSError: `out` cannot be written to.
    """
    several = {
        name: _spelled_out(name, values)
        for name, values in (
            ("subject_layers", subject_layers),
            ("object_layers", object_layers),
            ("ranks", ranks),
        )
    }
    for (name, values), one in zip(several.items(), (subject_layer, object_layer, rank), strict=True):
        if one is not None and values:
            raise ValueError(f"{name[:-1]} and {name} were both given; give one value or several to sweep over")
    seeds = _spelled_out("seeds", seeds)
    _require_distinct("seeds", seeds)
    methods, compare = as_tuple(methods, "methods", str), as_tuple(compare, "compare", str)
    others = None if others is None else as_tuple(others, "others", Relation)
    given = as_tuple(relations.values() if isinstance(relations, Mapping) else relations, "relations", Relation)
    _require_distinct("relations", [relation.name for relation in given])
    betas = None if beta is None else (beta,) if isinstance(beta, (int, float)) else as_tuple(beta, "beta")
    swept = tuple(name for name, values in several.items() if values)
    settings = _checked(
        BenchmarkSettings(
            methods=methods,
            subject_layers=_several(subject_layer, several["subject_layers"]),
            object_layers=_several(object_layer, several["object_layers"]),
            ranks=_several(rank, several["ranks"]),
            betas=None if betas is None else tuple(float(value) for value in betas),
            max_lre_prompts=max_lre_prompts,
            max_facts=max_facts,
            shots=shots,
            select=select,
            single_layer=single_layer,
            random_model=random_model,
            n_side_effects=n_side_effects,
            fit_method=fit_method,
            split_seed=split_seed,
        ),
        swept,
    )
    if (highest := _highest_layer(settings)) is not None:
        _require_compared(compare, method_names(settings, highest + 2))
    if resume and out is None:
        raise ValueError("resume needs out, the folder that holds the results of the earlier run")
    if others is None:
        others = tuple(load_relation(name) for name in built_in_relations())
    plan = ProtocolPlan(
        relations=given,
        settings=settings,
        swept=swept,
        seeds=seeds,
        others=others if n_side_effects else (),
        compare=tuple(dict.fromkeys(compare)),
        out=None if out is None else Path(out),
        resume=resume,
    )
    if plan.out is not None:
        _check_out(plan, plan.out)
    return plan


def record_name(relation: Relation, seed: int) -> str:
    """What the stored result of a relation and seed is called."""
    return f"{relation.name} seed {seed}"


def method_names(settings: BenchmarkSettings, n_layers: int) -> tuple[str, ...]:
    """Names of the methods in a result: with what they are swept over, unless that is chosen for each relation.

    Raises:
        ValueError: no object layer of a method lies above a subject layer.
    """
    if settings.select:
        return settings.methods
    return tuple(variant.name for variant in settings.variants(n_layers))


def _checked(settings: BenchmarkSettings, swept: Sequence[str]) -> BenchmarkSettings:
    require_methods(settings.methods)
    require_fit_method(settings.fit_method, name="fit_method")
    require_exact_fit(settings.methods, settings.fit_method)
    for name, least in (("max_lre_prompts", 1), ("max_facts", 2), ("shots", 0), ("n_side_effects", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more")
    for rank in settings.ranks:
        if rank < 1:
            raise ValueError(f"rank is {rank}; it must be 1 or more")
    for name in ("subject_layer", "object_layer", "rank"):
        if values := getattr(settings, f"{name}s"):
            _require_distinct(name, values)
    if settings.select:
        if swept:
            raise ValueError(f"select chooses one of {', '.join(swept)}, so they cannot be swept over")
    else:
        missing = [name for name in ("subject_layer", "object_layer", "rank") if not getattr(settings, f"{name}s")]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given, or chosen on training facts with select")
        subject, object_ = settings.subject_layers[0], settings.object_layers[0]
        # Of layers that are counted from the same end, no model is needed to tell which is the higher one.
        if not swept and (subject < 0) == (object_ < 0) and object_ < subject:
            raise ValueError(
                f"object layer {object_} lies below subject layer {subject}; read the object at the same layer or "
                "a later one"
            )
        settings = replace(settings, betas=(DEFAULT_BETA,) if settings.betas is None else settings.betas)
    if settings.betas is not None:
        _require_distinct("beta", settings.betas)
        for beta in settings.betas:
            if not abs(beta) < float("inf"):
                raise ValueError(f"beta is {beta}; it must be a finite number")
    return settings


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


def _highest_layer(settings: BenchmarkSettings) -> int | None:
    """The highest layer asked for, where all count from the start, so that a model has at least one more."""
    layers = (*settings.subject_layers, *settings.object_layers)
    return max(layers) if layers and min(layers) >= 0 else None


def _require_compared(compare: Sequence[str], names: Sequence[str]) -> None:
    for name in compare:
        if name not in names:
            raise ValueError(f"compare: there is no method {name!r} in this run; there are {', '.join(names)}")


def _spelled_out(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """The values, counted first: a slip in a range would take all memory."""
    if isinstance(values, Sized) and len(values) > _MOST_VALUES:
        raise ValueError(f"{name}: {len(values):,} values were given, and at most {_MOST_VALUES:,} are allowed")
    return as_tuple(values, name)


def _several(one: int | None, several: tuple[int, ...]) -> tuple[int, ...]:
    return several or (() if one is None else (one,))


def _require_distinct(name: str, values: Sequence[Any]) -> None:
    if not values:
        raise ValueError(f"{name}: none were given; give at least one")
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{name}: {value!r} was given {count} times; give each once")


def _content(relation: Relation) -> Any:
    return {
        "name": relation.name,
        "facts": [[fact.subject, fact.object] for fact in relation.facts],
        "shot_facts": [[fact.subject, fact.object] for fact in relation.shot_facts],
        "templates": list(relation.templates),
        "zero_shot_templates": list(relation.zero_shot_templates),
    }
