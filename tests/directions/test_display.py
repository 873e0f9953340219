"""What is shown of readings of texts, directions, sets and rankings: the object's own numbers."""

import re
import time

import pytest
import torch
from shown_objects import HOSTILE, concept_set, seen
from tiny_directions import named

import lrc_tl as lrc
from lrc_tl.directions import ConceptScores, Ranking, TokenScores
from lrc_tl.markup.fragments import STRONGEST


def scores(*values, tokens=None, special=()):
    tokens = tokens or tuple(f" t{place}" for place in range(len(values)))
    return TokenScores(label="r: <x> & y", tokens=tokens, scores=torch.tensor(values), special=special)


def opacities(shown):
    """Of each token, as a share of the strongest."""
    styles = [style for style in shown.styles if style.startswith("background:rgba") and ";" not in style]
    return [float(style.rstrip(")").split(",")[-1]) / STRONGEST for style in styles]


def test_markup_in_tokens_is_shown_and_not_run():
    read = scores(1.0, 2.0, tokens=("<script>alert(1)</script>", "\"'&"))
    assert "<script>" not in read._repr_html_()
    assert "<script>alert(1)</script>\"'&" in seen(read).whole
    assert "r: <x> & y" in seen(read).whole


def test_the_special_token_does_not_wash_out_the_others():
    read = scores(-9000.0, 1.0, -2.0, special=(0,))
    assert read.scale == 2.0
    assert opacities(seen(read)) == [0.5, 1.0]
    assert seen(read).hovers[0] == "-9000"


def test_signs_have_their_own_colours():
    first, second = [style for style in seen(scores(1.0, -1.0)).styles if style.startswith("background:rgba")]
    assert first != second


def test_every_token_has_its_exact_score_on_hover():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 300
    shown = [float(hover) for hover in seen(scores(*values.tolist())).hovers]
    torch.testing.assert_close(torch.tensor(shown), values, rtol=1e-6, atol=0)


def test_print_writes_each_token_with_its_score_and_repr_the_highest():
    lines = str(scores(1.25, -3.0)).splitlines()
    assert lines[0] == "r: <x> & y"
    assert lines[1].split() == ["'", "t0'", "+1.25"]
    assert lines[2].split() == ["'", "t1'", "-3"]
    many = scores(*map(float, range(100)))
    assert len(repr(many).splitlines()) == 1
    assert "100 tokens, highest: ' t99' +99, ' t98' +98" in repr(many)
    assert many.to_frame().score.tolist() == list(range(100))


def test_nothing_and_zeros_are_shown_too():
    assert opacities(seen(scores(0.0, 0.0))) == [0.0, 0.0]
    assert scores(5.0, special=(0,)).scale == 0.0
    with pytest.raises(ValueError, match="1 tokens but 2 scores"):
        scores(1.0, 2.0, tokens=("a",))


def test_white_space_can_be_seen_and_line_ends_break():
    assert "a↵\nb⇥ ␍" in seen(scores(1.0, 2.0, 3.0, tokens=("a\n", "b\t", " \r"))).whole


def of_concepts(n_tokens, names, special=()):
    generator = torch.Generator().manual_seed(0)
    return ConceptScores(
        label="r",
        tokens=tuple(f" t{place}" for place in range(n_tokens)),
        concepts=tuple(names),
        scores=torch.randn(n_tokens, len(names), generator=generator),
        special=special,
    )


def test_concepts_stand_as_rows_under_one_text_with_their_numbers():
    read = of_concepts(40, "abc")
    frame, shown = read.to_frame(), seen(read)
    assert frame.shape == (40, 3)
    assert list(frame.index) == list(read.tokens)
    values, places = [float(hover) for hover in shown.hovers], [0, 0, 0]
    for line in shown.text_rows:
        if line[0] in read.concepts:
            column = read.concepts.index(line[0])
            expected = read.scores[places[column] : places[column] + line[1], column]
            given, values = values[: line[1]], values[line[1] :]
            torch.testing.assert_close(torch.tensor(given), expected, rtol=1e-6, atol=0)
            places[column] += line[1]
    assert places == [40, 40, 40]
    torch.testing.assert_close(read["b"].scores, read.scores[:, 1])
    with pytest.raises(KeyError, match="no concept 'd'; there are a, b, c"):
        read["d"]


def test_of_many_concepts_those_with_the_highest_scores_are_shown():
    names = [f"n{number}" for number in range(60)]
    read = of_concepts(5, names, special=(0,))
    best = sorted(names, key=lambda name: -float(read[name].scores[1:].max()))[:12]
    shown = [line[0] for line in seen(read).text_rows if line[0] in names]
    assert shown == [name for name in names if name in best]


@pytest.mark.parametrize("n_concepts", [1, 3, 500])
def test_a_text_of_4000_tokens_is_shown_within_a_second(n_concepts):
    read = of_concepts(4000, [f"n{number}" for number in range(n_concepts)])
    started = time.process_time()
    markup, plain = read._repr_html_(), read[read.concepts[0]]._repr_html_()
    assert time.process_time() - started < 1
    assert len(markup) < 3e6
    n_shown = len(seen(markup).hovers) // min(n_concepts, 12)
    assert ("tokens more" in markup) == (n_shown < 4000)
    assert n_shown >= 1600
    assert seen(plain).whole.count(" t") == 4000


