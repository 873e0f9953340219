"""Subject and object positions on tokenizers of every common make, against a count of bytes."""

import random
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

import lrc_tl as lrc

SUBJECTS = (
    "cat", "Paris", "São Paulo", "cafe\u0301", "東京", "서울", "ไทย", "القاهرة", "שלום", "C++", "B. B. King",
    "\N{WOMAN}\u200d\N{ROCKET}", "\N{WAVING HAND SIGN}\U0001f3fd", "New York City", "O'Neill", "1984", "x",
    "{} {0}", "naïve", "Llanfairpwllgwyngyll", "\N{LATIN SMALL LIGATURE FI}g",
)  # fmt: skip
HEADS = (
    "",
    "The ",
    '"',
    "(",
    "A category of cats, concatenated: ",
    "«",
    "¿",
    "— ",
    "In the land of ",
    "...",
    "  ",
)
TAILS = ("", " is", "'s capital is", ", the old one, is", '" means', ") in", "» est", "! A category of", "?", " в")
OBJECTS = ("France", "the United Kingdom", "東京都", "woof-woof", "é", "42", "\N{ROCKET}", "Llanfair", "a b c d")
CORPUS = [
    "The cat is in the land of cats. Paris is the capital of France, and London that of the United Kingdom.",
    "In the category of cities, New York City's name is longer than that of São Paulo. B. B. King is a musician.",
    "東京は日本の首都です。 東京 is the capital of Japan. O'Neill wrote plays. The capital is old, it means home.",
]


def byte_level(*, add_prefix_space=False, trim_offsets=True, bos=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    byte = processors.ByteLevel(trim_offsets=trim_offsets)
    adds_bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = processors.Sequence([byte, adds_bos]) if bos == "tokenizer" else byte
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def unigram(*, prepend_scheme="always", bos=None):
    bytes_ = [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    words = sorted({f"▁{word}" for line in CORPUS for word in line.split()})
    letters = sorted(set("".join(CORPUS)) - {" "})
    vocab = [("<s>", 0.0), ("<unk>", 0.0), *bytes_, ("▁", -5.0)]
    vocab += [(letter, -8.0) for letter in letters] + [(word, -6.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=1, byte_fallback=True))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend_scheme)]
    )
    if bos == "tokenizer":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def sentencepiece_bpe(*, bos=None, merged="at"):
    """As Llama's: the space is put in front by a normaliser, bytes stand for unknown characters."""
    letters = sorted(set("".join(CORPUS)) - {" "})
    pieces = [
        "<s>",
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *letters,
        "▁t",
        "he",
        "▁the",
        "ca",
        merged,
    ]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("c", "a"), tuple(merged)]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if bos == "tokenizer":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def word_piece(*, bos=None):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["<s>", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos == "tokenizer":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="[UNK]")


class FakeModel:
    """A tokenizer with a beginning of sequence: none, the tokenizer's own, in the text, or a token of its own."""

    def __init__(self, tokenizer, bos):
        self.tokenizer = tokenizer
        self.bos = bos

    def to_tokens(self, text):
        if self.bos == "text":
            text = self.tokenizer.bos_token + text
        ids = self.tokenizer(text)["input_ids"]
        return torch.tensor([[self.tokenizer.bos_token_id, *ids] if self.bos == "id" else ids])


POLICIES = ("none", "tokenizer", "text", "id")
MAKES = {
    "byte level": byte_level,
    "byte level, prefix space": lambda bos: byte_level(add_prefix_space=True, bos=bos),
    "byte level, offsets with spaces": lambda bos: byte_level(trim_offsets=False, bos=bos),
    "unigram": unigram,
    "unigram, space at the start only": lambda bos: unigram(prepend_scheme="first", bos=bos),
    "unigram, no space added": lambda bos: unigram(prepend_scheme="never", bos=bos),
    "sentencepiece BPE": sentencepiece_bpe,
}
_made = {}


def model_of(make, policy, side="right"):
    key = make, policy == "tokenizer"
    if key not in _made:
        _made[key] = (word_piece if make == "word piece" else MAKES[make])(bos=policy)
    _made[key].padding_side = side
    return FakeModel(_made[key], policy)


def some_prompts(count, seed, subjects=SUBJECTS):
    generator = random.Random(seed)
    for _ in range(count):
        subject = generator.choice(subjects)
        head, tail = generator.choice(HEADS), generator.choice(TAILS)
        before = "".join(f"The {generator.choice(subjects)} is in {generator.choice(OBJECTS)}\n" for _ in range(2))
        before = before * generator.choice((0, 1)) + head
        if generator.random() < 0.3:
            before += f"{subject} and "
        text = f"{before}{subject}{tail}"
        yield lrc.Prompt(text=text, subject=subject, object=generator.choice(OBJECTS)), len(before)


