"""Every object that shows itself: its own numbers, in well-formed markup, whatever its texts hold, and at once."""

import dataclasses
import inspect
import time
import unicodedata

import pytest
import torch
from public_names import public_objects
from shown_objects import HOSTILE, causality_result, evaluation, generated, known, lre, seen, shown_objects
from test_protocol_result import RESULT
from test_sweep_result import made_up_result
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.markup.brief import brief_fields
from lrc_tl.numerics.statistics import share_interval

NAMES = list(shown_objects())


def fields(value):
    """The names and values of tables with two columns, and rows by their first cell."""
    shown = seen(value)
    return {shown.cells[row[0]]: [shown.cells[cell] for cell in row[1:]] for row in shown.rows if row}


@pytest.mark.parametrize("name", NAMES)
def test_a_display_and_a_repr_are_short_and_well_formed_whatever_the_texts(name):
    plain, hostile = shown_objects()[name], shown_objects(HOSTILE)[name]
    assert seen(hostile).tags == seen(plain).tags  # which also checks that every tag is closed
    assert "<script" not in hostile._repr_html_()
    assert "\u202e" not in hostile._repr_html_()
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in seen(hostile).whole if c != "\n")
    for value in (plain, hostile):
        assert len(repr(value).splitlines()) <= 5
        assert len(repr(value)) < 1000
        assert "tensor(" not in repr(value)
        assert "tensor(" not in seen(value).whole


@pytest.mark.parametrize("name", NAMES)
def test_every_display_is_made_within_a_second(name):
    value = shown_objects()[name]
    started = time.process_time()
    value._repr_html_()
    repr(value)
    assert time.process_time() - started < 1


def test_no_public_class_writes_whole_tensors_in_its_repr():
    for name, value in public_objects().items():
        if not (inspect.isclass(value) and dataclasses.is_dataclass(value)):
            continue
        hints = " ".join(str(field.type) for field in dataclasses.fields(value))
        if any(word in hints for word in ("Tensor", "Float[", "Bool[", "DataFrame")):
            made = value.__repr__.__qualname__
            assert made == brief_fields.__qualname__ or "__create_fn__" not in made, name
            source = inspect.unwrap(value.__repr__)
            assert "dataclasses" not in source.__code__.co_filename.split("/")[-1], name
            assert source.__code__.co_filename != "<string>", name


def test_known_prompts_show_kept_dropped_and_what_was_said():
    shown = fields(known("Japan"))
    assert shown["Japan"][:2] == ["3", "5"]
    assert shown["France"][:2] == ["3", "4"]
    assert shown["s8"] == ["Japan", "the Japan"]
    assert repr(known("Japan")) == "KnownPrompts(6 kept, of 2 objects, 3 dropped)"


def test_known_prompts_are_the_sequence_of_their_prompts():
    prompts = known("Japan")
    assert len(prompts) == 6
    assert tuple(prompts) == prompts.prompts
    assert prompts[1] == prompts.prompts[1]
    assert prompts[:2] == prompts.prompts[:2]


def test_an_lre_shows_layers_prompts_rank_and_spectrum():
    relation = lre("Japan")
    shown = fields(relation)
    assert shown["layers"] == ["7 → 12"]
    assert shown["prompts"] == ["8"]
    assert shown["numerical rank"] == [str(relation.numerical_rank)]
    values = [float(hover.split(": ")[1]) for hover in seen(relation).hovers]
    torch.testing.assert_close(
        torch.tensor(values, dtype=torch.float64), relation.singular_values, rtol=1e-3, atol=0
    )
    zero = dataclasses.replace(relation, weight=torch.zeros(40, 40, dtype=torch.float64))
    assert fields(zero)["numerical rank"] == ["0"]


def test_a_relation_shows_its_facts_and_counts():
    relation = shown_objects()["Relation"]
    assert len(relation) == 25
    shown = fields(relation)
    assert shown["facts"] == ["25 with 5 objects"]
    assert shown["France"][0].strip() == "5"
    assert shown["0 Japan"] == ["Japan"]
    assert "{} is a city in" in shown["templates"][0]


def test_an_evaluation_shows_counts_and_intervals():
    result = evaluation(("Japan", "France"))
    shown = fields(result)
    share, interval, count = shown["accuracy"]
    assert (float(share), count) == (pytest.approx(result.accuracy, abs=1e-4), "13 of 16")
    assert interval == "{:.3f} to {:.3f}".format(*share_interval(13, 16))
    assert shown["causality: p(o') > p(o)"][2] == f"{int(result.causality_result.success.sum())} of 20"
    assert shown["hard success: the model says o'"][2] == "7 of 20"
    assert shown["KL elsewhere"] == ["0.2 nats behind 60 statements"]
    low, high = result.accuracy_interval
    assert f"(13 of 16, 95 % {low:.3f} to {high:.3f}" in repr(result)
    low, high = result.causality_interval
    assert f"95 % {low:.3f} to {high:.3f}, beta 0.005" in repr(result)


