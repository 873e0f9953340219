"""Bounds of low-rank directions are computed when somebody looks, once, and are those of the sketch as it was."""

import pickle

import pytest
import torch

from lrc_tl.lre import direction_bounds
from lrc_tl.lre.direction_bounds import DirectionBounds
from lrc_tl.numerics.direction_error import direction_errors
from lrc_tl.numerics.sketching import BlockKrylov


@pytest.fixture
def sketch():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 40, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, 40)
    found = BlockKrylov(
        lambda rows: rows @ weight.T,
        lambda rows: rows @ weight,
        torch.randn(40, 4, generator=generator, dtype=torch.float64),
    )
    found.grow()
    found.grow()
    return found


TARGETS = {"a": torch.arange(40.0, dtype=torch.float64), "b": torch.ones(40, dtype=torch.float64)}


def test_they_are_those_of_the_sketch_when_they_were_asked_for_and_are_computed_once(sketch, monkeypatch):
    expected = direction_errors(sketch, torch.stack(list(TARGETS.values())), rank=3, seed=7).tolist()
    computed = []

    def counted(*args, **options):
        computed.append(1)
        return direction_errors(*args, **options)

    monkeypatch.setattr(direction_bounds, "direction_errors", counted)
    bounds = DirectionBounds(sketch, TARGETS, rank=3, seed=7)
    assert (list(bounds), len(bounds), computed) == (["a", "b"], 2, [])
    sketch.grow()
    assert [bounds["a"], bounds["b"]] == expected
    assert dict(bounds) == dict(zip(TARGETS, expected, strict=True))
    assert computed == [1]
    assert repr(bounds) == repr(dict(bounds))


def test_they_can_be_sent_to_another_process_and_keep_no_matrix(sketch):
    bounds = DirectionBounds(sketch, TARGETS, rank=3, seed=7)
    assert dict(pickle.loads(pickle.dumps(bounds))) == dict(bounds)
    with pytest.raises(RuntimeError, match="was taken without its matrix and cannot grow"):
        sketch.without_products().grow()
