"""Padding is what masks and lengths say: a row is steered, read and continued in a batch as it is alone.

On tokenizers that pad with a token of their own, with their end or beginning token, and that put none in front;
the texts end with the end token, and one has special tokens inside.
"""

import pytest
import torch
from tiny_steering import HOOK, adding

import lrc_tl as lrc
from lrc_tl.evaluation.edited_passes import EditedSequence, edited_logits
from lrc_tl.passes.batches import logits_at
from lrc_tl.passes.padding import own_tokens, whole_rows

TEXTS = ("w1 w2 w3 <eos>", "w4 <eos>", "w5 <eos> w6 w7 <eos> w8 <eos>")
PLACES = {
    "all": "all",
    "prompt": "prompt",
    "last": -1,
    "one": 1,
    "from the end": slice(-2, None),
    "given by row": [1, 0, 3],
}
LATER = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def model(any_word_model):
    return any_word_model


def direction():
    vector = torch.randn(12, generator=torch.Generator().manual_seed(0))
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="x", hook_name=HOOK)


def ids_of(model, text):
    return model.to_tokens(text)[0].tolist()


def of_row(where, row):
    return where[row : row + 1] if isinstance(where, list) else where


def later_residuals(model, given, **options):
    kept = []
    with model.hooks(fwd_hooks=[(LATER, lambda residual, hook: kept.append(residual.clone()))]):
        model(given, **options)
    return kept[0]


