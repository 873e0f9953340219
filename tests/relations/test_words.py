"""Word ends and starts in every script, against a table and a second, slower reading of the rule."""

import itertools
import random
import unicodedata

import pytest

from lrc_tl.relations.words import (
    answer_verdict,
    caseless,
    find_word,
    is_answer,
    last_word,
    longer_names,
    mentions,
)

ANSWERS = [
    ("France", "France", True),
    (" France. It is", "France", True),
    ("France, and", "France", True),
    ("France\nSpain", "France", True),
    ("france", "France", False),
    ("Frances", "France", False),
    ("Guinea-Bissau", "Guinea", False),
    ("Guinea\u2010Bissau", "Guinea", False),
    ("Guinea\u2011Bissau", "Guinea", False),
    ("Guinea - Bissau", "Guinea", True),
    ("Guinea-", "Guinea", True),
    ("Guinea- and", "Guinea", True),
    ("C++", "C", False),
    ("C++", "C++", True),
    ("C+", "C", True),
    ("C++11", "C++", False),
    ("C plus", "C", True),
    ("3.5", "3", False),
    ("3.", "3", True),
    ("3. Then", "3", True),
    ("30", "3", False),
    ("3,000", "3", False),
    ("3,000", "3,000", True),
    ("3,000,000", "3,000", False),
    ("3\u202f000", "3", False),
    ("3\u00a0000", "3", False),
    ("3\u00a0km", "3", True),
    ("3, 4", "3", True),
    ("3,", "3", True),
    ("3,a", "3", True),
    ("1,5", "1", False),
    ("10:30", "10", False),
    ("10: no", "10", True),
    ("\u0663\u066c\u0660\u0660\u0660", "\u0663", False),
    ("AT&T", "AT", False),
    ("AT & T", "AT", True),
    ("R&D", "R&D", True),
    ("\U0001f1eb\U0001f1f7", "\U0001f1eb", False),
    ("\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7", True),
    ("\U0001f1eb\U0001f1f7 is", "\U0001f1eb\U0001f1f7", True),
    ("O'Hare", "O", False),
    ("O\u2019Hare", "O", False),
    ("O' Hare", "O", True),
    ("and/or", "and", False),
    ("F#m", "F", False),
    ("snake_case", "snake", False),
    ("東京です", "東京", True),
    ("東京、日本", "東京", True),
    ("東京abc", "東京", True),
    ("Tokyoです", "Tokyo", True),
    ("日本の首都", "日本", True),
    ("日本の", "日", True),
    ("서울이다", "서울", True),
    (unicodedata.normalize("NFD", "서울이다"), "서울", True),
    (unicodedata.normalize("NFD", "서울"), "서우", False),
    ("ไทยเป็น", "ไทย", True),
    ("ที่", "ท", False),
    ("कमल", "कमल", True),
    ("कमला", "कमल", False),
    ("कमल है", "कमल", True),
    ("re\u0301sume\u0301", "resume", False),
    ("résumé", "resume", False),
    ("re\u0301sume\u0301", "résumé", True),
    ("résumé", "re\u0301sume\u0301", True),
    ("resume\u0323", "resume", False),
    ("São Paulo", "Sa\u0303o Paulo", True),
    ("شیر\u200cپز", "شیر", False),
    ("شیراز، ریز", "شیراز", True),
    ("Москва.", "Москва", True),
    ("Москвань", "Москва", False),
    ("\N{WAVING HAND SIGN}hello", "\N{WAVING HAND SIGN}", True),
    ("\N{WAVING HAND SIGN}\U0001f3fd", "\N{WAVING HAND SIGN}", False),
    ("\N{WOMAN}\u200d\N{ROCKET}", "\N{WOMAN}", False),
    ("", "France", False),
    ("Fr", "France", False),
]


