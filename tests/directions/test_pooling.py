"""One score for a text: the same from tensors, from a cache and from text, against a loop over the tokens."""

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.directions.pooling import pool_acts
from lrc_tl.directions.probe import Probe

HOOK = "blocks.1.hook_resid_post"
TEXTS = ["w1 w2 w3 w4", "w5 w6", "w7 w8 w9"]
SUBJECTS = ["w2 w3", "w5", "w9"]


def named(seed, name):
    vector = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name=name, hook_name=HOOK)


@pytest.fixture
def concepts():
    return lrc.ConceptSet({name: named(seed, name) for seed, name in enumerate(("France", "Japan", "Chad"))})


def by_loop(model, direction, text, by, subject, *, bos=False):
    """From `read`, one token after the other."""
    read = direction.read(model, text)
    pairs = [
        pair
        for place, pair in enumerate(zip(read.tokens, read.scores.tolist(), strict=True))
        if bos or place not in read.special
    ]
    if by == "last_subject_token":
        last = subject.split()[-1]
        return next(score for token, score in pairs if token.strip() == last)
    numbers = [score for _, score in pairs]
    return max(numbers) if by == "max" else sum(numbers) / len(numbers)


@pytest.mark.parametrize("by", ["last_subject_token", "mean", "max"])
def test_texts_caches_and_stored_tensors_give_the_same_scores_as_a_loop_over_tokens(word_model, concepts, by):
    subjects = SUBJECTS if by == "last_subject_token" else None
    direction = concepts["Japan"]
    expected = [
        by_loop(word_model, direction, text, by, subject) for text, subject in zip(TEXTS, SUBJECTS, strict=True)
    ]
    got = direction.pool_texts(word_model, TEXTS, by=by, subjects=subjects)
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    for side in ("left", "right"):
        tokens = word_model.to_tokens(TEXTS, padding_side=side)
        _, cache = word_model.run_with_cache(TEXTS, padding_side=side, names_filter=HOOK)
        if by == "last_subject_token":
            # bos, w1 w2 w3 w4: the last subject tokens are 3, 1 and 3 of each row's own.
            first = [int((row != 0).nonzero()[0]) for row in tokens]
            where = {"positions": torch.tensor([3, 1, 3]) + torch.tensor(first)}
        else:
            where = {"mask": lrc.directions.token_mask(word_model, tokens)}
        assert direction.pool_cache(cache, by=by, **where).tolist() == pytest.approx(expected, rel=1e-5)
        assert direction.pool(cache[HOOK], by=by, **where).tolist() == pytest.approx(expected, rel=1e-5)
        of_set = concepts.pool_cache(cache, by=by, **where)
        assert of_set.shape == (3, 3)
        assert of_set[:, 1].tolist() == pytest.approx(expected, rel=1e-5)
    many = concepts.pool_texts(word_model, TEXTS, by=by, subjects=subjects)
    torch.testing.assert_close(many[:, 1], got)


@pytest.mark.parametrize("by", ["mean", "max"])
def test_the_special_token_counts_only_where_it_is_asked_for(word_model, concepts, by):
    direction = concepts["France"]
    for bos in (False, True):
        expected = [by_loop(word_model, direction, text, by, None, bos=bos) for text in TEXTS]
        got = direction.pool_texts(word_model, TEXTS, by=by, bos=bos)
        assert got.tolist() == pytest.approx(expected, rel=1e-5)
        tokens = word_model.to_tokens(TEXTS)
        mask = lrc.directions.token_mask(word_model, tokens, attention_mask=tokens != 0, bos=bos)
        _, cache = word_model.run_with_cache(TEXTS, names_filter=HOOK)
        assert direction.pool_cache(cache, by=by, mask=mask).tolist() == pytest.approx(expected, rel=1e-5)


def test_what_the_mask_hides_has_no_influence_even_if_it_is_not_a_number(concepts):
    resid = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    spoilt = resid.masked_fill(~mask[..., None], float("nan"))
    for by in ("mean", "max"):
        assert torch.equal(concepts.pool(spoilt, by=by, mask=mask), concepts.pool(resid, by=by, mask=mask))
    torch.testing.assert_close(
        concepts["Chad"].pool(resid, by="max", mask=mask)[0], concepts["Chad"].score(resid[0, 1:3]).max()
    )
    scores = torch.tensor([[-5.0, -2.0, 9.0]])
    assert lrc.directions.pool_scores(scores, by="max", mask=torch.tensor([[True, True, False]])).tolist() == [
        -2.0
    ]
    assert lrc.directions.pool_scores(scores, by="mean", mask=torch.tensor([[True, True, False]])).tolist() == [
        -3.5
    ]
    assert lrc.directions.pool_scores(scores, by="last_subject_token", positions=torch.tensor([-1])).tolist() == [
        9.0
    ]


