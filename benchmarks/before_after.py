"""Whether two checkouts of this library give the same results: small jobs in both, and one table of what differs.

    .venv/bin/python benchmarks/before_after.py OLD NEW [--jobs demo,benchmark,...] [--work FOLDER]

OLD and NEW are folders that hold `lrc_tl`. Each job runs in a process of its own with each of them, on the
packaged Gemma, and keeps its numbers, texts and tensors in `FOLDER/old` and `FOLDER/new`; a job that is there is
not run again. The job `loading` reads with NEW what OLD has saved, and goes on with a benchmark of OLD.
Counts, shares, predictions and texts must be the same, other numbers up to 1e-6 of the larger one; times are left
out. Exit code 1 where something differs. Where a name changes in NEW, the jobs below learn both.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "packaged:gemma-3-270m"
RELATIONS = "city_in_country,country_on_continent"
SUBJECT_LAYER, OBJECT_LAYER, RANK = 9, 13, 32
BETA = 0.01
TOLERANCE = 1e-6
TIMES = ("seconds", "peak_rss")
"""How the names of fields begin that say how fast it went, and how much memory it took."""
NOT_COMPARED = ("out", "resume", "checksum")
"""Fields that say where and how it was run; a checksum covers times too."""


def command(*arguments: str) -> None:
    """Run `lrc-tl`, which has stood in two places."""
    try:
        from lrc_tl.cli.main import main
    except ImportError:
        from lrc_tl.cli import main
    if code := main(list(arguments)):
        raise SystemExit(code)


def demo(out: Path) -> None:
    """The main job from end to end."""
    command("demo", "--json", str(out / "demo.json"))


def benchmark_arguments(out: Path) -> list[str]:
    """Two relations and one seed."""
    return [
        *("benchmark", "--model", MODEL, "--only", RELATIONS, "--methods", "lrc,lrc-combined,svm,mean"),
        *("--seeds", "42", "--max-facts", "24", "--max-lre-prompts", "3", "--beta", "0.005,0.05"),
        *("--subject-layer", str(SUBJECT_LAYER), "--object-layer", str(OBJECT_LAYER), "--rank", str(RANK)),
        *("--json", str(out / "benchmark.json")),
    ]


def benchmark(out: Path) -> None:
    """The paper's comparison, and its result as Python saves it."""
    import lrc_tl as lrc

    command(*benchmark_arguments(out))
    lrc.ProtocolResult.load(out / "benchmark.json.parts").save(out / "result.json")