@pytest.mark.parametrize(("text", "name", "expected"), ANSWERS)
def test_an_answer_is_the_object_where_the_word_ends(text, name, expected):
    assert is_answer(text, name) == expected
    assert is_answer(f"  {text}\n", f" {name} ") == expected


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("New York City", "New York", False),
        ("New York City", "New York City", True),
        ("New York, City", "New York", True),
        ("New York Cityscapes", "New York", True),
        ("New York", "New York", True),
        ("New Yorker", "New York", False),
        ("中国の", "中", False),
        ("中国の", "中国", True),
        ("Saint Ma\u0301rtin is", "Saint", False),
    ],
)
def test_a_longer_object_of_the_relation_that_is_said_is_the_answer(text, name, expected):
    objects = ["York", "New York", "New York City", "中", "中国", "Saint", "Saint Mártin"]
    assert is_answer(text, name, objects) == expected
    assert [other for other in objects if is_answer(text, other, objects)].count(name) == expected


def test_longer_names_are_those_that_go_on_from_the_name():
    objects = ["Guinea", "Guinea-Bissau", "Equatorial Guinea", "Guin", "S\u00e3o", "Sa\u0303o Paulo"]
    assert longer_names("Guinea", objects) == ("Guinea-Bissau",)
    assert longer_names("Sa\u0303o", objects) == ("Sa\u0303o Paulo",)
    assert longer_names("Guinea-Bissau", objects) == ()


def kind(character):
    return unicodedata.category(character)[0]


def slow_word_goes_on(text, end):
    """The rule read letter by letter from the categories of NFC text, for what the random texts hold."""
    rest = text[end:]
    if not rest:
        return False
    if kind(rest[0]) == "M":
        return True
    if rest[0] == "," and kind(text[end - 1]) == "N":
        return len(rest) > 1 and kind(rest[1]) == "N"
    if rest[0] in "-'.+#/&":
        return len(rest) > 1 and (rest[1] == rest[0] or kind(rest[1]) in "LNM")
    base = next(character for character in reversed("x" + text[:end]) if kind(character) != "M")
    scripts = {unicodedata.name(character).split()[0] for character in (base, rest[0])}
    return kind(rest[0]) in "LN" and not scripts & {"CJK", "HIRAGANA", "THAI", "HANGUL"}


LETTERS = [*"abeé1-'.+#/& ,,", "\u0301", "東", "の", "서", "ไ", "क", "ा"]


def random_texts(count, seed, length=6):
    generator = random.Random(seed)
    for _ in range(count):
        text = "".join(generator.choice(LETTERS) for _ in range(generator.randint(1, length)))
        start = generator.randrange(len(text))
        name = text[start : start + generator.randint(1, 3)]
        if name.strip():
            yield text[start:], name


def test_the_rule_is_that_of_a_slow_reading_of_it():
    seen = set()
    for text, name in random_texts(4000, seed=0):
        said, wanted = (unicodedata.normalize("NFC", one.strip()) for one in (text, name))
        expected = said.startswith(wanted) and not slow_word_goes_on(said, len(wanted))
        assert is_answer(text, name) == expected, (text, name)
        seen.add(expected)
    assert seen == {True, False}


def test_neither_the_spelling_of_accents_nor_white_space_around_changes_a_judgement():
    for text, name in random_texts(1000, seed=1):
        judged = {
            is_answer(unicodedata.normalize(form, text), unicodedata.normalize(other, name))
            for form, other in itertools.product(("NFC", "NFD"), repeat=2)
        }
        assert len(judged) == 1, (text, name)


def test_a_verdict_on_the_beginning_of_an_answer_is_that_on_the_whole():
    """So an answer may be cut as soon as there is one; and there is one two characters behind the longest name."""
    generator = random.Random(2)
    told = 0
    for text, name in random_texts(4000, seed=2, length=9):
        longer = longer_names(name, [name + text[len(name) : len(name) + generator.randint(0, 3)]])
        whole = answer_verdict(text, name, longer, complete=True)
        assert whole == is_answer(text, name, longer)
        for cut in range(len(text)):
            verdict = answer_verdict(text[:cut], name, longer, complete=False)
            assert verdict in (None, whole), (text, cut, name, longer)
            told += verdict is not None
            # The bytes of an unfinished character tell nothing.
            assert answer_verdict(text[:cut] + "\ufffd", name, longer, complete=False) == verdict
    assert told > 1000