def byte_ends(tokenizer, ids, text):
    """Where each token ends in the bytes of the text, from the pieces' own spelling; no offsets, no decoding."""
    sizes = []
    for piece in tokenizer.convert_ids_to_tokens(ids):
        if piece == "<s>":
            sizes.append(0)
        elif "Ġ" in tokenizer.vocab:  # byte level: each character of a piece is one byte
            sizes.append(len(piece))
        else:
            sizes.append(1 if piece.startswith("<0x") else len(piece.replace("▁", " ").encode()))
    added = sum(sizes) - len(text.encode())  # the space that some put in front
    assert added in (0, 1)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [max(end - added, 0) for end in ends]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("make", MAKES)
def test_the_last_subject_token_is_the_one_that_holds_the_subjects_last_byte(make, policy):
    model = model_of(make, policy, side="left" if policy == "id" else "right")
    for prompt, start in some_prompts(40, seed=f"{make}{policy}"):
        assert prompt.subject_span() == (start, start + len(prompt.subject))
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        text, whole = prompt.text.rstrip(), f"{prompt.text.rstrip()} {prompt.object}"
        assert [*tokens.text_ids, *tokens.object_ids] == model.to_tokens(whole)[0].tolist()
        ends = byte_ends(model.tokenizer, [*tokens.text_ids, *tokens.object_ids], whole)
        wanted = len(text[: start + len(prompt.subject)].encode())
        assert tokens.subject_position == next(i for i, end in enumerate(ends) if end >= wanted)
        assert ends[len(tokens.text_ids) - 1] == len(text.encode())
        assert list(tokens.object_positions) == [i - 1 for i in range(len(tokens.text_ids), len(ends))]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("make", MAKES)
def test_decoding_up_to_the_subject_position_ends_with_the_subject(make, policy):
    model = model_of(make, policy)
    for prompt, start in some_prompts(20, seed=make):
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        text, end = prompt.text, start + len(prompt.subject)
        upto, before = (
            model.tokenizer.decode(tokens.text_ids[:stop], skip_special_tokens=True).lstrip()
            for stop in (tokens.subject_position + 1, tokens.subject_position)
        )
        assert upto.startswith(text[:end].lstrip())
        # A piece may run on into what follows the subject, but only by part of it.
        assert text.lstrip().startswith(upto.rstrip("\ufffd"))
        assert not before.startswith(text[:end].lstrip())


@pytest.mark.parametrize("policy", POLICIES)
def test_word_pieces_of_the_text_up_to_the_subject_are_its_first_tokens(policy):
    """Lower-cased and without accents, so neither bytes nor decoding help; but no word sees what follows it."""
    model = model_of("word piece", policy)
    for prompt, start in some_prompts(40, seed=policy):
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        beginning = model.to_tokens(prompt.text[: start + len(prompt.subject)])[0].tolist()
        assert tokens.subject_position == len(beginning) - 1
        assert list(tokens.text_ids[: len(beginning)]) == beginning


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize(("policy", "template"), [("text", None), ("none", "<s> <s> $A"), ("id", "<s> <s> $A")])
def test_where_decoding_gives_another_text_the_offsets_are_those_of_the_models_own_tokens(
    policy, template, scheme
):
    tokenizer = unigram(prepend_scheme=scheme)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    if template is not None:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0)]
        )
    model = FakeModel(tokenizer, policy)
    for text in ("PARIS is in the", "The capital PARIS", "Of PARIS, the capital is"):
        tokens = lrc.relations.tokenize_prompt(model, lrc.Prompt(text=text, subject="PARIS", object="FRANCE"))
        ends = byte_ends(tokenizer, tokens.text_ids, text.lower())
        wanted = text.index("PARIS") + len("PARIS")
        assert tokens.subject_position == next(i for i, end in enumerate(ends) if end >= wanted)


class Characters(PreTrainedTokenizer):
    """A tokenizer in plain Python, one token a character; it knows no offsets."""

    letters = sorted({*"".join(CORPUS), *"".join(SUBJECTS + HEADS + TAILS + OBJECTS), "\n"})

    def __init__(self, *, lower=False):
        self.ids = {"<s>": 0, "<unk>": 1} | {letter: i + 2 for i, letter in enumerate(self.letters)}
        self.pieces = {i: piece for piece, i in self.ids.items()}
        self.lower = lower
        super().__init__(bos_token="<s>", unk_token="<unk>")

    @property
    def vocab_size(self):
        return len(self.ids)

    def get_vocab(self):
        return dict(self.ids)

    def _tokenize(self, text):
        return list(text.lower() if self.lower else text)

    def _convert_token_to_id(self, token):
        return self.ids.get(token, 1)

    def _convert_id_to_token(self, index):
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)


