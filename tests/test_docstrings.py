"""Examples in docstrings give what they say. They need no model: those with one stand in README and the docs."""

import doctest
import importlib
import pkgutil

import pytest

import lrc_tl

pytest.importorskip("anywidget", reason="needs the extra notebook: all modules are imported")
MODULES = [
    module.name for module in pkgutil.walk_packages(lrc_tl.__path__, "lrc_tl.") if "__main__" not in module.name
]


def examples():
    """The examples of all docstrings, by the name of what they belong to."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = importlib.import_module(name)
        for found in finder.find(module, name):
            if found.examples:
                yield pytest.param(found, id=found.name)


@pytest.mark.parametrize("found", list(examples()))
def test_an_example_gives_what_it_says(found):
    said = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(found, out=said.append)
    assert not said, "".join(said)


def test_there_are_examples_in_several_wings():
    wings = {parameter.id.split(".")[1] for parameter in examples()}
    assert {"relations", "numerics", "steering", "directions"} <= wings