class FakeModel:
    def __init__(self, bos, pad):
        self.tokenizer = type("Tokenizer", (), {"bos_token_id": bos, "pad_token_id": pad})()


@pytest.mark.parametrize(
    ("bos", "pad", "row", "mask", "words"),
    [
        (1, 0, [0, 0, 1, 5, 6], [0, 0, 1, 1, 1], [3, 4]),
        (1, 0, [1, 5, 6, 0, 0], [1, 1, 1, 0, 0], [1, 2]),
        (1, 1, [1, 1, 1, 5, 6], [0, 0, 1, 1, 1], [3, 4]),
        (1, 1, [1, 5, 6, 1, 1], [1, 1, 1, 0, 0], [1, 2]),
        (None, 0, [0, 5, 6, 7, 0], [0, 1, 1, 1, 0], [1, 2, 3]),
        (1, None, [1, 5, 1, 8, 9], [1, 1, 1, 1, 0], [1, 3]),
    ],
)
def test_a_token_mask_shows_the_words_alone(bos, pad, row, mask, words):
    model, tokens, mask = FakeModel(bos, pad), torch.tensor([row] * 2), torch.tensor([mask] * 2)
    masked = lrc.directions.token_mask(model, tokens, attention_mask=mask)
    assert masked[1].nonzero()[:, 0].tolist() == words
    if pad is not None:  # no pad token is a word
        assert torch.equal(lrc.directions.token_mask(model, tokens), masked)
    assert torch.equal(lrc.directions.token_mask(model, tokens, attention_mask=mask, bos=True), mask != 0)
    if pad is not None:
        with pytest.raises(
            ValueError, match=r"row 0 begins or ends with the tokenizer's pad token, .* give attention"
        ):
            lrc.directions.token_mask(model, tokens, bos=True)
    assert lrc.directions.token_mask(model, tokens[:1], bos=True).all()


def test_an_attention_mask_says_what_is_padding():
    model, tokens = FakeModel(1, 1), torch.tensor([[1, 1, 5, 1]])
    mask = torch.tensor([[0, 1, 1, 1]])
    assert lrc.directions.token_mask(model, tokens, attention_mask=mask).tolist() == [[False, False, True, False]]
    assert lrc.directions.token_mask(model, tokens, attention_mask=mask, bos=True).tolist() == [
        [False, True, True, True]
    ]
    with pytest.raises(ValueError, match=r"the attention mask has shape \(1, 3\), the tokens \(1, 4\)"):
        lrc.directions.token_mask(model, tokens, attention_mask=mask[:, :3])


def test_bad_input_is_refused_with_what_to_do(word_model, concepts):
    direction, resid = concepts["France"], torch.zeros(2, 3, 12)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    with pytest.raises(ValueError, match=r"by='mean' was given the wrong one .* take `mask`"):
        direction.pool(resid, by="mean")
    with pytest.raises(ValueError, match="by='last_subject_token' takes `positions`"):
        direction.pool(resid, by="last_subject_token", mask=mask)
    with pytest.raises(ValueError, match="row 1 of the mask shows no token"):
        direction.pool(resid, by="max", mask=mask)
    with pytest.raises(ValueError, match="position 3 is outside row 1, which has 3 tokens"):
        direction.pool(resid, by="last_subject_token", positions=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="the residuals are not finite"):
        direction.pool(resid + float("nan"), by="max", mask=mask | True)
    with pytest.raises(ValueError, match="the scores of some tokens are not finite"):
        lrc.directions.pool_scores(
            torch.full((1, 1), float("inf")), by="mean", mask=torch.ones(1, 1, dtype=torch.bool)
        )
    _, cache = word_model.run_with_cache("w1 w2", names_filter="blocks.0.hook_resid_post")
    with pytest.raises(LookupError, match=r"the cache does not hold 'blocks\.1\.hook_resid_post'; run run_with"):
        direction.pool_cache(cache, by="mean", mask=mask)
    with pytest.raises(ValueError, match="keep its batch dimension"):
        direction.pool_cache({HOOK: resid[0]}, by="mean", mask=mask)
    with pytest.raises(ValueError, match="give a list of texts"):
        direction.pool_texts(word_model, "w1 w2", by="mean")
    with pytest.raises(ValueError, match="a text is empty"):
        direction.pool_texts(word_model, ["w1", " "], by="mean")
    with pytest.raises(ValueError, match="no subjects for 1 texts and by='last_subject_token'"):
        direction.pool_texts(word_model, ["w1"], by="last_subject_token")
    with pytest.raises(ValueError, match="1 subjects for 1 texts and by='max'"):
        direction.pool_texts(word_model, ["w1"], by="max", subjects=["w1"])
    with pytest.raises(lrc.errors.PositionError, match="subject 'w7' is not in"):
        direction.pool_texts(word_model, ["w1"], by="last_subject_token", subjects=["w7"])
    with pytest.raises(ValueError, match="fills the model's context of 64 tokens"):
        direction.pool_texts(word_model, ["w1 " * 80], by="mean")


