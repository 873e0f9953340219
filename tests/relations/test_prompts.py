"""Subject positions, and what makes two prompts one."""

import random
from collections import Counter
from dataclasses import replace

import pytest

import lrc_tl as lrc
from lrc_tl.relations.prompts import find_subject


@pytest.mark.parametrize(
    ("text", "subject", "start"),
    [
        ("cat is", "cat", 0),
        ("The cat in the category cat is", "cat", 24),
        ("A cat in the category", "cat", 2),
        ("cat is\nThe cat says", "cat", 11),
        ("'Zürich', in", "Zürich", 1),
        ("東京 is in", "東京", 0),
        ("Beat C++ with C++!", "C++", 14),
        ("B. B. King's guitar", "B. B. King", 0),
        ("The rows of aa aaa", "aa", 12),
        ("cafe\u0301 and cafe are", "cafe", 10),
        ("cafe and cafe\u0301 are", "cafe", 0),
        ("cafe\u0301 is", "cafe\u0301", 0),
        ("\N{ROCKET} and \N{WOMAN}\u200d\N{ROCKET} are", "\N{ROCKET}", 0),
        ("\N{WAVING HAND SIGN} or \N{WAVING HAND SIGN}\U0001f3fd is", "\N{WAVING HAND SIGN}", 0),
        ("日本の首都は東京です", "東京", 6),
        ("서울은 도시", "서울", 0),
        ("العاصمة القاهرة هي", "القاهرة", 8),
        ("snake_case snake", "snake", 11),
        ('The "cat", a pet', "cat", 5),
        ("A cat-like cat.", "cat", 11),
        (" cat is", " cat ", 1),
        ("a a ab is", "a a", 0),
        ("cat is\nThe dog says", "cat", 0),
        ("<user>\nWhere is the cat?\n<assistant>\n", "cat", 20),
    ],
)
def test_the_subject_is_the_last_whole_word_of_the_text(text, subject, start):
    assert find_subject(text, subject) == (start, start + len(subject.strip()))


@pytest.mark.parametrize("text", ["The category is", "Cat is\nThe dog says", "concat is", "cat\u0301 is"])
def test_a_subject_that_is_not_there_as_a_word_is_an_error_that_shows_the_text(text):
    with pytest.raises(
        lrc.errors.PositionError, match=r"'cat' is not in the text '[^']*' as a whole word; .*subject_start"
    ):
        lrc.Prompt(text=text, subject="cat", object="x")


def test_an_empty_object_is_refused():
    with pytest.raises(ValueError, match="object is empty"):
        lrc.Prompt(text="The cat says", subject="cat", object=" ")


def test_a_subject_start_overrides_the_rule_and_is_checked():
    prompt = lrc.Prompt(text="letter starts with the letter", subject="letter", object="L", subject_start=0)
    assert prompt.subject_span() == (0, 6)
    assert replace(prompt, subject_start=None).subject_span() == (23, 29)
    for start in (1, -6, 200):
        with pytest.raises(
            lrc.errors.PositionError, match=f"subject_start is {start}, but the subject 'letter' does not"
        ):
            replace(prompt, subject_start=start)


@pytest.mark.parametrize("count", range(1, 13))
def test_a_balanced_draw_gives_each_object_as_often_as_every_other_as_far_as_they_go(count):
    items = [lrc.relations.Fact(f"s{i}", "abcc"[min(i // 2, 3)]) for i in range(12)]  # two a, two b, eight c
    chosen = lrc.relations.spread_over_objects(items, count, random.Random(count))
    assert len(set(chosen)) == count
    counts = Counter(fact.object for fact in chosen)
    for object_, available in (("a", 2), ("b", 2), ("c", 8)):
        assert counts[object_] == available or counts[object_] >= max(counts.values()) - 1
    assert sorted(lrc.relations.spread_over_objects(items, 13, random.Random(0))) == sorted(items)


def test_the_zero_shot_form_is_no_part_of_what_a_prompt_is():
    (prompt, *_) = lrc.Relation.from_pairs("r", {"a": "x", "b": "y"}, templates=["{} is"]).prompts(shots=1)
    bare = replace(prompt, zero_shot=None)
    assert prompt.zero_shot is not None
    assert (bare, hash(bare), repr(bare)) == (prompt, hash(prompt), repr(prompt))
    assert lrc.relations.prompts.prompts_hash([bare]) == lrc.relations.prompts.prompts_hash([prompt])


def test_a_zero_shot_form_of_another_subject_is_refused():
    other = lrc.Prompt(text="b is", subject="b", object="y")
    with pytest.raises(
        ValueError, match="zero_shot is about 'b', and the prompt about 'a'; give a prompt with the"
    ):
        lrc.Prompt(text="b is y\na is", subject="a", object="x", zero_shot=other)


@pytest.mark.real_model
@pytest.mark.parametrize("subject", ["Paris", "São Paulo", "東京", "Llanfairpwll"])
def test_gemma_positions_give_back_the_subject_and_the_object(gemma, subject):
    prompt = lrc.Prompt(text=f"{subject}, the city, is in", subject=subject, object="the United Kingdom")
    tokens = lrc.relations.tokenize_prompt(gemma, prompt)
    decode = gemma.tokenizer.decode
    assert tokens.text_ids[0] == gemma.tokenizer.bos_token_id
    assert decode(tokens.text_ids[1 : tokens.subject_position + 1]) == subject
    assert decode(list(tokens.object_ids)) == " the United Kingdom"
    assert [tokens.input_ids[p + 1] for p in tokens.object_positions[:-1]] == list(tokens.object_ids[:-1])
    assert tokens.object_positions[0] == len(tokens.text_ids) - 1


def test_an_error_about_a_long_text_shows_its_end_alone(word_model):
    text = " ".join(f"w{number % 40}" for number in range(5000))
    with pytest.raises(
        lrc.errors.PositionError, match=r"fill the model's context of 64, so shorten the text"
    ) as caught:
        lrc.relations.tokenize_prompt(word_model, lrc.Prompt(text=text, subject="w3", object="w5"))
    assert len(str(caught.value)) < 1000
    with pytest.raises(lrc.errors.PositionError, match="does not begin at that character") as caught:
        lrc.Prompt(text=text, subject="w3", object="w5", subject_start=0)
    assert len(str(caught.value)) < 1000
