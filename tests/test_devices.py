"""No line of the package takes a device for granted: each tensor is made where its model or its input is."""

import ast
from pathlib import Path

import pytest

import lrc_tl

ROOT = Path(lrc_tl.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
MAKERS = {
    "arange", "as_tensor", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint", "randn",
    "randperm", "tensor", "tril_indices", "triu_indices", "zeros", "Generator",
}  # fmt: skip
"""Functions of torch that put a tensor on the default device unless told otherwise."""
KINDS = ("cpu", "cuda", "mps", "meta")
NAMED = {
    "numerics/out_of_memory.py": "what torch holds back on a GPU is given up before a retry",
    "lre/jacobian_graph.py": "how much memory a GPU has left",
    "cli/common.py": "the default of --device",
    "experiments/sweep.py": "the default of run_sweep",
    "models/loading.py": "the default of load_model",
    "models/sizes.py": "tensors without memory, to count weights that are not loaded",
    "numerics/product_rate.py": "a GPU is waited for before the clock is read",
    "numerics/precision.py": "HOST, where what is no part of a model is computed",
}
"""Files that name a device, and why."""


def torch_calls(source):
    """Calls such as `torch.zeros(3)`, with the name of the function."""
    for call in ast.walk(ast.parse(source)):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr=name)):
                yield name, call


def made_on_the_default_device(source):
    """Line numbers of calls that make a tensor and give no device; `**given` may hold one."""
    return [
        call.lineno
        for name, call in torch_calls(source)
        if name in MAKERS and not {"device", None} & {keyword.arg for keyword in call.keywords}
    ]


def names_of_devices(source):
    """Line numbers of strings that are the name of a device, and of calls of `.cuda()`."""
    tree = ast.parse(source)
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    moves = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in KINDS[1:3])
    return sorted(
        {node.lineno for node in strings if node.value.split(":")[0] in KINDS} | {node.lineno for node in moves}
    )


def test_calls_that_take_the_default_device_are_found():
    source = "a = torch.zeros(3)\nb = torch.zeros(3, device=like.device)\nc = torch.full((2,), 0, **given)"
    assert made_on_the_default_device(source) == [1]
    assert names_of_devices("x.to('cuda:1')\nx.cpu()\nx.cuda()\ny = 'a cpu'\nz = 'cpu'") == [1, 3, 5]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_tensor_is_made_on_a_device_that_is_given(path):
    assert made_on_the_default_device(path.read_text()) == []


def test_devices_are_named_where_that_is_explained_and_nowhere_else():
    found = {str(path.relative_to(ROOT)) for path in SOURCES if names_of_devices(path.read_text())}
    assert found == set(NAMED)