def fits(out: Path) -> None:
    """An exact and a low-rank LRE, their concepts, a calibration, and what they do; all is saved too."""
    import lrc_tl as lrc

    model = lrc.load_model(MODEL)
    train, test = lrc.load_relation("city_in_country").split(seed=0)
    prompts = lrc.filter_known(model, train.prompts(shots=4, seed=0)).prompts
    unseen = lrc.filter_known(model, test.prompts()).prompts
    acts = lrc.subject_activations(model, unseen, layer=SUBJECT_LAYER)
    objects = [prompt.object for prompt in unseen]
    if hasattr(lrc, "LowRank"):
        low_rank: dict[str, Any] = {"solver": lrc.LowRank(rank=RANK)}
    else:
        low_rank = {"method": "low_rank", "rank": RANK}
    tensors, values = {"acts": acts}, {"known": [prompt.text for prompt in prompts], "objects": objects}
    for name, options in {"exact": {}, "low_rank": low_rank}.items():
        lre = lrc.LinearRelationalEmbedding.fit(
            model, prompts[:3], subject_layer=SUBJECT_LAYER, object_layer=OBJECT_LAYER, progress=False, **options
        )
        concepts = lre.concepts(model, prompts, rank=RANK)
        calibrated = concepts.calibrate(acts, objects, missing="skip")
        lre.save(out / f"{name}.safetensors")
        concepts.with_beta(BETA).save(out / f"{name}_concepts.safetensors")
        calibrated.save(out / f"{name}_calibrated.safetensors")
        tensors |= {f"{name}_{key}": value for key, value in described(lre, calibrated, acts).items()}
        evaluation = lrc.evaluate(model, concepts, unseen, beta=0.05)
        values[name] = {
            "predictions": [concepts.classify(model, prompt.text, subject=prompt.subject)[0] for prompt in unseen],
            "evaluation": {key: getattr(evaluation, key) for key in ("accuracy", "causality", "hard_success")},
        }
    np.savez(out / "tensors.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    (out / "values.json").write_text(json.dumps(values, ensure_ascii=False))


def described(lre: Any, concepts: Any, acts: Any) -> dict[str, Any]:
    """The tensors behind an LRE and a calibrated set, and what they make of activations."""
    import torch

    calibrated = next(direction for direction in concepts.values() if direction.threshold is not None)
    thresholds = [
        math.nan if direction.threshold is None else direction.threshold for direction in concepts.values()
    ]
    return {
        "weight": lre.weight,
        "bias": lre.bias,
        "predicted": lre.predict(acts),
        "vectors": concepts.vectors,
        "scores": concepts.scores(acts),
        "thresholds": torch.tensor(thresholds),
        "probabilities": concepts.probabilities(acts),
        "probability": calibrated.probability(acts),
    }


def steering(out: Path) -> None:
    """Texts under steering, by the library's generation and by the model's own."""
    import lrc_tl as lrc

    model: Any = lrc.load_model(MODEL)
    prompts = lrc.filter_known(model, lrc.load_relation("city_in_country").prompts(shots=2, seed=0)).prompts
    concepts = lrc.mean_concepts(model, prompts, layer=SUBJECT_LAYER)
    names = sorted(concepts)[:2]
    text, first = "My favourite city is", concepts[names[0]]
    (generated,) = lrc.generate(model, text, steering=first.add(strength=0.08), max_new_tokens=32)
    with first.steer(model, strength=0.08):
        steered = model.generate(text, max_new_tokens=32, do_sample=False, verbose=False)
    subject = prompts[0]
    with concepts.swap(
        model, remove=names[0], add=names[1], text=subject.text, subject=subject.subject, beta=0.05
    ):
        swapped = model.generate(subject.text, max_new_tokens=8, do_sample=False, verbose=False)
    values = {"names": names, "generated": generated.text, "steered": steered, "swapped": swapped}
    (out / "values.json").write_text(json.dumps(values, ensure_ascii=False))
    measured = {name: getattr(generated, name).numpy() for name in ("token_ids", "log_probs", "scores", "kl")}
    np.savez(out / "tensors.npz", **measured)


def loading(out: Path) -> None:
    """What the jobs before have saved in OLD, read, and an interrupted benchmark of OLD gone on with."""
    import torch

    import lrc_tl as lrc

    old = out.parent.parent / "old"
    model = lrc.load_model(MODEL)
    with np.load(old / "fits" / "tensors.npz") as stored:
        acts = torch.from_numpy(stored["acts"])
    tensors = {"acts": acts}
    for name in ("exact", "low_rank"):
        lre = lrc.LinearRelationalEmbedding.load(old / "fits" / f"{name}.safetensors", model=model)
        concepts = lrc.ConceptSet.load(old / "fits" / f"{name}_calibrated.safetensors", model=model)
        tensors |= {f"{name}_{key}": value for key, value in described(lre, concepts, acts).items()}
        assert lrc.ConceptSet.load(old / "fits" / f"{name}_concepts.safetensors", model=model).beta == BETA
    np.savez(out / "tensors.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    lrc.ProtocolResult.load(old / "benchmark" / "result.json").save(out / "result.json")
    folder = out / "benchmark.json.parts"
    shutil.copytree(old / "benchmark" / "benchmark.json.parts", folder)
    sorted(folder.glob("*.json"))[0].unlink()  # as if the run had been stopped after one of two relations
    command(*benchmark_arguments(out), "--resume")


JOBS = {job.__name__: job for job in (demo, benchmark, fits, steering, loading)}


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, float | str]]:
    """Each leaf with its relative difference (0 where equal), or with words where nothing can be measured."""
    name = where.rpartition(".")[2]
    if name.startswith(TIMES) or name in NOT_COMPARED:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            here = f"{where}.{key}" if where else str(key)
            if key in old and key in new:
                yield from differences(old[key], new[key], here)
            else:
                yield here, f"only in {'NEW' if key in new else 'OLD'}: {new.get(key, old.get(key))!r:.80}"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from differences(first, second, f"{where}[{place}]")
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        yield where, array_difference(old, new)
    elif isinstance(old, float) and isinstance(new, float) and math.isfinite(old) and math.isfinite(new):
        yield where, 0.0 if old == new else abs(old - new) / max(abs(old), abs(new))
    else:
        yield where, 0.0 if old == new or (old != old and new != new) else f"{old!r:.80} is now {new!r:.80}"


