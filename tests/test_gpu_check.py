"""`make gpu-check` on a small model on the CPU: it compares, times and writes what it says."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


def test_the_check_of_a_device_runs_whole_on_the_cpu_and_finds_it_equal_to_itself(tmp_path):
    out = tmp_path / "gpu.json"
    ran = subprocess.run(
        [
            sys.executable, SCRIPT, "--device", "cpu", "--d-model", "64", "--layers", "4", "--check-d-model", "64",
            "--check-layers", "4", "--prompts", "1", "--out", out,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(out.read_text())
    assert result["passed"]
    *rows, swept = result["compared"]
    assert swept["name"] == "sweep by two processes"
    assert swept["value"] == 0
    assert swept["rows"] > 0
    compared = {(row["dtype"], row["name"]): row["value"] for row in rows}
    names = {name for _, name in compared}
    assert len(names) == 12
    assert set(compared) == {(dtype, name) for dtype in ("float32", "bfloat16") for name in names}
    # The device is the CPU itself; bfloat16 has eight bits, and the figures of the model in it show that.
    assert max(value for (dtype, _), value in compared.items() if dtype == "float32") < 1e-9
    assert compared["bfloat16", "weight of an exact fit"] > 1e-4
    timed = {(row["dtype"], row["operation"]): row for row in result["timed"]}
    assert timed["float32", "our Jacobian and JacobianLens's, one position"]["relative_error"] < 1e-4
    fit = timed["float32", "exact fit, one pair"]
    assert fit["seconds"] > 0
    assert fit["share_of_rate"] > 0


def test_a_figure_that_is_out_of_bounds_fails():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from gpu.comparisons import differences
    finally:
        sys.path.remove(str(SCRIPT.parent))
    import torch

    expected = {"weight": torch.eye(3), "directions": torch.eye(3), "tokens": ([1, 2], [1, 2])}
    assert all(one.passed for one in differences(expected, expected, dtype="float32"))
    for name, wrong in (
        ("weight", 1.01 * torch.eye(3)),
        ("weight", float("nan") * torch.eye(3)),
        ("directions", torch.eye(3).roll(1, 0)),
        ("tokens", ([1, 2], [1, 3])),
    ):
        found = {one.name: one.passed for one in differences({**expected, name: wrong}, expected, dtype="float32")}
        assert found == {**dict.fromkeys(expected, True), name: False}
