"""Texts that are final, such as chat prompts: run as they are given, with the object right behind."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from test_token_positions import MAKES, OBJECTS, POLICIES, SUBJECTS, FakeModel, model_of, sentencepiece_bpe

import lrc_tl as lrc
from lrc_tl.relations.prompts import prompts_hash

HOOK = "blocks.1.hook_resid_post"


def test_white_space_at_the_end_needs_a_final_text_and_the_error_says_so():
    for end in (" ", "\n", "\t", "\u3000"):
        with pytest.raises(ValueError, match=r"the text ends in white space .*give joint='' where it is final"):
            lrc.Prompt(text=f"The cat is{end}", subject="cat", object="x")
        assert lrc.Prompt(text=f"The cat is{end}", subject="cat", object="x", joint="").text.endswith(end)
    with pytest.raises(ValueError, match="joint is ', '; allowed are ' ', and '' for a text that is final"):
        lrc.Prompt(text="The cat is", subject="cat", object="x", joint=", ")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("make", MAKES)
def test_a_final_text_is_run_as_it_is_and_the_object_follows_as_it_is(make, policy):
    model = model_of(make, policy)
    for number, subject in enumerate(SUBJECTS):
        for text in (f"Where is {subject}?\nIt is in:\n", f"<user>{subject}\n\n", f"  {subject}\n</user>\n(\n"):
            object_ = OBJECTS[number % len(OBJECTS)]
            prompt = lrc.Prompt(text=text, subject=subject, object=object_, joint="")
            tokens = lrc.relations.tokenize_prompt(model, prompt)
            assert list(tokens.text_ids) == model.to_tokens(text)[0].tolist()
            assert [*tokens.text_ids, *tokens.object_ids] == model.to_tokens(text + object_)[0].tolist()
            start, end = prompt.subject_span()
            upto = model.tokenizer.decode(
                tokens.text_ids[: tokens.subject_position + 1], skip_special_tokens=True
            ).lstrip()
            assert upto.startswith(text[:end].lstrip())
            assert text[start:end] == subject
            spaced = replace(prompt, object=f" {object_}\n")
            ids = lrc.relations.tokenize_prompt(model, spaced)
            assert [*ids.text_ids, *ids.object_ids] == model.to_tokens(f"{text} {object_}")[0].tolist()
            assert ids.object_ids != tokens.object_ids


def test_white_space_that_belongs_to_the_object_is_an_error_that_says_how_to_join():
    model = FakeModel(sentencepiece_bpe(merged="▁t"), "none")
    prompt = lrc.Prompt(text="The cat is ", subject="cat", object="the", joint="")
    with pytest.raises(
        lrc.errors.PositionError, match=r"change when object 'the' follows .* and joint='' with it"
    ):
        lrc.relations.tokenize_prompt(model, prompt)


def test_the_hash_of_prompts_sees_the_joint_and_is_unchanged_without_one():
    prompt = lrc.Prompt(text="A is in", subject="A", object="x", relation="r", relation_objects=("x", "y"))
    plain = hashlib.sha256(json.dumps([["A is in", "A", "x", "r"]]).encode("utf-8")).hexdigest()
    assert prompts_hash([prompt]) == plain != prompts_hash([replace(prompt, joint="")])
    assert prompt != replace(prompt, joint="")
    assert prompt == replace(prompt, relation_objects=())


def test_prompts_know_all_objects_of_their_relation_after_splits_and_samples():
    pairs = [(f"s{number}", f"o{number % 7}") for number in range(30)]
    relation = lrc.Relation.from_pairs("r", [*pairs, ("single", "once")], templates=["{} is"])
    train, test = relation.split(seed=0)
    parts = (relation, train, test, relation.sample(4, seed=1), replace(test, facts=test.facts[:1]))
    for part in parts:
        tuples = {id(prompt.relation_objects) for prompt in part.prompts(shots=1)}
        assert len(tuples) == 1
        assert set(part.prompts()[0].relation_objects) == set(relation.objects)
    other = replace(relation, facts=(lrc.relations.Fact("new", "other"),))
    assert set(other.prompts()[0].relation_objects) == {*relation.objects, "other"}


@pytest.fixture
def pairs_of_prompts():
    """The same tokens in both ways: the word-level tokenizer knows no white space."""
    joined = [
        lrc.Prompt(
            text=f"w{number} w2 w3", subject=f"w{number}", object=f"w{10 + number % 4} w9"[: 3 + number % 2 * 3]
        )
        for number in range(20, 32)
    ]
    return joined, [replace(prompt, text=f"{prompt.text}\n", joint="") for prompt in joined]


def test_final_texts_give_what_the_same_tokens_give_everywhere(word_model, pairs_of_prompts):
    found = []
    for prompts in pairs_of_prompts:
        known = lrc.filter_known(word_model, prompts)
        read = lrc.passes.prompt_activations(word_model, prompts, subject_layers=[1], object_layers=[2])
        edits = lrc.evaluation.counterfactual_edits(prompts, per_object=2)
        differences = torch.randn(len(edits), 12, generator=torch.Generator().manual_seed(0))
        (causality,) = lrc.evaluation.causality_curve(word_model, edits, differences, betas=[0.5], generated=True)
        lre = lrc.LinearRelationalEmbedding.fit(
            word_model,
            prompts[:3],
            subject_layer=1,
            object_layer=-1,
            object_aggregation="first_token",
            progress=False,
        )
        faithfulness = lrc.evaluation.lre_faithfulness(word_model, lre, prompts)
        concepts = lrc.mean_concepts(word_model, prompts, layer=1)
        ranking = concepts.classify(word_model, prompts[0].text, subject=prompts[0].subject)
        found.append(
            [
                [[entry.prompt.subject, entry.answer] for entry in known.dropped],
                read.subject[1].tolist(),
                read.object[2].tolist(),
                causality.clean.tolist(),
                causality.edited.tolist(),
                causality.generated.tolist(),
                lre.weight.tolist(),
                faithfulness.model_tokens,
                faithfulness.lre_tokens,
                ranking,
            ]
        )
    assert found[0] == found[1]


CHAT = "<user> w5 and w7 ?\nnot w5 but w7\n<assistant>\n"


@pytest.fixture
def concepts(word_model):
    vectors = torch.nn.functional.normalize(torch.randn(3, 12, generator=torch.Generator().manual_seed(2)), dim=1)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(vector=vector, relation="r", object_name=name, hook_name=HOOK)
            for name, vector in zip(("x", "y", "z"), vectors, strict=True)
        }
    )


@pytest.mark.parametrize(("subject_start", "word"), [(None, 6), (7, 1), (CHAT.rindex("w5"), 6)])
def test_a_subject_is_found_anywhere_in_a_chat_prompt_or_where_its_start_is_given(
    word_model, concepts, subject_start, word
):
    ids = word_model.to_tokens(CHAT)
    first = int(ids[0, 0] == word_model.tokenizer.bos_token_id)
    place = first + word
    assert word_model.tokenizer.decode(ids[0, place]) == "w5"
    where = {"subject": "w5", "subject_start": subject_start}
    assert lrc.last_subject_token(word_model, CHAT, **where).position == place
    _, cache = word_model.run_with_cache(ids)
    expected = {name: float(one.score(cache[HOOK][0, place].float())) for name, one in concepts.items()}
    assert dict(concepts.classify(word_model, CHAT, **where)) == pytest.approx(expected, rel=1e-4)
    with concepts.swap(word_model, remove="x", add="y", text=CHAT, beta=0.4, **where):
        _, swapped = word_model.run_with_cache(ids)
    moved = (swapped[HOOK] - cache[HOOK])[0].norm(dim=-1) > 1e-3
    assert not moved[:place].any()
    assert moved[place]


def test_a_wrong_start_of_the_subject_is_refused(word_model, concepts):
    where = {"subject": "w5", "subject_start": 3}
    for call in (
        lambda: lrc.last_subject_token(word_model, CHAT, **where),
        lambda: concepts.classify(word_model, CHAT, **where),
        lambda: concepts.swap(word_model, remove="x", add="y", text=CHAT, **where),
    ):
        with pytest.raises(
            lrc.errors.PositionError, match="subject_start is 3, but the subject 'w5' does not begin"
        ):
            call()


def test_free_texts_may_be_final(word_model):
    edits = lrc.free_text_edits(["w1 w2", "<user> w1 w2\n"], "w5")
    assert [edit.prompt.joint for edit in edits] == [" ", ""]
    assert [edit.prompt.text for edit in edits] == ["w1 w2", "<user> w1 w2\n"]
    steering = lrc.Steering(operation=lrc.steering.Add(vector=torch.eye(12)[0], strength=1.0), hook_name=HOOK)
    places = [lrc.tuning.at_subject(word_model, steering)(edit).where.position for edit in edits]
    assert places[1] == places[0] + 1
    for edit in edits:
        margins = lrc.tuning.object_named(within=3)(word_model, edit, steering, [0.0])
        (made,) = lrc.generate(word_model, edit.prompt.text, max_new_tokens=3)
        assert (float(margins[0]) > 0) == ("w5" in made.text.split())


@pytest.mark.real_model
def test_a_chat_prompt_of_smollm2_is_run_as_its_template_makes_it():
    from transformers import AutoModelForCausalLM

    from lrc_tl.models.packaged import PACKAGED, packaged_folder

    model = lrc.load_model("packaged:smollm2-135m")
    tokenizer = model.tokenizer
    asked = [{"role": "user", "content": "In which country is Osaka? Answer with its name alone."}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>assistant\n")
    prompt = lrc.Prompt(text=text, subject="Osaka", object="Japan", joint="")
    tokens = lrc.relations.tokenize_prompt(model, prompt)
    assert tokenizer.decode(tokens.object_ids) == "Japan"
    assert tokenizer.decode(tokens.text_ids) == text

    hugging_face = AutoModelForCausalLM.from_pretrained(
        packaged_folder(PACKAGED["packaged:smollm2-135m"]), dtype=torch.float32
    ).eval()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert list(tokens.text_ids) == ids

    def own(name):
        named = tokenizer(text + name, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            log_probs = hugging_face(torch.tensor([named])).logits[0].log_softmax(-1)
        return min(float(log_probs[at - 1, named[at]]) for at in range(len(ids), len(named)))

    edit = lrc.evaluation.Edit(prompt=prompt, target="Kenya")
    (found,) = lrc.evaluation.causality_curve(model, [edit], torch.zeros(1, 576), betas=[0.1])
    assert found.clean[0].tolist() == pytest.approx([own("Japan"), own("Kenya")], abs=2e-3)
    # The residual that is read as the object's predicts what the model says there.
    said = hugging_face.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :]
    answer = tokenizer.decode(said, skip_special_tokens=True)
    first = answer.split()[0]
    known = lrc.filter_known(model, [prompt, replace(prompt, object=first)])
    assert replace(prompt, object=first) in known.prompts
    assert (prompt in known.prompts) == (first == "Japan")
    assert all(answer.startswith(entry.answer) for entry in known.dropped)
