"""Every family on every class of model that loads it, loaded once in a process."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from zoo_families import BRIDGE_IS_3, FAMILIES, trained_tokenizer, write_model

import lrc_tl as lrc
from lrc_tl.models.hooked_model import hooked_transformer

CASES = [
    (name, backend)
    for name, family in FAMILIES.items()
    for backend in ("bridge", "hooked_transformer")
    if (not (family.wrong_on_bridge_3 and BRIDGE_IS_3) if backend == "bridge" else family.hooked)
    and (backend == "bridge" or hooked_transformer() is not None)
]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory, one_session_thread):
    """Folders by family, and models by family, class and dtype."""

    @cache
    def tokenizer(kind):
        return trained_tokenizer(kind)

    @cache
    def folder(name):
        path = tmp_path_factory.mktemp(name.replace(" ", "-")) / name.replace(" ", "-")
        write_model(FAMILIES[name], path, tokenizer(FAMILIES[name].tokenizer))
        return path

    @cache
    def plain(name, dtype):
        """The model of transformers, which TransformerLens has not touched."""
        from transformers import AutoModelForCausalLM

        ways = {"experts_implementation": "eager"} if dtype == torch.float64 else {}
        model = AutoModelForCausalLM.from_pretrained(
            folder(name), dtype=dtype, attn_implementation="eager", **ways
        )
        return model.eval().requires_grad_(False)

    @cache
    def own_tokenizer(name):
        """As the folder has it: TransformerLens makes one that adds a beginning-of-sequence token."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder(name))

    @cache
    def model(name, backend, dtype):
        return lrc.load_model(folder(name), backend=backend, dtype=dtype)

    return SimpleNamespace(folder=folder, plain=plain, model=model, own_tokenizer=own_tokenizer)


@pytest.fixture(scope="session")
def one_session_thread():
    """Tiny models are ten times slower when their threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _label(case):
    return f"{case[0]}, {'HookedTransformer' if case[1] == 'hooked_transformer' else 'Bridge'}"


@pytest.fixture(params=CASES, ids=_label)
def case(request, zoo):
    """A family: `model` and the `plain` one of transformers in float64, and `narrow` of them in float32."""
    name, backend = request.param
    return SimpleNamespace(
        name=name,
        backend=backend,
        family=FAMILIES[name],
        folder=zoo.folder(name),
        model=zoo.model(name, backend, torch.float64),
        tokenizer=zoo.own_tokenizer(name),
        plain=zoo.plain(name, torch.float64),
        in_float32=lambda: zoo.model(name, backend, torch.float32),
        plain_in_float32=lambda: zoo.plain(name, torch.float32),
    )
