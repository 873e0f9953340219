"""`value="clean"`: what its passes run and leave behind, and what it refuses."""

import threading
from functools import partial

import pytest
import tiny_models
import torch
from clean_steering import assert_generates, by_hand, close, from_clean, score
from left_behind import left_on
from reference.clean_scores import clean_residuals, hook_name, logits_by_hand
from tiny_steering import HOOK, N_NEW, TOKENS, WORDS, adding, generate, residuals, unit

import lrc_tl as lrc


def counting(model):
    """Passes that go through the first block, counted behind every hook point by torch's own hook."""
    passes = []
    handle = model.blocks[0].register_forward_hook(lambda module, args, output: passes.append(1))
    return passes, handle


@pytest.mark.parametrize(
    ("where", "cache", "extra"),
    [("all", True, 1), ("all", False, 1), ("prompt", True, 1), ("generated", True, 0), ("generated", False, 0)],
)
def test_a_generation_takes_one_extra_pass_if_its_prompt_is_steered(model, where, cache, extra):
    passes, handle = counting(model)
    try:
        with lrc.steer(model, [from_clean(where=where), from_clean("clamp", (3,), where=where)]):
            for _ in range(2):
                passes.clear()
                generate(model, WORDS, cache=cache)
                assert len(passes) == N_NEW + extra
    finally:
        handle.remove()


def test_hooks_of_others_see_one_pass_and_change_nothing_in_the_clean_run(model):
    seen, ours = [], []
    steering = from_clean("reflect", (1, 2))

    def double(residual, hook):
        seen.append(residual.shape)
        return 2 * residual

    clean = residuals(model, TOKENS, hook=hook_name(2))
    with (
        lrc.models.hooking.hooks_on(model, [(hook_name(0), lambda residual, hook: ours.append(1))]),
        steering.on(model),
    ):
        model.add_hook("hook_embed" if "hook_embed" in model.hook_dict else "embed.hook_out", double)
        try:
            steered = residuals(model, TOKENS, hook=hook_name(2))
        finally:
            model.reset_hooks()
        assert (len(seen), len(ours)) == (1, 1)
        torch.testing.assert_close(score(steered)[:, 1:], -score(clean)[:, 1:], **close(model))
        _, cache = model.run_with_cache(TOKENS)
    again = cache[hook_name(2)]
    torch.testing.assert_close(score(again)[:, 1:], -score(clean)[:, 1:], **close(model))
    torch.testing.assert_close(again[:, 0], clean[:, 0])


def test_nothing_is_left_on_the_model_after_a_pass_or_a_failed_one(model):
    held, before = [], left_on(model)
    handle = model.hook_dict[hook_name(0)].register_forward_hook(lambda module, args, output: held.append(1))
    function = model.hook_dict[hook_name(0)]._forward_hooks[handle.id]
    try:
        with from_clean().on(model):
            model(TOKENS)
            assert model.hook_dict[hook_name(0)]._forward_hooks[handle.id] is function
        with from_clean(where=9).on(model), pytest.raises(ValueError, match="position 9 of `where`"):
            model(TOKENS)
        assert model.hook_dict[hook_name(0)]._forward_hooks[handle.id] is function
    finally:
        handle.remove()
    assert held
    assert left_on(model) == before


def test_a_pass_may_stop_early_and_its_clean_run_stops_there_too(model):
    steering = from_clean("reflect", (1, 3))
    clean = model(TOKENS, stop_at_layer=2)
    with steering.on(model):
        steered = model(TOKENS, stop_at_layer=2)
        whole = model(TOKENS)
    torch.testing.assert_close(score(steered)[:, 1:], -score(clean)[:, 1:], **close(model))
    ids = TOKENS[0].tolist()
    torch.testing.assert_close(
        whole[0], logits_by_hand(model, ids, 5, [by_hand("reflect", (1, 3))]), **close(model)
    )


