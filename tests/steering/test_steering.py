"""Steering edits exactly the positions that it names: with and without the key-value cache, padded or not."""

import pytest
import torch
from tiny_models import D_MODEL
from tiny_steering import HOOK, N_NEW, TOKENS, WORDS, adding, generate, residuals, unit

import lrc_tl as lrc


@pytest.fixture(scope="module")
def model(word_model):
    return word_model


def reference(model, text, chosen, strength=9.0, hooks=(HOOK,)):
    """Greedy decoding of one row alone, the whole sequence each time, edited by hand at `chosen` positions."""
    return reference_ids(model, model.to_tokens(text)[0].tolist(), chosen, strength, hooks)


def reference_ids(model, start, chosen, strength=9.0, hooks=(HOOK,)):
    ids, prompt = list(start), len(start)

    def edit(residual, hook):
        residual = residual.clone()
        for place in range(residual.shape[1]):
            if chosen(place, prompt):
                residual[0, place] += strength * unit(dtype=residual.dtype)
        return residual

    kept = []
    for _ in range(N_NEW):
        with model.hooks(fwd_hooks=[(hook, edit) for hook in hooks]):
            kept.append(model(torch.tensor([ids]))[0, -1])
        ids.append(int(kept[-1].argmax()))
    return ids[prompt:], torch.stack(kept)


PADDED = torch.tensor([[0, 1, 1, 0, 0, 1], [0, 0, 0, 1, 0, 1]], dtype=torch.bool)
ALONE = torch.tensor([[0, 1, 1, 0, 0, 1]], dtype=torch.bool)
PLACES = {
    "all": ("all", lambda row, place, prompt: place > 0),
    "prompt": ("prompt", lambda row, place, prompt: 0 < place < prompt),
    "generated": ("generated", lambda row, place, prompt: place >= prompt),
    "one position": (2, lambda row, place, prompt: place == 2),
    "a generated position": (7, lambda row, place, prompt: place == 7),
    "the last token of the prompt": (-1, lambda row, place, prompt: place == prompt - 1),
    "a range": (slice(1, 3), lambda row, place, prompt: 1 <= place < 3),
    "from the end of the prompt on": (slice(-2, None), lambda row, place, prompt: place >= prompt - 2),
    "all but the ends of the prompt": (slice(1, -1), lambda row, place, prompt: 1 <= place < prompt - 1),
    "before the end of the prompt": (slice(-3, -1), lambda row, place, prompt: prompt - 3 <= place < prompt - 1),
    "one position a row": ([3, 1], lambda row, place, prompt: place == (3, 1)[row]),
    "a callable": (lambda chunk: chunk.index % 2 == 1, lambda row, place, prompt: place % 2 == 1),
    "a mask": (PADDED, lambda row, place, prompt: place in ((1, 2, 5), (1, 3))[row]),
}


@pytest.fixture(scope="module")
def expected(model):
    """The reference for every place and row."""
    return {
        place: [
            reference(model, text, lambda at, prompt, row=row, chosen=chosen: chosen(row, at, prompt))
            for row, text in enumerate(WORDS)
        ]
        for place, (_, chosen) in {"none": (None, lambda *_: False), **PLACES}.items()
    }


