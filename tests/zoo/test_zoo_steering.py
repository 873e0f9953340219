"""Steered text of every family: with and without the cache, beside other texts, and by hand in transformers."""

import pytest
import torch
from zoo_families import WIDTH, blocks_of

import lrc_tl as lrc

TEXTS = ["The city of Lyon is", "People in the city of Nairobi mostly", "Lima"]
N_NEW = 5
STRENGTH = 30.0  # about the length of these residuals


def steering():
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    return lrc.Steering(
        operation=lrc.steering.Add(vector=vector / vector.norm(), strength=STRENGTH, unit="absolute"),
        hook_name="blocks.1.hook_resid_post",
    )


def by_hand(case, text):
    """Greedy tokens of the model of transformers, the whole sequence each time, and those without steering."""
    plain, tokenizer = case.plain_in_float32(), case.tokenizer
    shift = STRENGTH * steering().operation.vector

    def edit(module, args, output):
        hidden = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        hidden[:, n_special:] += shift
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    def greedy(ids):
        for _ in range(N_NEW):
            ids = [*ids, int(plain(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
        return ids

    start = tokenizer(text).input_ids
    n_special = int(start[0] == tokenizer.bos_token_id)
    unsteered = greedy(start)[len(start) :]
    handle = blocks_of(plain, case.family)[1].register_forward_hook(edit)
    try:
        return greedy(start)[len(start) :], unsteered
    finally:
        handle.remove()


def until_special(tokens):
    """Up to the first special token, behind which steering leaves tokens alone that this reference does not."""
    return tokens[: next((n + 1 for n, token in enumerate(tokens) if token < 4), None)]


def test_steered_text_is_the_same_with_the_cache_and_without_and_by_hand(case):
    model = case.in_float32()
    differed = 0
    for text in TEXTS[:2]:
        expected, unsteered = by_hand(case, text)
        differed += expected != unsteered
        ids = model.to_tokens(text)
        with lrc.steer(model, steering()):
            for cached in (True, False)[case.family.without_cache :]:
                made = model.generate(
                    ids, max_new_tokens=N_NEW, do_sample=False, use_past_kv_cache=cached, stop_at_eos=False,
                    verbose=False,
                )  # fmt: skip
                got = made[0, ids.shape[1] :].tolist()
                assert got[: len(until_special(expected))] == until_special(expected)
    assert differed


def test_texts_of_other_lengths_beside_it_leave_a_text_as_it_is(case):
    model = case.in_float32()
    if case.family.without_logits:
        with pytest.raises(lrc.errors.ModelError, match="a MambaForCausalLM gives no logits"):
            lrc.generate(model, TEXTS, steering=steering(), max_new_tokens=N_NEW)
        return
    together = lrc.generate(model, TEXTS, steering=steering(), max_new_tokens=N_NEW)
    for text, result in zip(TEXTS, together, strict=True):
        (alone,) = lrc.generate(model, text, steering=steering(), max_new_tokens=N_NEW)
        assert result.token_ids.tolist() == alone.token_ids.tolist()
        torch.testing.assert_close(result.log_probs, alone.log_probs, rtol=1e-3, atol=1e-4)
        expected, _ = by_hand(case, text)
        assert result.token_ids.tolist()[: len(until_special(expected))] == until_special(expected)


def test_a_generation_whose_cache_cannot_be_followed_is_refused_with_what_works(case):
    if not case.family.without_cache:
        pytest.skip("it can be followed")
    model = case.in_float32()
    with lrc.steer(model, steering()), pytest.raises(ValueError, match="use use_past_kv_cache=False, or lrc"):
        model.generate(model.to_tokens(TEXTS[0]), max_new_tokens=3, do_sample=False, verbose=False)