@pytest.fixture
def another_pad_token(word_model):
    before = word_model.tokenizer.pad_token
    word_model.tokenizer.pad_token = "<unk>"
    yield
    word_model.tokenizer.pad_token = before


@pytest.mark.usefixtures("another_pad_token")
def test_steered_positions_are_those_of_the_text_whatever_the_pad_token_is(word_model, concepts):
    direction = next(iter(concepts.values()))
    texts = ["w1 w2 w3", "w5"]
    clean = concepts.pool_texts(word_model, texts, by="max")
    with direction.steer(word_model, strength=50.0, unit="absolute", where=-1):
        steered = concepts.pool_texts(word_model, texts, by="max")
        alone = [concepts.pool_texts(word_model, [text], by="max")[0] for text in texts]
    torch.testing.assert_close(steered, torch.stack(alone), rtol=1e-4, atol=1e-4)
    assert ((steered - clean)[:, 0] > 1).all()
    with (
        direction.steer(word_model, strength=1.0, where=3),
        pytest.raises(ValueError, match="position 3 of `where` is outside row 0, of which 2"),
    ):
        concepts.pool_texts(word_model, texts, by="max")


@pytest.mark.parametrize("place", [{"where": -1}, {"where": slice(-2, None)}, {"where": 3}])
def test_subjects_are_read_under_steering_as_in_a_pass_over_the_whole_text(word_model, concepts, place):
    texts, subjects = ["w7 w1 w2 w3", "w8 w5 w6"], ["w7", "w8"]
    with next(iter(concepts.values())).steer(word_model, strength=50.0, unit="absolute", **place):
        pooled = concepts.pool_texts(word_model, texts, by="last_subject_token", subjects=subjects)
        ranked = [dict(concepts.classify(word_model, t, subject=s)) for t, s in zip(texts, subjects, strict=True)]
        caches = [word_model.run_with_cache(text)[1] for text in texts]
    position = torch.tensor([1])
    expected = [concepts.pool_cache(one, by="last_subject_token", positions=position)[0] for one in caches]
    torch.testing.assert_close(pooled, torch.stack(expected), rtol=1e-4, atol=1e-4)
    scores = torch.tensor([[one[name] for name in concepts] for one in ranked], dtype=pooled.dtype)
    torch.testing.assert_close(scores, pooled, rtol=1e-4, atol=1e-4)


def test_a_direction_and_a_set_are_probes_with_one_score_and_one_per_concept():
    direction = lrc.ConceptDirection(vector=torch.eye(16)[0], relation="r", object_name="x", hook_name=HOOK)
    concepts = lrc.ConceptSet({"x": direction})
    assert isinstance(direction, Probe)
    assert isinstance(concepts, Probe)
    acts = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False, False]] * 3)
    expected = acts[:, :2, 0].mean(1)
    for pooled, shape in (
        (pool_acts(direction.score, acts, by="mean", mask=mask), (3,)),
        (pool_acts(concepts.scores, acts, by="mean", mask=mask), (3, 1)),
        (direction.pool_cache({HOOK: acts}, by="mean", mask=mask), (3,)),
        (concepts.pool_cache({HOOK: acts}, by="mean", mask=mask), (3, 1)),
    ):
        assert pooled.shape == shape
        torch.testing.assert_close(pooled.flatten(), expected)
