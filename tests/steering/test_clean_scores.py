"""`value="clean"`: scores are set by those of the unedited run, so that edits at several layers cannot cancel."""

import threading
from functools import partial

import pytest
import tiny_models
import torch
from left_behind import left_on
from reference.clean_scores import ByHand, clean_residuals, generated_by_hand, hook_name, logits_by_hand
from tiny_steering import HOOK, N_NEW, TOKENS, WORDS, generate, residuals, unit

import lrc_tl as lrc
from lrc_tl.steering.along_vector import Dual

DOES = ("reflect", "clamp", "ablate")
LAYER_SETS = ((3,), (1, 3), (0, 2, 3), (0, 1, 2, 3))
LAST = hook_name(3)


def oblique():
    """A writing vector at 60 degrees or so to the reading one."""
    vector = unit(3) + 0.7 * unit()
    return vector / vector.norm()


def dual(kind):
    return Dual(write=oblique(), scale=0.3, offset=1.5) if kind == "oblique" else None


def from_clean(does="reflect", layers=(1, 2), kind="plain", **place):
    operation = lrc.steering.FromClean(does=does, vector=unit(), dual=dual(kind))
    return lrc.Steering(operation=operation, hook_name=HOOK, layers=layers, **place)


def by_hand(does="reflect", layers=(1, 2), kind="plain", **place):
    written = {"write": oblique(), "scale": 0.3, "offset": 1.5} if kind == "oblique" else {}
    return ByHand(does, layers, unit(), **written, **place)


def score(residual, kind="plain"):
    read = residual @ unit(dtype=residual.dtype)
    return 0.3 * read - 1.5 if kind == "oblique" else read


def close(model):
    exact = next(model.parameters()).dtype == torch.float64
    return {"rtol": 1e-9, "atol": 1e-9} if exact else {"rtol": 2e-3, "atol": 2e-3}


def assert_generates(model, steerings, hands, texts, *, cache, others=()):
    """`model.generate` under the steerings gives what each row alone gives by hand."""
    with lrc.steer(model, steerings):
        tokens, logits = generate(model, texts, cache=cache)
    for row, text in enumerate(texts):
        start = model.to_tokens(text)[0].tolist()
        wanted, wanted_logits = generated_by_hand(model, start, hands, n_new=N_NEW, others=others)
        assert tokens[row] == wanted
        torch.testing.assert_close(logits[row], wanted_logits, **close(model))


@pytest.fixture(scope="module")
def model(class_of_model, tmp_path_factory):
    """Four layers: float64, and the Bridge in float32."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if class_of_model == "bridge":
        model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"), num_hidden_layers=4)
    else:
        model = tiny_models.hooked_transformer(tokenizer, n_layers=4)
    assert (model.cfg.n_layers, model.cfg.d_model) == (4, tiny_models.D_MODEL)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exact(class_of_model, tmp_path_factory):
    """Four layers in float64 for single rows: with padding, Hugging Face's attention has no numbers in float64."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if class_of_model == "bridge":
        model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"), num_hidden_layers=4).to(
            torch.float64
        )
    else:
        model = tiny_models.hooked_transformer(tokenizer, n_layers=4)
    assert {weight.dtype for weight in model.parameters()} == {torch.float64}
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["plain", "oblique"])
@pytest.mark.parametrize("layers", LAYER_SETS, ids=len)
def test_reflections_at_any_number_of_layers_land_on_minus_the_clean_score(exact, layers, kind):
    clean = residuals(exact, TOKENS, hook=LAST)
    with from_clean("reflect", layers, kind).on(exact):
        steered = residuals(exact, TOKENS, hook=LAST)
        run = []
        exact.run_with_hooks(TOKENS, fwd_hooks=[(LAST, lambda residual, hook: run.append(residual.clone()))])
    assert torch.equal(run[0], steered)
    difference = score(steered, kind) + score(clean, kind)
    assert (difference.abs() < 1e-10 * clean.norm(dim=-1))[:, 1:].all()
    plain = lrc.Steering(
        operation=lrc.steering.Reflect(vector=unit(), dual=dual(kind)), hook_name=HOOK, layers=layers
    )
    if len(layers) > 1:  # what each layer does to what those before left
        with plain.on(exact):
            again = residuals(exact, TOKENS, hook=LAST)
        assert ((score(again, kind) + score(clean, kind)).abs() > 1e-3)[:, 1:].all()


@pytest.mark.parametrize("kind", ["plain", "oblique"])
@pytest.mark.parametrize("layers", LAYER_SETS[1:], ids=len)
def test_the_last_layer_has_the_clean_score_if_clamped_and_loses_it_once_if_ablated(exact, layers, kind):
    clean = residuals(exact, TOKENS, hook=LAST)
    before = []
    with from_clean("clamp", layers, kind).on(exact):
        held = residuals(exact, TOKENS, hook=LAST)
    assert ((score(held, kind) - score(clean, kind)).abs() < 1e-10 * clean.norm(dim=-1))[:, 1:].all()
    with (
        lrc.models.hooking.hooks_on(exact, [(LAST, lambda residual, hook: before.append(residual.clone()))]),
        from_clean("ablate", layers, kind).on(exact),
    ):
        after = residuals(exact, TOKENS, hook=LAST)
    lowered = score(before[0], kind) - score(after, kind) - score(clean, kind)
    assert (lowered.abs() < 1e-10 * clean.norm(dim=-1))[:, 1:].all()


