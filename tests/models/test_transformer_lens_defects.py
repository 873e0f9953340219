"""Where TransformerLens itself is wrong, in minimal cases, and what lrc_tl does there.

Each test first shows the defect on the class and version that has it, and so fails once TransformerLens mends it;
then the workaround of lrc_tl, or the line with which it refuses. README.md lists them.
"""

import warnings
from importlib.metadata import version

import pytest
import tiny_models
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lrc_tl as lrc
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.models.mapped_weights import store_by_output
from lrc_tl.passes.batches import right_padded, run

HOOK = "blocks.1.hook_resid_post"
MAJOR = int(version("transformer-lens").split(".")[0])
ALONE = torch.tensor([[1, 5, 6, 7]])
LEFT = torch.tensor([[0, 0, 1, 5, 6, 7], [1, 8, 9, 10, 11, 12]])
RIGHT = torch.tensor([[1, 5, 6, 7, 0, 0], [1, 8, 9, 10, 11, 12]])
MASK = (LEFT != 0).long()
TEXTS = ["w1 w2 w3", "w4 w5 w6 w7 w8"]  # the same tokens


def is_bridge(model):
    return "Bridge" in type(model).__name__


def direction(width=tiny_models.D_MODEL):
    vector = torch.randn(width, generator=torch.Generator().manual_seed(0))
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="x", hook_name=HOOK)


def steered(model):
    return direction(model.cfg.d_model).steer(model, strength=0.5)


def continued(model, given, **options):
    made = model.generate(
        given, max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens", **options
    )  # fmt: skip
    return made[0, -4:].tolist()


def far(one, other):
    return float((one - other).abs().max()) > 0.1


def test_left_padded_ids_without_a_mask_are_taken_for_text(word_model):
    expected = word_model(ALONE)[0, -1]
    assert far(word_model(LEFT)[0, -1], expected)
    assert continued(word_model, LEFT) != continued(word_model, ALONE)
    torch.testing.assert_close(word_model(LEFT, attention_mask=MASK)[0, -1], expected, rtol=1e-4, atol=1e-4)
    with steered(word_model):
        for act in (word_model, lambda ids: continued(word_model, ids)):
            with pytest.raises(ValueError, match="a row begins with pad tokens that no attention mask covers"):
                act(LEFT)
    # What lrc_tl runs itself is padded on the right, where no token of a causal model sees the padding.
    ids = right_padded(word_model, [row[row != 0].tolist() for row in LEFT])
    logits = run(word_model, ids, lengths=[4, 6], fwd_hooks=[])
    torch.testing.assert_close(logits[0, 3], expected, rtol=1e-4, atol=1e-4)
    one, many = (lrc.generate(word_model, texts, max_new_tokens=3)[0] for texts in (TEXTS[:1], TEXTS))
    assert one.token_ids.tolist() == many.token_ids.tolist()


@pytest.mark.parametrize("cache", [True, False])
def test_hooked_transformer_generate_drops_the_attention_mask_with_a_warning_and_goes_on(word_model, cache):
    def masked():
        return continued(word_model, LEFT, attention_mask=MASK, use_past_kv_cache=cache)

    expected = continued(word_model, ALONE)
    if is_bridge(word_model):
        assert masked() == expected
        with steered(word_model):
            assert masked() == continued(word_model, ALONE)
        return
    with pytest.warns(UserWarning, match="ignoring: .*attention_mask"):
        assert masked() == continued(word_model, LEFT, use_past_kv_cache=cache) != expected
    with (
        steered(word_model),
        pytest.warns(UserWarning, match="ignoring: .*attention_mask"),
        pytest.raises(ValueError, match=r"ignores it: there give padding_side='left'"),
    ):
        masked()
    # The two other ways that the line names are right.
    assert continued(word_model, LEFT, padding_side="left", use_past_kv_cache=cache) == expected
    assert continued(word_model, TEXTS, use_past_kv_cache=cache) == expected


def test_the_padding_side_of_a_forward_pass_is_ignored_for_ids_by_the_bridge(word_model):
    expected, got = word_model(ALONE)[0, -1], word_model(LEFT, padding_side="left")[0, -1]
    assert far(got, expected) == is_bridge(word_model)
    with steered(word_model):
        if is_bridge(word_model):
            with pytest.raises(ValueError, match="that no attention mask covers"):
                word_model(LEFT, padding_side="left")
        else:
            torch.testing.assert_close(word_model(LEFT, padding_side="left")[0, -1], word_model(ALONE)[0, -1])


