"""The tests with every dependency at its declared floor, or with the newest of everything.

    python3 benchmarks/versions.py floors [--folder DIR] [pytest options]
    python3 benchmarks/versions.py newest [--folder DIR] [pytest options]

Makes an environment of its own, installs the torch of `constraints.txt` first (its floor would come with gigabytes
of another device's libraries), then the package's dependencies: at the floors in `pyproject.toml`, or the newest
that they allow. Runs the fast tests there. Needs nothing but Python's standard library.
"""

import argparse
import re
import subprocess
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("local", "plots", "notebook", "erasure")
TESTERS = ("pytest", "pytest-xdist", "hypothesis")
NOT_AT_FLOOR = ("torch", "jupyter")
FAST = "not real_model and not notebook and not slow"


def requirements() -> list[str]:
    """What the package and its extras declare, and what the tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]
    testers = [each for each in extras["dev"] if re.match(r"[\w-]+", each).group() in TESTERS]  # type: ignore[union-attr]
    return [each for each in (*declared, *testers) if not each.startswith("jupyter")]


def floors(declared: list[str]) -> list[str]:
    """`name==floor` of every requirement that has one."""
    pairs = [re.match(r"([\w-]+)>=([\w.]+)", each) for each in declared]
    return [f"{pair[1]}=={pair[2]}" for pair in pairs if pair is not None and pair[1] not in NOT_AT_FLOOR]


def main() -> None:
    """Make the environment, install and test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=("floors", "newest"))
    parser.add_argument("--folder", type=Path, help="of the environment; by default .venv-WHICH")
    given, options = parser.parse_known_args()
    folder = given.folder or ROOT / f".venv-{given.which}"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    constraints = ROOT / "constraints.txt"
    subprocess.run([*install, "--constraint", str(constraints), "torch"], check=True)
    declared = requirements()
    at_floor = folder / "floors.txt"
    at_floor.write_text("\n".join(floors(declared)) + "\n", encoding="utf-8")
    limits = ["--constraint", str(at_floor)] if given.which == "floors" else ["--upgrade"]
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    subprocess.run([*install, *limits, torch, *declared], check=True)
    subprocess.run([*install, "--no-deps", "--editable", str(ROOT)], check=True)
    tests = options or ["-n", "auto", "--dist", "worksteal", "-m", FAST]
    raise SystemExit(subprocess.run([str(python), "-m", "pytest", *tests], cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
