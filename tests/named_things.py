"""Whether inline code in README and the docs names something that exists: of the library, a command, a file."""

import ast
import inspect
import re
from collections import defaultdict
from functools import cache

import typer
from documents import PAGES, ROOT, code_blocks
from public_names import TOP, WINGS, public_objects

import lrc_tl as lrc
from lrc_tl.cli.main import app
from lrc_tl.experiments.presets import PRESETS
from lrc_tl.methods.method import METHODS

PUBLIC = public_objects()
CLASSES = [value for value in PUBLIC.values() if inspect.isclass(value)]
FUNCTIONS = [value for value in PUBLIC.values() if inspect.isfunction(value)]
WORDS = {
    *("all", "from", "subject", "prompt", "generated"),  # places
    *("plain", "centred", "calibrated"),  # readings
    *("share", "absolute", "score"),  # units
    *("pair-pca", "last", "mean", "first_token", "clean", "standardised", "isotonic"),
}
"""Values of arguments, which stand in quotes or bare in tables."""
OTHERS = {
    "NO_COLOR",
    "linear-relational",
    ".venv",
    ".venv/bin/jupyter lab notebooks",
    "jupyter lab",
    "lrc_tl",
    "build/docs",
    "-1",
    "-2",
    "5",
    "{}",
    "{layer: vector}",
    "JacobianLens",
}
"""Spans that name nothing of the library: packages, folders, values, programs of others."""
EXTRAS = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
VARIABLES = {
    name
    for text in PAGES.values()
    for block in code_blocks(text, "python")
    for name in re.findall(r"^ *(\w+)(?:, \w+)* = ", block.code, flags=re.MULTILINE)
}


@cache
def command_options():
    """The options of every command of `lrc-tl`, by its name."""
    group = typer.main.get_command(app)
    commands = {**group.commands, "lrc-tl": group}
    return {name: {o for p in command.params for o in p.opts} for name, command in commands.items()}


@cache
def _meanings():
    """By name: what is public, what belongs to a public class, and parameters of either."""
    found = defaultdict(list)
    for name, value in PUBLIC.items():
        found[name].append(value)
    functions = list(FUNCTIONS)
    for cls in CLASSES:
        for name in {*dir(cls), *getattr(cls, "__dataclass_fields__", {})}:
            found[name].append(getattr(cls, name, None))
        functions += [value for name, value in inspect.getmembers(cls, callable) if not name.startswith("__")]
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters
        except ValueError:
            continue
        for name, parameter in parameters.items():
            found[name].append(parameter)
    return found


def attributes(name):
    """What a name may mean: something public, something of a public class, or a parameter of either."""
    return _meanings().get(name, [])


def resolve(dotted):
    """`lrc.x`, `lrc_tl.wing.x`, `x`, `Class.x`, or `variable.x` with a variable of a page's code."""
    first, *rest = dotted.split(".")
    if first in ("lrc", "lrc_tl"):
        if len(rest) == 2 and rest[0] in WINGS:
            return hasattr(getattr(lrc, rest[0]), rest[1])
        return len(rest) == 1 and (rest[0] in TOP or rest[0] in WINGS)
    if not rest:
        return bool(attributes(first))
    if first in PUBLIC:
        return all(hasattr(PUBLIC[first], name) for name in rest[:1])
    return first in VARIABLES and any(hasattr(cls, rest[0]) for cls in CLASSES)


def _is_command(span):
    commands = command_options()
    words = span.split()
    if words[0] == "lrc-tl":
        given = words[1] if len(words) > 1 else ""
        options = [word for word in words[2:] if word.startswith("--")]
        return given in ("--help", *commands["lrc-tl"]) or (
            given in commands and all(option in commands[given] for option in options)
        )
    if words[0].startswith("--"):
        name, *value = words[0].split("=")[0], *words[1:]
        known = any(name in options for options in commands.values())
        return known and (name != "--preset" or not value or value[0] in PRESETS)
    return span in commands


def names_something(span):
    """Whether an inline code span is of a kind that is known here, and what it names exists."""
    if span in (*EXTRAS, *WORDS, *METHODS, *lrc.built_in_relations()) or span.startswith("pip install "):
        return True
    if span.strip('"').startswith("packaged:"):
        return span.strip('"') in ("packaged:gemma-3-270m", "packaged:smollm2-135m")
    if span.startswith("make "):
        return f"\n{span.removeprefix('make ')}:" in MAKEFILE
    if _is_command(span):
        return True
    if "/" in span or span.endswith((".txt", ".md", ".cff", ".json")):
        return (ROOT / span).exists()
    if re.fullmatch(r'"[\w-]+"', span):
        return span.strip('"') in (*METHODS, *WORDS)
    if keyword := re.fullmatch(r"(\w+)=(.+)", span):
        try:
            ast.parse(keyword[2], mode="eval")
        except SyntaxError:
            return False
        return bool(attributes(keyword[1]))
    if call := re.fullmatch(r"([\w.]+)\((.*)\)", span, flags=re.DOTALL):
        return resolve(call[1])
    if re.fullmatch(r"[\w/]+\.py", span):
        return (ROOT / span).exists()
    return re.fullmatch(r"[A-Za-z_][\w.]*", span) is not None and resolve(span)


def takes_its_arguments(call):
    """Whether something of the name that is called takes the arguments of the call."""
    node = ast.parse(call, mode="eval").body
    name = ast.unparse(node.func).split(".")[-1]
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    for function in filter(callable, attributes(name)):
        for myself in ((), (None,)):  # a method's name may stand alone
            try:
                inspect.signature(function).bind(*myself, *node.args, **keywords)
            except TypeError:
                continue
            return True
    return False