def assert_same(got, expected):
    assert got[0] == [tokens for tokens, _ in expected]
    torch.testing.assert_close(got[1], torch.stack([logits for _, logits in expected]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_generation_is_steered_at_the_named_positions_alone(model, expected, cache, n_rows, place):
    where = PLACES[place][0]
    if n_rows == 1:
        where = {"one position a row": [3], "a mask": ALONE}.get(place, where)
    with adding(where=where).on(model):
        got = generate(model, WORDS[:n_rows], cache=cache)
    assert_same(got, expected[place][:n_rows])


def test_the_table_can_tell_its_places_apart(expected):
    logits = [torch.cat([logits for _, logits in rows]) for rows in expected.values()]
    for index, one in enumerate(logits):
        assert all((one - other).abs().max() > 1e-3 for other in logits[:index])


@pytest.mark.parametrize("cache", [True, False])
def test_without_steering_padding_changes_nothing(model, expected, cache):
    assert_same(generate(model, WORDS, cache=cache), expected["none"])


def test_nothing_is_left_behind(model, expected):
    def fail():
        with adding().on(model):
            assert generate(model, WORDS)[1].sub(expected["none"][0][1]).abs().max() > 1e-3
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert_same(generate(model, WORDS), expected["none"])
    assert "generate" not in vars(model)
    assert not any(module._forward_pre_hooks for module in (model.embed, *model.blocks))


def test_a_plain_pass_is_steered_from_its_second_token_on_and_elsewhere_bit_equal(model):
    clean = residuals(model, TOKENS)
    with adding(where=slice(2, 4)).on(model):
        steered = residuals(model, TOKENS)
    untouched = [0, 1, 4]
    assert torch.equal(steered[:, untouched], clean[:, untouched])
    torch.testing.assert_close(steered[:, 2:4], clean[:, 2:4] + 9 * unit(dtype=clean.dtype))
    with adding().on(model):
        everywhere = residuals(model, TOKENS)
    assert torch.equal(everywhere[:, 0], clean[:, 0])
    with adding(bos=True).on(model):
        assert not torch.equal(residuals(model, TOKENS)[:, 0], clean[:, 0])
    torch.testing.assert_close(everywhere[:, 1:], clean[:, 1:] + 9 * unit(dtype=clean.dtype))


def test_padding_is_left_alone_on_either_side(model):
    texts = list(WORDS)
    for side in ("left", "right"):
        tokens = model.to_tokens(texts, padding_side=side)
        clean = residuals(model, texts, padding_side=side)
        with adding(bos=True).on(model):
            steered = residuals(model, texts, padding_side=side)
        moved = (steered - clean).norm(dim=-1) > 1
        assert torch.equal(moved, tokens != 0)


def test_layers_see_the_edits_of_the_layers_before(model):
    vector = unit(dtype=torch.float64 if "Hooked" in type(model).__name__ else torch.float32)
    kept = {}

    def edit(layer):
        def add(residual, hook):
            kept[layer] = residual[:, 1:].norm(dim=-1)
            edited = residual.clone()
            edited[:, 1:] += 0.3 * kept[layer][..., None] * vector
            return edited

        return add

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", edit(layer)) for layer in (0, 1, 2)]):
        expected = model(TOKENS)
    operation = lrc.steering.Add(vector=vector, strength=0.3)
    for layers in ("all", range(3), [-1, 0, 1]):
        with lrc.Steering(operation=operation, hook_name=HOOK, layers=layers).on(model):
            torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)
    with lrc.Steering(operation=operation, hook_name=HOOK, layers=[0]).on(model):
        assert (model(TOKENS) - expected).abs().max() > 1e-3


def test_a_batch_of_strengths_is_as_many_single_runs(model):
    strengths = torch.tensor([-6.0, 0.0, 2.0, 9.0])
    with adding(strengths).on(model):
        together = generate(model, [WORDS[0]] * 4)
    for row, strength in enumerate(strengths.tolist()):
        with adding(strength).on(model):
            tokens, logits = generate(model, [WORDS[0]])
        assert tokens[0] == together[0][row]
        torch.testing.assert_close(logits[0], together[1][row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (lrc.Schedule(kind="linear_decay", steps=4), [1, 0.75, 0.5, 0.25, 0]),
        (lrc.Schedule(kind="warm_up", steps=4), [0, 0.25, 0.5, 0.75, 1]),
        (lrc.Schedule(kind="first", steps=2), [1, 1, 1, 0, 0]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
@pytest.mark.parametrize("cache", [True, False])
def test_a_schedule_follows_the_generated_tokens(model, cache, schedule, factors):
    ids = model.to_tokens(WORDS[1])[0].tolist()
    prompt, kept = len(ids), []

    def edit(residual, hook):
        residual = residual.clone()
        for place in range(1, residual.shape[1]):
            residual[0, place] += 9.0 * factors[max(0, place - prompt + 1)] * unit(dtype=residual.dtype)
        return residual

    for _ in range(N_NEW):
        with model.hooks(fwd_hooks=[(HOOK, edit)]):
            kept.append(model(torch.tensor([ids]))[0, -1])
        ids.append(int(kept[-1].argmax()))
    with adding(when=schedule).on(model):
        got = generate(model, WORDS, cache=cache)
    assert got[0][1] == ids[prompt:]
    torch.testing.assert_close(got[1][1], torch.stack(kept), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("gate_layer", [0, 1])
def test_a_gate_edits_only_where_its_score_fires_before_the_edit(model, above, gate_layer):
    name = f"blocks.{gate_layer}.hook_resid_post"
    clean, read = residuals(model, TOKENS), residuals(model, TOKENS, hook=name)
    scores = read @ unit(7, dtype=read.dtype)
    threshold = float(scores[0, 1:].median()) + 1e-4
    fires = (scores > threshold) if above else (scores < threshold)
    assert 0 < fires[0, 1:].sum() < 4
    gate = lrc.steering.Gate(vector=unit(7), hook_name=name, threshold=threshold, above=above)
    with adding(gate=gate).on(model):
        moved = (residuals(model, TOKENS) - clean).norm(dim=-1) > 1
    assert torch.equal(moved[0, 1:], fires[0, 1:])
    assert not moved[0, 0]
    with adding(gate=gate).on(model):
        with_cache = generate(model, WORDS)
        without = generate(model, WORDS, cache=False)
    assert with_cache[0] == without[0]


def test_steerings_act_in_the_order_given(model):
    clamp = lrc.Steering(operation=lrc.steering.Clamp(vector=unit(), value=2.0), hook_name=HOOK)
    for order, expected in (([adding(), clamp], 2.0), ([clamp, adding()], 11.0)):
        with lrc.steer(model, order):
            steered = residuals(model, TOKENS)
        score = steered[0, 1:] @ unit(dtype=steered.dtype)
        torch.testing.assert_close(score, torch.full_like(score, expected), rtol=1e-5, atol=1e-5)


def test_blocks_may_be_nested_and_the_norm_may_be_kept(model):
    clean = residuals(model, TOKENS)
    with adding(2.0).on(model):
        with adding(3.0).on(model):
            torch.testing.assert_close(residuals(model, TOKENS)[:, 1:], clean[:, 1:] + 5 * unit(dtype=clean.dtype))
        torch.testing.assert_close(residuals(model, TOKENS)[:, 1:], clean[:, 1:] + 2 * unit(dtype=clean.dtype))
    with adding(keep_norm=True).on(model):
        steered = residuals(model, TOKENS)
    torch.testing.assert_close(steered.norm(dim=-1), clean.norm(dim=-1))
    assert (steered - clean)[:, 1:].norm() > 1


def test_other_peoples_hooks_stay(model):
    calls = []
    model.add_hook(HOOK, lambda residual, hook: calls.append(1))
    try:
        with adding().on(model):
            model(TOKENS)
        model(TOKENS)
    finally:
        model.reset_hooks()
    assert len(calls) == 2


def test_streamed_generation_knows_its_prompt(model, expected):
    with adding(where="generated").on(model):
        pieces = list(
            model.generate_stream(
                WORDS[0], max_new_tokens=N_NEW, do_sample=False, stop_at_eos=False, verbose=False,
                return_type="tokens", max_tokens_per_yield=1,
            )
        )  # fmt: skip
    assert torch.cat([piece.flatten() for piece in pieces]).tolist()[-N_NEW:] == expected["generated"][0][0]


def test_plain_hooks_do_the_same_where_no_position_matters(model):
    with adding(bos=True).on(model):
        expected = residuals(model, TOKENS)
    hooks = adding(bos=True).hooks(model)
    assert [name for name, _ in hooks] == [HOOK]
    with model.hooks(fwd_hooks=hooks):
        assert torch.equal(residuals(model, TOKENS), expected)
    for dependent in (
        adding(),
        adding(bos=True, where=2),
        adding(bos=True, when=lrc.Schedule(kind="first", steps=1)),
    ):
        with pytest.raises(ValueError, match=r"use steer or lrc\.generate"):
            dependent.hooks(model)


@pytest.fixture(scope="module")
def native(one_thread):
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=3, d_model=D_MODEL, n_ctx=32, d_head=6, n_heads=2, d_mlp=20, d_vocab=48, act_fn="gelu", seed=3,
        positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS", device="cpu",
        architecture="TransformerLensNative", initializer_range=0.6,
    )  # fmt: skip
    made = TransformerBridge.boot_native(config).eval().requires_grad_(False)
    assert (made.cfg.n_layers, made.cfg.d_model, made.tokenizer) == (3, D_MODEL, None)
    return made


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("place", ["all", "prompt", "generated", "one position", "the last token of the prompt"])
def test_a_bridge_without_a_tokenizer_is_steered_at_the_named_positions(native, cache, padded, place):
    rows = [[9, 8, 7], [5, 6, 7, 8, 9]][: 2 if padded else 1]
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    where, chosen = PLACES[place]
    with adding(where=where).on(native):
        made = native.generate(
            tokens, attention_mask=mask, max_new_tokens=N_NEW, do_sample=False, stop_at_eos=False, verbose=False,
            use_past_kv_cache=cache,
        )  # fmt: skip
    # Without a tokenizer there is no special first token to spare.
    if place in ("all", "prompt"):
        inner, chosen = chosen, lambda row, at, prompt: inner(row, at, prompt) or at == 0
    expected = [reference_ids(native, ids, lambda at, prompt: chosen(0, at, prompt))[0] for ids in rows]
    assert made[:, -N_NEW:].tolist() == expected


def test_caches_and_hooks_inside_the_block_see_the_steered_residuals(model):
    clean = residuals(model, TOKENS, hook="blocks.2.hook_resid_post")
    with adding().on(model):
        expected = residuals(model, TOKENS, hook="blocks.2.hook_resid_post")
        _, cache = model.run_with_cache(TOKENS)
        kept = []
        model.run_with_hooks(
            TOKENS, fwd_hooks=[("blocks.2.hook_resid_post", lambda residual, hook: kept.append(residual.clone()))]
        )
        assert torch.equal(residuals(model, TOKENS, hook="blocks.2.hook_resid_post"), expected)
    assert torch.equal(cache["blocks.2.hook_resid_post"], expected)
    assert torch.equal(kept[0], expected)
    assert (expected - clean).abs().max() > 1e-3
    assert torch.equal(residuals(model, TOKENS, hook="blocks.2.hook_resid_post"), clean)


@pytest.mark.parametrize("where", ["all", 3, slice(2, None)], ids=str)
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_prompt_in_two_pieces_over_a_cache_is_the_prompt_in_one(model, where, cut):
    with adding(where=where).on(model):
        whole = model(TOKENS)
        if "Hooked" in type(model).__name__:
            from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

            options = {"past_kv_cache": TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 1)}
        else:
            from transformers import DynamicCache

            options = {"past_key_values": DynamicCache(), "use_cache": True}
        pieces = [model(piece, **options) for piece in (TOKENS[:, :cut], TOKENS[:, cut:])]
        with pytest.raises(ValueError, match="this pass uses a cache"), adding(where=-1).on(model):
            model(TOKENS[:, :1], **options)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)
