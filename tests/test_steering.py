"""Steering edits exactly the positions that it names: with and without the key-value cache, padded or not."""

import warnings

import pytest
import torch

import lrc_tl as lrc

HOOK = "blocks.1.hook_resid_post"
D_MODEL = 12
WORDS = ("w1 w2 w3 w4 w5", "w9 w8 w7")
N_NEW = 5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny models are ten times slower when their threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number}" for number in range(44))]
    plain = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def hooked_transformer(tokenizer):
    transformer_lens = pytest.importorskip("transformer_lens")
    try:
        cls = transformer_lens.HookedTransformer
    except (ImportError, AttributeError):
        pytest.skip("this TransformerLens has no HookedTransformer")
    config = transformer_lens.HookedTransformerConfig(
        n_layers=3, d_model=D_MODEL, n_ctx=64, d_head=6, n_heads=2, d_mlp=20, d_vocab=48, act_fn="gelu", seed=3,
        positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS", dtype=torch.float64,
        device="cpu", initializer_range=0.6,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return cls(config, tokenizer=tokenizer)


def bridge(tokenizer, folder):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=D_MODEL, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, vocab_size=48,
        max_position_embeddings=64, attn_implementation="eager", bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.6,
    )  # fmt: skip
    hf_model = LlamaForCausalLM(config)  # float64 with left padding is NaN in Hugging Face's eager attention
    hf_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TransformerBridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )


@pytest.fixture(scope="module", params=["hooked_transformer", "bridge"])
def model(request, tokenizer, tmp_path_factory):
    if request.param == "bridge":
        made = bridge(tokenizer, tmp_path_factory.mktemp("bridge"))
    else:
        made = hooked_transformer(tokenizer)
    assert (made.cfg.n_layers, made.cfg.d_model) == (3, D_MODEL)
    return made.eval().requires_grad_(False)


def unit(seed=0, dtype=torch.float64):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (vector / vector.norm()).to(dtype)


def adding(strength=9.0, **place):
    return lrc.Steering(
        operation=lrc.Add(vector=unit(), strength=strength, unit="absolute"), hook_name=HOOK, **place
    )


def residuals(model, tokens, hook=HOOK, **given):
    kept = []
    with model.hooks(fwd_hooks=[(hook, lambda residual, hook: kept.append(residual.clone()))]):
        model(tokens, **given)
    return kept[0]


def generate(model, texts, *, cache=True, n_new=N_NEW):
    """New tokens and the logits that they came from, by row."""
    made = model.generate(
        list(texts), max_new_tokens=n_new, do_sample=False, stop_at_eos=False, verbose=False,
        use_past_kv_cache=cache, return_type="tokens", output_logits=True,
    )  # fmt: skip
    return made.sequences[:, -n_new:].tolist(), torch.stack(made.logits, dim=1)


def reference(model, text, chosen, strength=9.0, hooks=(HOOK,)):
    """Greedy decoding of one row alone, the whole sequence each time, edited by hand at `chosen` positions."""
    ids = model.to_tokens(text)[0].tolist()
    prompt = len(ids)

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