def test_causality_shows_what_it_counted():
    result = causality_result()
    shown = fields(result)
    assert shown["wrong way"][2] == f"{round(result.wrong_way * 20)} of 20"
    assert shown["layers"] == ["all"]
    some = dataclasses.replace(result, layers=(7, 9), generated=None)
    assert fields(some)["layers"] == ["7, 9"]
    assert "hard success: the model says o'" not in fields(some)


def test_settings_show_what_was_chosen_and_the_curve():
    settings = shown_objects()["Settings"]
    shown = seen(settings)
    assert "lrc: layers 7 → 12, rank 128, beta 0.003" in shown.whole
    assert fields(settings)["hard success"] == ["0.7"]
    assert [hover for hover in shown.hovers if hover.startswith("hard")] == [
        "hard success at 0.001: 0.1", "hard success at 0.003: 0.7", "hard success at 0.01: 0.4",
    ]  # fmt: skip


def test_a_strength_calibration_shows_its_curve_and_marks_the_choice():
    calibration = shown_objects()["StrengthCalibration"]
    shown = fields(calibration)
    for point in calibration.points:
        row = shown[f"{point.strength:.4g}"]
        assert row[:2] == [f"{point.success_rate:.4g}", f"{point.kl:.4g}"]
    assert shown["0.01"][-1] == "chosen"
    assert shown["0.03"][-1] == "over the limit: kl"
    assert shown["0.1"][-1] == "over the limit: kl, perplexity ratio"
    assert len(repr(calibration).splitlines()) == 2
    assert len(str(calibration).splitlines()) == 2 + 1 + 6
    unreached = dataclasses.replace(calibration, strength=None)
    assert "none feasible" in seen(unreached).whole


def test_generated_text_stands_beside_the_unsteered_one_with_its_numbers():
    result = generated("Japan")
    shown, rows = seen(result), fields(result)
    assert rows["strength 0.03"] == [" Tokyo,↵\nJapan sea"]
    assert rows["unsteered"] == [" Paris, the city of Japan"]
    assert rows["KL (nats)"] == [f"{value:.3g}" for value in result.kl.tolist()]
    assert rows["score"] == [f"{value:.3g}" for value in result.scores[:, 0].tolist()]
    assert "2 of 5 tokens are not what the unsteered model would have said there" in shown.whole
    assert [hover for hover in shown.hovers if hover.startswith("unsteered")] == [
        "unsteered:  Paris", "unsteered:  of",
    ]  # fmt: skip


def test_statistics_show_the_mean_and_spread_of_each_layer():
    statistics = shown_objects()["SubjectStatistics"]
    shown = fields(statistics)
    for layer, of_layer in statistics.items():
        samples = of_layer.samples.double()
        spread = (samples - samples.mean(0)).norm(dim=1).square().mean().sqrt()
        assert shown[str(layer)] == [f"{float(samples.mean(0).norm()):.4g}", f"{float(spread):.4g}"]


def test_a_fingerprint_shows_what_must_match():
    shown = fields(FINGERPRINT)
    assert shown["width"] == ["12"]
    assert shown["run in"] == ["float32 on cpu"]
    assert "layer 0: 1, layer 2: 2" in shown["residual norms"]


def test_a_protocol_result_shows_means_and_intervals():
    methods, shown = RESULT.to_dict()["methods"], fields(RESULT)
    for method in methods:
        row = shown[method["method"]]
        assert float(row[0]) == pytest.approx(method["accuracy"]["mean"], abs=1e-4)
        assert row[1] == "{:.3f} to {:.3f}".format(*method["accuracy"]["ci95"])
        assert float(row[2]) == pytest.approx(method["causality"]["mean"], abs=1e-4)
        assert row[4:] == [str(method[key]) for key in ("n_relations", "n_prompts", "n_edits")]
    for name in RESULT.relations_left_out:
        assert name in shown
    empty = lrc.ProtocolResult(records=(), methods=("lrc",))
    assert "on 0 relations" in seen(empty).whole
    assert repr(empty) == "ProtocolResult(1 method, 0 relations, 0 seeds)"