@pytest.mark.parametrize("layers", LAYER_SETS, ids=len)
def test_generated_tokens_keep_minus_the_score_of_their_first_layer_at_every_layer(exact, layers):
    first, last = hook_name(layers[0]), LAST
    seen = {"first": [], "last": []}

    def keep(which):
        return lambda residual, hook: seen[which].append(score(residual[0, -1]))

    text = WORDS[0]
    with (
        lrc.models.hooking.hooks_on(exact, [(first, keep("first"))]),
        from_clean("reflect", layers).on(exact),
        lrc.models.hooking.hooks_on(exact, [(last, keep("last"))]),
    ):
        generate(exact, [text])
    before, after = (torch.stack(seen[which])[1:] for which in ("first", "last"))
    assert len(before) == N_NEW - 1
    torch.testing.assert_close(after, -before, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "oblique"])
@pytest.mark.parametrize("does", DOES)
def test_generation_is_that_by_hand(model, does, kind, n_rows, cache):
    layers = (0, 2, 3)
    steering, hand = from_clean(does, layers, kind), by_hand(does, layers, kind)
    assert_generates(model, [steering], [hand], WORDS[:n_rows], cache=cache)


def test_what_is_done_makes_a_difference(model):
    texts = list(WORDS)
    logits = [generate(model, texts)[1]]
    for does in DOES:
        with from_clean(does, (0, 2, 3)).on(model):
            logits.append(generate(model, texts)[1])
    with lrc.Steering(operation=lrc.steering.Reflect(vector=unit()), hook_name=HOOK, layers=(0, 2, 3)).on(model):
        logits.append(generate(model, texts)[1])
    for number, one in enumerate(logits):
        if number != 1 + DOES.index("clamp"):  # a clamp of one's own clean scores hardly moves the first layers
            assert all((one - other).abs().max() > 1e-2 for other in logits[:number])


PLACES = {
    "prompt": ("prompt", lambda place, n, token: 0 < place < n),
    "generated": ("generated", lambda place, n, token: place >= n),
    "one position": (2, lambda place, n, token: place == 2),
    "a generated position": (7, lambda place, n, token: place == 7),
    "from the end of the prompt on": (slice(-2, None), lambda place, n, token: place >= n - 2),
    "a callable": (lambda chunk: chunk.index % 2 == 1, lambda place, n, token: place % 2 == 1),
}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_places_are_steered_by_scores_of_their_own(model, place, cache):
    where, chosen = PLACES[place]
    steering = from_clean("reflect", (1, 2, 3), where=where)
    assert_generates(model, [steering], [by_hand("reflect", (1, 2, 3), chosen=chosen)], WORDS, cache=cache)


@pytest.mark.parametrize("cache", [True, False])
def test_schedules_scale_what_is_done(model, cache):
    schedule = lrc.Schedule(kind="linear_decay", steps=4)
    hand = by_hand(factor=lambda step: max(0.0, 1 - step / 4))
    assert_generates(model, [from_clean(when=schedule)], [hand], WORDS, cache=cache)


@pytest.mark.parametrize("cache", [True, False])
def test_a_gate_decides_where_and_the_clean_run_how_far(model, cache):
    scores = torch.cat([clean_residuals(model, model.to_tokens(text)[0].tolist())[0] @ unit(7).to(
        next(model.parameters())) for text in WORDS])  # fmt: skip
    threshold = float(scores.median()) + 1e-3
    gate = lrc.Gate(vector=unit(7), hook_name=hook_name(1), threshold=threshold)
    fired = {}

    def read(residual, hook):
        scores = residual[0] @ unit(7).to(residual)
        fired.update({place: bool(value > threshold) for place, value in enumerate(scores)})

    hand = by_hand(fires=lambda place: fired[place])
    steering = from_clean(gate=gate)
    assert_generates(model, [steering], [hand], WORDS, cache=cache, others=[(hook_name(1), read)])


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_the_clean_run_knows_of_no_other_steering(model, cache, nested):
    def add(residual, hook):
        residual = residual.clone()
        residual[:, 1:] += 4.0 * unit(5).to(residual)
        return residual

    adding = lrc.Steering(
        operation=lrc.steering.Add(vector=unit(5), strength=4.0, unit="absolute"), hook_name=hook_name(0)
    )
    steerings, hands = [from_clean("clamp", (1, 3))], [by_hand("clamp", (1, 3))]
    if not nested:
        steerings = [adding, from_clean("ablate", (2,)), *steerings]
        hands = [by_hand("ablate", (2,)), *hands]
        assert_generates(model, steerings, hands, WORDS, cache=cache, others=[(hook_name(0), add)])
        return
    with adding.on(model), from_clean("reflect", (2,)).on(model), lrc.steer(model, steerings):
        tokens, logits = generate(model, WORDS, cache=cache)
    for row, text in enumerate(WORDS):
        start = model.to_tokens(text)[0].tolist()
        hands = [by_hand("reflect", (2,)), by_hand("clamp", (1, 3))]
        wanted, wanted_logits = generated_by_hand(model, start, hands, n_new=N_NEW, others=[(hook_name(0), add)])
        assert tokens[row] == wanted
        torch.testing.assert_close(logits[row], wanted_logits, **close(model))


