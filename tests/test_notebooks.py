"""Every notebook runs from top to bottom, and is kept as a lesson: short cells, public names, checks, run time."""

import ast
import os
import re
from pathlib import Path

import pytest
from public_names import TOP, WINGS

import lrc_tl as lrc

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ON_EVERY_LENS = ("02_steer_a_generation", "05_contrast_pairs_and_chat")
"""Also run on TransformerLens 4.3."""
LONGEST_CELL = 22
MOST_SECONDS = 9 * 60
"""All together on two cores."""
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def stated_seconds(notebook):
    (seconds,) = re.findall(r"^Run time: about (\d+) seconds on two cores", notebook.cells[0].source, re.MULTILINE)
    return int(seconds)


def public_paths(code):
    """Every `lrc.a.b` in a cell, as ("a", "b")."""
    for node in ast.walk(ast.parse(code)):
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if names and isinstance(node, ast.Name) and node.id == "lrc":
            yield tuple(reversed(names))


@every_notebook
def test_a_notebook_is_stored_without_outputs(path):
    code = code_of(read(path))
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@every_notebook
def test_a_notebook_states_its_run_time_checks_itself_and_ends_with_something_to_change(path):
    notebook = read(path)
    title = notebook.cells[0].source
    assert title.startswith(f"# {int(path.stem[:2])}. ")
    assert 0 < stated_seconds(notebook) < 120
    assert notebook.cells[-1].cell_type == "markdown"
    assert notebook.cells[-1].source.startswith("## Now change something\n")
    checks = [node for cell in code_of(notebook) for node in ast.walk(ast.parse(cell.source))]
    assert sum(isinstance(node, ast.Assert) for node in checks) >= 4
    assert max(len(cell.source.splitlines()) for cell in code_of(notebook)) <= LONGEST_CELL


@every_notebook
def test_a_notebook_takes_only_public_names(path):
    for cell in code_of(read(path)):
        assert "lrc_tl." not in cell.source
        for names in public_paths(cell.source):
            assert names[0] in (*TOP, *WINGS), names
            if names[0] in WINGS and len(names) > 1:
                assert hasattr(getattr(lrc, names[0]), names[1]), names


def test_the_notebooks_are_seven_stand_in_the_readme_and_take_less_than_nine_minutes_together():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(1, 8)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"`notebooks/(\w+)\.ipynb`", readme) == [path.stem for path in NOTEBOOKS]
    assert set(ON_EVERY_LENS) <= {path.stem for path in NOTEBOOKS}
    assert sum(stated_seconds(read(path)) for path in NOTEBOOKS) < MOST_SECONDS


def test_links_between_notebooks_lead_somewhere():
    for path in NOTEBOOKS:
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\(([^)]+\.ipynb)\)", cell.source):
                    assert (path.parent / target).is_file(), (path.name, target)


@pytest.mark.notebook
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.smoke if path.stem in ON_EVERY_LENS else ()) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = read(path)
    client = nbclient.NotebookClient(
        notebook, timeout=900, startup_timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    if keep := os.environ.get("LRC_TL_KEEP_NOTEBOOKS"):  # to look at the outputs
        nbformat.write(notebook, Path(keep) / path.name)
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    assert outputs
    assert not any(output.output_type == "error" for output in outputs)
