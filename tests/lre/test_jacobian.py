"""Exact Jacobians against finite differences, plain Hugging Face autograd and each other, on every model class."""

import pytest
import torch
from reference.finite_differences import central_differences, object_after_replacing
from reference.hugging_face_jacobian import subject_object_jacobian as hugging_face_jacobian

import lrc_tl as lrc
from lrc_tl.lre.jacobian import jacobian_grid, layer_pairs
from lrc_tl.lre.jacobian_graph import goes_forward, n_exact_passes
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.passes.prefix_cache import prefix_cache

PROMPT = lrc.Prompt(text="cat is", subject="cat", object="x")


def tokens(subject_position, n_object, n_text=6):
    ids = torch.randint(0, 50, (12,), generator=torch.Generator().manual_seed(2)).tolist()
    return lrc.relations.TokenizedPrompt(
        prompt=PROMPT,
        text_ids=tuple(ids[:n_text]),
        object_ids=tuple(ids[n_text : n_text + n_object]),
        subject_position=subject_position,
    )


def tiny_gemma(dtype=torch.float64):
    """A random Gemma 3 with one key-value head and a window shorter than the prompts."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        head_dim=6, vocab_size=50, max_position_embeddings=64, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).to(dtype).eval()
    for parameter in model.parameters():  # the default initialisation is so small that layers hardly act
        parameter.data.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        parameter.data *= 0.3
    assert sum(parameter.numel() for parameter in model.parameters()) < 10_000
    model.config.architectures = ["Gemma3ForCausalLM"]
    return model


def in_a_bridge(model, folder):
    """A Bridge around the model, loaded offline; `folder` gives it a tokenizer, which nothing here uses."""
    from transformer_lens.model_bridge import TransformerBridge

    tiny_gemma().save_pretrained(folder)
    dtype = next(model.parameters()).dtype
    return TransformerBridge.boot_transformers(str(folder), hf_model=model, dtype=dtype, device="cpu")


@pytest.fixture(scope="module")
def hugging_face():
    return tiny_gemma()


@pytest.fixture(scope="module")
def gemma_bridge(tmp_path_factory):
    bridge = in_a_bridge(tiny_gemma(), tmp_path_factory.mktemp("tiny_gemma"))
    return bridge.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def native_bridge():
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=3, d_model=12, n_ctx=32, d_head=6, n_heads=2, d_mlp=20, d_vocab=50, act_fn="gelu", seed=0,
        positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS",
    )  # fmt: skip
    return TransformerBridge.boot_native(config, dtype=torch.float64, device="cpu").eval().requires_grad_(False)


@pytest.fixture(params=["hooked_transformer", "native_bridge", "gemma_bridge"])
def model(request):
    if request.param != "hooked_transformer":
        return request.getfixturevalue(request.param)
    if hooked_transformer() is None:
        pytest.skip("this TransformerLens has no HookedTransformer")
    return request.getfixturevalue("tiny_model")


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("subject_position", [0, 3])
@pytest.mark.parametrize(("n_object", "aggregation"), [(1, "mean"), (3, "mean"), (3, "first_token")])
@pytest.mark.parametrize("layers", [(0, 2), (0, 1)])
def test_the_jacobian_equals_central_differences(model, subject_position, n_object, aggregation, layers):
    at = tokens(subject_position, n_object)
    where = {"subject_layer": layers[0], "object_layer": layers[1]}
    got = lrc.lre.subject_object_jacobian(model, at, object_aggregation=aggregation, **where)
    where["n_positions"] = n_object if aggregation == "mean" else 1
    # Bridges compute norms and softmax in float32 whatever the model's dtype, which blurs the differences.
    step, tolerance = (0.02, 1e-3) if hasattr(model, "original_model") else (1e-3, 1e-9)
    directions = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = central_differences(model, at, got.subject, directions, step=step, **where)
    assert expected.norm() > 0.01
    assert relative(got.jacobian @ directions.T, expected) < tolerance
    assert relative(got.object, object_after_replacing(model, at, got.subject, **where)) < 1e-6


@pytest.mark.parametrize("subject_position", [0, 3])
def test_columns_that_go_forward_give_the_jacobians_of_rows_that_go_back(model, subject_position):
    at, ways = tokens(subject_position, 3), {1: "first_token", 2: "mean"}
    pairs = [(0, 1), (0, 2)]
    assert goes_forward(pairs)
    forward = dict(jacobian_grid(model, at, pairs, object_aggregation=ways))
    assert list(forward) == pairs
    for (subject_layer, object_layer), got in forward.items():
        back = lrc.lre.subject_object_jacobian(
            model,
            at,
            subject_layer=subject_layer,
            object_layer=object_layer,
            object_aggregation=ways[object_layer],
        )
        assert back.jacobian.norm() > 0.01
        assert relative(got.jacobian, back.jacobian) < 1e-6
        assert relative(got.subject, back.subject) < 1e-6
        assert relative(got.object, back.object) < 1e-6


def test_a_grid_goes_the_way_that_passes_fewer_layers():
    few = [(0, 1), (0, 2), (0, 5)]  # 5 layers up; 1 + 2 + 5 down
    assert goes_forward(few)
    assert n_exact_passes(few) == 1
    turned = [(5 - object_, 5 - subject) for subject, object_ in few]
    assert not goes_forward(turned)
    assert n_exact_passes(turned) == 1
    assert not goes_forward([(3, 7)])  # as many: rows need no second graph
    grid = [(subject, object_) for subject in range(4, 12) for object_ in range(12, 16)]
    assert not goes_forward(grid)
    assert n_exact_passes(grid) == 4


@pytest.mark.parametrize("subject_position", [0, 3, 7])
def test_a_bridge_gives_the_jacobian_of_hugging_face_on_the_whole_sequence(
    gemma_bridge, hugging_face, subject_position
):
    at = tokens(subject_position, 3, n_text=9)
    got = lrc.lre.subject_object_jacobian(gemma_bridge, at, subject_layer=0, object_layer=2)
    jacobian, subject, object_ = hugging_face_jacobian(
        hugging_face,
        at.input_ids,
        at.subject_position,
        subject_layer=0,
        object_layer=2,
        object_positions=at.object_positions,
    )
    for ours, theirs in ((got.jacobian, jacobian), (got.subject, subject), (got.object, object_)):
        assert relative(ours, theirs) < 1e-6


def test_the_prefix_is_run_once_and_gives_the_jacobian_of_the_whole_sequence(model, monkeypatch):
    at = tokens(4, 3)
    lengths = []

    def count(residual, hook):
        lengths.append(residual.shape[1])

    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", count)]):
        reused = lrc.lre.subject_object_jacobian(model, at, subject_layer=0, object_layer=2)
    native = type(getattr(model, "original_model", None)).__name__ == "NativeModel"  # it has no cache
    assert lengths == ([8] if native else [4, 4])
    monkeypatch.setattr("lrc_tl.lre.jacobian_graph.prefix_cache", lambda *args, **kwargs: None)
    whole = lrc.lre.subject_object_jacobian(model, at, subject_layer=0, object_layer=2)
    assert relative(reused.jacobian, whole.jacobian) < 1e-6
    assert relative(reused.object, whole.object) < 1e-6


def test_a_cache_is_as_it_was_after_a_forward_pass(model):
    ids = torch.tensor([tokens(4, 3).input_ids])
    cache = prefix_cache(model, ids[:, :4], stop_at_layer=3)
    if cache is None:
        assert type(model.original_model).__name__ == "NativeModel"
        return
    with torch.no_grad():
        first, second = (model(ids[:, 4:], **cache.arguments(4)) for _ in range(2))
        whole = model(ids, attention_mask=torch.ones_like(ids))[:, 4:]
    assert torch.equal(first, second)
    assert relative(first, whole) < 1e-6


def test_one_reverse_pass_gives_the_jacobian_of_every_subject_layer(model):
    at = tokens(2, 2)
    together = lrc.lre.subject_object_jacobians(model, at, subject_layers=[0, -2, 2], object_layer=2)
    assert list(together) == [0, 1, 2]
    for layer, got in together.items():
        alone = lrc.lre.subject_object_jacobian(model, at, subject_layer=layer, object_layer=2)
        for part in ("jacobian", "subject", "object"):
            torch.testing.assert_close(getattr(got, part), getattr(alone, part), rtol=1e-5, atol=1e-6)


def test_equal_layers_give_the_identity_where_the_positions_coincide_and_zero_elsewhere(model):
    identity = torch.eye(12, dtype=torch.float64)
    for at, aggregation, expected in [
        (tokens(5, 1), "mean", identity),
        (tokens(5, 3), "mean", identity / 3),
        (tokens(5, 3), "first_token", identity),
        (tokens(3, 3), "mean", 0 * identity),
    ]:
        got = lrc.lre.subject_object_jacobian(
            model, at, subject_layer=1, object_layer=1, object_aggregation=aggregation
        )
        torch.testing.assert_close(got.jacobian, expected)


def test_rows_at_once_do_not_change_the_jacobian(model, monkeypatch):
    where = {"subject_layers": [0, 1], "object_layer": 2}
    whole = lrc.lre.subject_object_jacobians(model, tokens(2, 2), **where)
    with pytest.raises(ValueError, match=r"memory_limit is 1 bytes, but one row .* takes about (\d+)") as error:
        lrc.lre.subject_object_jacobians(model, tokens(2, 2), memory_limit=1, **where)
    one_row = int(str(error.value).split("about ")[1].split(";")[0])
    sizes = []
    vmap = torch.func.vmap

    def counted(function):
        return lambda rows: sizes.append(len(rows)) or vmap(function)(rows)

    monkeypatch.setattr(torch.func, "vmap", counted)
    # Jacobians of MLPs, which share the limit, have a test of their own.
    monkeypatch.setattr("lrc_tl.lre.jacobian_graph.is_worth_it", lambda model, n_rows: False)
    for limit, expected_sizes in [(one_row, [1] * 12), (5 * one_row, [5, 5, 2])]:
        sizes.clear()
        got = lrc.lre.subject_object_jacobians(model, tokens(2, 2), memory_limit=limit, **where)
        assert sizes == expected_sizes
        for layer in (0, 1):
            assert relative(got[layer].jacobian, whole[layer].jacobian) < 1e-6


def test_negative_layers_count_from_the_end_and_inference_mode_does_not_zero_the_gradient(model):
    expected = lrc.lre.subject_object_jacobian(model, tokens(2, 1), subject_layer=0, object_layer=2)
    with torch.inference_mode():
        got = lrc.lre.subject_object_jacobian(model, tokens(2, 1), subject_layer=-3, object_layer=-1)
    assert expected.jacobian.norm() > 0.01
    assert torch.equal(got.jacobian, expected.jacobian)


def test_no_hook_is_left_behind(model):
    before = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    lrc.lre.subject_object_jacobian(model, tokens(2, 1), subject_layer=0, object_layer=2)
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == before


def test_an_object_that_is_read_before_the_subject_is_refused(model):
    at = lrc.relations.TokenizedPrompt(prompt=PROMPT, text_ids=(1, 2, 3), object_ids=(4,), subject_position=5)
    with pytest.raises(ValueError, match="read at position 2, before the subject at 5"):
        lrc.lre.subject_object_jacobian(model, at, subject_layer=0, object_layer=2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [((0, 3), "layer 3 is outside the model; allowed are -3 to 2"), ((2, 1), "object layer 1 lies below")],
)
def test_bad_layers_are_refused(model, layers, message):
    with pytest.raises(ValueError, match=message):
        lrc.lre.subject_object_jacobian(model, tokens(2, 1), subject_layer=layers[0], object_layer=layers[1])


def test_pairs_of_layers_leave_out_objects_below_the_subject(model):
    assert layer_pairs(model, [0, 2], [-2, -1, 2]) == [(0, 1), (0, 2), (2, 2)]
    with pytest.raises(ValueError, match=r"no pair of layers: subject layers \[2\], object layers \[0, 1\]"):
        layer_pairs(model, [2], [0, 1])
    with pytest.raises(ValueError, match="no subject layers"):
        lrc.lre.subject_object_jacobians(model, tokens(2, 1), subject_layers=[], object_layer=2)


def test_a_mistyped_aggregation_is_refused(model):
    with pytest.raises(ValueError, match="'median'; allowed are 'mean' or 'first_token'"):
        lrc.lre.subject_object_jacobian(
            model, tokens(2, 1), subject_layer=0, object_layer=2, object_aggregation="median"
        )


def test_inference_weights_and_weights_that_are_not_finite_are_refused(tmp_path):
    def refused(model, message):
        ran = []
        bridge = in_a_bridge(model, tmp_path)
        hooks = [("blocks.0.hook_resid_post", lambda residual, hook: ran.append(1))]
        with bridge.hooks(fwd_hooks=hooks), pytest.raises(ValueError, match=message):
            lrc.lre.subject_object_jacobian(bridge, tokens(2, 1), subject_layer=0, object_layer=2)
        return ran

    with torch.inference_mode():
        inference = tiny_gemma()
    assert not refused(inference, "is an inference tensor, whose gradients would be zero")
    broken = tiny_gemma()
    broken.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    assert refused(broken, "object activation of 'cat is' at layer 2 is not finite")