@pytest.mark.parametrize("policy", ["none", "text", "id"])
def test_a_tokenizer_without_offsets_is_exact_where_it_decodes_to_the_text(policy):
    model = FakeModel(Characters(), policy)
    for prompt, start in some_prompts(30, seed=policy):
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        assert tokens.subject_position == start + len(prompt.subject) - 1 + (policy != "none")


def test_a_tokenizer_that_neither_decodes_to_the_text_nor_knows_offsets_is_an_error_that_shows_the_tokens():
    prompt = lrc.Prompt(text="The Cat is", subject="Cat", object="x")
    with pytest.raises(
        lrc.errors.PositionError,
        match=r"subject 'Cat' of 'The Cat is x' cannot be located among the tokens \['t', 'h', 'e', ' ', 'c'.*"
        "do not decode to the text, and Characters gives no offsets",
    ):
        lrc.relations.tokenize_prompt(FakeModel(Characters(lower=True), "none"), prompt)


def test_offsets_that_hold_no_characters_are_not_believed():
    """Some byte-level tokenizers have been released with offsets that all have no width."""
    model = model_of("byte level", "none")

    class NoWidth:
        def __init__(self, tokenizer):
            self.bos_token, self.all_special_ids = tokenizer.bos_token, tokenizer.all_special_ids
            self.decode = tokenizer.decode

        def __call__(self, text, **options):
            encoded = model.tokenizer(text, **options)
            if "offset_mapping" in encoded:
                encoded["offset_mapping"] = [(left, left) for left, _ in encoded["offset_mapping"]]
            return encoded

    for prompt, _ in some_prompts(10, seed=0):
        expected = lrc.relations.tokenize_prompt(model, prompt)
        assert lrc.relations.tokenize_prompt(FakeModel(NoWidth(model.tokenizer), "none"), prompt) == expected


def test_a_text_whose_tokens_change_when_the_object_follows_is_an_error_that_shows_both():
    model = FakeModel(sentencepiece_bpe(merged="s▁"), "none")
    prompt = lrc.Prompt(text="The cat is", subject="cat", object="et")
    with pytest.raises(
        lrc.errors.PositionError,
        match=r"the text change when object 'et' follows it: \[.*'i', 's'\] against \[.*'s ', 'e', 't'\]; end the",
    ):
        lrc.relations.tokenize_prompt(model, prompt)
    assert lrc.relations.tokenize_prompt(model, replace(prompt, text="The cat is in")).object_ids


@pytest.fixture(scope="module")
def lens_classes():
    """How each TransformerLens class of this version turns text into tokens, with a context of 40 tokens."""
    from transformer_lens.model_bridge import TransformerBridge

    shared = {
        "n_layers": 1,
        "d_model": 4,
        "n_ctx": 40,
        "d_head": 2,
        "n_heads": 2,
        "d_vocab": 400,
        "act_fn": "gelu",
    }
    bridge = {**shared, "d_mlp": 8}

    def build(tokenizer):
        models_ = {"bridge": TransformerBridge.boot_native(bridge, tokenizer=tokenizer)}
        try:
            from transformer_lens import HookedTransformer, HookedTransformerConfig
        except ImportError:  # gone since TransformerLens 4
            return models_
        return models_ | {"hooked": HookedTransformer(HookedTransformerConfig(**shared), tokenizer=tokenizer)}

    return build


@pytest.mark.parametrize("bos", [None, "tokenizer"])
@pytest.mark.parametrize("make", [byte_level, unigram, sentencepiece_bpe])
def test_the_tokens_of_transformer_lens_models_are_understood(lens_classes, tmp_path, make, bos):
    make(bos=bos).save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    prompt = lrc.Prompt(text="The cafe\u0301's capital", subject="cafe\u0301", object="東京 é")
    for model in lens_classes(tokenizer).values():
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        assert tokens.text_ids[0] == tokenizer.bos_token_id
        assert tokens.text_ids.count(tokenizer.bos_token_id) == 1
        upto = tokenizer.decode(tokens.text_ids[1 : tokens.subject_position + 1])
        assert upto.lstrip() == "The cafe\u0301"
        assert tokenizer.decode(tokens.object_ids).lstrip() == "東京 é"
        long = lrc.Prompt(text="The cat and " * 30 + "the cat is", subject="cat", object="x")
        with pytest.raises(
            lrc.errors.PositionError, match="they fill the model's context of 40, so shorten the text"
        ):
            lrc.relations.tokenize_prompt(model, long)
