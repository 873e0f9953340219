"""Where a sweep's units run: in this process, in others, or wherever an executor takes them.

A unit travels as plain values with the name of its model; a worker loads the model once and keeps it. Its threads
are set before it does, since the number of threads changes the last bits of products.
"""

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lrc_tl.experiments.backgrounds import Backgrounds
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_record import SweepRecord
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_unit import run_unit
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.loading import load_model
from lrc_tl.relations.relation import Relation

Device = str | torch.device


@dataclass(frozen=True, kw_only=True)
class UnitJob:
    """One unit to run: some cells on one relation and seed."""

    relation: Relation
    seed: int
    cells: tuple[SweepCell, ...]
    settings: SweepSettings
    others: tuple[Relation, ...]


@dataclass(frozen=True, kw_only=True)
class FinishedUnit:
    """A unit's record and the seconds that it took."""

    job: UnitJob
    record: SweepRecord
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What a worker loads its model from."""

    name: str
    device: str
    dtype: str
    """As torch calls it, such as `"float32"`."""
    threads: int | None = None
    """Of each worker; None: as the worker has them."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the run needs to know of a model that it does not hold itself."""

    fingerprint: dict[str, Any]
    n_layers: int
    d_model: int

    @classmethod
    def of(cls, model: HookedModel) -> "ModelFacts":
        """Of a model that is there."""
        return cls(
            fingerprint=ModelFingerprint.of(model).to_dict(),
            n_layers=int(model.cfg.n_layers),
            d_model=int(model.cfg.d_model),
        )


class Workers:
    """Runs units on a model of this process."""

    def __init__(self, model: HookedModel) -> None:
        self._model, self._backgrounds = model, Backgrounds()

    def facts(self) -> ModelFacts:
        """Of the model."""
        return ModelFacts.of(self._model)

    def run(self, jobs: Sequence[UnitJob]) -> Iterator[FinishedUnit]:
        """The units as they finish, in no fixed order; what is not taken is not run."""
        for job in jobs:
            yield run_job(self._model, self._backgrounds, job)


class ExecutorWorkers(Workers):
    """Runs units wherever an executor does."""

    def __init__(self, executor: Executor, source: ModelSource) -> None:
        self._executor, self._source = executor, source

    def facts(self) -> ModelFacts:
        """Of the model, as a worker loads it."""
        with clear_when_killed():
            return self._executor.submit(_facts_there, self._source).result()

    def run(self, jobs: Sequence[UnitJob]) -> Iterator[FinishedUnit]:
        """The units as they finish; a failure stops those that have not begun."""
        futures: list[Future[FinishedUnit]] = [
            self._executor.submit(_run_there, self._source, job) for job in jobs
        ]
        try:
            with clear_when_killed():
                for future in as_completed(futures):
                    yield future.result()
        finally:
            for future in futures:
                future.cancel()


