"""`value="clean"`: scores are set by those of the unedited run, so that edits at several layers cannot cancel."""

import pytest
import torch
from clean_steering import assert_generates, by_hand, close, dual, from_clean, score
from reference.clean_scores import clean_residuals, generated_by_hand, hook_name, logits_by_hand
from tiny_steering import HOOK, N_NEW, TOKENS, WORDS, generate, residuals, unit

import lrc_tl as lrc

DOES = ("reflect", "clamp", "ablate")
LAYER_SETS = ((3,), (1, 3), (0, 2, 3), (0, 1, 2, 3))
LAST = hook_name(3)


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
    gate = lrc.steering.Gate(vector=unit(7), hook_name=hook_name(1), threshold=threshold)
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