def test_a_clamp_holds_the_concept_where_the_clean_run_has_it_and_ablation_leaves_what_others_wrote(exact):
    clean = score(residuals(exact, TOKENS))[:, 1:]
    adding = lrc.Steering(operation=lrc.steering.Add(vector=unit(), strength=6.0, unit="absolute"), hook_name=HOOK)
    for does, wanted in (("clamp", clean), ("ablate", torch.full_like(clean, 6.0)), ("reflect", -clean)):
        with lrc.steer(exact, [adding, from_clean(does, "own")]):
            torch.testing.assert_close(score(residuals(exact, TOKENS))[:, 1:], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_in_a_plain_pass_is_its_rows_alone_and_padding_and_beginnings_stay(model, side):
    texts = list(WORDS)
    tokens = model.to_tokens(texts, padding_side=side)
    clean = residuals(model, texts, padding_side=side)
    steering = from_clean("reflect", (1, 2, 3))
    with steering.on(model):
        steered = residuals(model, texts, padding_side=side)
        logits = model(texts, padding_side=side)
    assert torch.equal((steered != clean).any(-1), tokens > 1)
    for row, text in enumerate(texts):
        ids = model.to_tokens(text)[0].tolist()
        wanted = logits_by_hand(model, ids, len(ids), [by_hand("reflect", (1, 2, 3))])
        torch.testing.assert_close(logits[row][tokens[row] != 0], wanted, **close(model))
    with from_clean("reflect", (1,), bos=True).on(model):
        steered = residuals(model, texts, padding_side=side)
    assert torch.equal((steered != clean).any(-1), tokens != 0)


def test_measured_generation_is_that_of_the_model(model):
    steering = from_clean("reflect", (1, 2, 3), "oblique")
    adding = lrc.Steering(operation=lrc.steering.Add(vector=unit(5), strength=0.0), hook_name=hook_name(0))
    strengths = [0.0, 0.2, None]
    rows = lrc.generate(model, list(WORDS), steering=[adding, steering], strengths=strengths, max_new_tokens=N_NEW)
    for row, generated in enumerate(rows):
        alone = adding.operation.with_amount(strengths[row % 3] or 0.0)
        with lrc.steer(model, [lrc.Steering(operation=alone, hook_name=hook_name(0)), steering]):
            tokens, logits = generate(model, [generated.prompt], cache=bool(row % 2))
        n = len(generated.token_ids)
        assert generated.token_ids.tolist() == tokens[0][:n]
        log_probs = logits[0, :n].log_softmax(-1)[range(n), generated.token_ids]
        torch.testing.assert_close(generated.log_probs, log_probs, rtol=1e-3, atol=1e-3)


def test_our_own_passes_over_rows_of_different_lengths_are_the_rows_alone(model):
    texts = [*WORDS, "w4 w5 w6 w7 w8 w9"]
    prompts = [lrc.Prompt(text=text, subject=text.split()[1], object="w1") for text in texts]
    with from_clean("reflect", (0, 1)).on(model):
        together = lrc.subject_activations(model, prompts, layer=1)
        alone = torch.cat([lrc.subject_activations(model, [prompt], layer=1) for prompt in prompts])
    torch.testing.assert_close(together, alone, **close(model))
    for row, text in enumerate(texts):
        clean = clean_residuals(model, model.to_tokens(text)[0].tolist())[1][2]
        torch.testing.assert_close(score(together[row]), -score(clean).to(together), **close(model))


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
    with pytest.raises(ValueError, match="2 strengths for 0 steerings that add or swap"):
        lrc.generate(model, WORDS[0], steering=steering, strengths=[0.1, 0.2])
    edits = [lrc.evaluation.Edit(prompt=lrc.Prompt(text=WORDS[0], subject="w1", object="w6"), target="w7")]
    with pytest.raises(
        ValueError, match="FromClean has no strength to choose; give a steering that adds or swaps"
    ):
        lrc.calibrate_strength(model, steering, edits)
    with pytest.raises(ValueError, match=r"FromClean has no amount, and was given 1\.0"):
        steering.operation.with_amount(1.0)
