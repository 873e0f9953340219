"""The paper's benchmark, end to end: LRCs and baselines on the same prompts (arXiv:2311.08968, section 4)."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.markup import escape

from lrc_tl.arguments.no_booleans import no_booleans
from lrc_tl.experiments.one_relation import benchmark_relation
from lrc_tl.experiments.plan import N_SIDE_EFFECTS, ProtocolPlan, method_names, plan_protocol, record_name
from lrc_tl.experiments.presets import TABLE_METHODS
from lrc_tl.experiments.record import Record
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.lre.fit_settings import FitMethod
from lrc_tl.markup.printable import printable
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.loading import HookedModel
from lrc_tl.relations.relation import Relation


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
    n_side_effects: int = N_SIDE_EFFECTS,
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
        beta: factor of eq. 7; several give a causality curve, headed by the first. None: with `select` the one
            that it chooses, else `lrc_tl.directions.beta.DEFAULT_BETA`. The paper's is 0.1, which its presets
            have.
        max_lre_prompts: prompts for each LRE, balanced over objects; baselines use all known training prompts.
        max_facts: facts used of each relation, drawn with the seed: two of each object as far as they go, then
            evenly.
        out: folder in which each relation's result is kept as it finishes; `ProtocolResult.load` reads it. One
            that holds results already is refused unless `resume` is given.
        resume: take results from `out` that an earlier run left there, if it ran with the same settings on the
            same model in the same precision. What was run differently, on another device, say, is warned about.
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
        ResumeError: `out` holds results and `resume` is not given, or a stored result is damaged or of another
            model, schema, settings or relation.
    """
    return run_plan(
        model,
        plan_protocol(
            relations,
            methods=methods,
            subject_layer=subject_layer,
            object_layer=object_layer,
            rank=rank,
            beta=beta,
            seeds=seeds,
            max_lre_prompts=max_lre_prompts,
            max_facts=max_facts,
            shots=shots,
            out=out,
            resume=resume,
            select=select,
            subject_layers=subject_layers,
            object_layers=object_layers,
            ranks=ranks,
            single_layer=single_layer,
            random_model=random_model,
            n_side_effects=n_side_effects,
            fit_method=fit_method,
            split_seed=split_seed,
            others=others,
            compare=compare,
        ),
        progress=progress,
    )


def run_plan(model: HookedModel, plan: ProtocolPlan, *, progress: bool = True) -> ProtocolResult:
    """What `run_protocol` gives, for options that were checked before the model was loaded."""
    settings = plan.on(model)
    stored = plan.stored_records(model, settings)
    records: list[Record] = []
    jobs = [(relation, seed) for relation in plan.relations for seed in plan.seeds]
    with ExitStack() as stack:
        if stored:
            stack.enter_context(stored.open())
        finished = {
            (relation.name, seed): stored.read(record_name(relation, seed), content=plan.content(relation))
            for relation, seed in jobs
            if stored and plan.resume
        }
        bar = stack.enter_context(ProgressBar("benchmark", total=len(jobs), progress=progress))
        for relation, seed in jobs:
            bar.say(escape(printable(record_name(relation, seed))))
            record = finished.get((relation.name, seed))
            if record is None:
                started = time.perf_counter()
                record = benchmark_relation(model, relation, seed, settings, others=plan.others)
                if stored:
                    seconds = time.perf_counter() - started
                    content = plan.content(relation)
                    stored.write(record_name(relation, seed), record, content=content, seconds=seconds)
            records.append(record)
            bar.advance()
    names = method_names(settings, int(model.cfg.n_layers))
    result = ProtocolResult(records=tuple(records), methods=names, compare=plan.compare)
    result.require_some()
    return result