def test_the_clean_run_draws_nothing_and_takes_no_part_in_gradients(exact):
    ids = TOKENS[0].tolist()
    clean = [residual.detach() for residual in clean_residuals(exact, ids)]
    edits = {hook_name(layer): score(clean[layer]) for layer in (1, 2, 3)}

    def to_minus_clean(residual, name):
        change = (-edits[name] - score(residual[0]))[:, None] * unit(dtype=residual.dtype)
        return torch.cat([residual[:, :1], (residual[0] + change)[None, 1:]], dim=1)

    hooks = [(name, lambda residual, hook, name=name: to_minus_clean(residual, name)) for name in edits]
    weight, state = next(exact.parameters()), torch.get_rng_state()
    weight.requires_grad_(True)
    try:
        with from_clean("reflect", (1, 2, 3)).on(exact):
            (gradient,) = torch.autograd.grad(exact(TOKENS).logsumexp(-1).sum(), weight)
        with exact.hooks(fwd_hooks=hooks):
            (wanted,) = torch.autograd.grad(exact(TOKENS).logsumexp(-1).sum(), weight)
    finally:
        weight.requires_grad_(False)
    assert torch.equal(torch.get_rng_state(), state)
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9)


def test_two_threads_steer_by_their_own_clean_runs(model):
    def alone(does, text):
        with from_clean(does, (1, 2, 3)).on(model):
            return model(model.to_tokens(text))

    jobs = [("reflect", WORDS[0]), ("ablate", "w9 w8 w7 w6 w5")]
    wanted, before = [alone(*job) for job in jobs], left_on(model)
    results = [[], []]

    def work(number):
        for _ in range(6):
            results[number].append(alone(*jobs[number]))

    threads = [threading.Thread(target=partial(work, number)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 1):
        assert len(results[number]) == 6
        for logits in results[number]:
            torch.testing.assert_close(logits, wanted[number])
    assert left_on(model) == before


def test_blocks_may_be_entered_and_left_while_a_clean_pass_ends(model):
    """As another thread may do; torch goes through the hooks of every module that an Exception leaves."""
    text, entered = WORDS[0], []

    def enter_and_leave(module, args, output):
        entered.append(module)
        with adding().on(model):
            pass

    with from_clean("reflect", (1, 2, 3)).on(model):
        expected = model(model.to_tokens(text))
        handles = [
            module.register_forward_hook(function, always_call=True)
            for module in model.modules()
            for function in (enter_and_leave, lambda module, args, output: None)  # one to go on to
        ]
        try:
            found = model(model.to_tokens(text))
        finally:
            for handle in handles:
                handle.remove()
    assert entered
    assert torch.equal(found, expected)


@pytest.mark.parametrize("cache", [True, False])
def test_the_clean_pass_fills_no_cache_of_hugging_faces_generation(class_of_model, model, cache):
    if class_of_model != "bridge":
        pytest.skip("HookedTransformer has no hf_generate")
    with from_clean("reflect", (1, 2, 3)).on(model):
        wanted, _ = generate(model, WORDS[:1])
        tokens = model.hf_generate(
            WORDS[0], max_new_tokens=N_NEW, do_sample=False, use_cache=cache, stop_at_eos=False,
            return_type="tokens",
        )  # fmt: skip
    assert tokens[0, -N_NEW:].tolist() == wanted[0]


def test_a_block_entered_between_steps_of_a_stream_still_tells_its_prompt_from_its_new_tokens(model):
    ids, steering = model.to_tokens(WORDS[0])[0].tolist(), from_clean("reflect", (1, 2, 3))
    n_prompt, hand = len(ids), by_hand("reflect", (1, 2, 3))
    with lrc.Steering(operation=lrc.steering.Add(vector=unit(), strength=0.0), hook_name=HOOK).on(model):
        stream = model.generate_stream(
            WORDS[0], max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens",
            max_tokens_per_yield=1, use_past_kv_cache=False,
        )  # fmt: skip
        ids.extend(next(stream)[0, n_prompt:].tolist())
        assert len(ids) > n_prompt
        with steering.on(model):
            streamed = [int(piece[0, -1]) for piece in stream]
    assert len(streamed) == 3
    for token in streamed:
        assert token == int(logits_by_hand(model, ids, n_prompt, [hand])[-1].argmax())
        ids.append(token)


def test_plain_hooks_are_refused(model):
    for steering in (from_clean(bos=True), from_clean(layers="own")):
        with pytest.raises(
            ValueError, match='value="clean" needs to know which tokens a pass runs, and a plain hook'
        ):
            steering.hooks(model)
        with (
            model.hooks(fwd_hooks=[(HOOK, steering.everywhere)]),
            pytest.raises(ValueError, match=r"use steer, Steering\.on or lrc\.generate"),
        ):
            model(TOKENS)


def test_passes_whose_tokens_are_not_known_are_refused(class_of_model, model):
    if class_of_model == "bridge":
        embedded = torch.randn(1, 5, tiny_models.D_MODEL, generator=torch.Generator().manual_seed(0))
        start = {"input": embedded}
    else:
        start = {"input": model(TOKENS, stop_at_layer=1), "start_at_layer": 1}
    message = r"but this pass starts from embeddings, or in the middle of the model \(start_at_layer\)"
    with from_clean("reflect", (1, 2), bos=True).on(model), pytest.raises(ValueError, match=message):
        model(**start)


def test_decoding_by_hand_is_refused_and_so_is_half_a_prompt_in_a_cache(class_of_model, model):
    if class_of_model == "bridge":
        from transformers import DynamicCache

        cached = {"past_key_values": DynamicCache(), "use_cache": True}
    else:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        cached = {"past_kv_cache": TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 1)}
    with (
        from_clean().on(model),
        pytest.raises(ValueError, match='value="clean" needs to know where the prompt ends, but this pass uses a'),
    ):
        model(TOKENS, **cached)


