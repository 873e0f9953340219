"""The paper's benchmark, end to end: LRCs and baselines on the same prompts (arXiv:2311.08968, section 4)."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.markup import escape

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.experiments.backgrounds import Backgrounds
from lrc_tl.experiments.one_relation import benchmark_relation
from lrc_tl.experiments.plan import ProtocolPlan, plan_protocol, record_name
from lrc_tl.experiments.record import Record
from lrc_tl.experiments.result import ProtocolResult
from lrc_tl.experiments.settings import DEFAULT_SEEDS, TABLE_METHODS, ExperimentSettings
from lrc_tl.markup.printable import printable
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.methods.method import METHODS
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.weights import require_fittable
from lrc_tl.relations.relation import Relation


@numbers_checked
def run_protocol(
    model: HookedModel,
    relations: Sequence[Relation] | Mapping[str, Relation],
    *,
    settings: ExperimentSettings,
    methods: Sequence[str] = TABLE_METHODS,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    out: str | Path | None = None,
    resume: bool = False,
    compare: Sequence[str] = (),
    others: Sequence[Relation] | None = None,
    progress: bool = True,
) -> ProtocolResult:
    """Accuracy and causality of each method, for each relation and seed (arXiv:2311.08968, section 4 and table 5).

    For each relation and seed the facts are split in two, stratified by object. Directions come from the training
    facts' few-shot prompts that the model answers correctly, one prompt per fact with a template drawn by the
    seed, as in the paper; accuracy and causality from the test facts' zero-shot prompts that it answers correctly.
    A test fact is asked with every zero-shot template, is known when one of them is answered, and counts once,
    with one of its known prompts drawn by the seed. Method `lrc` reads the mean over the object's tokens at the
    object layer, `lrc-final` its first token at the final layer, `lrc-map` the mean at the final layer; the others
    are `baseline_concepts`. The covariance of subjects for `lrc-map` comes from the built-in relations, without
    the test subjects of each relation and seed. All methods share prompts, activations and edits. One-to-one
    relations and relations with fewer than five known test facts are left out and listed, as is every other
    relation that cannot be evaluated, with the reason.

    Args:
        relations: one for each name.
        settings: layers, rank, betas and all else that a relation's result depends on; `ExperimentSettings` says
            what each is. Layers and rank must be given there, or `select=True`.
        methods: names of `lrc_tl.methods.METHODS`.
        out: folder in which each relation's result is kept as it finishes; `ProtocolResult.load` reads it. A
            folder that holds results already is refused unless `resume` is given.
        resume: take results from `out` that an earlier run left there, if it ran with the same settings on the
            same model in the same precision. What was run differently, on another device, say, is warned about.
        compare: methods that the result's tables compare with all others; by default the first.
        others: relations whose statements show the side effects; the built-in ones by default, so that a
            relation's result does not depend on which others are run.

    Raises:
        ValueError: an unknown method, bad or missing settings, or no relation that can be evaluated.
        ResumeError: `out` holds results and `resume` is not given, or a stored result is damaged or of another
            model, schema, settings or relation.
    """
    plan = plan_protocol(
        relations,
        methods=methods,
        seeds=seeds,
        settings=settings,
        out=out,
        resume=resume,
        compare=compare,
        others=others,
    )
    return run_plan(model, plan, progress=progress)


def run_plan(model: HookedModel, plan: ProtocolPlan, *, progress: bool = True) -> ProtocolResult:
    """What `run_protocol` gives, for options that were checked before the model was loaded."""
    settings = plan.on(model)
    if not all(METHODS[name].is_baseline for name in plan.methods):
        require_fittable(model)
    stored = plan.stored_records(model, settings)
    records: list[Record] = []
    backgrounds = Backgrounds()
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
                record = benchmark_relation(
                    model,
                    relation,
                    seed,
                    plan.methods,
                    settings,
                    others=plan.others,
                    backgrounds=backgrounds,
                )
                if stored:
                    seconds = time.perf_counter() - started
                    content = plan.content(relation)
                    stored.write(record_name(relation, seed), record, content=content, seconds=seconds)
            records.append(record)
            bar.advance()
    names = plan.method_names(settings, int(model.cfg.n_layers))
    result = ProtocolResult(records=tuple(records), methods=names, compared=plan.compared)
    result.require_nonempty()
    return result