@pytest.mark.parametrize(
    ("text", "name", "start"),
    [
        ("Guinea-Bissau lies by Guinea, and Guinea-Bissau is", "Guinea", 22),
        ("Guinea-Bissau is", "Guinea", 0),
        ("Paris is big, and Paris's mayor", "Paris", 18),
        ("Italie, la capitale de l'Italie est", "Italie", 25),
        ("Hare and O'Hare are", "Hare", 0),
        ("The cat... is", "cat", 4),
        ("...cat is", "cat", 3),
        ("Write C or C++ in", "C", 6),
        ("Write ASP.NET or .NET in", ".NET", 17),
        ("S\u00e3o Paulo is", "Sa\u0303o Paulo", 0),
        ("The Sa\u0303o Paulo is", "S\u00e3o Paulo", 4),
        ("कमला और कमल", "कमल", 8),
        ("日本の首都は東京です", "日本", 0),
        ("<user>Lyon?\n<assistant>\n", "Lyon", 6),
        ("Lyon\nLyon is\n\n", "Lyon", 5),
    ],
)
def test_a_name_is_found_where_it_stands_last_as_a_word(text, name, start):
    span = find_word(text, name)
    assert span is not None
    assert span[0] == start
    assert unicodedata.normalize("NFC", text[slice(*span)]) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("resume\u0301 is", "resume"),
        ("concat", "cat"),
        ("कमला", "कमल"),
        ("Dutch", ""),
        ("e\u0301", "e"),
        ("C++x", "C++"),
    ],
)
def test_a_part_of_a_word_is_not_found(text, name):
    assert find_word(text, name) is None
    assert not mentions(text, name)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("I love Japan.", "Japan", True),
        ("Japan's food", "Japan", True),
        ("JAPAN\u2019S FOOD", "JAPAN", True),
        ("the Japanese", "Japan", False),
        ("the Japan-US pact", "Japan", False),
        ("the US-Japan pact", "Japan", False),
        ("Japan... or", "Japan", True),
        ("Japan--or", "Japan", True),
        ("l'Italie", "Italie", True),
        ("from O'Hare", "Hare", False),
        ("3.5", "5", False),
        ("to C++", "C", False),
        ("日本に行く", "日本", True),
        ("re\u0301sume\u0301", "résumé", True),
    ],
)
def test_a_text_mentions_a_name_as_a_whole_word(text, name, expected):
    assert mentions(text, name) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("My cat is", "is"),
        ("My cat?!\n", "cat"),
        ("the re\u0301sume\u0301", "re\u0301sume\u0301"),
        ("I like cat-like", "cat-like"),
        ("don't", "don't"),
        ("?!", None),
        ("", None),
    ],
)
def test_the_last_word_is_whole(text, word):
    span = last_word(text)
    assert (None if span is None else text[slice(*span)]) == word


def test_case_and_the_spelling_of_accents_fold():
    assert caseless("É") == caseless("e\u0301") == caseless("E\u0301") != caseless("e")


def test_a_number_is_not_found_inside_a_longer_one_nor_a_flag_across_two():
    for text in ("it has 3,000 of them", "at 3:30", "3\u202f000"):
        assert not mentions(text, "3")
        assert not mentions(text, "000")
    assert mentions("3, 4 and 5", "3")
    assert mentions("3, 4 and 5", "4")
    assert mentions("in 1999, it", "1999")
    french, german = "\U0001f1eb\U0001f1f7", "\U0001f1e9\U0001f1ea"
    assert find_word(f"{french}{german}", german) == (2, 4)
    assert find_word(f"{french}{german}", f"{french[1]}{german[0]}") is None
    assert find_word("3,000 and 3", "3") == (10, 11)
    assert answer_verdict("3", "3", (), complete=False) is None
    assert answer_verdict("3,", "3", (), complete=False) is None
    assert answer_verdict("3, ", "3", (), complete=False) is True
