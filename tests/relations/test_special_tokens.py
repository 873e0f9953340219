"""One beginning-of-sequence token in front of a text, and special tokens known by id and place."""

from dataclasses import replace

import pytest
import tiny_models
import torch
from tiny_steering import HOOK, adding

import lrc_tl as lrc
from lrc_tl.relations.special_tokens import special_ids, token_ids

TEXT = "w1 w2 w3 w4"
TOLD = f"<bos>{TEXT}"  # as chat templates write it


@pytest.fixture(
    scope="module", params=["own pad token", "pads with its end token", "pads with its beginning token"]
)
def model(request, class_of_model, tmp_path_factory):
    return tiny_models.model_with(class_of_model, request.param, tmp_path_factory.mktemp("model"))


def direction(seed=0):
    vector = torch.randn(12, generator=torch.Generator().manual_seed(seed))
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="x", hook_name=HOOK)


def prompt(text):
    return lrc.Prompt(text=text, subject="w2", object="w9")


def test_a_text_with_its_own_beginning_token_runs_as_the_text_without(model):
    ids = model.to_tokens(TEXT)[0].tolist()
    assert ids.count(1) == 1
    assert model.to_tokens(TOLD)[0].tolist() == [1, *ids]  # TransformerLens runs two
    assert token_ids(model, TOLD) == token_ids(model, TEXT) == ids
    one, other = (lrc.relations.tokenize_prompt(model, prompt(text)) for text in (TEXT, TOLD))
    assert (one.text_ids, one.object_ids, one.subject_position) == (
        other.text_ids, other.object_ids, other.subject_position,
    )  # fmt: skip
    assert one.subject_position == 2


def test_every_entry_point_that_takes_text_uses_that_one_token(model):
    one, other = (
        {
            "subject": lrc.subject_activations(model, [prompt(text)], layer=1),
            "object": lrc.passes.object_activations(model, [prompt(text)], layer=2),
            "read": direction().read(model, text).scores,
            "mean": direction().pool_texts(model, [text], by="mean"),
            "mean with special tokens": direction().pool_texts(model, [text], by="mean", bos=True),
            "at the subject": direction().pool_texts(model, [text], by="last_subject_token", subjects=["w2"]),
            "log_probs": lrc.generate(model, text, max_new_tokens=3)[0].log_probs,
            "steered": lrc.generate(model, text, steering=adding(where=-1), max_new_tokens=3)[0].log_probs,
            "weight": lrc.LinearRelationalEmbedding.fit(
                model, [prompt(text)], subject_layer=0, object_layer=2
            ).weight,
        }
        for text in (TEXT, TOLD)
    )
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert lrc.last_subject_token(model, TOLD, subject="w2") == lrc.last_subject_token(model, TEXT, subject="w2")


def test_two_beginning_tokens_are_refused_by_every_entry_point(model):
    twice = f"<bos>{TOLD}"
    for use in (
        lambda: lrc.relations.tokenize_prompt(model, prompt(twice)),
        lambda: direction().read(model, twice),
        lambda: direction().pool_texts(model, [TEXT, twice], by="max"),
        lambda: lrc.generate(model, twice),
        lambda: lrc.last_subject_token(model, twice, subject="w2"),
    ):
        with pytest.raises(ValueError, match="begins with the beginning-of-sequence token '<bos>' twice; give it"):
            use()


def test_a_text_that_fills_the_context_with_its_own_beginning_token_is_not_cut(model):
    full = "<bos>" + "w1 " * 61 + "w2"
    assert token_ids(model, full) == [1, *[5] * 61, 6]
    with pytest.raises(ValueError, match="fills the model's context of 64 tokens"):
        direction().read(model, f"{full} w3")


def test_a_model_that_puts_none_runs_the_texts_own(class_of_model, tmp_path):
    model = tiny_models.model_with(class_of_model, "own pad token", tmp_path)
    model.cfg.default_prepend_bos = False
    assert token_ids(model, TEXT) == [5, 6, 7, 8]
    assert token_ids(model, TOLD) == [1, 5, 6, 7, 8]
    assert lrc.relations.tokenize_prompt(model, prompt(TOLD)).subject_position == 2
    with adding(strength=50.0).on(model):
        read = direction().read(model, TOLD)
    assert read.special == (0,)


INSIDE = "w1 w2 <bos> w3 <eos> w4"


def test_special_tokens_are_no_words_wherever_they_stand(model):
    read = direction().read(model, INSIDE)
    assert read.tokens == ("<bos>", "w1", "w2", "<bos>", "w3", "<eos>", "w4")
    assert read.special == (0, 3, 5)
    words = [read.scores[place] for place in (1, 2, 4, 6)]
    assert read.scale == float(torch.stack(words).abs().max())
    pooled = {by: direction().pool_texts(model, [INSIDE], by=by)[0] for by in ("max", "mean")}
    torch.testing.assert_close(pooled["max"].to(read.scores), torch.stack(words).max())
    torch.testing.assert_close(pooled["mean"].to(read.scores), torch.stack(words).mean())
    every = direction().pool_texts(model, [INSIDE], by="mean", bos=True)[0]
    torch.testing.assert_close(every.to(read.scores), read.scores.mean())


