"""How far answers are decoded: whatever a tokenizer's pieces are, the judgement is that on the whole answer."""

from types import SimpleNamespace

import pytest
import torch
from test_token_positions import FakeModel, byte_level, sentencepiece_bpe, unigram

import lrc_tl as lrc
from lrc_tl.relations.words import is_answer

OBJECTS = (
    "Guinea",
    "Guinea-Bissau",
    "New York",
    "New York City",
    "東京",
    "O",
    "C",
    "C++",
    "3",
    "São Paulo",
    "कमल",
    "Rome",
)
SAID = (
    "Guinea-Bissau is", "Guinea is", "Guinea", "Guinea.", "Guinea\u2010Bissau", "Guinea\u2010", "New York City a",
    "New York, and", "New York", "New York Citys", "東京です", "東京", "O'Hare is", "O\u2019Hare is", "O\u2019東",
    "O is", "C++ is", "C++", "C is", "C+", "3.5 is", "3. And", "3", "Sa\u0303o Paulo is", "São Paulos", "कमला",
    "कमल है", "कमल", "Rome\u0301 is", "Rome \N{ROCKET}", "Romé", "Paris",
)  # fmt: skip
TOKENIZERS = {"byte level": byte_level, "unigram": unigram, "sentencepiece BPE": sentencepiece_bpe}


class Speaker(FakeModel):
    """A tokenizer, and what follows each text; after that comes the end of the sequence."""

    def __init__(self, tokenizer, *, n_ctx=None):
        super().__init__(tokenizer, "none")
        tokenizer.eos_token = "<s>"
        self.cfg = SimpleNamespace(n_ctx=n_ctx)
        self.scripts = []
        self.passes = 0

    def says(self, prompt, answer):
        """The same prompt, after the model has learned to answer it so."""
        tokens = lrc.relations.tokenize_prompt(self, prompt)
        ids = self.to_tokens(f"{prompt.text}{prompt.joint}{answer}")[0].tolist()
        n = len(tokens.text_ids)
        assert ids[:n] == list(tokens.text_ids)
        self.scripts.append((tuple(ids), n))
        return prompt

    def logits_at(self, model, sequences, positions, **options):
        self.passes += 1
        for row, (sequence, places) in enumerate(zip(sequences, positions, strict=True)):
            assert self.cfg.n_ctx is None or len(sequence) <= self.cfg.n_ctx
            logits = torch.zeros(len(places), len(self.tokenizer))
            for number, place in enumerate(places):
                begun = tuple(sequence[: place + 1])
                follows = [
                    (*ids, self.tokenizer.eos_token_id)[place + 1]
                    for ids, n in self.scripts
                    if n <= place + 1 <= len(ids) and ids[: place + 1] == begun
                ]
                logits[number, follows[0] if follows else 1] = 1
            yield row, logits


@pytest.fixture(params=TOKENIZERS)
def speaker(request, monkeypatch):
    model = Speaker(TOKENIZERS[request.param]())
    monkeypatch.setattr("lrc_tl.passes.known_prompts.logits_at", model.logits_at)
    return model


@pytest.mark.parametrize("joint", [" ", ""])
def test_every_answer_is_judged_as_if_it_had_been_decoded_to_its_end(speaker, joint):
    expected, prompts = [], []
    for number, said in enumerate(SAID):
        for name in OBJECTS:
            text = f"{number} {name} is" if joint else f"{number} {name}?\n"
            prompt = lrc.Prompt(
                text=text, subject=str(number), object=name, relation_objects=OBJECTS, joint=joint, subject_start=0
            )
            prompts.append(speaker.says(prompt, said))
            expected.append(is_answer(said, name, OBJECTS))
    assert sum(expected) > 10
    for whole_answers in (True, False):
        known = lrc.filter_known(speaker, prompts, whole_answers=whole_answers)
        kept = set(known.prompts)
        wrong = [
            (prompt.object, SAID[int(prompt.subject)], want)
            for prompt, want in zip(prompts, expected, strict=True)
            if (prompt in kept) != want
        ]
        assert wrong == []


def test_only_answers_that_are_still_open_are_decoded_on(speaker):
    prompt = lrc.Prompt(text="Milan is in", subject="Milan", object="Rome")
    speaker.says(prompt, "Rome, and so on and so on")
    assert lrc.filter_known(speaker, [prompt]).prompts == (prompt,)
    assert speaker.passes == 1


def test_answers_at_the_end_of_the_context_are_decoded_as_far_as_it_goes(speaker):
    prompt = lrc.Prompt(text="Milan is in", subject="Milan", object="O")
    tokens = lrc.relations.tokenize_prompt(speaker, prompt)
    speaker.cfg.n_ctx = len(tokens.text_ids) + len(tokens.object_ids)
    speaker.says(prompt, "O\u2019Hare")
    # One token more than the context holds is predicted, which does not tell that more letters follow.
    assert lrc.filter_known(speaker, [prompt]).prompts == (prompt,)
    speaker.cfg.n_ctx += 6
    assert lrc.filter_known(speaker, [prompt]).prompts == ()


def test_longer_objects_are_those_of_the_same_relation(speaker):
    def asked(relation, objects=()):
        return lrc.Prompt(
            text="Milan is in", subject="Milan", object="Guinea", relation=relation, relation_objects=objects
        )

    speaker.says(asked("a"), "Guinea Bissau, a")
    longer = lrc.Prompt(text="Rome is in", subject="Rome", object="Guinea Bissau", relation="b")
    for prompt, known in (
        (asked("a"), True),
        (asked("b"), False),
        (asked("a", ("Rome", "Guinea Bissau")), False),
        (asked("a", ("Rome", "Guinea")), True),
    ):
        assert (prompt in lrc.filter_known(speaker, [prompt, longer]).prompts) == known


def test_the_report_shows_what_the_rule_for_word_ends_changed(speaker):
    prompts = [
        speaker.says(lrc.Prompt(text=f"{number} is in", subject=str(number), object=name), said)
        for number, (name, said) in enumerate(
            [("Guinea", "Guinea-Bissau is"), ("東京", "東京です"), ("Rome", "Rome, the"), ("O", "Oslo")]
        )
    ]
    known = lrc.filter_known(speaker, prompts)
    assert set(known.prompts) == {prompts[1], prompts[2]}
    ((dropped, answer),) = known.dropped_by_rule
    assert (dropped, answer[:8]) == (prompts[0], "Guinea-B")
    ((kept, answer),) = known.kept_by_rule
    assert (kept, answer[:3]) == (prompts[1], "東京で")
    report = known.report()
    assert "1 dropped that a plain rule for word ends would keep: 'Guinea-B" in report
    assert "1 kept that a plain rule for word ends would drop: '東京で" in report
    assert known.one_per_fact() == known
    plain = lrc.filter_known(speaker, [prompts[2], prompts[3]])
    assert "plain rule" not in plain.report()