def padded(model, side):
    """Ids and attention mask, filled up with the tokenizer's pad token."""
    rows = [ids_of(model, text) for text in TEXTS]
    width = max(map(len, rows))
    mask = own_tokens(list(map(len, rows)), width, side=side, device="cpu")
    ids = torch.full((len(rows), width), model.tokenizer.pad_token_id)
    for row, own in enumerate(rows):
        ids[row, mask[row]] = torch.tensor(own)
    return ids, mask.long()


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("given", ["ids and a mask", "strings"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_steered_row_is_the_same_alone_and_in_a_batch(model, side, given, place):
    where = PLACES[place]
    ids, mask = padded(model, side)
    with adding(where=where).on(model):
        if given == "strings":
            got = later_residuals(model, list(TEXTS), padding_side=side)
        else:
            got = later_residuals(model, ids, attention_mask=mask)
    for row, text in enumerate(TEXTS):
        with adding(where=of_row(where, row)).on(model):
            alone = later_residuals(model, torch.tensor([ids_of(model, text)]))
        assert_same(got[row, mask[row].bool()], alone[0])


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_but_the_beginning_is_steered_the_last_too(model, text):
    ids = torch.tensor([ids_of(model, text)])
    clean = later_residuals(model, ids)
    with adding().on(model):
        moved = (later_residuals(model, ids) - clean).norm(dim=-1)[0] > 0.1
    begins = model.cfg.default_prepend_bos
    assert moved.tolist() == [not begins, *[True] * (ids.shape[1] - 1)]


def test_a_mask_of_ones_makes_pad_tokens_text(model):
    ids, _ = padded(model, "right")
    ones, bos = torch.ones_like(ids), model.tokenizer.bos_token_id
    clean = later_residuals(model, ids, attention_mask=ones)
    with adding(where=-1).on(model):
        moved = (later_residuals(model, ids, attention_mask=ones) - clean).norm(dim=-1) > 0.1
    assert torch.equal(moved.nonzero()[:, 1], torch.full((len(TEXTS),), ids.shape[1] - 1))
    with adding().on(model):
        moved = (later_residuals(model, ids, attention_mask=ones) - clean).norm(dim=-1) > 0.1
    spared = ids == bos
    if bos == model.tokenizer.eos_token_id:
        spared[:, 1:] = False
    assert torch.equal(moved[:, 0], ~spared[:, 0])


@pytest.mark.parametrize("side", ["right", "left"])
def test_ids_that_look_padded_are_refused_where_nothing_says_what_they_are(model, side):
    ids, mask = padded(model, side)
    message = "give a list of strings, or attention_mask"
    with adding().on(model):
        with pytest.raises(ValueError, match=message):
            model(ids)
        for row in range(len(ids)):  # one row alone is what it is
            model(ids[row : row + 1])
        model(ids, attention_mask=mask)


def test_texts_are_pooled_and_read_under_steering_as_they_are_alone(model):
    for where in ("all", -1, slice(-2, None), 1):
        with adding(where=where).on(model):
            for by in ("max", "mean"):
                together = direction().pool_texts(model, TEXTS, by=by)
                alone = [direction().pool_texts(model, [text], by=by)[0] for text in TEXTS]
                assert_same(together, torch.stack(alone))
            subjects = ["w1 w2", "w4", "w6"]
            by = "last_subject_token"
            together = direction().pool_texts(model, TEXTS, by=by, subjects=subjects)
            alone = [
                direction().pool_texts(model, [text], by=by, subjects=[subject])[0]
                for text, subject in zip(TEXTS, subjects, strict=True)
            ]
            assert_same(together, torch.stack(alone))
            for text in TEXTS:
                read = direction().read(model, text)
                words = [score for place, score in enumerate(read.scores.tolist()) if place not in read.special]
                assert max(words) == pytest.approx(
                    float(direction().pool_texts(model, [text], by="max")[0]), rel=1e-4
                )


def test_logits_of_our_own_passes_are_those_of_each_row_alone(model):
    sequences = [ids_of(model, text) for text in TEXTS]
    positions = [[len(own) - 1] for own in sequences]
    edited = [EditedSequence(ids=tuple(own), edited_position=1, wanted=(len(own) - 1,)) for own in sequences]
    many = torch.tensor([0, 1, 2] * 40)
    shifts = torch.randn(120, 12, generator=torch.Generator().manual_seed(1)) * 0.2
    for where in ("all", -1, slice(-2, None)):
        with adding(where=where).on(model):
            together = dict(logits_at(model, sequences, positions))
            shifted = dict(edited_logits(model, edited, many, shifts, layers=[0]))
            for row, own in enumerate(sequences):
                assert_same(together[row], model(torch.tensor([own]))[:, -1])
                assert_same(
                    shifted[row],
                    next(edited_logits(model, [edited[row]], many[:1], shifts[row : row + 1], layers=[0]))[1],
                )


@pytest.mark.parametrize("where", ["all", "generated", -1])
def test_a_text_is_continued_the_same_alone_and_in_a_batch(model, where):
    together = lrc.generate(model, TEXTS, steering=adding(where=where), max_new_tokens=4)
    for text, row in zip(TEXTS, together, strict=True):
        (alone,) = lrc.generate(model, text, steering=adding(where=where), max_new_tokens=4)
        own = ids_of(model, text)
        for one in (row, alone):
            decoded = decoded_by_hand(model, own, len(one.token_ids), where)
            assert one.token_ids.tolist() == decoded[0]
            assert_same(one.log_probs, decoded[1].to(one.log_probs))


def decoded_by_hand(model, own, n_new, where):
    """Greedy tokens and their log-probabilities, the whole text each time, edited by hand."""
    ids, n_prompt, log_probs = list(own), len(own), []
    begins = bool(model.cfg.default_prepend_bos)

    def edit(residual, hook):
        chosen = torch.zeros(residual.shape[1], dtype=torch.bool)
        chosen[{"all": slice(int(begins), None), "generated": slice(n_prompt, None), -1: n_prompt - 1}[where]] = (
            True
        )
        return residual + 9.0 * chosen[:, None] * adding().operation.vector.to(residual)

    for _ in range(n_new):
        with model.hooks(fwd_hooks=[(HOOK, edit)]):
            step = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        ids.append(int(step.argmax()))
        log_probs.append(step.max())
    return ids[n_prompt:], torch.stack(log_probs)


def test_what_rows_are_told_holds_for_the_pass_alone(model):
    ids, _ = padded(model, "right")
    lengths = [len(ids_of(model, text)) for text in TEXTS]
    with adding().on(model):
        with whole_rows(model, lengths):
            model(ids)
        with pytest.raises(ValueError, match="attention_mask"):
            model(ids)
