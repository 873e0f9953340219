"""Texts of subjects, objects and templates: escapes, Unicode forms, white space, and what no name may hold."""

import json
import unicodedata

import pytest

import lrc_tl as lrc

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "São Paulo") for form in ("NFC", "NFD"))


def relation_of(pairs, **options):
    return lrc.Relation.from_pairs("r", pairs, templates=["{} is"], **options)


@pytest.mark.parametrize(
    ("escaped", "letter"),
    [
        ("Bogot\\u00e1", "Bogotá"),
        ("Bras\\u00EDlia", "Brasília"),
        ("Sa\\u0303o", "São"),
        ("\\ud83d\\ude80", "\N{ROCKET}"),
        ("C:\\users", "C:\\users"),
        ("\\u00", "\\u00"),
        ("\\n", "\\n"),
    ],
)
def test_an_escaped_letter_is_read_as_the_letter_and_the_report_says_so(tmp_path, escaped, letter):
    path = tmp_path / "r.json"
    samples = [{"subject": f"the {escaped}", "object": escaped}, {"subject": "a", "object": "b"}]
    data = {"name": "r", "prompt_templates": [f"{escaped} {{}} is"], "samples": samples}
    path.write_text(json.dumps(data), encoding="utf-8")
    relation = lrc.load_relation(path)
    assert relation.facts[0] == lrc.relations.Fact(f"the {letter}", letter)
    assert relation.templates == (f"{letter} {{}} is",)
    assert relation.prompts()[0].text == f"{letter} the {letter} is"
    changed = () if letter == escaped else ((f"the {escaped}", f"the {letter}"), (escaped, letter))
    assert relation.rewritten[: len(changed)] == changed
    for before, after in changed:
        assert f"rewritten: {before!r} is {after!r}" in relation.report()
    assert relation_of([("x", escaped)]).objects == (letter,)


def test_composed_and_decomposed_spellings_are_one_fact():
    relation = relation_of([(COMPOSED, "Brazil"), (DECOMPOSED, "Brazil"), ("Rio", "Brazil"), ("Lima", "Peru")])
    assert relation.facts[0] == lrc.relations.Fact(COMPOSED, "Brazil")
    assert relation.duplicates == (lrc.relations.Fact(COMPOSED, "Brazil"),)
    assert relation.rewritten == ((DECOMPOSED, COMPOSED),)
    for seed in range(10):
        train, test = relation.split(seed=seed)
        assert not {f.subject for f in train.facts} & {f.subject for f in test.facts}
        for prompt in relation.prompts(shots=2, seed=seed):
            assert prompt.subject not in "".join(prompt.text.splitlines(keepends=True)[:-1])


def test_two_spellings_of_an_object_are_one_object_and_a_subject_in_two_with_other_objects_is_ambiguous():
    assert relation_of([("a", COMPOSED), ("b", DECOMPOSED)]).objects == (COMPOSED,)
    with pytest.warns(UserWarning, match="2 facts are left out"):
        relation = relation_of([(COMPOSED, "x"), (DECOMPOSED, "y"), ("c", "z")])
    assert relation.facts == (lrc.relations.Fact("c", "z"),)


@pytest.mark.parametrize(
    ("one", "other"),
    [("New York", "new york"), ("New York", "New  York"), ("New\u00a0York", "New York"), ("icecream", "ice cream"),
     ("STRASSE", "Straße"), ("Par\u200bis", "Paris")],
)  # fmt: skip
def test_subjects_or_objects_that_differ_by_case_or_spacing_only_are_kept_and_reported(one, other):
    for pairs in ([(one, "x"), (other, "x"), ("c", "y")], [("a", one), ("b", other), ("c", "y")]):
        relation = relation_of(pairs, strict=True)
        assert len(relation.facts) == 3
        assert relation.lookalikes == ((one, other),)
        assert f"differ by case or spacing only: {one!r}, {other!r}" in relation.report()


def test_a_clean_relation_reports_one_line():
    relation = lrc.load_relation("city_in_country")
    assert relation.report() == f"{relation!r}"
    assert relation.lookalikes == relation.rewritten == ()


def test_the_report_counts_what_was_repeated_and_left_out():
    with pytest.warns(UserWarning, match="left out"):
        relation = relation_of([("dog", "woof")] * 3 + [("fox", "yip"), ("fox", "ring"), (" cat", "meow ")])
    assert relation.report().splitlines() == [
        repr(relation),
        "  given more than once: 'dog' -> 'woof'",
        "  left out, its subject has two objects: 'fox' -> 'yip'",
        "  left out, its subject has two objects: 'fox' -> 'ring'",
        "  rewritten: ' cat' is 'cat'",
        "  rewritten: 'meow ' is 'meow'",
    ]


@pytest.mark.parametrize(
    "bad", ["a\x1b[31mb", "a\x00", "a\tb", "a\x9bb", "a\ud800", "a\\ud800", "a\rb", "a\u2028b", "a\x85b"]
)
def test_control_characters_lone_surrogates_and_line_breaks_are_refused_in_every_name(tmp_path, bad):
    for pair in ((bad + "c", "x"), ("x", bad + "c")):
        with pytest.raises(lrc.errors.RelationError, match=r"pair 0: (subject|object)") as caught:
            relation_of([pair])
        assert str(caught.value).isprintable()
    with pytest.raises(lrc.errors.RelationError, match="name") as caught:
        lrc.Relation.from_pairs(f"r {bad}c", [("x", "y")], templates=["{} is"])
    assert str(caught.value).isprintable()
    path = tmp_path / "r.json"
    samples = [{"subject": "x", "object": bad + "c"}]
    path.write_text(json.dumps({"name": "r", "prompt_templates": ["{} is"], "samples": samples}))
    with pytest.raises(lrc.errors.RelationError, match=r"r\.json.*samples\[0\]\.object"):
        lrc.load_relation(path)


@pytest.mark.parametrize("bad", ["\x1b[2J{} is", "\ud800 {} is", "{}\x00 is"])
def test_templates_may_have_several_lines_but_no_escapes_or_half_characters(bad):
    kept = lrc.Relation.from_pairs("r", [("a", "b")], templates=["Q:\t{}?\nA:"])
    assert kept.templates == ("Q:\t{}?\nA:",)
    for options in ({"templates": [bad]}, {"templates": ["{} is"], "zero_shot_templates": [bad]}):
        with pytest.raises(lrc.errors.RelationError, match=r"prompt_templates(_zs)?\[0\]") as caught:
            lrc.Relation.from_pairs("r", [("a", "b")], **options)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([lrc.relations.Fact("a", " x")], "' x'.*from_pairs"),
        ([lrc.relations.Fact("a ", "x")], "'a '.*from_pairs"),
        ([lrc.relations.Fact(DECOMPOSED, "x")], "from_pairs"),
        ([lrc.relations.Fact("a", "x"), lrc.relations.Fact("a", "x")], "'a'.*more than once.*from_pairs"),
        ([lrc.relations.Fact("a", "x"), lrc.relations.Fact("a", "y")], "'a'.*more than once.*from_pairs"),
        ([lrc.relations.Fact("a", "x\ny")], "one line"),
    ],
)
def test_a_relation_made_without_from_pairs_keeps_its_promise_too(facts, message):
    options = {"name": "r", "templates": ("{} is",), "zero_shot_templates": ("{} is",)}
    with pytest.raises(lrc.errors.RelationError, match=message):
        lrc.Relation(facts=tuple(facts), **options)
    with pytest.raises(lrc.errors.RelationError, match=message):
        lrc.Relation(facts=(lrc.relations.Fact("z", "z"),), shot_facts=tuple(facts), **options)
