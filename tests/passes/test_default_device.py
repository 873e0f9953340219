"""Everything takes the device of its model: no tensor is made on the default device of the process."""

import pytest
import tiny_models
import torch
from default_device import meta_in_package
from entry_point_rows import ROWS, close
from entry_points import ENTRIES
from test_batched_figures import plain, said_relation, wholes

import lrc_tl as lrc
from lrc_tl.evaluation import edited_passes


@pytest.fixture(scope="module")
def model(class_of_model, tmp_path_factory):
    close.narrow = class_of_model == "bridge"
    return tiny_models.model_with(class_of_model, "own pad token", tmp_path_factory.mktemp("model"))


def test_only_what_the_package_makes_without_a_device_is_elsewhere_and_told_of():
    names = {"torch": torch}
    line = compile("made = torch.zeros(2), torch.zeros(2, device='cpu')", f"{lrc.__path__[0]}/made_up.py", "exec")
    with meta_in_package() as lines:
        exec(line, names)
        own = torch.zeros(2)
    assert [tensor.device.type for tensor in (*names["made"], own)] == ["meta", "cpu", "cpu"]
    assert lines == {"made_up.py:1"}


@pytest.mark.parametrize("use", ENTRIES)
def test_an_entry_point_says_the_same_under_another_default_device(model, use):
    expected = ENTRIES[use].run(model, ROWS)
    with meta_in_package() as lines:
        got = ENTRIES[use].run(model, ROWS)
    close(got, expected)
    assert not lines


def test_figures_of_many_rows_are_the_same_under_another_default_device(model, monkeypatch):
    monkeypatch.setattr(edited_passes, "_LEAST_SPARED", 0)  # prefixes are shared wherever they can be
    relation = said_relation(model, name="said", beginning=[])
    other = said_relation(model, name="other", beginning=["w3"], apart_from=relation.objects)
    expected = wholes(model, relation, other)
    with meta_in_package() as lines:
        got = wholes(model, relation, other)
    for name in expected:
        close(plain(got[name]), plain(expected[name]), path=name)
    assert not lines
