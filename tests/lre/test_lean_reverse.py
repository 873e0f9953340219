"""The shorter reverse pass of HookedTransformer: the same values and Jacobians, and hooks that see the same."""

from dataclasses import replace

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.lre.jacobian import jacobian_grid
from lrc_tl.lre.lean_reverse import lean_reverse
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.models.hooking import Block

pytestmark = pytest.mark.skipif(
    hooked_transformer() is None, reason="this TransformerLens has no HookedTransformer"
)

AT = lrc.relations.TokenizedPrompt(
    prompt=lrc.Prompt(text="cat is", subject="cat", object="x"),
    text_ids=(1, 7, 3, 22, 9, 4),
    object_ids=(5, 6),
    subject_position=2,
)
KINDS = {
    "gated, norms before and after, of queries and keys": {
        "gated_mlp": True, "act_fn": "gelu_pytorch_tanh", "use_qk_norm": True,
        "use_normalization_before_and_after": True, "original_architecture": "Gemma3ForCausalLM",
    },
    "rotated pairs side by side": {"rotary_adjacent_pairs": True, "act_fn": "silu"},
    "rotated in part": {"rotary_dim": 4, "act_fn": "gelu_new"},
    "rotated in part, side by side": {"rotary_dim": 4, "rotary_adjacent_pairs": True, "act_fn": "relu"},
    "layer norm": {"normalization_type": "LN", "act_fn": "gelu_fast"},
    "attention and MLP side by side": {"parallel_attn_mlp": True},
    "attention only": {"attn_only": True},
    "grouped queries, norms of queries and keys": {"n_key_value_heads": 1, "use_qk_norm": True},
    "an input for each head": {"use_split_qkv_input": True},
}  # fmt: skip


def model_of(kind):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    options = {
        "n_layers": 3, "d_model": 12, "n_ctx": 32, "d_head": 6, "n_heads": 2, "d_mlp": 20, "d_vocab": 50,
        "act_fn": "gelu", "seed": 0, "positional_embedding_type": "rotary", "rotary_dim": 6,
        "normalization_type": "RMS", "dtype": torch.float64, "device": "cpu", "initializer_range": 0.5,
    }  # fmt: skip
    model = HookedTransformer(HookedTransformerConfig(**{**options, **KINDS[kind]}))
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, 12)
    for name, parameter in model.named_parameters():
        if "ln" in name or "norm" in name:  # ones would hide a forgotten weight
            parameter.data.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    return model.eval().requires_grad_(False)


def plainly(monkeypatch):
    monkeypatch.setattr(
        "lrc_tl.lre.jacobian_graph.lean_reverse", lambda *args, **options: Block(lambda session: None)
    )
    monkeypatch.setattr("lrc_tl.lre.jacobian_graph.reads_only_objects", lambda *args: False)
    monkeypatch.setattr(
        "lrc_tl.lre.jacobian_graph.needed_gradients", lambda *args, **options: Block(lambda session: None)
    )


@pytest.mark.parametrize(("aggregation", "start"), [("mean", 2), ("first_token", 2), ("mean", 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_is_that_of_the_plain_reverse_pass(kind, aggregation, start, monkeypatch):
    model, at = model_of(kind), replace(AT, subject_position=start)
    pairs = [(0, 2), (1, 2), (0, 1), (2, 2)], [(0, 2)], [(1, 2)], [(0, 1), (0, 2)]
    lean = [dict(jacobian_grid(model, at, some, object_aggregation=aggregation)) for some in pairs]
    plainly(monkeypatch)
    for found, some in zip(lean, pairs, strict=True):
        plain = dict(jacobian_grid(model, at, some, object_aggregation=aggregation))
        for pair in some:
            expected = plain[pair].jacobian
            assert pair == (2, 2) or expected.norm() > 1e-4
            assert (found[pair].jacobian - expected).norm() <= 1e-10 * expected.norm()
            torch.testing.assert_close(found[pair].object, plain[pair].object)


@pytest.mark.parametrize("layer", [1, 2])
def test_every_hook_in_a_layer_sees_what_it_always_sees(layer, monkeypatch):
    kind = next(iter(KINDS))
    model = model_of(kind)
    names = [name for name in model.hook_dict if name.startswith(f"blocks.{layer}.")]
    seen = []

    def keep(activation, hook):
        seen.append((hook.name, activation.detach().clone()))

    def run():
        seen.clear()
        with model.hooks(fwd_hooks=[(name, keep) for name in names]):
            lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
        return list(seen)

    lean = run()
    plainly(monkeypatch)
    plain = run()
    assert [name for name, _ in lean] == [name for name, _ in plain]
    assert {name for name, _ in lean} >= {f"blocks.{layer}.ln1.hook_scale", f"blocks.{layer}.hook_mlp_out"}
    for (_, ours), (_, theirs) in zip(lean, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_hook_that_changes_the_norm_changes_the_jacobian_as_ever(monkeypatch):
    model = model_of(next(iter(KINDS)))

    def run():
        with model.hooks(fwd_hooks=[("blocks.1.ln2.hook_scale", lambda scale, hook: scale.detach())]):
            return lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2).jacobian

    frozen = run()
    free = lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2).jacobian
    assert (frozen - free).norm() > 1e-3 * free.norm()
    plainly(monkeypatch)
    torch.testing.assert_close(frozen, run())


def test_nothing_is_left_behind_after_an_error():
    model = model_of(next(iter(KINDS)))
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}

    def fail(text):
        raise RuntimeError(text)

    with lean_reverse(model, [1, 2]):
        assert "forward" in model.blocks[1].ln1.__dict__
        assert "forward" not in model.blocks[0].ln1.__dict__
    with pytest.raises(RuntimeError, match="the work failed"), lean_reverse(model, [1, 2]):
        fail("the work failed")
    after = {name: dict(module.__dict__) for name, module in model.named_modules()}
    assert [set(one) for one in after.values()] == [set(one) for one in before.values()]
    assert model.blocks[1].mlp.act_fn is before["blocks.1.mlp"]["act_fn"]


def test_a_second_pass_inside_the_block_is_normed_anew():
    model = model_of(next(iter(KINDS)))
    one, other = torch.tensor([[1, 4, 9]]), torch.tensor([[1, 30, 2]])
    expected = model(one), model(other)
    with lean_reverse(model, [0, 1, 2]):
        found = model(one), model(other)
    assert (expected[0] - expected[1]).norm() > 0.1
    torch.testing.assert_close(found, expected)
