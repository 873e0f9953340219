"""The README's Python runs as it stands, and what its text names exists and does what the sentence says."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
import typer
from public_names import TOP, WINGS, public_objects

import lrc_tl as lrc
from lrc_tl.cli.main import app
from lrc_tl.methods.method import METHODS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
TEXT = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
OURS, TRANSFORMER_LENS = TEXT.split("## Where TransformerLens is wrong")
PUBLIC = public_objects()
CLASSES = [value for value in PUBLIC.values() if inspect.isclass(value)]
FUNCTIONS = [value for value in PUBLIC.values() if inspect.isfunction(value)]
WHERE = ("all", "prompt", "generated")
OTHERS = {
    "linear-relational",
    ".venv",
    "lrc_tl",
    "-1",
    "5",
    "{layer: vector}",
    "{}",
    "beta |h| (v_new - v_old)",
    "NO_COLOR",
}
"""Spans that name nothing of the library: packages, folders, values, formulas."""
EXTRAS = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
MARKERS = ("smoke", "real_model", "notebook")


def spans(text):
    """Inline code, each once; a line end inside counts as a space."""
    return list(dict.fromkeys(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)))


def command_options():
    """The options of every command of `lrc-tl`, by its name."""
    group = typer.main.get_command(app)
    commands = {**group.commands, "lrc-tl": group}
    return {name: {o for p in command.params for o in p.opts} for name, command in commands.items()}


def attributes(name):
    """What a name may mean: something public, something of a public class, or a parameter of either."""
    found = [PUBLIC[name]] if name in PUBLIC else []
    for cls in CLASSES:
        if hasattr(cls, name) or name in getattr(cls, "__dataclass_fields__", {}):
            found.append(getattr(cls, name, None))
    methods = [m for cls in CLASSES for _, m in inspect.getmembers(cls, callable) if not _.startswith("__")]
    for function in (*FUNCTIONS, *methods):
        try:
            parameters = inspect.signature(function).parameters
        except ValueError:
            continue
        if name in parameters:
            found.append(parameters[name])
    return found


def resolve(dotted):
    """`lrc.x`, `x`, `Class.x`, or `variable.x` with a variable of the README's code."""
    first, *rest = dotted.split(".")
    if first == "lrc":
        return rest[0] in TOP or (len(rest) == 2 and rest[0] in WINGS and hasattr(getattr(lrc, rest[0]), rest[1]))
    if not rest:
        return bool(attributes(first))
    if first in PUBLIC:
        return all(hasattr(PUBLIC[first], name) for name in rest[:1])
    is_variable = any(re.search(rf"\b{first} = ", block) for block in BLOCKS)
    return is_variable and any(hasattr(cls, rest[0]) for cls in CLASSES)


def names_something(span):
    """Whether an inline code span is of a kind that this file knows, and what it names exists."""
    if (
        span in OTHERS
        or span in EXTRAS
        or span in MARKERS
        or span.startswith(("pip install ", "make ", "packaged:"))
    ):
        return True
    commands = command_options()
    if span.startswith("lrc-tl ") or span in commands:
        return span.split()[-1] in {*commands, "--help", *commands["lrc-tl"]}
    if span.startswith("--"):
        return any(span.split()[0] in options for options in commands.values())
    if "/" in span or span.endswith((".txt", ".md")):
        return (ROOT / span).exists()
    if re.fullmatch(r'"[\w-]+"', span):
        return span.strip('"') in (*METHODS, *WHERE)
    if keyword := re.fullmatch(r"(\w+)=(.+)", span):
        return bool(attributes(keyword[1])) and ast.literal_eval(keyword[2]) is not None
    if call := re.fullmatch(r"([\w.]+)\((.*)\)", span):
        return resolve(call[1])
    return re.fullmatch(r"[A-Za-z_][\w.]*", span) is not None and resolve(span)


def calls():
    """Calls in the text with all their arguments."""
    return [span for span in spans(OURS) if re.fullmatch(r"[\w.]+\(.+\)", span) and "..." not in span]


@pytest.mark.real_model
def test_every_block_of_the_readme_runs(gemma, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrc_tl.load_model", lambda name: gemma)
    names = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)  # the README is ours
    printed = capsys.readouterr().out
    assert "('France'," in printed.splitlines()[0]
    assert (tmp_path / "city_in_country.safetensors").is_file()
    for call in calls():
        assert eval(call, {**PUBLIC, **names}) is not None


@pytest.mark.parametrize("span", spans(OURS))
def test_every_name_in_the_text_exists(span):
    assert names_something(span), f"README says `{span}`, which names nothing of lrc_tl, no command and no file"


def test_a_name_that_is_wrong_is_seen():
    wrong = ("swap_edits", "lrc.generat", "ConceptSet.safe", "lrc-tl probes", "--jsom FILE", "benchmarks/READ.md")
    assert not any(names_something(span) for span in (*wrong, '"lcr"', "min_cosines=1", "lre.concept(model)"))


@pytest.mark.parametrize("call", calls())
def test_every_call_in_the_text_has_arguments_that_the_library_takes(call):
    node = ast.parse(call, mode="eval").body
    name = ast.unparse(node.func).split(".")[-1]
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    fitting = []
    for function in attributes(name):
        if callable(function):
            own = [None] if "." in ast.unparse(node.func) and not call.startswith("lrc.") else []
            try:
                inspect.signature(function).bind(*own, *node.args, **keywords)
            except TypeError:
                continue
            fitting.append(function)
    assert fitting


def test_what_the_readme_says_to_make_a_steering_makes_one(word_model):
    directions = {
        name: lrc.ConceptDirection(
            vector=row, relation="r", object_name=name, hook_name="blocks.1.hook_resid_post", method="mean"
        )
        for name, row in zip(("w1", "w2"), torch.eye(12), strict=False)
    }
    concepts = lrc.ConceptSet(directions)
    (sentence,) = re.findall(r"A direction makes a steering by.*?\.(?=\s)", OURS, flags=re.DOTALL)
    given = {"strength": 0.1, "value": 1.0, "remove": "w1", "add": "w2", "text": "w3 w4", "subject": "w3"}
    given["model"] = word_model
    for name in (span.split(".")[-1] for span in spans(sentence)):
        owner = next((one for one in (directions["w1"], concepts, lrc) if hasattr(one, name)), None)
        function = getattr(owner, name)
        needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        assert set(needed) <= set(given), f"`{name}` needs {set(needed) - set(given)}; add a value to `given`"
        assert isinstance(function(**{name: given[name] for name in needed}), lrc.Steering), name


def test_the_readme_names_only_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", README))
    assert named == {"bench", "demo", "gpu-check", "test", "test-bridge", "test-fast", "notebooks", "lint"}
    assert all(f"\n{target}:" in makefile for target in named)


@pytest.mark.parametrize("beginning", re.findall(r"\| `(\w+)\.\.\.` \|", TRANSFORMER_LENS))
def test_every_defect_of_transformer_lens_has_its_test(beginning):
    tests = (ROOT / "tests" / "models" / "test_transformer_lens_defects.py").read_text(encoding="utf-8")
    assert f"def test_{beginning}" in tests