class ThreadWorkers(Workers):
    """Runs units on this process's model in the threads of an executor, one at a time: the model serves one."""

    def __init__(self, executor: Executor, model: HookedModel) -> None:
        super().__init__(model)
        self._executor, self._turn = executor, threading.Lock()

    def run(self, jobs: Sequence[UnitJob]) -> Iterator[FinishedUnit]:
        """The units as they finish."""
        futures = [self._executor.submit(self._in_turn, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def _in_turn(self, job: UnitJob) -> FinishedUnit:
        with self._turn:
            return run_job(self._model, self._backgrounds, job)


@contextmanager
def workers_for(
    model: HookedModel | str | Path,
    *,
    executor: Executor | None,
    workers: int | None,
    devices: Sequence[str] | None,
    device: Device,
    dtype: torch.dtype,
) -> Iterator[Workers]:
    """Where units run; processes that are started here end with the block.

    Raises:
        ValueError: several of executor, workers and devices, or a model object for other processes.
    """
    require_one_place(model, executor=executor, workers=workers, devices=devices)
    if not isinstance(model, (str, Path)):
        yield Workers(model) if executor is None else ThreadWorkers(executor, model)
        return
    kind = str(dtype).removeprefix("torch.")
    name = str(Path(model).resolve()) if Path(model).exists() else str(model)
    if executor is not None:
        yield ExecutorWorkers(executor, ModelSource(name=name, device=str(device), dtype=kind))
        return
    places = list(devices) if devices is not None else [str(device)] * (workers or 1)
    if len(places) == 1 and devices is None:
        yield Workers(load_model(model, device=device, dtype=dtype))
        return
    threads = max(1, torch.get_num_threads() // len(places))
    with process_pool(places, threads=threads) as pool:
        yield ExecutorWorkers(pool, ModelSource(name=name, device="", dtype=kind, threads=threads))


def require_one_place(
    model: HookedModel | str | Path,
    *,
    executor: Executor | None,
    workers: int | None,
    devices: Sequence[str] | None,
) -> None:
    """Refuse what cannot be where units run.

    Raises:
        TypeError: an executor that is none.
        ValueError: several of executor, workers and devices, or a model object for other processes.
    """
    given = {"executor": executor, "workers": workers, "devices": devices}
    if len(several := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(f"{' and '.join(several)} were given; each says where units run, so give one")
    if executor is not None and not isinstance(executor, Executor):
        what = "its get_executor()" if hasattr(executor, "get_executor") else "a concurrent.futures.Executor"
        raise TypeError(f"executor is of the type {type(executor).__name__}; give {what}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")
    if devices is not None and (not devices or isinstance(devices, str)):
        raise ValueError(f"devices is {devices!r}; give a list, such as ['cuda:0', 'cuda:1']")
    away = {
        "executor": executor is not None and not isinstance(executor, ThreadPoolExecutor),
        "workers": workers is not None and workers > 1,
        "devices": devices is not None,
    }
    if not isinstance(model, (str, Path)) and (names := [name for name, is_away in away.items() if is_away]):
        raise ValueError(
            f"{names[0]} runs units in other processes, and a model object cannot travel there; give the model's "
            "name or folder in its place, from which each worker loads its own"
        )


@contextmanager
def process_pool(devices: Sequence[str], *, threads: int) -> Iterator[ProcessPoolExecutor]:
    """One process for each device, which takes so many threads."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks that threads of torch hold
    queue = context.Queue()
    for device in devices:
        queue.put(device)
    pool = ProcessPoolExecutor(
        len(devices), mp_context=context, initializer=_begin_worker, initargs=(queue, threads)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


_own_device: str | None = None
_there: dict[ModelSource, tuple[HookedModel, Backgrounds]] = {}
"""Models that this worker has loaded, with the statistics of subjects on them."""
_turn = threading.Lock()


def _begin_worker(devices: Any, threads: int) -> None:
    global _own_device
    _own_device = devices.get()
    torch.set_num_threads(threads)


def _model_there(source: ModelSource) -> tuple[HookedModel, Backgrounds]:
    if source not in _there:
        if source.threads is not None:
            torch.set_num_threads(source.threads)
        dtype = getattr(torch, source.dtype)
        model = load_model(source.name, device=_own_device or source.device, dtype=dtype)
        _there.clear()  # one model at a time: two may not fit
        _there[source] = model, Backgrounds()
    return _there[source]


def _facts_there(source: ModelSource) -> ModelFacts:
    with _turn:
        model, _ = _model_there(source)
        return ModelFacts.of(model)


def _run_there(source: ModelSource, job: UnitJob) -> FinishedUnit:
    with _turn:
        model, backgrounds = _model_there(source)
        return run_job(model, backgrounds, job)


def run_job(model: HookedModel, backgrounds: Backgrounds, job: UnitJob) -> FinishedUnit:
    """One unit on a model of this process."""
    started = time.perf_counter()
    record = run_unit(
        model, job.relation, job.seed, job.cells, job.settings, others=job.others, backgrounds=backgrounds
    )
    return FinishedUnit(job=job, record=record, seconds=time.perf_counter() - started)


@contextmanager
def clear_when_killed() -> Iterator[None]:
    """Says in one line what to do where a worker process was killed."""
    try:
        yield
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed (often for want of memory); finished units are kept: run the same again "
            "to resume, with fewer workers if memory is short"
        ) from error
