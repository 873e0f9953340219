"""Sweeps: every method at every setting, for each relation and seed, with all that cells share computed once."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.experiments.sweep_plan import plan_of, remaining
from lrc_tl.experiments.sweep_record import SweepRecord
from lrc_tl.experiments.sweep_request import SweepRequest, UnitPlan, sweep_request
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_store import SweepStore, cells_of
from lrc_tl.experiments.sweep_workers import UnitJob, Workers, require_one_place, workers_for
from lrc_tl.markup.printable import printable
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.relation import Relation

OnRecord = Callable[[SweepRecord], Any]


@numbers_checked
def run_sweep(
    model: HookedModel | str | Path,
    relations: Relation | Sequence[Relation] | Mapping[str, Relation],
    *,
    settings: SweepSettings,
    out: str | Path | None = None,
    resume: bool = False,
    executor: Executor | None = None,
    workers: int | None = None,
    devices: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    shard: tuple[int, int] | str | None = None,
    others: Sequence[Relation] | None = None,
    on_record: OnRecord | None = None,
    progress: bool = True,
) -> SweepResult:
    """Every cell of a sweep, for each relation and seed: accuracy by each reading, causality and its side effects.

    A unit is one relation and seed. Inside, all cells share the known prompts, the activations, the passes of the
    Jacobians of all layers, one decomposition of each W for all ranks, and the batches of edits of all methods and
    betas; the steps are those of `run_protocol`, which measures one cell of each method. Facts are
    split as there; with `settings.validation` some training facts are held out of all directions, and
    `SweepResult.best` chooses on them.

    Args:
        model: a model, or the name or folder from which `load_model` loads it. Other processes need a name.
        settings: the axes, and all else that results depend on.
        out: folder in which each unit is kept as it finishes: rows as Parquet, outcomes of facts as JSON.
        resume: go on from what `out` holds, if it was made with the same settings on the same model. Axes may
            have grown: only cells, relations and seeds that are new are run.
        executor: any `concurrent.futures.Executor`, such as Dask's `client.get_executor()`; by default units run
            one after another in this process.
        workers: so many processes in place of an executor, with this process's threads divided among them.
        devices: one process for each, as `["cuda:0", "cuda:1"]`.
        device, dtype: for a model that is given by name.
        shard: `(i, n)` or `"i/n"`: of n shards the units of this one; `merge_sweeps` joins their folders.
        others: relations whose statements show the side effects; the built-in ones by default.
        on_record: is called with each unit's record as it finishes, in this process.

    Results do not depend on the executor, or the order and number of workers. The number of threads of a process
    changes the last bits of sums. Measured on a random float32 model of width 384, two threads against one: no
    share of facts or edits changed, `edit_share` by at most 3e-7 and KL by at most 7e-5 of its value.

    Raises:
        ValueError: bad or missing settings, a layer outside the model, a model object for other processes, a shard
            that is none, or no relation that can be evaluated.
        ResumeError: `out` holds results and `resume` is not given, or they are of another sweep.
        OutOfMemoryError: a unit takes more memory than is free here (`SweepPlan.require_memory`), which is seen
            before anything runs; an executor and several devices are not asked.
        RuntimeError: another run writes to `out`, or a worker was killed.
        OSError: `out` cannot be written to, or no space is left.
    """
    require_one_place(model, executor=executor, workers=workers, devices=devices)
    request = sweep_request(relations, settings=settings, out=out, resume=resume, shard=shard, others=others)
    if executor is None and devices is None:
        place = device if isinstance(model, (str, Path)) else model.cfg.device
        plan_of(model, request).require_memory(place, n_at_once=workers or 1)
    with (
        ExitStack() as stack,
        workers_for(
            model, executor=executor, workers=workers, devices=devices, device=device, dtype=dtype
        ) as running,
    ):
        return _run(running, request, stack, asked=request.asked(model), on_record=on_record, progress=progress)


def _run(
    workers: Workers,
    request: SweepRequest,
    stack: ExitStack,
    *,
    asked: Mapping[str, Any],
    on_record: OnRecord | None,
    progress: bool,
) -> SweepResult:
    facts = workers.facts()
    settings = request.settings_on(n_layers=facts.n_layers, d_model=facts.d_model)
    contents = request.contents()
    units = request.units(settings, n_layers=facts.n_layers)
    store, records = None, []
    if request.out is not None:
        store = SweepStore(folder=request.out, settings=settings, model=facts.fingerprint)
        stack.enter_context(store.open())
        stored = store.units(contents)
        records = [unit.record for unit in stored]
        units = remaining(units, cells_of(stored))
        store.write_head(list(contents), asked=asked)
    bar = stack.enter_context(ProgressBar("sweep", total=len(units), progress=progress))
    for finished in workers.run([_job(unit, settings, request.others) for unit in units]):
        record = finished.record
        if store is not None:
            store.write(record, content=contents[record.relation], seconds=finished.seconds)
        records.append(record)
        bar.say(escape(printable(f"{record.relation} seed {record.seed}")))
        bar.advance()
        if on_record is not None:
            on_record(record)
    if request.out is not None:
        return SweepResult.load(request.out)
    return SweepResult.of(records, settings=settings, model=facts.fingerprint)


def _job(unit: UnitPlan, settings: SweepSettings, others: tuple[Relation, ...]) -> UnitJob:
    return UnitJob(relation=unit.relation, seed=unit.seed, cells=unit.cells, settings=settings, others=others)
