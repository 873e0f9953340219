"""How long a large sweep takes to open, to choose from and to compare in: a million made-up rows.

    python benchmarks/sweep_rows.py [--rows 1000000] [--json FILE]

Records are made up with random outcomes and written as a sweep writes them. Each step is then run in a process of
its own, which reports its seconds and the most memory that it held.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = {
    "open": "result = lrc.SweepResult.load(folder)",
    "best": 'result.best("accuracy"); result.best("causality", within=())',
    "compare": 'best = result.best("causality"); result.compare(best.iloc[0], best.iloc[1], metric="causality")',
    "plot": "result.plot(); result.plot(kind='layers')",
}


def make(folder: Path, n_rows: int) -> int:
    """Writes a sweep with about so many rows; how many came out."""
    import lrc_tl as lrc
    from lrc_tl.experiments.record import AskedEdit, AskedPrompt
    from lrc_tl.experiments.sweep_cells import sweep_cells
    from lrc_tl.experiments.sweep_record import CellRecord, EditScores, ShotsRecord, SweepRecord
    from lrc_tl.experiments.sweep_rows import record_rows
    from lrc_tl.experiments.sweep_store import SweepStore

    draw = random.Random(0)
    settings = lrc.SweepSettings(
        methods=("lrc", "lrc-map", "svm"), subject_layers=range(8), object_layers=range(8, 12),
        ranks=(16, 32, 64, 128, 256), betas=(0.005, 0.02), places=("all", "from"), seeds=range(5),
        validation_edits=20, shots=(0, 4),
    )  # fmt: skip
    cells = sweep_cells(settings, 16)
    prompts = [AskedPrompt(f"s{n} is in", f"s{n}", f"o{n % 7}") for n in range(40)]
    edits = [AskedEdit(f"s{n}", f"o{n % 7}", f"o{(n + 1) % 7}") for n in range(30)]

    def bits(n: int) -> tuple[bool, ...]:
        return tuple(draw.random() < 0.5 for _ in range(n))

    def scores(n: int) -> tuple[EditScores, ...]:
        return tuple(
            EditScores(
                beta=beta, place=place, success=bits(n), hard_success=bits(n), edit_share=beta,
                kl_elsewhere=draw.random() if n == len(edits) else None,
            )
            for place in settings.places
            for beta in settings.betas
        )  # fmt: skip

    def places(n: int) -> dict[str, tuple[int, ...]]:
        return {
            reading: tuple(draw.randint(1, 7) for _ in range(n)) for reading in ("plain", "centred", "calibrated")
        }

    shots = [
        ShotsRecord(
            shots=number,
            n_known_train=30,
            edits=tuple(edits),
            validation_edits=tuple(edits[:20]),
            n_elsewhere=(16, 9),
        )
        for number in settings.shots
    ]
    model = {"name": "made-up", "n_layers": 16, "d_model": 256}
    store = SweepStore(folder=folder, settings=settings, model=model)
    n_written, relation = 0, 0
    with store.open():
        while n_written < n_rows:
            for seed in settings.seeds:
                record = SweepRecord(
                    relation=f"relation {relation}",
                    seed=seed,
                    n_facts=80,
                    test_prompts=tuple(prompts),
                    validation_prompts=tuple(prompts[:10]),
                    by_shots=tuple(shots),
                    cells=tuple(
                        CellRecord(
                            cell=cell, n_lre_prompts=cell.n_lre_prompts, places=places(40),
                            validation_places=places(10), edits=scores(30), validation_edits=scores(20),
                        )
                        for cell in cells
                    ),
                    seconds={"fit": 1.0},
                )  # fmt: skip
                n_written += sum(1 for _ in record_rows(record))
                store.write(record, content="", seconds=1.0)
            relation += 1
        store.write_head([f"relation {number}" for number in range(relation)], asked={})
    return n_written


def run(folder: Path, steps: list[str]) -> dict[str, float]:
    """Seconds and memory of the steps in a fresh process, the last one timed."""
    script = "\n".join(
        [
            "import json, sys, time",
            "from pathlib import Path",
            "import lrc_tl as lrc",
            "from lrc_tl.storage.json_results import peak_rss_bytes",
            "lrc.SweepResult; before = peak_rss_bytes()",
            "folder = Path(sys.argv[1])",
            *[STEPS[step] for step in steps[:-1]],
            "started = time.perf_counter(); cpu = time.process_time()",
            STEPS[steps[-1]],
            "seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu",
            "print(json.dumps({'seconds': seconds, 'cpu_seconds': cpu_seconds,",
            "    'peak_rss_bytes': peak_rss_bytes(), 'imported_rss_bytes': before, 'rows': len(result.rows)}))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Makes the sweep, times the steps, prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sweep"
        started = time.perf_counter()
        n_rows = make(folder, options.rows)
        made = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        steps = {
            "open": ["open"],
            "best": ["open", "best"],
            "compare": ["open", "compare"],
            "plot": ["open", "plot"],
        }
        figures = {name: run(folder, of_step) for name, of_step in steps.items()}
    result = {
        "rows": n_rows, "bytes_on_disk": size, "seconds_made": made, "steps": figures,
        "python": platform.python_version(), "processor": platform.machine(),
    }  # fmt: skip
    for name, step in figures.items():
        memory = step["peak_rss_bytes"] / 2**20
        print(f"{name:8} {step['seconds']:.2f} s ({step['cpu_seconds']:.2f} CPU), {memory:.0f} MiB")
    print(f"{n_rows:,} rows, {size / 2**20:.0f} MiB on disk")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
