"""Whether a device gives the figures of the CPU, and how fast: one command, below eight minutes on one GPU.

    make gpu-check                                            # on the first GPU
    .venv/bin/python benchmarks/gpu_check.py --device cpu     # the same on a small model
    .venv/bin/python benchmarks/gpu_check.py --no-timings     # only the comparisons

Compares fits, grids, low-rank fits, directions, subject statistics and steered generation on the device, in each
dtype, and a sweep by two processes, with the CPU's float32 figures on a random Llama-shaped model
(`--check-d-model`). Then times all but the sweep on a larger one (`--d-model`, `--layers`) beside plain autograd
and TransformerLens's `JacobianLens.fit`, and says which share of the measured matrix-product rate a fit reaches.
Writes one JSON. The exit code is 1 where a figure is out of bounds or an operation failed.
"""

import argparse
import json
import tempfile
import time
import traceback
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu.comparisons import Layers, differences, figures
from gpu.models import Shape, bridge_of, random_llama
from gpu.sweeps import two_processes
from gpu.timings import profile_of_a_fit, timings


def arguments() -> argparse.Namespace:
    """The command line, with the sizes that suit the device where none are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--d-model", type=int, help="width of the timed model; 4096 on a GPU, 256 on the CPU")
    parser.add_argument("--layers", type=int, help="layers of the timed model; 8 on a GPU, 4 on the CPU")
    parser.add_argument("--check-d-model", type=int, help="width of the compared model; 1024, or 128 on the CPU")
    parser.add_argument("--check-layers", type=int, default=8)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--prompts", type=int, default=2, help="that a timed fit takes")
    parser.add_argument("--seconds", type=float, default=420, help="no timing is begun after this many")
    parser.add_argument("--no-timings", action="store_true", help="only compare")
    parser.add_argument("--profile", action="store_true", help="also print where the time of an exact fit goes")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    given = parser.parse_args()
    on_cpu = torch.device(given.device).type == "cpu"
    given.d_model = given.d_model or (256 if on_cpu else 4096)
    given.layers = given.layers or (4 if on_cpu else 8)
    given.check_d_model = given.check_d_model or (128 if on_cpu else 1024)
    return given


def compared(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The device's figures in each dtype beside the CPU's in float32."""
    layers = Layers.of(given.check_layers)
    weights = random_llama(Shape(d_model=given.check_d_model, n_layers=given.check_layers), device="cpu")
    reference = bridge_of(deepcopy(weights), folder / "cpu", device="cpu", dtype=torch.float32)
    started = time.perf_counter()
    expected = figures(reference, layers)
    print(f"CPU: {time.perf_counter() - started:.1f} s", flush=True)
    rows = []
    for dtype in given.dtypes:
        model = bridge_of(deepcopy(weights), folder / dtype, device=given.device, dtype=getattr(torch, dtype))
        started = time.perf_counter()
        try:
            found = differences(figures(model, layers), expected, dtype=dtype)
        except Exception as error:
            traceback.print_exc()
            rows.append({"dtype": dtype, "name": "all", "value": None, "passed": False, "error": str(error)})
            print(f"{dtype:9} FAILED: {error}", flush=True)
            continue
        print(f"{given.device} {dtype}: {time.perf_counter() - started:.1f} s", flush=True)
        for one in found:
            row = {"dtype": dtype, "name": one.name, "value": one.value, "tolerance": one.tolerance}
            rows.append({**row, "passed": one.passed})
            verdict = "ok" if one.passed else "OUT OF BOUNDS"
            print(f"{dtype:9} {one.name:46} {one.value:9.2e} (allowed {one.tolerance:g}) {verdict}", flush=True)
    return [*rows, swept(given, folder)]


def swept(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A sweep by two processes on the device, beside one process on the CPU."""
    started = time.perf_counter()
    row: dict[str, Any] = {"dtype": "float32", "name": "sweep by two processes"}
    try:
        shape = Shape(d_model=given.check_d_model, n_layers=given.check_layers)
        one, about = two_processes(shape, folder, device=given.device)
    except Exception as error:
        traceback.print_exc()
        return {**row, "value": None, "passed": False, "error": str(error)}
    verdict = "ok" if one.passed else "OUT OF BOUNDS"
    taken = time.perf_counter() - started
    print(
        f"float32   {one.name:46} {one.value:9.2e} (allowed {one.tolerance:g}) {verdict}, {taken:.1f} s",
        flush=True,
    )
    return {**row, "value": one.value, "tolerance": one.tolerance, "passed": one.passed, **about}


def timed(given: argparse.Namespace, folder: Path, started: float) -> list[dict[str, Any]]:
    """Seconds of each operation in each dtype."""
    shape = Shape(d_model=given.d_model, n_layers=given.layers)
    rows = []
    for dtype in given.dtypes:
        wanted = getattr(torch, dtype)
        weights = random_llama(shape, device=given.device, dtype=wanted)
        model = bridge_of(weights, folder / f"timed-{dtype}", device=given.device, dtype=wanted)
        for row in timings(model, shape, device=given.device, dtype=wanted, n_prompts=given.prompts):
            rows.append({"dtype": dtype, **row})
            print(f"{dtype:9} " + "  ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
            if time.perf_counter() - started > given.seconds:
                rows.append({"dtype": dtype, "operation": "left out", "reason": f"after {given.seconds:g} s"})
                print("the time is up; what follows is left out", flush=True)
                return rows
        if given.profile:
            print(profile_of_a_fit(model, given.prompts), flush=True)
        del model, weights
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return rows


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Compare, time, print and write."""
    given = arguments()
    started = time.perf_counter()
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    versions = {package: version(package) for package in ("torch", "transformers", "transformer-lens")}
    print(name, versions, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {
            "schema": {"name": "lrc_tl.gpu_check", "version": 1},
            "device": name,
            "versions": versions,
            "settings": {**vars(given), "out": given.out.name, "threads": torch.get_num_threads()},
        }
        comparisons = compared(given, Path(folder))
        write(given.out, result | {"compared": comparisons})  # should what follows be cut off
        times = [] if given.no_timings else timed(given, Path(folder), started)
    passed = all(row["passed"] for row in comparisons) and not any("error" in row for row in times)
    taken = time.perf_counter() - started
    write(given.out, result | {"compared": comparisons, "timed": times, "passed": passed, "seconds": taken})
    print(f"{'all within bounds' if passed else 'FAILED, see above'}; {given.out}, {taken:.0f} s")
    return 0 if passed else 1


def write(path: Path, result: dict[str, Any]) -> None:
    """Plain JSON; the package itself need not be installed for it."""
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
