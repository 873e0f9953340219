"""Which checks hold for which family of models, on which class and version: the table of `tests/zoo`, as it ran.

    .venv/bin/python benchmarks/families.py [--python .venv-bridge/bin/python] [--tables]

Runs `tests/zoo` with each interpreter and writes `results/families.json`, the section "Families" of
`results/robustness.md` and the page `docs/families.md`; with `--tables` from the results that are there.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as Xml
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
CHECKS = {
    "residuals": ("test_the_residual_behind", "test_a_row_in_a_batch"),
    "positions": ("test_tokens_are_those",),
    "Jacobian": ("test_the_jacobian_is",),
    "low rank": ("test_a_low_rank_fit",),
    "steering": ("test_steered_text", "test_texts_of_other", "test_a_generation_whose"),
    "kept and known": ("test_directions_are_fitted", "test_a_model_is_known", "test_both_classes"),
}
"""Columns of the table, with the beginnings of the tests that they stand for."""
PACKAGES = ("transformer-lens", "transformers", "torch")
VERSIONS = f"from importlib.metadata import version; print(*map(version, {PACKAGES!r}))"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"


def outcomes(python: str) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Versions of an environment, and (test, family and class, outcome) of each test that ran in it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    told = subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout.split()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", "tests/zoo", f"--junitxml={report}", "-p", "no:cacheprovider"]
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
        cases = list(Xml.parse(report).getroot().iter("testcase"))
    rows = []
    for case in cases:
        match = re.match(r"(\w+)\[(.+?, (?:Bridge|HookedTransformer))", case.attrib["name"])
        if match is None or case.find("skipped") is not None:
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        rows.append((match.group(1), match.group(2), "fails" if failed else "holds"))
    return dict(zip(PACKAGES, told, strict=True)), rows


def table(runs: list[dict[str, object]]) -> str:
    """The Markdown table: a row per family and class, a column per check and version."""
    lines = [
        "| family and class | TransformerLens | " + " | ".join(CHECKS) + " |",
        "|---" * (2 + len(CHECKS)) + "|",
    ]
    for run in runs:
        for case, held in run["cases"].items():  # type: ignore[attr-defined]
            shown = [held.get(check, "") for check in CHECKS]
            lens = run["versions"]["transformer-lens"]  # type: ignore[index]
            lines.append(f"| {case} | {lens} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], help="of another environment")
    parser.add_argument("--tables", action="store_true", help="write them again from the results")
    given = parser.parse_args()
    results = RESULTS / "families.json"
    if given.tables:
        write(json.loads(results.read_text())["runs"])
        return
    runs: list[dict[str, object]] = []
    for python in [sys.executable, *given.python]:
        versions, rows = outcomes(python)
        cases: dict[str, dict[str, str]] = defaultdict(dict)
        for test, case, outcome in rows:
            for check, beginnings in CHECKS.items():
                if test.startswith(beginnings) and cases[case].get(check) != "fails":
                    cases[case][check] = outcome
        n_failed = sum(outcome == "fails" for *_, outcome in rows)
        runs.append({"versions": versions, "n_tests": len(rows), "n_failed": n_failed, "cases": dict(cases)})
    results.write_text(json.dumps({"command": "benchmarks/families.py", "runs": runs}, indent=1) + "\n")
    write(runs)


def write(runs: list[dict[str, object]]) -> None:
    """The section and the page."""
    text = "\n\n".join([BEGIN, "## Families", _intro(runs), table(runs), END])
    path = RESULTS / "robustness.md"
    before = path.read_text(encoding="utf-8") if path.exists() else "# What holds\n"
    if BEGIN in before:
        after = before[: before.index(BEGIN)] + text + before[before.index(END) + len(END) :]
    else:
        after = before.rstrip() + "\n\n" + text + "\n"
    path.write_text(after, encoding="utf-8")
    (ROOT / "docs" / "families.md").write_text(page(runs), encoding="utf-8")
    print(text)


def page(runs: list[dict[str, object]]) -> str:
    """The page of the documentation: a row per family, a column per class and version."""
    sys.path.insert(0, str(ROOT / "tests" / "zoo"))
    from zoo_families import FAMILIES

    columns = [
        (f"{kind} {run['versions']['transformer-lens']}", kind, run["cases"])  # type: ignore[index]
        for run in runs
        for kind in ("HookedTransformer", "Bridge")
        if any(case.endswith(kind) for case in run["cases"])  # type: ignore[attr-defined]
    ]
    lines = [
        f"| family | what is special | {' | '.join(name for name, _, _ in columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for family, told in FAMILIES.items():
        cells = [_cell(cases.get(f"{family}, {kind}")) for _, kind, cases in columns]
        lines.append(f"| {family} | {told.what} | {' | '.join(cells)} |")
    return "\n\n".join(["# Model families", _intro(runs), "\n".join(lines)]) + "\n"


def _cell(held: dict[str, str] | None) -> str:
    if held is None:
        return "refused"
    failing = [check for check, outcome in held.items() if outcome == "fails"]
    return f"fails: {', '.join(failing)}" if failing else "holds"


def _intro(runs: list[dict[str, object]]) -> str:
    counts = "; ".join(
        f"{run['n_tests']} checks on TransformerLens {run['versions']['transformer-lens']} and transformers "  # type: ignore[index]
        f"{run['versions']['transformers']}, {run['n_failed']} of which fail"  # type: ignore[index]
        for run in runs
    )
    return textwrap.fill(
        "Tiny random models of each architecture, loaded by `load_model` from a folder, as `tests/zoo` tries them "
        "(residuals against transformers, positions of tokens, Jacobians against finite differences and autograd, "
        f"low-rank fits, steering, files): {counts}. What is not there on a class is refused at load, by name; "
        "HookedTransformer takes some of these by the names that it lists, such as the packaged Gemma. Written by "
        "`benchmarks/families.py`.",
        width=119,
    )


if __name__ == "__main__":
    main()