def test_a_sweep_shows_its_best_cells_and_a_comparison_what_tells_two_apart():
    sweep = made_up_result()
    shown, best = fields(sweep), sweep.best().set_index("method")
    for method in ("lrc", "svm"):
        row = shown[method]
        assert float(row[-4]) == pytest.approx(best.loc[method, "validation"])
        assert float(row[-3]) == pytest.approx(best.loc[method, "value"])
        assert row[-2:] == [
            f"{best.loc[method, 'low']:.3f} to {best.loc[method, 'high']:.3f}",
            str(best.loc[method, "n_facts"]),
        ]
    compared = sweep.compare({"method": "lrc", "rank": 2}, "svm")
    shown = fields(compared)
    assert shown[""] == ["method", "object layer", "rank", "LRE prompts", "value"]
    assert shown["a"] == ["lrc", "2", "2", "4", " 0.9"]
    assert shown["b"] == ["svm", "-", "-", "-", " 0.7"]
    assert shown["a less b"] == [f"{compared.difference:+.3f}"]
    assert ("leaves 0 out" in seen(compared).whole) == (compared.low > 0 or compared.high < 0)
    same = sweep.compare("svm", "svm")
    assert "holds 0" in seen(same).whole
    assert repr(same).startswith("SweepComparison(accuracy 0.700 (method svm) less 0.700 (method svm): +0.000")


def test_what_was_generated_says_where_the_unsteered_model_differs(word_model):
    direction = lrc.ConceptDirection(
        vector=torch.eye(12)[0], relation="r", object_name="a", hook_name="blocks.1.hook_resid_post"
    )
    steering = direction.add(strength=9.0, unit="absolute")
    results = lrc.generate(
        word_model, ["w1 w2", "w3"], steering=steering, strengths=[0.0, 9.0], max_new_tokens=5, unsteered=True
    )
    plain = lrc.generate(word_model, ["w1 w2", "w3"], max_new_tokens=5)
    for number, result in enumerate(results):
        assert result.unsteered == plain[number // 2].text
        assert result.tokens == tuple(word_model.tokenizer.decode([i]) for i in result.token_ids.tolist())
        ids = word_model.to_tokens(result.prompt)
        whole = torch.cat([ids, result.token_ids[None].to(ids)], dim=1)
        logits = word_model(whole)[0, ids.shape[1] - 1 : -1]
        expected = tuple(word_model.tokenizer.decode([i]) for i in logits.argmax(-1).tolist())
        assert result.instead == expected
        if result.strength == 0:
            assert result.instead == result.tokens
            assert result.text == result.unsteered
    assert plain[0].unsteered is None
    assert plain[0].changed == ()
    assert plain[0].instead == plain[0].tokens
    sampled = lrc.generate(
        word_model, ["w1 w2", "w3"], steering=steering, strengths=[0.0, 9.0], max_new_tokens=5,
        temperature=1.0, seed=4, unsteered=True,
    )  # fmt: skip
    for result in sampled:
        if result.strength == 0:
            assert result.text == result.unsteered


def test_continuations_show_their_texts_by_strength_and_give_a_frame(word_model):
    direction = lrc.ConceptDirection(
        vector=torch.eye(12)[0], relation="r", object_name="a", hook_name="blocks.1.hook_resid_post"
    )
    given = {"steering": direction, "strengths": [0.0, 1.5], "max_new_tokens": 4, "unsteered": True}
    results = lrc.generate(word_model, ["w1 w2", "w3"], **given)
    shown = seen(results)
    texts = [[shown.cells[cell] for cell in row] for row in shown.rows]
    assert [row[0] for row in texts] == ["strength", "unsteered", "0", "1.5"] * 2
    assert texts[1] == ["unsteered", results[0].unsteered, "-"]
    for row, result in zip((*texts[2:4], *texts[6:]), results, strict=True):
        assert row[1] == "".join(result.tokens)
        assert float(row[2]) == pytest.approx(result.mean_kl, rel=1e-3, abs=1e-9)
    assert len(shown.hovers) == sum(len(result.changed) for result in results)
    frame = results.to_frame()
    assert list(frame["strength"]) == [0.0, 1.5] * 2
    assert list(frame["text"]) == [result.text for result in results]
    assert list(frame["n_changed"]) == [len(result.changed) for result in results]
    assert frame["mean_kl"].to_list() == [float(result.kl.mean()) for result in results]
    assert isinstance(results[1:], lrc.steering.Continuations)
    assert results[-1] is tuple(results)[3]
    assert "2 more" not in repr(results)
    assert repr(results).startswith("4 continuations\n  Generated('w1 w2' -> ")
