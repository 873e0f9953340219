"""Token positions on random Unicode text, on trained and packaged tokenizers: right, or refused in our words."""

from functools import cache
from unicodedata import normalize

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from test_token_positions import CORPUS, POLICIES, FakeModel, byte_ends, byte_level, word_piece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import lrc_tl as lrc
from lrc_tl.errors import PositionError

# No control characters, which prompts may hold and names may not, and not the signs that pieces spell spaces with.
LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co"), exclude_characters="▁Ġ\ufffd")
SCRIPTS = st.sampled_from("aéßÅ日本語한국ไทยعربעבжж🚀👩\u200d👋🏽ﬁ½Ⅷ '\u2019-.,{}<>/")
WORDS = st.text(st.one_of(SCRIPTS, LETTERS), min_size=1, max_size=12)
PLAIN = st.lists(WORDS, max_size=4).map(" ".join)


@cache
def unigram(bos):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos == "tokenizer":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


TRAINED = {
    "byte-level BPE": cache(lambda bos: byte_level(bos=bos)),
    "unigram": unigram,
    "WordPiece": cache(lambda bos: word_piece(bos=bos)),
}


@st.composite
def prompts(draw):
    """A prompt that says where its subject stands, and that place."""
    before, subject, after, object_ = draw(PLAIN), draw(WORDS), draw(PLAIN), draw(WORDS)
    before = f"{before} " if before else ""
    text = normalize("NFC", f"{before}{subject}{f' {after}' if after else ''}")
    start = len(normalize("NFC", before))
    try:
        return lrc.Prompt(text=text, subject=subject.strip(), object=object_, subject_start=start), start
    except ValueError:  # nothing but spaces, a text that ends in one, a subject that begins with one
        assume(False)


def tokenized(model, prompt):
    """The tokens; None: refused, since the text's own tokens change, or cannot be told from each other."""
    try:
        return lrc.relations.tokenize_prompt(model, prompt)
    except PositionError as error:
        event("refused")
        return pytest.fail(f"not about tokens: {error}") if "tokens" not in str(error) else None


def require_object_positions(model, prompt, tokens):
    whole = f"{prompt.text} {prompt.object}"
    assert [*tokens.text_ids, *tokens.object_ids] == model.to_tokens(whole)[0].tolist()
    first = len(tokens.text_ids)
    assert list(tokens.object_positions) == list(range(first - 1, first - 1 + len(tokens.object_ids)))
    assert tokens.input_ids == (*tokens.text_ids, *tokens.object_ids)[:-1]
    assert 0 <= tokens.subject_position < len(tokens.text_ids) + len(tokens.object_ids)


@pytest.mark.parametrize("policy", POLICIES)
@given(drawn=prompts())
def test_byte_level_positions_are_those_that_a_count_of_bytes_gives(policy, drawn):
    prompt, start = drawn
    model = FakeModel(TRAINED["byte-level BPE"](policy), policy)
    tokens = tokenized(model, prompt)
    assume(tokens is not None)
    require_object_positions(model, prompt, tokens)
    ends = byte_ends(model.tokenizer, [*tokens.text_ids, *tokens.object_ids], f"{prompt.text} {prompt.object}")
    wanted = len(prompt.text[: prompt.subject_span()[1]].encode())
    assert prompt.subject_span()[0] == start
    assert tokens.subject_position == next(i for i, end in enumerate(ends) if end >= wanted)


@pytest.mark.parametrize("make", ["unigram", "WordPiece"])
@pytest.mark.parametrize("policy", POLICIES)
@given(drawn=prompts())
def test_where_words_are_split_at_spaces_the_subject_ends_with_the_tokens_of_the_text_up_to_it(
    make, policy, drawn
):
    prompt, _ = drawn
    model = FakeModel(TRAINED[make](policy), policy)
    tokens = tokenized(model, prompt)
    assume(tokens is not None)
    require_object_positions(model, prompt, tokens)
    end = prompt.subject_span()[1]
    followed = prompt.text[end:]
    assume(not followed or followed[0] == " ")
    up_to = model.to_tokens(prompt.text[:end])[0].tolist()
    assume(list(tokens.text_ids[: len(up_to)]) == up_to)
    # A last character that the normaliser takes away, such as a joiner, has no token of its own.
    pieces = model.tokenizer.convert_ids_to_tokens(up_to)
    assume(prompt.text[end - 1].isalnum() and pieces[-1] != "▁")
    assert tokens.subject_position == len(up_to) - 1


def packaged(name):
    from lrc_tl.models.packaged import PACKAGED, packaged_folder

    return AutoTokenizer.from_pretrained(packaged_folder(PACKAGED[name]))


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["packaged:gemma-3-270m", "packaged:smollm2-135m"])
def test_positions_on_the_packaged_tokenizers_are_those_that_a_count_of_bytes_gives(name):
    tokenizer = packaged(name)
    model = FakeModel(tokenizer, "tokenizer")
    special = set(tokenizer.all_special_tokens)
    n_checked = 0

    def ends_in_bytes(ids):
        is_byte_level = "Ġthe" in tokenizer.get_vocab()
        end, ends = 0, []
        for piece in tokenizer.convert_ids_to_tokens(ids):
            if piece in special:
                size = 0
            elif is_byte_level:
                size = len(piece)
            else:
                size = 1 if piece.startswith("<0x") and len(piece) == 6 else len(piece.replace("▁", " ").encode())
            end += size
            ends.append(end)
        return ends

    @given(drawn=prompts())
    def law(drawn):
        nonlocal n_checked
        prompt, _ = drawn
        tokens = tokenized(model, prompt)
        assume(tokens is not None)
        require_object_positions(model, prompt, tokens)
        ends = ends_in_bytes([*tokens.text_ids, *tokens.object_ids])
        assert ends[-1] == len(f"{prompt.text} {prompt.object}".encode())
        wanted = len(prompt.text[: prompt.subject_span()[1]].encode())
        assert tokens.subject_position == next(i for i, end in enumerate(ends) if end >= wanted)
        n_checked += 1

    law()
    assert n_checked > 20
