"""Known prompts: batched decoding says what decoding one prompt at a time says."""

import pytest
import torch
from test_activations import random_prompts

import lrc_tl as lrc
from lrc_tl.passes.answers import ExpectedAnswer


def decoded_alone(model, prompt, objects=()):
    """As many tokens as the longest object needs that the answer may be, and two more; a word is a token."""
    tokens = lrc.relations.tokenize_prompt(model, prompt)
    ids = list(tokens.text_ids)
    longest = max(len(name.split()) for name in (prompt.object, *objects) if name.startswith(prompt.object))
    for _ in range(longest + 2):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == model.tokenizer.eos_token_id:
            return model.tokenizer.decode(ids[len(tokens.text_ids) : -1])
    return model.tokenizer.decode(ids[len(tokens.text_ids) :])


def test_every_dropped_prompt_says_what_greedy_decoding_alone_says(word_model):
    prompts = random_prompts(40)
    known = lrc.filter_known(word_model, prompts, max_tokens=50)
    assert len(known.prompts) + len(known.dropped) == 40
    objects = {prompt.object for prompt in prompts}
    for entry in known.dropped:
        assert entry.answer == decoded_alone(word_model, entry.prompt, objects)
        assert entry.answer in entry.reason
        begun = [name for name in objects if f"{entry.answer} ".startswith(f"{name} ")]
        assert entry.prompt.object not in begun or entry.prompt.object != max(begun, key=len)


def test_what_the_model_says_itself_is_known_and_anything_else_is_not(word_model):
    said = []
    for prompt in random_prompts(12, seed=5):
        answer = decoded_alone(word_model, prompt).split()
        if answer and answer[0].startswith("w"):
            said.append(lrc.Prompt(text=prompt.text, subject=prompt.subject, object=answer[0]))
    assert len(said) >= 5
    wrong = [lrc.Prompt(text=p.text, subject=p.subject, object="w41 w42 w43") for p in said]
    known = lrc.filter_known(word_model, [*said, *wrong])
    assert set(known.prompts) == set(said)
    assert {entry.prompt for entry in known.dropped} == set(wrong)


def test_answers_cut_short_judge_every_prompt_as_whole_ones_do(word_model):
    prompts = []
    for number, prompt in enumerate(random_prompts(40, seed=7)):
        said = decoded_alone(word_model, prompt).split()
        if said[: 1 + number % 2] and all(word.startswith("w") for word in said):
            kept = said[: 1 + number % 2] if number % 3 else [*said[:1], "w41"]
            prompts.append(lrc.Prompt(text=prompt.text, subject=prompt.subject, object=" ".join(kept)))
    whole = lrc.filter_known(word_model, prompts, seed=3)
    short = lrc.filter_known(word_model, prompts, seed=3, whole_answers=False)
    assert short.prompts == whole.prompts != ()
    assert [entry.prompt for entry in short.dropped] == [entry.prompt for entry in whole.dropped] != []
    for one, other in zip(short.dropped, whole.dropped, strict=True):
        assert other.answer.startswith(one.answer)


def test_a_longer_word_is_not_the_object(word_model, monkeypatch):
    monkeypatch.setattr(
        "lrc_tl.passes.known_prompts._greedy_answers", lambda *args: ["France.", "Frances", " France", "france"]
    )
    prompts = [lrc.Prompt(text=f"w{n} is in", subject=f"w{n}", object="France") for n in range(4)]
    known = lrc.filter_known(word_model, prompts)
    assert {prompt.subject for prompt in known.prompts} == {"w0", "w2"}


def test_the_order_is_shuffled_by_the_seed_alone(word_model, monkeypatch):
    monkeypatch.setattr("lrc_tl.passes.known_prompts._greedy_answers", lambda *args: ["x"] * 30)
    prompts = [lrc.Prompt(text=f"w{n} is", subject=f"w{n}", object="x") for n in range(30)]
    first, again, other = (lrc.filter_known(word_model, prompts, seed=seed).prompts for seed in (1, 1, 2))
    assert first == again != other
    assert set(first) == set(other) == set(prompts)


def test_a_sample_is_balanced_over_objects():
    prompts = tuple(
        lrc.Prompt(text=f"s{n} is", subject=f"s{n}", object="rare" if n < 3 else "common") for n in range(30)
    )
    known = lrc.passes.KnownPrompts(prompts=prompts, dropped=())
    sample = known.sample(6, seed=1)
    assert [prompt.object for prompt in sample].count("rare") == 3
    assert sample == known.sample(6, seed=1) != known.sample(6, seed=2)
    assert len(known.sample(100)) == 30
    with pytest.raises(ValueError, match="ask for at least one"):
        known.sample(0)


def test_nothing_known_is_an_error_that_shows_what_the_model_said():
    prompt = lrc.Prompt(text="Lyon is in", subject="Lyon", object="France")
    known = lrc.passes.KnownPrompts(prompts=(), dropped=(lrc.passes.DroppedPrompt(prompt=prompt, answer="Spain"),))
    with pytest.raises(
        ValueError, match=r"no known prompts.*'Lyon is in': wanted 'France', the model said 'Spain'"
    ):
        known.sample(3)
    assert "0 of 1 prompts" in known.report()


def test_no_prompts_are_refused(word_model):
    with pytest.raises(ValueError, match="no prompts to filter"):
        lrc.filter_known(word_model, [])


def test_one_known_prompt_is_kept_of_each_fact_and_the_seed_decides_which(word_model, monkeypatch):
    asked = [
        lrc.Prompt(text=f"s{n} is{' in' * template}", subject=f"s{n}", object="x")
        for n in range(12)
        for template in range(3)
    ]
    # Fact 0 is known with its last template alone, fact 1 with none, the others with all.
    answers = ["y", "y", "x", "y", "y", "y", *["x"] * 30]
    monkeypatch.setattr("lrc_tl.passes.known_prompts._greedy_answers", lambda *args: answers)
    kept = lrc.filter_known(word_model, asked, seed=0).one_per_fact()
    assert sorted(prompt.subject for prompt in kept.prompts) == sorted({f"s{n}" for n in range(12)} - {"s1"})
    assert next(prompt.text for prompt in kept.prompts if prompt.subject == "s0") == "s0 is in in"
    assert len({prompt.text.count(" in") for prompt in kept.prompts}) == 3
    assert len(kept.dropped) == 5
    other = lrc.filter_known(word_model, asked, seed=1).one_per_fact()
    assert set(kept.prompts) != set(other.prompts)
    assert kept.one_per_fact() == kept


def test_a_subject_with_two_objects_is_two_facts():
    prompts = tuple(lrc.Prompt(text="a is", subject="a", object=name) for name in "xyx")
    assert lrc.passes.KnownPrompts(prompts=prompts, dropped=()).one_per_fact().prompts == prompts[:2]


def test_an_answer_may_still_become_an_object_of_which_it_is_the_beginning(word_model):
    """As where greedy decoding spells the object with other tokens than the tokenizer would."""
    prompt = lrc.Prompt(text="w0 is", subject="w0", object="w1 w2")
    expected = ExpectedAnswer.of(word_model, lrc.relations.tokenize_prompt(word_model, prompt), ())
    ids = word_model.tokenizer("w1 w2 w5", add_special_tokens=False)["input_ids"]
    assert [expected.verdict(word_model, ids[:n]) for n in (1, 2, 3)] == [None, None, True]
    assert expected.verdict(word_model, ids[1:]) is False
    assert expected.verdict(word_model, [*ids[:2], word_model.tokenizer.eos_token_id]) is True