def test_generation_from_right_padded_ids_goes_on_from_the_padding(word_model):
    assert continued(word_model, RIGHT) != continued(word_model, ALONE)
    with steered(word_model), pytest.raises(ValueError, match=r"a prompt ends with padding, .* pad on the left"):
        continued(word_model, RIGHT)


def by_hand(model, text):
    ids = model.to_tokens(text)
    for _ in range(4):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0, -4:].tolist()


@pytest.fixture
def pads_with_its_end_token(class_of_model, tmp_path):
    return tiny_models.model_with(class_of_model, "no beginning token, pads with its end token", tmp_path)


def test_hooked_transformer_generate_takes_the_last_token_of_a_text_for_padding_where_it_pads_with_it(
    pads_with_its_end_token,
):
    model, text = pads_with_its_end_token, "w1 w2 w3 <eos>"
    expected = model(model.to_tokens(text))[0, -1]

    def first_logits(**options):
        return model.generate(
            text, max_new_tokens=1, do_sample=False, verbose=False, return_type="tokens", output_logits=True,
            **options,
        ).logits[0][0]  # fmt: skip

    assert far(first_logits(), expected) != is_bridge(model)
    if not is_bridge(model):
        with (
            steered(model),
            pytest.raises(ValueError, match=r"takes a text's own last token .* use lrc\.generate"),
        ):
            first_logits()
        torch.testing.assert_close(first_logits(padding_side="left"), expected)
    (made,) = lrc.generate(model, text, max_new_tokens=1)
    torch.testing.assert_close(made.log_probs[0], expected.log_softmax(-1).max().to(made.log_probs))


def test_generation_from_strings_takes_the_first_token_of_a_text_for_padding_where_it_pads_with_it(
    pads_with_its_end_token,
):
    model, texts = pads_with_its_end_token, ["<eos> w9 w5", "w1 w2 w3"]
    expected = by_hand(model, texts[0])
    assert continued(model, texts) != expected
    if is_bridge(model):
        made = lrc.generate(model, texts, max_new_tokens=4)[0].token_ids.tolist()
        assert made == expected[: len(made)]
        return
    for given in (texts, texts[0]):
        with pytest.raises(
            ValueError, match=r"a text begins with '<eos> w9 w5'\.\.\., and HookedTransformer\.generate"
        ):
            lrc.generate(model, given, max_new_tokens=4)


def test_a_text_that_begins_with_the_beginning_token_runs_with_two(word_model):
    text, told = "w1 w2 w3", "<bos>w1 w2 w3"
    assert word_model.to_tokens(told)[0].tolist() == [1, *word_model.to_tokens(text)[0].tolist()]
    assert far(word_model(told)[0, -1], word_model(text)[0, -1])
    one, other = (lrc.generate(word_model, given, max_new_tokens=3)[0] for given in (text, told))
    assert torch.equal(one.log_probs, other.log_probs)


def test_an_unknown_hook_name_is_ignored_by_the_bridge_of_3_9(word_model):
    def fail(residual, hook):
        raise AssertionError("was called")

    wrong = [("blocks.1.hook_resid_pots", fail)]
    if is_bridge(word_model) and MAJOR == 3:
        word_model.run_with_hooks(ALONE, fwd_hooks=wrong)
        with word_model.hooks(fwd_hooks=wrong):
            word_model(ALONE)
    else:
        with pytest.raises(KeyError, match="hook_resid_pots"):
            word_model.run_with_hooks(ALONE, fwd_hooks=wrong)
    with pytest.raises(LookupError, match=r"no hook point 'blocks\.1\.hook_resid_pots'; near names: .*resid_post"):
        lrc.models.require_hook(word_model, wrong[0][0])


def test_inside_a_hook_of_the_bridge_the_hook_point_has_another_name(word_model):
    names = []
    with word_model.hooks(fwd_hooks=[(HOOK, lambda residual, hook: names.append(hook.name))]):
        word_model(ALONE)
    assert names == (["blocks.1.hook_out"] if is_bridge(word_model) else [HOOK])
    # lrc_tl goes by the name that it asked for: the edit and the reading are at the same place on both.
    one = direction()
    with one.clamp(value=3.0).at(bos=True).on(word_model):
        _, cache = word_model.run_with_cache(ALONE, names_filter=HOOK)
        mask = torch.ones_like(ALONE, dtype=torch.bool)
        assert float(one.pool_cache(cache, by="mean", mask=mask)) == pytest.approx(3.0, rel=1e-5)