def test_a_word_that_the_tokenizer_does_not_know_is_a_word(model):
    assert model.tokenizer.unk_token_id in model.tokenizer.all_special_ids
    assert direction().read(model, "w1 unheard w2").special == (0,)
    assert model.tokenizer.unk_token_id not in special_ids(model.tokenizer)


def test_a_text_of_special_tokens_alone_has_no_words_to_pool(model):
    with pytest.raises(
        ValueError, match="'<eos> <eos>' holds special tokens alone; give a word, or count them with"
    ):
        direction().pool_texts(model, ["w1", "<eos> <eos>"], by="max")
    direction().pool_texts(model, ["<eos> <eos>"], by="max", bos=True)


@pytest.mark.parametrize(
    ("where", "spared"), [("all", [0, 3]), ("prompt", [0, 3]), (slice(0, None), []), (3, None)]
)
def test_beginning_tokens_are_left_alone_wherever_they_stand_and_end_tokens_are_text(model, where, spared):
    ids = model.to_tokens(INSIDE)

    def residual():
        return model.run_with_cache(ids, names_filter=HOOK)[1][HOOK][0]

    clean = residual()
    with adding(where=where).on(model):
        moved = (residual() - clean).norm(dim=-1) > 1
    expected = [place not in spared for place in range(7)] if spared is not None else [n == 3 for n in range(7)]
    assert moved.tolist() == expected
    with adding(where=where, bos=True).on(model):
        moved = (residual() - clean).norm(dim=-1) > 1
    assert moved.all() or where == 3


def test_a_token_that_begins_and_ends_is_a_beginning_only_in_front(class_of_model, tmp_path):
    model = tiny_models.model_with(class_of_model, "no beginning token", tmp_path)
    assert model.tokenizer.bos_token_id == model.tokenizer.eos_token_id == 2  # TransformerLens makes it so
    ids = torch.tensor([[2, 5, 2, 6, 2]])
    clean = model.run_with_cache(ids, names_filter=HOOK)[1][HOOK]
    with adding().on(model):
        moved = (model.run_with_cache(ids, names_filter=HOOK)[1][HOOK] - clean).norm(dim=-1)[0] > 1
    assert moved.tolist() == [False, True, True, True, True]


def ending_every_text(folder):
    """`word_tokenizer` without a beginning token, and with an end token that it puts behind every text."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = tiny_models.word_tokenizer(folder, bos=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_a_tokenizer_that_ends_every_text_is_refused_where_transformer_lens_would_drop_the_first_word(tmp_path):
    model = tiny_models.hooked_transformer(ending_every_text(tmp_path)).eval()
    model.cfg.default_prepend_bos = False
    assert model.to_tokens("w1 w2")[0].tolist() == [6, 2]  # w2 and the end: w1 is gone
    concept = direction()
    calls = [
        lambda: token_ids(model, "w1 w2"),
        lambda: lrc.generate(model, "w1 w2", max_new_tokens=1),
        lambda: concept.pool_texts(model, ["w1 w2"], by="mean"),
        lambda: concept.read(model, "w1 w2"),
        lambda: lrc.relations.tokenize_prompt(model, lrc.Prompt(text="w1 w2", subject="w1", object="w3")),
        lambda: lrc.last_subject_token(model, "w1 w2", subject="w1"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"puts its end token '<eos>' behind 'w1 w2.*add_eos_token=False"):
            call()


def test_an_end_token_that_the_text_spells_out_is_text(model):
    assert token_ids(model, "w1 w2 <eos>")[-2:] == [6, 2]
    assert token_ids(model, "w1 w2 <eos>\n")[-2:] == [6, 2]


def test_a_bridge_keeps_an_end_token_off_every_text(tmp_path):
    model = tiny_models.bridge(ending_every_text(tmp_path / "tokenizer"), tmp_path / "model").eval()
    model.cfg.default_prepend_bos = False
    assert token_ids(model, "w1 w2") == [5, 6]


TAKING_TEXT = {
    "token_ids": lambda model, concepts: token_ids(model, TEXT),
    "read": lambda model, concepts: concepts["x"].read(model, TEXT),
    "classify": lambda model, concepts: concepts.classify(model, TEXT, subject="w2"),
    "filter_known": lambda model, concepts: lrc.filter_known(model, [prompt(TEXT)], progress=False),
    "fit": lambda model, concepts: lrc.LinearRelationalEmbedding.fit(
        model, [prompt(TEXT)], subject_layer=0, object_layer=1, progress=False
    ),
    "generate": lambda model, concepts: lrc.generate(model, TEXT, max_new_tokens=1),
}


@pytest.mark.parametrize("name", TAKING_TEXT)
def test_a_model_without_a_tokenizer_is_refused_with_what_to_do(tiny_model, name):
    made = {"x": direction(), "y": replace(direction(1), object_name="y")}
    with pytest.raises(
        ValueError, match=r"the model has no tokenizer, so .*; (load it with one|use model.generate)"
    ):
        TAKING_TEXT[name](tiny_model, lrc.ConceptSet(made))