def array_difference(old: np.ndarray, new: np.ndarray) -> float | str:
    """The largest difference over the largest value; words where the arrays cannot be compared so."""
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        return f"{old.dtype}{old.shape} is now {new.dtype}{new.shape}"
    if np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
        return 0.0
    if old.dtype.kind != "f" or not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return "other whole numbers, or others that are not finite"
    finite = np.isfinite(old)
    largest = np.abs(old[finite]).max(initial=0.0)
    return float(np.abs(old - new)[finite].max(initial=0.0) / largest) if largest else "zeros are now others"


def kept(folder: Path) -> dict[str, Any]:
    """The numbers of one job: its JSON files and its tensors, by file."""
    contents: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.json")):
        contents[str(path.relative_to(folder))] = json.loads(path.read_text())
    if (folder / "tensors.npz").exists():
        with np.load(folder / "tensors.npz") as tensors:
            contents["tensors.npz"] = dict(tensors)
    return contents


def run(job: str, checkout: Path, out: Path) -> None:
    """One job in a process of its own, with the library of one checkout; its folder appears when it is done."""
    if out.exists():
        return
    unfinished = out.parent / f"{job}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    folders = [str(checkout), str(checkout)]
    arguments = [sys.executable, __file__, *folders, "--jobs", job, "--inside", str(unfinished)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)
    unfinished.rename(out)


def expected(work: Path, job: str) -> dict[str, Any]:
    """What the job must give in NEW: what it gave in OLD; for `loading` what was saved there."""
    if job != "loading":
        return kept(work / "old" / job)
    tensors = kept(work / "old" / "fits")["tensors.npz"]
    return {**kept(work / "old" / "benchmark"), "tensors.npz": tensors}


def main() -> int:
    """Run, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--work", type=Path, help="keeps what the jobs gave; a new temporary folder by default")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        import lrc_tl

        assert Path(lrc_tl.__file__).is_relative_to(given.old.resolve()), lrc_tl.__file__
        JOBS[given.jobs](given.inside)
        return 0
    work = (given.work or Path(tempfile.mkdtemp(prefix="before_after_"))).resolve()
    failed = False
    print("| job | file | values | equal | largest relative difference | verdict |\n|---|---|---|---|---|---|")
    for job in given.jobs.split(","):
        if job != "loading":
            run(job, given.old.resolve(), work / "old" / job)
        run(job, given.new.resolve(), work / "new" / job)
        old, new = expected(work, job), kept(work / "new" / job)
        for name in {**old, **new}:
            rows = list(differences(old.get(name), new.get(name)))
            numbers = [difference for _, difference in rows if isinstance(difference, float)]
            wrong = [(where, by) for where, by in rows if isinstance(by, str) or not by <= TOLERANCE]
            failed = failed or bool(wrong)
            print(
                f"| {job} | {name} | {len(rows)} | {numbers.count(0.0)} | {max(numbers, default=0.0):.1e} "
                f"| {'different' if wrong else 'equal'} |",
                flush=True,
            )
            for where, by in wrong:
                print(f"    {job} {name} {where}: {by}", file=sys.stderr, flush=True)
    print(f"kept in {work}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
