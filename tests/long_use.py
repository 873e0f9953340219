"""The same work many times in one process, and what has grown: for the tests and for `benchmarks/long_use.py`."""

import gc
import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import torch

import lrc_tl as lrc


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was there after the first tenth of the work, and at its end."""

    n_generations: int
    n_fits: int
    tensors_before: int
    tensors_after: int
    files_before: int
    files_after: int
    traced_growth_bytes: int
    """Of what Python allocates."""
    resident_before: int
    resident_after: int


def open_files():
    """How many files this process has open; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0


def resident_bytes():
    """Of this process, now; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.is_file() else 0


def _alive():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def run_long_use(model, prompts, *, n_generations, n_fits, folder, layers=(0, 2), rank=3):
    """Steered generations, plain and by `lrc.generate`, and fits of every kind, with a file saved for each."""
    text = prompts[0].text
    options = {"subject_layer": layers[0], "object_layer": layers[1], "progress": False}
    lre = lrc.LinearRelationalEmbedding.fit(model, prompts, **options)
    direction = next(iter(lre.concepts(model, prompts, rank=rank).values()))
    operations = (
        direction.add(strength=0.1),
        direction.ablate(),
        direction.reflect(value="clean"),
        direction.clamp(value=1.0),
    )

    def generate(number):
        steering = operations[number % len(operations)]
        if number % 10 == 0:
            lrc.generate(model, text, steering=direction, strengths=[0.1], max_new_tokens=2)
            return
        with steering.on(model):
            model.generate(text, max_new_tokens=2, do_sample=False, verbose=False)

    def fit(number):
        solver = "exact" if number % 2 else lrc.LowRank(rank=rank)
        made = lrc.LinearRelationalEmbedding.fit(model, prompts, solver=solver, **options)
        path = folder / "concepts.safetensors"
        made.concepts(model, prompts, rank=rank).save(path)
        lrc.ConceptSet.load(path, model=model)
        path.unlink()

    def work(share, begin):
        for number in range(int(n_generations * begin), int(n_generations * share)):
            generate(number)
        for number in range(int(n_fits * begin), int(n_fits * share)):
            fit(number)

    work(0.2, 0.0)
    tensors, files, resident = _alive(), open_files(), resident_bytes()
    tracemalloc.start()
    started = tracemalloc.get_traced_memory()[0]
    work(1.0, 0.2)
    tensors_after = _alive()
    grown = tracemalloc.get_traced_memory()[0] - started
    tracemalloc.stop()
    return Measured(
        n_generations=n_generations, n_fits=n_fits, tensors_before=tensors, tensors_after=tensors_after,
        files_before=files, files_after=open_files(), traced_growth_bytes=grown, resident_before=resident,
        resident_after=resident_bytes(),
    )  # fmt: skip
