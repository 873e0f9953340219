"""The docs: their code runs, their names, links and commands exist, and the reference holds every public name."""

import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documents import DOCS, PAGES, ROOT, code_blocks, links, prose, spans
from named_things import OTHERS, command_options, names_something, takes_its_arguments
from public_names import TOP, WINGS

import lrc_tl as lrc

FIRST = "docs/quickstart.md"
"""Leaves the file that other pages begin with."""
LAST = ("docs/guides/sweeps.md", "docs/files.md")
RUN = [page for page in PAGES if page not in (FIRST, *LAST) and code_blocks(PAGES[page], "python")]
NOT_OURS = ("docs/guides/coming_from.md", "docs/comparison.md", "docs/transformer_lens.md", "docs/files.md")
"""Pages whose code spans are names of other libraries, or of columns and fields."""
NAMED = [(page, span) for page, text in PAGES.items() if page not in NOT_OURS for span in spans(text)]
ELSEWHERE = OTHERS | {
    *("concurrent.futures.Executor", "JacobianLens.fit", ".concepts", "print", "hasattr", "import lrc_tl as lrc"),
    *('"gpt-j-6b"', '"models/my-finetune"', '"models/model-q4_k_m.gguf"', "city_in_country.safetensors"),
    *(
        "d_model",
        "numpy<2",
        "transformers<5",
        "distributed",
        "executorlib",
        "hook.name",
        "a:b",
        "LocalCUDACluster",
        "sweep.sbatch",
    ),
    *("sweep/rows/*.parquet", "blocks.{l}.hook_resid_post", "classes={...}", "1/s", "FILE.parts", "runs/whole"),
    *("HookedTransformer.from_pretrained", "import transformer_lens; transformer_lens.HookedTransformer"),
}
"""Names of other libraries, of files that a page makes, and formulas."""
STEERINGS = PAGES["docs/guides/steering.md"]
DEFECTS = PAGES["docs/transformer_lens.md"]


def loaded(path):
    """A module of the documentation's own, which is no package."""
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


@pytest.fixture(scope="session")
def models(gemma):
    """Models by name, each loaded once for all pages."""
    return {"packaged:gemma-3-270m": gemma}


@pytest.fixture(scope="session")
def folder(models, tmp_path_factory):
    """Where the pages run, after the first has run there."""
    made = tmp_path_factory.mktemp("pages")
    run_page(FIRST, made, models)
    return made


def run_page(page, folder, models):
    """Run a page's blocks in one namespace, from top to bottom, and give it."""
    load = lrc.load_model

    def load_once(name):
        if name not in models:
            models[name] = load(name)
        return models[name]

    names = {"__name__": page}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("lrc_tl.load_model", load_once)
        for block in code_blocks(PAGES[page], "python"):
            if block.runs:
                exec(compile(block.code, page, "exec"), names)  # the pages are ours
    return names


@pytest.mark.real_model
def test_the_quickstart_runs_and_leaves_the_concepts(folder):
    concepts = lrc.ConceptSet.load(folder / "city_in_country.safetensors")
    assert {"France", "Japan"} <= set(concepts)


