"""Further names of objects: in files, in what counts as said, and nowhere in probabilities."""

import json
from dataclasses import replace

import pytest
import tiny_models
import torch

import lrc_tl as lrc
from lrc_tl.passes.answers import accepted_names, is_accepted

PAIRS = [("Chevrolet", "GM"), ("Cadillac", "GM"), ("Lincoln", "Ford"), ("Transit", "Ford")]
ALIASES = {"GM": ["General Motors", " GMC "], "Ford": ["Ford Motor Company"]}


def makers(**given):
    return lrc.Relation.from_pairs("maker", PAIRS, templates="{} is made by", **{"aliases": ALIASES, **given})


def test_a_relation_comes_back_from_its_file(tmp_path):
    path = tmp_path / "maker.json"
    for relation in (makers(), makers(aliases=None, zero_shot_templates=["Who makes {}?\n"], kind="commonsense")):
        relation.save(path)
        assert replace(lrc.load_relation(path), source="") == relation
    with pytest.raises(lrc.errors.ArtifactError, match="missing"):
        makers().save(tmp_path / "missing" / "maker.json")


@pytest.mark.parametrize("name", lrc.built_in_relations())
def test_every_built_in_relation_comes_back(name, tmp_path):
    relation = lrc.load_relation(name)
    relation.save(tmp_path / "r.json")
    again = lrc.load_relation(tmp_path / "r.json")
    for field in ("name", "kind", "facts", "templates", "zero_shot_templates", "aliases"):
        assert getattr(again, field) == getattr(relation, field)


def test_aliases_are_cleaned_and_stay_with_parts_and_prompts():
    relation = makers()
    assert relation.aliases == (("GM", ("General Motors", "GMC")), ("Ford", ("Ford Motor Company",)))
    train, test = relation.split(seed=0)
    assert train.aliases == test.aliases == relation.aliases
    (prompt, *_) = relation.prompts()
    assert prompt.relation_aliases == relation.aliases
    assert prompt == replace(prompt, relation_aliases=())


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ({"Frod": ["Ford Motor"]}, "aliases are given for 'Frod'; did you mean Ford"),
        ({"GM": "General Motors"}, "the aliases of 'GM' are 'General Motors'; give a list"),
        ({"GM": ["a\x07"]}, "an alias of 'GM' must be plain text"),
        ({"GM": [""]}, "an alias of 'GM' must be a non-empty string"),
        ({"GM": ["Ford"]}, "'Ford' would name both 'Ford' and 'GM'; leave it to one"),
        ({"GM": ["Motors"], "Ford": ["Motors"]}, "'Motors' would name both 'GM' and 'Ford'"),
        (["GM"], "aliases must map objects to lists of names"),
    ],
)
def test_bad_aliases_are_refused(aliases, message, tmp_path):
    with pytest.raises(lrc.errors.RelationError, match=message):
        makers(aliases=aliases)
    path = tmp_path / "r.json"
    data = {
        "name": "maker", "prompt_templates": ["{} is made by"], "aliases": aliases,
        "samples": [{"subject": s, "object": o} for s, o in PAIRS],
    }  # fmt: skip
    path.write_text(json.dumps(data))
    with pytest.raises(lrc.errors.RelationError, match=message):
        lrc.load_relation(path)


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("GM", True), (" General Motors, of", True), ("General", False), ("GMC", True), ("Ford", False),
        ("general motors", False),
    ],
)  # fmt: skip
def test_an_alias_counts_as_its_object(answer, accepted):
    prompt = makers().prompts()[0]
    assert is_accepted(answer, prompt, ("GM", "Ford")) == accepted


def test_a_longer_alias_of_another_object_is_not_this_object():
    relation = lrc.Relation.from_pairs(
        "r", [("a", "Guinea"), ("b", "Benin")], templates="{} is", aliases={"Benin": ["Guinea Coast"]}
    )
    prompt = relation.prompts()[0]
    assert not is_accepted("Guinea Coast", prompt, relation.objects)
    assert is_accepted("Guinea, of", prompt, relation.objects)
    assert accepted_names(prompt, relation.objects)[0].longer == ("Guinea Coast",)


def said_by(model, text, n=2):
    ids = model.to_tokens(text)
    for _ in range(n):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1).to(ids)], dim=1)
    return model.tokenizer.decode(ids[0, -n:].tolist())


@pytest.mark.usefixtures("one_thread")
def test_what_the_model_says_by_an_alias_is_known_and_a_hard_success_and_no_more_probable(word_model):
    texts = [f"w{n} w{m}" for m in range(12) for n in range(12)]
    answers = {text: said_by(word_model, text) for text in texts}
    text = next(t for t, answer in answers.items() if all(word.startswith("w") for word in answer.split()))
    subject, answer = text.split()[0], answers[text]
    prompt = lrc.Prompt(text=text, subject=subject, object="w43 w43 w43", relation="r")
    aliased = replace(prompt, relation_aliases=(("w43 w43 w43", (answer,)),))
    assert not lrc.filter_known(word_model, [prompt], progress=False).prompts
    known = lrc.filter_known(word_model, [aliased], progress=False)
    assert known.prompts == (aliased,)
    assert known.answers[0].startswith(answer)
    assert not known.kept_by_rule
    other = [replace(one, object="w42") for one in (prompt, aliased)]
    edits = [lrc.evaluation.Edit(prompt=one, target="w43 w43 w43") for one in other]
    (result,) = lrc.evaluation.causality_curve(
        word_model, edits, torch.zeros(2, tiny_models.D_MODEL), betas=[0.1], generated=True, progress=False
    )
    assert result.generated.tolist() == [False, True]
    torch.testing.assert_close(result.edited[0], result.edited[1])


def test_known_prompts_are_counted_by_template(word_model):
    relation = tiny_models.relation_known_by(word_model)
    both = replace(relation, zero_shot_templates=(relation.templates[0], "w9 {} w3"))
    known = lrc.filter_known(word_model, both.prompts(templates="all"), progress=False)
    frame = known.by_template().set_index("template")
    assert set(frame.index) == set(both.zero_shot_templates)
    assert frame.asked.tolist() == [len(relation)] * 2
    assert frame.loc[relation.templates[0], "kept"] == len(relation)
    for template, row in frame.iterrows():
        assert row.kept == sum(prompt.template == template for prompt in known)
        assert row.share == row.kept / row.asked
    by_hand = [lrc.Prompt(text="w1 w2", subject="w1", object="w3")]
    assert lrc.filter_known(word_model, by_hand, progress=False).by_template().template.tolist() == [None]
