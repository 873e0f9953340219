"""Templates filled with facts: the place of the subject, what joins the object, examples from training facts."""

import pytest

import lrc_tl as lrc
from lrc_tl.relations.templates import filled, joint_of


@pytest.mark.parametrize(
    ("template", "subject"),
    [("{} starts with the letter", "letter"), ("Q: where is {}?\nA: in", "Rome"), ("Two {}s are", "cat")],
)
@pytest.mark.parametrize("shots", [0, 2])
def test_the_place_in_the_template_is_the_subject_even_where_the_rule_would_miss_it(template, subject, shots):
    pairs = [(subject, "x"), ("a", "x"), ("b", "y")]
    prompt = lrc.Relation.from_pairs("r", pairs, templates=[template]).prompts(shots=shots)[0]
    head, tail = template.split("{}")
    start, end = prompt.subject_span()
    assert prompt.text[start:end] == subject
    assert prompt.text[:start].endswith(head)
    assert prompt.text[end:] == tail


@pytest.mark.parametrize("shots", [0, 1])
def test_braces_in_a_subject_or_an_object_are_left_as_they_are(shots):
    pairs = [("{} {0} {name}", "{}"), ("%s", "{x}")]
    prompts = lrc.Relation.from_pairs("r", pairs, templates=["See {} in"]).prompts(shots=shots)
    assert [prompt.text.split("\n") for prompt in prompts] == [
        ["See %s in {x}"] * shots + ["See {} {0} {name} in"],
        ["See {} {0} {name} in {}"] * shots + ["See %s in"],
    ]


@pytest.mark.parametrize("shots", [1, 4])
def test_shots_come_from_training_facts_and_never_hold_the_tested_subject(shots):
    train, test = lrc.load_relation("animal_class").split(seed=0)
    training = {fact.subject for fact in train.facts}
    for relation in (train, test):
        prompts = relation.prompts(shots=shots, seed=3)
        assert [p.subject for p in prompts] == [f.subject for f in relation.facts]
        for prompt in prompts:
            *examples, last = prompt.text.split("\n")
            assert len(examples) == shots
            template = next(t for t in train.templates if t.replace("{}", prompt.subject) == last)
            head, tail = template.split("{}")
            shown = [line.removeprefix(head).split(tail)[0] for line in examples]
            assert set(shown) <= training - {prompt.subject}
            assert len(set(shown)) == shots
        assert prompts == relation.prompts(shots=shots, seed=3, shots_from=train)
        assert prompts != relation.prompts(shots=shots, seed=4)


def test_dropping_a_fact_leaves_the_other_zero_shot_prompts_as_they_were():
    pairs = [(f"s{i}", f"o{i % 3}") for i in range(12)]
    templates = ["{} is", "a {} is", "the {} is"]
    full = lrc.Relation.from_pairs("r", pairs, templates=templates).prompts()
    assert lrc.Relation.from_pairs("r", pairs[1:], templates=templates).prompts() == full[1:]


def test_every_template_can_be_asked_for():
    relation = lrc.Relation.from_pairs(
        "r", [("a", "x"), ("b", "y")], templates=["{} is"], zero_shot_templates=["{} is", "the {} is"]
    )
    texts = [prompt.text for prompt in relation.prompts(templates="all")]
    assert texts == ["a is", "the a is", "b is", "the b is"]
    # A TypeError where the tests run with every signature checked.
    with pytest.raises((ValueError, TypeError), match=r"(?s)templates.*'some'.*'one'.*'all'"):
        relation.prompts(templates="some")
    with pytest.raises(ValueError, match="shots is -1; it must be 0 or more"):
        relation.prompts(shots=-1)


@pytest.mark.parametrize("templates", ["one", "all"])
def test_a_prompt_with_examples_holds_the_zero_shot_prompt_of_its_fact_and_seed(templates):
    relation = lrc.Relation.from_pairs(
        "r", [(f"s{n}", f"o{n % 3}") for n in range(12)],
        templates=["{} is", "Of {}:"], zero_shot_templates=["{} has", "The {} in", "Say {},"],
    )  # fmt: skip
    train, test = relation.split(seed=1)
    for part in (train, test):
        plain = {prompt.subject: prompt for prompt in part.prompts(seed=5)}
        few_shot = part.prompts(shots=2, seed=5, templates=templates)
        assert len({prompt.text for prompt in plain.values()}) == len(part.facts)
        for prompt in few_shot:
            assert prompt.zero_shot == plain[prompt.subject] == prompt.without_examples()
            assert prompt.zero_shot.relation_objects == prompt.relation_objects
        assert few_shot != part.prompts(shots=2, seed=6, templates=templates)
        for prompt in plain.values():
            assert prompt.zero_shot is None
            assert prompt.without_examples() is prompt


@pytest.mark.parametrize("shots", [0, 1])
def test_a_template_that_ends_in_a_line_break_is_final_and_others_are_joined_by_a_space(shots):
    pairs = [("a", "x"), ("b", "y")]
    chat, plain = (
        lrc.Relation.from_pairs("r", pairs, templates=[template]).prompts(shots=shots)[0]
        for template in ("<user>{}?\n<assistant>\n", "{} is  ")
    )
    assert chat.text == "<user>b?\n<assistant>\ny\n" * shots + "<user>a?\n<assistant>\n"
    assert plain.text == "b is y\n" * shots + "a is"
    assert (chat.joint, plain.joint) == ("", " ")


@pytest.mark.parametrize(
    ("template", "text", "joint"),
    [
        ("{} is in ", "Lyon is in", " "),
        ("Of {}\t", "Of Lyon", " "),
        ("{}?\n", "Lyon?\n", ""),
        ("{}?\n  ", "Lyon?\n  ", ""),
        ("Q: {}\nA:", "Q: Lyon\nA:", " "),
        ("{}", "Lyon", " "),
    ],
)
def test_only_white_space_behind_a_line_break_is_part_of_a_filled_template(template, text, joint):
    assert joint_of(template) == joint
    assert filled(template, lrc.relations.Fact("Lyon", "France")) == text