@pytest.mark.real_model
@pytest.mark.parametrize("page", [*RUN, *LAST])
def test_every_block_of_a_page_runs(page, folder, models):
    run_page(page, folder, models)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_are_not_run_are_at_least_python_or_shell(page):
    for block in code_blocks(PAGES[page], "python"):
        compile(block.code, page, "exec")
    for block in code_blocks(PAGES[page], "bash"):
        checked = subprocess.run(["bash", "-n"], input=block.code, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def shell_commands():
    """Calls of `lrc-tl` in shell blocks, as lists of words."""
    for page, text in PAGES.items():
        for block in code_blocks(text, "bash"):
            for line in block.code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["lrc-tl"]:
                    yield page, words


@pytest.mark.parametrize(("page", "words"), list(shell_commands()), ids=lambda value: str(value)[:60])
def test_every_command_has_the_options_that_a_page_gives_it(page, words):
    options = command_options()
    assert words[1] in options, page
    given = {word for word in words[2:] if word.startswith("--")}
    assert given <= options[words[1]], f"{page}: `lrc-tl {words[1]}` has no {given - options[words[1]]}"


@pytest.mark.parametrize(("page", "span"), NAMED, ids=lambda value: str(value)[:60])
def test_every_name_in_a_page_exists(page, span):
    assert span in ELSEWHERE or names_something(span), f"{page} says `{span}`, which names nothing"


def test_a_name_that_is_wrong_is_seen():
    wrong = ("swap_edits", "lrc.generat", "ConceptSet.safe", "lrc-tl probes", "--jsom FILE", "benchmarks/READ.md")
    wrong += ("make tests", "--preset table9", "lrc_tl.directions.readot", "lrc-tl sweep --dryrun")
    assert not any(names_something(span) for span in (*wrong, '"lcr"', "min_cosines=1", "lre.concept(model)"))


def whole_calls():
    """Calls in the text with all their arguments."""
    for page, span in NAMED:
        if re.fullmatch(r"[\w.]+\(.+\)", span) and "..." not in span and names_something(span):
            yield page, span


@pytest.mark.parametrize(("page", "call"), list(whole_calls()), ids=lambda value: str(value)[:60])
def test_every_call_in_the_text_has_arguments_that_the_library_takes(page, call):
    assert takes_its_arguments(call), f"{page} says `{call}`"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_or_a_file(page):
    targets, roles = links(PAGES[page])
    here = (ROOT / page).parent
    for target in targets:
        if "://" not in target and not target.startswith("#"):
            assert (here / target.split("#")[0]).exists(), target
    for role in roles:
        assert "generated/" in role or (here / f"{role}.md").resolve() in {ROOT / name for name in PAGES}, role


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda path: path.stem)
def test_every_picture_is_used(picture):
    assert any(picture.name in text for text in PAGES.values())


def test_what_the_page_says_to_make_a_steering_makes_one(word_model):
    directions = {
        name: lrc.ConceptDirection(
            vector=row, relation="r", object_name=name, hook_name="blocks.1.hook_resid_post", method="mean"
        )
        for name, row in zip(("w1", "w2"), torch.eye(12), strict=False)
    }
    concepts = lrc.ConceptSet(directions)
    (sentence,) = re.findall(r"A direction makes a steering by.*?\.(?=\s)", prose(STEERINGS), flags=re.DOTALL)
    given = {"strength": 0.1, "value": 1.0, "remove": "w1", "add": "w2", "text": "w3 w4", "subject": "w3"}
    given["model"] = word_model
    for name in (span.split(".")[-1] for span in spans(sentence)):
        owner = next((one for one in (directions["w1"], concepts, lrc) if hasattr(one, name)), None)
        function = getattr(owner, name)
        needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        assert set(needed) <= set(given), f"`{name}` needs {set(needed) - set(given)}; add a value to `given`"
        assert isinstance(function(**{name: given[name] for name in needed}), lrc.Steering), name


@pytest.mark.parametrize("beginning", re.findall(r"\| `(\w+)\.\.\.` \|", DEFECTS))
def test_every_defect_of_transformer_lens_has_its_test(beginning):
    tests = (ROOT / "tests" / "models" / "test_transformer_lens_defects.py").read_text(encoding="utf-8")
    assert f"def test_{beginning}" in tests


def test_every_public_name_is_in_the_api_reference():
    reference = loaded(DOCS / "reference_pages.py")
    pages = reference.reference_pages()
    places = reference.places()
    stubs = {"": TOP} | {wing: ast_names(wing) for wing in WINGS}
    for wing, names in stubs.items():
        for name in names:
            place = places[f"{wing}.{name}" if wing else name]
            assert f":: {place}" in pages[f"{reference.FOLDER}/{place}.rst"]
            assert f"<{place}>" in pages[f"{reference.FOLDER}/{wing or 'top'}.rst"]


