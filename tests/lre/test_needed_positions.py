"""What a reverse pass does without: the first layer beside the subject, the last one beside the object."""

from dataclasses import replace

import pytest
import torch
from test_lean_reverse import AT, KINDS, model_of, plainly
from torch.utils.flop_counter import FlopCounterMode

from lrc_tl.lre.jacobian import jacobian_grid
from lrc_tl.lre.needed_positions import needed_gradients, object_hooks, reads_only_objects
from lrc_tl.models.hooked_model import hooked_transformer

pytestmark = pytest.mark.skipif(
    hooked_transformer() is None, reason="this TransformerLens has no HookedTransformer"
)

GATED, *_ = KINDS
ALONGSIDE = "attention and MLP side by side"


def flops(model, at, pair):
    """Of one Jacobian and its forward pass, by torch's own count."""
    with FlopCounterMode(display=False) as counter:
        list(jacobian_grid(model, at, [pair]))
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", [GATED, ALONGSIDE])
def test_fewer_products_are_made(kind, monkeypatch):
    model = model_of(kind)
    at = replace(AT, subject_position=1)
    cut = flops(model, at, (0, 1)), flops(model, at, (0, 2))
    plainly(monkeypatch)
    whole = flops(model, at, (0, 1)), flops(model, at, (0, 2))
    assert cut[0] < whole[0]
    assert cut[1] < whole[1]
    if kind == GATED:  # where one layer is both the first and the last, least is left of it
        assert cut[0] / whole[0] < cut[1] / whole[1] < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_values_stay_and_gradients_come_where_they_are_needed(kind):
    model = model_of(kind)
    attention = model.blocks[1].attn
    x = torch.randn(1, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if model.cfg.use_split_qkv_input:
        x = x[:, :, None].expand(-1, -1, 2, -1).contiguous()
    x.requires_grad_(True)
    expected = attention.calculate_qkv_matrices(x, x, x)
    with needed_gradients(model, lowest=0, highest=2, subject=2, objects=[3, 4]):
        found = attention.calculate_qkv_matrices(x, x, x)
    torch.testing.assert_close(found, expected)
    for one in found:
        (gradient,) = torch.autograd.grad(one.sum(), x)
        assert [bool(position.any()) for position in gradient[0]] == [False, False, True, False, False]
    last = model.blocks[2].attn
    with needed_gradients(model, lowest=0, highest=2, subject=2, objects=[1, 4]):  # not side by side
        queries, keys, values = last.calculate_qkv_matrices(x, x, x)
    (gradient,) = torch.autograd.grad(queries.sum(), x)
    assert [bool(position.any()) for position in gradient[0]] == [False, True, False, False, True]
    for one in (keys, values):
        assert torch.autograd.grad(one.sum(), x)[0][0].flatten(1).any(1).all()
    assert "calculate_qkv_matrices" not in last.__dict__


def test_one_layer_that_is_first_and_last_needs_the_subject_alone():
    model = model_of(GATED)
    attention = model.blocks[1].attn
    x = torch.randn(1, 4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with needed_gradients(model, lowest=0, highest=1, subject=1, objects=[2, 3]):
        queries, keys, _ = attention.calculate_qkv_matrices(x, x, x)
    assert not torch.autograd.grad(queries.sum(), x, materialize_grads=True)[0].any()
    assert torch.autograd.grad(keys.sum(), x)[0][0].any(1).tolist() == [False, True, False, False]
    torch.testing.assert_close(queries, attention.calculate_qkv_matrices(x, x, x)[0])


@pytest.mark.parametrize("positions", [[1, 2], [0, 3]])
def test_the_last_layer_ends_with_the_positions_that_are_read(positions):
    model = model_of(GATED)
    ids = torch.tensor([[1, 4, 9, 3]])
    whole = model(ids, stop_at_layer=3)
    with model.hooks(fwd_hooks=object_hooks(2, positions)):
        found = model(ids, stop_at_layer=3)
    torch.testing.assert_close(found, whole[:, positions])


def test_nothing_is_cut_where_somebody_looks():
    model = model_of(GATED)
    assert reads_only_objects(model, 2)
    with model.hooks(fwd_hooks=[("blocks.2.mlp.hook_pre", lambda activation, hook: None)]):
        assert not reads_only_objects(model, 2)
    assert not reads_only_objects(model_of(ALONGSIDE), 2)
    looked_at = model.hooks(fwd_hooks=[("blocks.1.attn.hook_q", lambda activation, hook: None)])
    with looked_at, needed_gradients(model, lowest=0, highest=2, subject=1, objects=None):
        assert "calculate_qkv_matrices" not in model.blocks[1].attn.__dict__
    with needed_gradients(model, lowest=0, highest=2, subject=1, objects=None):
        assert "calculate_qkv_matrices" in model.blocks[1].attn.__dict__
        assert "calculate_qkv_matrices" not in model.blocks[2].attn.__dict__