def test_a_set_of_500_concepts_is_shown_within_a_second_and_shortened():
    directions = concept_set([f"n{number}" for number in range(500)])
    started = time.process_time()
    markup = directions._repr_html_()
    assert time.process_time() - started < 1
    assert "… and 480 objects more" in markup
    assert "… and 484 rows more" in markup
    assert len(markup) < 1e5
    assert repr(directions).endswith("n6, n7, … 492 more)")


def test_a_set_shows_norms_thresholds_nearest_objects_and_cosines():
    concepts = concept_set(["a", "b", "c", "d"])
    shown, cosines = seen(concepts), concepts.similarity()
    for place, name in enumerate(concepts):
        row = shown.cells.index(name)
        norm, threshold, nearest = shown.cells[row + 1 : row + 4]
        assert norm == f"{concepts[name].norm:.4g}"
        assert threshold == ("12.5" if name == "a" else "-")
        others = [other for other in concepts if other != name]
        best = max(others, key=lambda other: float(cosines[place, list(concepts).index(other)]))
        assert nearest.startswith(f"{best} (")
    hovers = dict(hover.rsplit(": ", 1) for hover in shown.hovers if ": " in hover)
    for i, first in enumerate(concepts):
        for j, second in enumerate(concepts):
            assert float(hovers[f"{first}, {second}"]) == pytest.approx(float(cosines[i, j]), abs=1e-5)


def test_a_set_without_thresholds_has_no_column_for_them_and_hashes_are_not_shown():
    plain = concept_set(["a", "b"], calibrated=False)
    shown = seen(lrc.ConceptSet(dict(plain), settings={"rank": 64, "lre_prompts_hash": "c2e2"})).whole
    assert "threshold" not in shown
    assert "c2e2" not in shown
    assert "rank 64" in shown


def test_a_direction_shows_its_fields():
    plain = seen(named(0, "Japan")).cells
    fields = dict(zip(plain[::2], plain[1::2], strict=True))
    assert fields["object"] == "Japan"
    assert fields["layer"] == "1 (blocks.1.hook_resid_post)"
    assert fields["norm"] == f"{named(0, 'Japan').norm:.4g}"
    assert fields["calibration"] == "none"
    other = torch.eye(12, dtype=torch.float64)[0] + named(0, "Japan").vector
    dual = named(0, "Japan", write_vector=other, write_rule="covariance").calibrated(threshold=3.0)
    cosine = float(dual.vector @ dual.write_vector)
    cells = seen(dual).cells
    assert cells[cells.index("writes with") + 1] == f"another vector, cosine {cosine:.2g}"
    assert cells[cells.index("calibration") + 1] == "threshold 3"


def test_a_ranking_is_a_list_with_bars():
    entries = [(f"n{number}", 40.0 - number) for number in range(30)]
    ranking = Ranking(entries)
    assert ranking == entries
    assert ranking[0] == ("n0", 40.0)
    assert isinstance(ranking[:3], Ranking)
    assert repr(ranking[:2]) == "[('n0', 40.0), ('n1', 39.0)]"
    assert repr(ranking).endswith("22 more]")
    shown = seen(ranking)
    widths = [float(width) for style in shown.styles for width in re.findall(r";width:([\d.]+)em", style)]
    assert widths == pytest.approx([9 * value / 40 for _, value in entries[:20]], abs=0.01)
    assert "… and 10 rows more" in shown.whole


def test_hostile_names_change_no_markup():
    ranking = seen(Ranking([(HOSTILE, 1.0)]))
    assert ranking.tags == seen(Ranking([("plain", 1.0)])).tags
    assert HOSTILE.replace("\u202e", "\\u202e") in ranking.whole


def test_a_set_reads_what_its_directions_read(word_model):
    prompts = [lrc.Prompt(text=f"w{n} is", subject=f"w{n}", object=f"o{n % 3}") for n in range(12)]
    concepts = lrc.mean_concepts(word_model, prompts, layer=1)
    texts = ["w1 w2 w3 w4", "w5", "w6 w7 <eos> w8 w9"]
    together = concepts.read_texts(word_model, texts)
    for text, read in zip(texts, together, strict=True):
        alone = concepts.read(word_model, text)
        assert alone.tokens == read.tokens
        torch.testing.assert_close(alone.scores, read.scores)
        for name in concepts:
            by_direction = concepts[name].read(word_model, text)
            torch.testing.assert_close(by_direction.scores, read[name].scores)
            assert by_direction.special == read.special
    assert isinstance(concepts.classify(word_model, "w1 w2", subject="w1"), Ranking)
    frame = concepts.similarity_frame()
    assert list(frame.index) == list(frame.columns) == list(concepts)
    torch.testing.assert_close(torch.tensor(frame.to_numpy()), concepts.similarity())
    with pytest.raises(ValueError, match="the text is empty"):
        concepts.read(word_model, " ")