def test_a_text_that_is_longer_than_the_context_is_cut_without_a_word(word_model):
    text = "w1 " * 100 + "w2"
    ids = word_model.to_tokens(text)
    assert ids.shape[1] == word_model.cfg.n_ctx == 64
    assert word_model.tokenizer.convert_tokens_to_ids("w2") not in ids[0]
    with pytest.raises(lrc.errors.PositionError, match="fill the model's context of 64"):
        lrc.relations.tokenize_prompt(word_model, lrc.Prompt(text=text, subject="w2", object="w3"))
    with pytest.raises(ValueError, match="fills the model's context of 64 tokens; shorten it"):
        direction().pool_texts(word_model, [text], by="max")
    with pytest.raises(ValueError, match="fills the model's context of 64 tokens; shorten it"):
        direction().read(word_model, text)
    with pytest.raises(ValueError, match="context of 64 tokens, or leaves no room for 60 tokens; shorten it"):
        lrc.generate(word_model, "w1 w2 w3 w4", max_new_tokens=60)
    lrc.generate(word_model, "w1 w2 w3 w4", max_new_tokens=59)


@pytest.mark.parametrize("given", ["no tokenizer", "embeddings"])
def test_learned_positions_are_wrong_under_the_cache_where_hooked_transformer_makes_no_mask(given, tmp_path):
    import transformer_lens

    cls = tiny_models.require_hooked_transformer()
    config = transformer_lens.HookedTransformerConfig(
        n_layers=3, d_model=12, n_ctx=32, d_head=6, n_heads=2, d_mlp=20, d_vocab=48, act_fn="gelu", seed=3,
        positional_embedding_type="standard", normalization_type="LN", dtype=torch.float64, device="cpu",
        initializer_range=0.6,
    )  # fmt: skip
    tokenizer = tiny_models.word_tokenizer(tmp_path) if given == "embeddings" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = cls(config, tokenizer=tokenizer).eval().requires_grad_(False)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, 12)
    start = model.embed(ALONE) if given == "embeddings" else ALONE
    cached, whole = (continued(model, start, use_past_kv_cache=cache) for cache in (True, False))
    assert cached != whole
    ids = ALONE
    for _ in range(4):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    assert ids[0, -4:].tolist() == whole
    with direction().steer(model, strength=0.5, bos=True):
        with pytest.raises(ValueError, match=r"wrong learned positions .* use use_past_kv_cache=False"):
            continued(model, start)
        assert len(continued(model, start, use_past_kv_cache=False)) == 4


class Copies(TorchDispatchMode):
    """Counts the tensors of a given size that are made."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.found = numel, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.clone.default, torch.ops.aten.copy_.default):
            self.found += made.numel() == self.numel
        return made


def test_the_unembedding_is_copied_in_every_pass_of_a_hooked_transformer(tmp_path):
    tiny_models.require_hooked_transformer()
    model = tiny_models.hooked_transformer(tiny_models.word_tokenizer(tmp_path)).requires_grad_(False)

    def copies():
        with Copies(model.unembed.W_U.numel()) as counted:
            logits = model(ALONE)
        return counted.found, logits

    before, expected = copies()
    assert before == 1
    store_by_output(model)  # as load_model does
    after, logits = copies()
    assert after == 0
    torch.testing.assert_close(logits, expected)


def test_the_bridge_puts_a_bos_before_texts_whose_tokenizer_puts_none(tmp_path):
    tokenizer = tiny_models.word_tokenizer(tmp_path)
    tokenizer.backend_tokenizer.post_processor = None
    assert tokenizer("w1 w2")["input_ids"] == [5, 6]
    assert tiny_models.bridge(tokenizer, tmp_path).to_tokens("w1 w2")[0].tolist() == [1, 5, 6]
    assert lrc.load_model(tmp_path).to_tokens("w1 w2")[0].tolist() == [5, 6]


def test_asking_4_x_whether_it_has_hooked_transformer_is_an_import_error():
    import transformer_lens

    if MAJOR == 3:
        assert hooked_transformer() is transformer_lens.HookedTransformer
        return
    with pytest.raises(ImportError, match="was removed"):
        hasattr(transformer_lens, "HookedTransformer")
    assert hooked_transformer() is None
