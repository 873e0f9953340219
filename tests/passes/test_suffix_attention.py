"""Attention with gradients for the suffix alone: the same values and Jacobians, and nothing left behind."""

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.passes.suffix_attention import suffix_gradients

pytestmark = pytest.mark.skipif(
    hooked_transformer() is None, reason="this TransformerLens has no HookedTransformer"
)

AT = lrc.relations.TokenizedPrompt(
    prompt=lrc.Prompt(text="cat is", subject="cat", object="x"),
    text_ids=(1, 7, 3, 22, 9, 4),
    object_ids=(5, 6),
    subject_position=3,
)
KINDS = {
    "grouped": {"n_key_value_heads": 2},
    "ungrouped": {"n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
    "softcap": {"attn_scores_soft_cap": 0.5},
    "local": {"use_local_attn": True, "window_size": 3, "attn_types": ["local", "global", "local"]},
    "learned positions": {"positional_embedding_type": "standard", "rotary_dim": None},
}


def model_of(kind):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    options = {
        "n_layers": 3, "d_model": 12, "n_ctx": 32, "d_head": 6, "n_heads": 4, "d_mlp": 20, "d_vocab": 50,
        "act_fn": "gelu", "seed": 0, "positional_embedding_type": "rotary", "rotary_dim": 6,
        "normalization_type": "RMS", "dtype": torch.float64, "device": "cpu", "initializer_range": 0.5,
    }  # fmt: skip
    model = HookedTransformer(HookedTransformerConfig(**{**options, **KINDS[kind]}))
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, 12)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_over_a_cached_prefix_is_that_of_the_whole_sequence(kind, monkeypatch):
    model = model_of(kind)
    spared = lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
    monkeypatch.setattr("lrc_tl.lre.jacobian_graph.prefix_cache", lambda *args, **kwargs: None)
    whole = lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
    assert whole.jacobian.norm() > 0.01
    torch.testing.assert_close(spared.jacobian, whole.jacobian)
    torch.testing.assert_close(spared.object, whole.object)


def test_hooks_in_the_attention_see_what_they_always_see(monkeypatch):
    model = model_of("grouped")
    seen = []

    def keep(activation, hook):
        seen.append((hook.name, activation.detach().clone()))

    names = [f"blocks.1.attn.{name}" for name in ("hook_rot_k", "hook_attn_scores", "hook_pattern", "hook_z")]
    with model.hooks(fwd_hooks=[(name, keep) for name in names]):
        lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
        spared, seen = seen, []
        monkeypatch.setattr(
            "lrc_tl.passes.prefix_cache.suffix_gradients",
            lambda model, cache, layers: suffix_gradients(model, cache, []),
        )
        lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
    assert [name for name, _ in spared] == [name for name, _ in seen] == names * 2  # the prefix, then the rest
    for (_, ours), (_, theirs) in zip(spared, seen, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_hook_that_changes_the_keys_changes_the_jacobian_as_ever(in_place, monkeypatch):
    model = model_of("grouped")

    def halve(keys, hook):
        if in_place:
            keys[:, -1] *= 0.5
            return None
        return torch.cat([keys[:, :-1], 0.5 * keys[:, -1:]], dim=1)

    def run():
        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_rot_k", halve)]):
            return lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)

    spared = run()
    free = lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
    assert (spared.object - free.object).norm() > 1e-3
    monkeypatch.setattr(
        "lrc_tl.passes.prefix_cache.suffix_gradients",
        lambda model, cache, layers: suffix_gradients(model, cache, []),
    )
    whole = run()
    torch.testing.assert_close(spared.jacobian, whole.jacobian)
    torch.testing.assert_close(spared.object, whole.object)


def test_nothing_is_left_behind_after_an_error():
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    model = model_of("grouped")
    before = [dict(block.attn.__dict__) for block in model.blocks]

    def fail(activation, hook):
        raise RuntimeError("a hook of the user failed")

    with (
        model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", fail)]),
        pytest.raises(RuntimeError, match="user failed"),
    ):
        lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2)
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, torch.device("cpu"))
    with suffix_gradients(model, cache, [1]):
        assert "apply_rotary" in model.blocks[1].attn.__dict__
        assert "append" in cache[1].__dict__
    assert "append" not in cache[1].__dict__
    assert [set(block.attn.__dict__) for block in model.blocks] == [set(one) for one in before]