def test_a_model_that_drops_activations_is_refused(class_of_model, tmp_path):
    if class_of_model != "bridge":
        pytest.skip("HookedTransformer has no dropout")
    model = tiny_models.bridge(tiny_models.word_tokenizer(tmp_path), tmp_path, "GPT-2", resid_pdrop=0.3)
    model.train()
    with from_clean().on(model), pytest.raises(lrc.errors.ModelError, match="drops activations at random"):
        model(TOKENS)


@pytest.mark.parametrize("cache", [True, False])
def test_learned_positions_of_padded_rows_are_those_of_the_rows_alone(class_of_model, tmp_path, cache):
    tokenizer = tiny_models.word_tokenizer(tmp_path)
    if class_of_model == "bridge":
        learned = tiny_models.bridge(tokenizer, tmp_path, "GPT-2")
    else:
        learned = tiny_models.hooked_transformer(tokenizer, positions="standard").eval()
    learned.requires_grad_(False)
    assert "hook_pos_embed" in learned.hook_dict
    assert_generates(learned, [from_clean()], [by_hand()], WORDS, cache=cache)
    shapes = []
    for where in ("generated", "prompt"):  # without an extra pass, and with one
        with from_clean(where=where).on(learned):
            learned.run_with_hooks(
                TOKENS.repeat(2, 1),
                fwd_hooks=[("hook_pos_embed", lambda value, hook: shapes.append(value.shape))],
            )
    assert shapes[0] == shapes[1]


def test_strengths_can_neither_be_chosen_nor_swept(model):
    steering = from_clean()
    with pytest.raises(ValueError, match="2 strengths for 0 steerings that add, swap or clamp"):
        lrc.generate(model, WORDS[0], steering=steering, strengths=[0.1, 0.2])
    edits = [lrc.evaluation.Edit(prompt=lrc.Prompt(text=WORDS[0], subject="w1", object="w6"), target="w7")]
    with pytest.raises(
        ValueError, match="FromClean has no strength to choose; give a steering that adds or swaps"
    ):
        lrc.calibrate_strength(model, steering, edits)
    with pytest.raises(ValueError, match=r"FromClean has no amount, and was given 1\.0"):
        steering.operation.with_amount(1.0)
