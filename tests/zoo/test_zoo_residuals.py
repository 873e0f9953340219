"""Where activations are read: the residual stream, token positions, and rows beside other rows."""

import torch
from zoo_families import blocks_of, some_prompts

import lrc_tl as lrc
from lrc_tl.passes.batches import logits_at

TEXT = "The city of Lyon is located in the country of"


def hidden_states(case, ids):
    """What each decoder layer of transformers gives, by hooks of torch on its modules."""
    kept = {}

    def keeper(layer):
        def keep(module, args, output):
            kept[layer] = (output if isinstance(output, torch.Tensor) else output[0]).clone()

        return keep

    handles = [
        block.register_forward_hook(keeper(layer))
        for layer, block in enumerate(blocks_of(case.plain, case.family))
    ]
    try:
        logits = case.plain(ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return [kept[layer] for layer in range(len(kept))], logits


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def test_the_residual_behind_each_block_is_the_hidden_state_of_transformers(case):
    ids = case.model.to_tokens(TEXT)
    expected, logits = hidden_states(case, ids)
    got, cache = case.model.run_with_cache(ids)
    assert case.model.cfg.n_layers == len(expected) == 3
    allowed = 3e-6  # most compute a part in float32 whatever their dtype
    for layer, states in enumerate(expected):
        assert relative(cache[lrc.models.hook_name(case.model, layer)], states) < allowed
    assert relative(got, logits) < allowed


def test_tokens_are_those_of_the_tokenizer_and_the_subject_ends_where_its_word_ends(case):
    tokenizer = case.tokenizer
    for prompt in [*some_prompts(3), lrc.Prompt(text="In São Tomé, café is", subject="São Tomé", object="good")]:
        tokens = lrc.relations.tokenize_prompt(case.model, prompt)
        whole = tokenizer(prompt.text).input_ids
        assert list(tokens.text_ids) == whole
        subject = tokenizer.decode(tokenizer(prompt.subject).input_ids, skip_special_tokens=True)
        upto, before = (
            tokenizer.decode(whole[: tokens.subject_position + n], skip_special_tokens=True) for n in (1, 0)
        )
        assert upto.rstrip().endswith(subject)
        assert not before.rstrip().endswith(subject)


def test_a_row_in_a_batch_is_that_row_alone(case):
    prompts = some_prompts(4)
    tokens = [lrc.relations.tokenize_prompt(case.model, prompt) for prompt in prompts]
    assert len({len(each.input_ids) for each in tokens}) > 1
    together = lrc.subject_activations(case.model, prompts, layer=1)
    for row, prompt in enumerate(prompts):
        alone = lrc.subject_activations(case.model, [prompt], layer=1)[0]
        assert relative(together[row], alone) < 1e-5
    ids = [list(each.text_ids) for each in tokens]
    for row, logits in logits_at(case.model, ids, [[len(each) - 1] for each in ids]):
        expected = case.plain(torch.tensor([ids[row]]), use_cache=False).logits[:, -1]
        assert relative(logits, expected) < 1e-5
