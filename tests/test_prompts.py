"""Subject positions, few-shot prompts."""

import pytest

import lrc_tl as lrc
from lrc_tl.prompts import find_subject


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
    ],
)
def test_the_subject_is_the_last_whole_word_of_the_last_statement(text, subject, start):
    assert find_subject(text, subject) == (start, start + len(subject))


@pytest.mark.parametrize("text", ["The category is", "cat is\nThe dog says"])
def test_a_subject_that_is_not_there_as_a_word_is_an_error_that_shows_the_statement(text):
    with pytest.raises(lrc.PositionError, match="'cat' is not in the last statement"):
        lrc.Prompt(text=text, subject="cat", object="x")


def test_an_empty_object_is_refused():
    with pytest.raises(ValueError, match="object is empty"):
        lrc.Prompt(text="The cat says", subject="cat", object=" ")


@pytest.mark.parametrize("shots", [1, 4])
def test_shots_come_from_training_facts_and_never_hold_the_tested_subject(shots):
    train, test = lrc.load_relation("animal_class").split(seed=0)
    training = {fact.subject for fact in train.facts}
    for relation in (train, test):
        prompts = lrc.relation_prompts(relation, shots=shots, seed=3, shots_from=train)
        assert [p.subject for p in prompts] == [f.subject for f in relation.facts]
        for prompt in prompts:
            *examples, last = prompt.text.split("\n")
            assert len(examples) == shots
            template = next(t for t in train.templates if t.replace("{}", prompt.subject) == last)
            head, tail = template.split("{}")
            shown = [line.removeprefix(head).split(tail)[0] for line in examples]
            assert set(shown) <= training - {prompt.subject}
            assert len(set(shown)) == shots
        assert prompts == lrc.relation_prompts(relation, shots=shots, seed=3, shots_from=train)
        assert prompts != lrc.relation_prompts(relation, shots=shots, seed=4, shots_from=train)


def test_dropping_a_fact_leaves_the_other_zero_shot_prompts_as_they_were():
    pairs = [(f"s{i}", f"o{i % 3}") for i in range(12)]
    templates = ["{} is", "a {} is", "the {} is"]
    full = lrc.relation_prompts(lrc.Relation.from_pairs("r", pairs, templates=templates))
    assert lrc.relation_prompts(lrc.Relation.from_pairs("r", pairs[1:], templates=templates)) == full[1:]


def test_more_shots_than_other_facts_is_an_error():
    relation = lrc.Relation.from_pairs("r", [("a", "x"), ("b", "x")], templates=["{} is"])
    with pytest.raises(ValueError, match="2 shots were asked for, but relation 'r' has only 1"):
        lrc.relation_prompts(relation, shots=2)


@pytest.mark.real_model
@pytest.mark.parametrize("subject", ["Paris", "São Paulo", "東京", "Llanfairpwll"])
def test_gemma_positions_give_back_the_subject_and_the_object(gemma, subject):
    prompt = lrc.Prompt(text=f"{subject}, the city, is in", subject=subject, object="the United Kingdom")
    tokens = lrc.tokenize_prompt(gemma, prompt)
    decode = gemma.tokenizer.decode
    assert tokens.text_ids[0] == gemma.tokenizer.bos_token_id
    assert decode(tokens.text_ids[1 : tokens.subject_position + 1]) == subject
    assert decode(list(tokens.object_ids)) == " the United Kingdom"
    assert [tokens.input_ids[p + 1] for p in tokens.object_positions[:-1]] == list(tokens.object_ids[:-1])
    assert tokens.object_positions[0] == len(tokens.text_ids) - 1