def ast_names(wing):
    """The public names of a wing, read from its stub; of the errors, the classes in its file."""
    folder = Path(lrc.__file__).parent
    stub = folder / wing / "__init__.pyi"
    if stub.exists():
        tree = ast.parse(stub.read_text(encoding="utf-8"))
        return [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    tree = ast.parse((folder / f"{wing}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def test_every_list_of_the_reference_is_linked():
    reference = loaded(DOCS / "reference_pages.py")
    for wing in (*WINGS, "top", "held"):
        assert f"{reference.FOLDER}/{wing}" in PAGES["docs/reference.md"]


def test_every_column_of_a_sweep_is_described():
    schema = loaded(DOCS / "schema_pages.py")
    assert set(schema.MEANING) == set(schema.COLUMNS)
    assert all(f"`{name}`" in schema.columns_table() for name in schema.COLUMNS)


def test_every_command_and_option_is_on_its_page():
    page = loaded(DOCS / "command_pages.py").command_page()
    for name, options in command_options().items():
        if name == "lrc-tl":
            continue
        assert f"## `lrc-tl {name}`" in page
        assert all(f"`{option}`" in page for option in options)


def test_an_executed_notebook_is_shown_only_if_its_cells_are_the_same(tmp_path):
    shown = loaded(DOCS / "rendered_notebooks.py").rendered_notebooks
    sources, runs = tmp_path / "notebooks", tmp_path / "runs"
    sources.mkdir()
    runs.mkdir()
    (sources / "a.ipynb").write_text('{"cells": [{"source": ["1 + 1"]}]}')
    (runs / "a.ipynb").write_text('{"cells": [{"source": "1 + 1", "outputs": [{"text": "2"}]}]}')
    (page,) = shown(sources, runs).values()
    assert "outputs" in page
    (sources / "a.ipynb").write_text('{"cells": [{"source": ["1 + 2"]}]}')
    (page,) = shown(sources, runs).values()
    assert "outputs" not in page


def test_a_shown_notebook_has_drawings_and_no_progress_bars_and_needs_no_script():
    shown = loaded(DOCS / "rendered_notebooks.py")
    drawing = {"data": {shown.PLOTLY: {}, "text/html": ["<svg>", "</svg>"]}}
    outputs = [
        {"output_type": "stream", "text": "printed"},
        {"data": {shown.WIDGET: {}, "text/plain": "Output()"}},
        {"data": {"text/html": ['<pre style="x">', "</pre>\n"]}},
        drawing,
        {"data": {shown.PLOTLY: {}}},
        {"data": {"text/html": "<pre>7</pre>"}},
    ]
    given = {"cells": [{"source": "# words"}, {"source": "1", "outputs": outputs}]}
    words, code = shown.still(given)["cells"]
    assert words == {"source": "# words"}
    assert code["outputs"] == [outputs[0], {"data": {"text/html": ["<svg>", "</svg>"]}}, *outputs[4:]]
    assert shown.PLOTLY in drawing["data"]


@pytest.mark.parametrize(
    ("tex", "part"), [("W^{+}", "<msup>"), (r"\lVert h \rVert", "‖"), (r"\frac{1}{n}", "<mfrac>")]
)
def test_formulas_become_mathml(tex, part):
    pytest.importorskip("sphinx")
    assert part in loaded(DOCS / "native_math.py").as_mathml(tex, block=True)


def test_a_formula_that_cannot_be_converted_fails_the_build():
    errors = pytest.importorskip("sphinx.errors")
    with pytest.raises(errors.ExtensionError, match=r"unknownmacro"):
        loaded(DOCS / "native_math.py").as_mathml(r"\unknownmacro x", block=False)


def test_pythons_own_types_in_annotations_lead_to_no_attribute_of_that_name():
    addnodes = pytest.importorskip("sphinx.addnodes")
    from docutils.nodes import Text, paragraph
    from docutils.utils import new_document

    def reference(target):
        shown = [(target.split(".")[-1], "resolved"), (target, "*")]
        parts = [addnodes.pending_xref_condition("", "", Text(text), condition=when) for text, when in shown]
        return addnodes.pending_xref("", *parts, reftype="class", reftarget=target)

    annotation = paragraph("", "", reference("object"), Text(" | "), reference("lrc_tl.Prompt"))
    page = new_document("page")
    page += annotation
    loaded(DOCS / "docstrings.py").without_links_to_builtins(None, page)
    assert [node["reftarget"] for node in page.findall(addnodes.pending_xref)] == ["lrc_tl.Prompt"]
    assert annotation.astext().startswith("object | ")
