"""The paper's benchmark, end to end: LRCs and baselines on the same prompts (arXiv:2311.08968, section 4)."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.jacobian import check_layers
from lrc_tl.low_rank_fit import FitMethod, require_fit_method
from lrc_tl.method_variants import require_exact_fit, require_methods
from lrc_tl.models import HookedModel, layer_number
from lrc_tl.no_booleans import no_booleans
from lrc_tl.presets import TABLE_METHODS
from lrc_tl.protocol_result import ProtocolResult
from lrc_tl.relation_benchmark import BenchmarkSettings, benchmark_relation
from lrc_tl.relation_files import built_in_relations, load_relation
from lrc_tl.relations import Relation
from lrc_tl.result_parts import ResultParts


@no_booleans
def run_protocol(
    model: HookedModel,
    relations: Sequence[Relation] | Mapping[str, Relation],
    *,
    methods: Sequence[str] = TABLE_METHODS,
    subject_layer: int | None = None,
    object_layer: int | None = None,
    rank: int | None = None,
    beta: float | Sequence[float] | None = None,
    seeds: Sequence[int] = (42,),
    max_lre_prompts: int = 20,
    max_facts: int | None = None,
    shots: int = 4,
    out: str | Path | None = None,
    resume: bool = False,
    select: bool = False,
    subject_layers: Sequence[int] = (),
    object_layers: Sequence[int] = (),
    ranks: Sequence[int] = (),
    single_layer: bool = False,
    random_model: bool = False,
    n_side_effects: int = 16,
    fit_method: FitMethod = "exact",
    split_seed: int | None = None,
    others: Sequence[Relation] | None = None,
    compare: Sequence[str] = (),
    progress: bool = True,
) -> ProtocolResult:
    """Accuracy and causality of each method, for each relation and seed (arXiv:2311.08968, section 4 and table 5).

    For each relation and seed the facts are split in two, stratified by object. Directions come from the training
    facts' few-shot prompts that the model answers correctly, one prompt a fact with a template drawn by the seed,
    as in the paper; accuracy and causality from the test facts' zero-shot prompts that it answers correctly. A
    test fact is asked with every zero-shot template, is known when one of them is answered, and counts once, with
    one of its known prompts drawn by the seed. Method `lrc` reads the mean over the object's tokens at
    `object_layer`, `lrc-final` its first token at the final layer; the others are `baseline_concepts`. All methods
    share prompts, activations and edits. One-to-one relations and relations with fewer than five known test facts
    are left out and listed, as is every other relation that cannot be evaluated, with the reason.

    Args:
        relations: one for each name.
        beta: factor of eq. 7, 0.1 by default; several give a causality curve, headed by the first.
        max_lre_prompts: prompts for each LRE, balanced over objects; baselines use all known training prompts.
        max_facts: facts used of each relation, drawn with the seed: two of each object as far as they go, then
            evenly.
        out: folder in which each relation's result is kept as it finishes.
        resume: take results from `out` that an earlier run left there, if it ran with the same settings.
        select: choose layers, rank and beta by `select_settings` on each relation's training facts, among those
            given here where any are.
        subject_layers: in place of `subject_layer`, to sweep over: every method runs at each, as
            `method@subject=9`. Likewise `object_layers` and `ranks` for the methods that have them. All of a sweep
            shares prompts, activations, Jacobians and edits.
        single_layer: make the edits at the subject layer alone too.
        random_model: also make every method in the model with random weights of the same scale and read the same
            prompts with it, a control; about doubles the time of the fits.
        n_side_effects: (edit, statement) pairs for the side effects of each edit, of each kind: on statements of
            other relations, and on other known facts about the edited subject.
        fit_method: how LREs are fitted: `"exact"`, or `"low_rank"` in less time, for the largest of the ranks,
            with its fast setting (`LinearRelationalEmbedding.fit`; a sweep over layers is `fit_layer_grid`).
        split_seed: split each relation by this seed for all of `seeds`, which then draw facts, prompts and edits
            from the same two halves: methods that were chosen on the training half are judged on other facts.
        others: relations that give these statements; the built-in ones by default, so that a relation's result
            does not depend on which others are run.
        compare: methods that the result's tables compare with all others; by default the first.

    Raises:
        ValueError: an unknown method, bad or missing settings, or no relation that can be evaluated.
        ResumeError: a stored result is of another model, schema, settings or relation.
    """
    given = list(relations.values()) if isinstance(relations, Mapping) else list(relations)
    for name, one, several in (
        ("subject_layer", subject_layer, subject_layers),
        ("object_layer", object_layer, object_layers),
        ("rank", rank, ranks),
    ):
        if one is not None and several:
            raise ValueError(f"{name} and {name}s were both given; give one value or several to sweep over")
    settings = _checked(
        model,
        BenchmarkSettings(
            methods=tuple(methods),
            subject_layers=_several(subject_layer, subject_layers),
            object_layers=_several(object_layer, object_layers),
            ranks=_several(rank, ranks),
            betas=(
                None
                if beta is None
                else (float(beta),)
                if isinstance(beta, (int, float))
                else tuple(float(b) for b in beta)
            ),
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
        swept=[
            name
            for name, several in (
                ("subject_layers", subject_layers),
                ("object_layers", object_layers),
                ("ranks", ranks),
            )
            if several
        ],
    )
    names = settings.methods
    if not settings.select:
        names = tuple(variant.name for variant in settings.variants(int(model.cfg.n_layers)))
    for name in compare:
        if name not in names:
            raise ValueError(f"compare: there is no method {name!r} in this run; there are {', '.join(names)}")
    if others is None:
        others = [load_relation(name) for name in built_in_relations()]
    if not n_side_effects:
        others = []
    _check_distinct("seeds", seeds)
    _check_distinct("relations", [relation.name for relation in given])
    if resume and out is None:
        raise ValueError("resume needs out, the folder that holds the results of the earlier run")
    parts = (
        None
        if out is None
        else ResultParts(
            folder=Path(out),
            kind="benchmark_part",
            settings=asdict(settings),
            fingerprint=ModelFingerprint.of(model),
        )
    )
    beside = [_content(other) for other in others]

    def content(relation: Relation) -> Any:
        return {"relation": _content(relation), "others": beside}

    records = []
    jobs = [(relation, seed) for relation in given for seed in seeds]
    with ExitStack() as stack:
        if parts:
            stack.enter_context(parts.open())
        stored = {
            (relation.name, seed): parts.read(_part(relation, seed), content=content(relation))
            for relation, seed in jobs
            if parts and resume
        }
        bar = stack.enter_context(Progress(console=Console(stderr=True), disable=not progress))
        task = bar.add_task("benchmark", total=len(jobs))
        for relation, seed in jobs:
            bar.update(task, description=f"{relation.name}, seed {seed}")
            record = stored.get((relation.name, seed))
            if record is None:
                started = time.perf_counter()
                record = benchmark_relation(model, relation, seed, settings, others=others)
                if parts:
                    seconds = time.perf_counter() - started
                    parts.write(_part(relation, seed), record, content=content(relation), seconds=seconds)
            records.append(record)
            bar.advance(task)
    result = ProtocolResult(records=tuple(records), methods=names, compare=tuple(dict.fromkeys(compare)))
    result.require_some()
    return result


def _several(one: int | None, several: Sequence[int]) -> tuple[int, ...]:
    return tuple(several) if several else () if one is None else (one,)


def _checked(model: HookedModel, settings: BenchmarkSettings, *, swept: Sequence[str]) -> BenchmarkSettings:
    require_methods(settings.methods)
    require_fit_method(settings.fit_method, name="fit_method")
    require_exact_fit(settings.methods, settings.fit_method)
    for name, least in (("max_lre_prompts", 1), ("max_facts", 2), ("shots", 0), ("n_side_effects", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more")
    d_model = int(model.cfg.d_model)
    for rank in settings.ranks:
        if rank < 1:
            raise ValueError(f"rank is {rank}; it must be 1 or more")
        if rank > d_model:
            raise ValueError(f"rank is {rank}, but the model's residual stream has width {d_model}")
    subjects = tuple(layer_number(model, layer) for layer in settings.subject_layers)
    objects = tuple(layer_number(model, layer) for layer in settings.object_layers)
    for name, values in (("subject_layer", subjects), ("object_layer", objects), ("rank", settings.ranks)):
        if values:
            _check_distinct(name, values)
    settings = replace(settings, subject_layers=subjects, object_layers=objects)
    if settings.select:
        if swept:
            raise ValueError(f"select chooses one of {', '.join(swept)}, so they cannot be swept over")
    else:
        missing = [name for name in ("subject_layer", "object_layer", "rank") if not getattr(settings, f"{name}s")]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given, or chosen on training facts with select")
        if not swept:
            check_layers(model, subjects[0], objects[0])
        settings.variants(int(model.cfg.n_layers))
        settings = replace(settings, betas=(0.1,) if settings.betas is None else settings.betas)
    if settings.betas is not None:
        _check_distinct("beta", settings.betas)
        for beta in settings.betas:
            if not abs(beta) < float("inf"):
                raise ValueError(f"beta is {beta}; it must be a finite number")
    return settings


def _check_distinct(name: str, values: Sequence[Any]) -> None:
    if not values:
        raise ValueError(f"{name}: none were given; give at least one")
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{name}: {value!r} was given {count} times; give each once")


def _part(relation: Relation, seed: int) -> str:
    return f"{relation.name} seed {seed}"


def _content(relation: Relation) -> Any:
    return {
        "name": relation.name,
        "facts": [[fact.subject, fact.object] for fact in relation.facts],
        "shot_facts": [[fact.subject, fact.object] for fact in relation.shot_facts],
        "templates": list(relation.templates),
        "zero_shot_templates": list(relation.zero_shot_templates),
    }
