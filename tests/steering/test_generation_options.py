"""Conveniences of `generate` and `steer`: a direction as it is, clamps over strengths, sampling, one steering."""

import pytest
import torch
from tiny_steering import HOOK, adding, unit

import lrc_tl as lrc


def direction(**given):
    return lrc.ConceptDirection.from_unscaled(unit(), relation="r", object_name="a", hook_name=HOOK, **given)


def same(one, other):
    assert one.text == other.text
    torch.testing.assert_close(one.log_probs, other.log_probs)
    torch.testing.assert_close(one.kl, other.kl, rtol=1e-4, atol=1e-5)


def test_a_direction_is_added_at_the_strengths(word_model):
    made = lrc.generate(word_model, "w1 w2", steering=direction(), strengths=[0.0, 2.0], max_new_tokens=4)
    plain = lrc.generate(
        word_model, "w1 w2", steering=direction().add(strength=9.0), strengths=[0.0, 2.0], max_new_tokens=4
    )
    for one, other in zip(made, plain, strict=True):
        same(one, other)
    for strengths in (None, [None], [1.0, None]):
        with pytest.raises(ValueError, match="steering is a direction, which has no strength of its own; give"):
            lrc.generate(word_model, "w1", steering=direction(), strengths=strengths)


def test_strengths_are_the_values_of_a_clamp_where_nothing_adds(word_model):
    made = lrc.generate(
        word_model, "w1 w2", steering=direction().clamp(value=1.0), strengths=[-5.0, 0.0, None], max_new_tokens=4
    )
    for one, value in zip(made, (-5.0, 0.0, 1.0), strict=True):
        (alone,) = lrc.generate(word_model, "w1 w2", steering=direction().clamp(value=value), max_new_tokens=4)
        same(one, alone)
        known = ~one.scores.isnan()
        torch.testing.assert_close(one.scores[known], torch.full_like(one.scores[known], value), atol=1e-4, rtol=0)
    both = [adding(strength=1.0), direction().clamp(value=3.0)]
    swept = lrc.generate(word_model, "w1", steering=both, strengths=[7.0], max_new_tokens=3)[0]
    expected = [adding(strength=7.0), direction().clamp(value=3.0)]
    same(swept, lrc.generate(word_model, "w1", steering=expected, max_new_tokens=3)[0])


def test_samples_stand_beside_each_other_and_differ(word_model):
    made = lrc.generate(
        word_model, ["w1 w2", "w3"], steering=direction(), strengths=[0.0, 1.0], n_samples=3, temperature=1.0,
        max_new_tokens=6, seed=1,
    )  # fmt: skip
    rows = [(prompt, strength, n) for prompt in ("w1 w2", "w3") for strength in (0.0, 1.0) for n in range(3)]
    assert [(one.prompt, one.strength, one.sample) for one in made] == rows
    assert len({one.text for one in made[:3]}) > 1
    again = lrc.generate(
        word_model, ["w1 w2", "w3"], steering=direction(), strengths=[0.0, 1.0], n_samples=3, temperature=1.0,
        max_new_tokens=6, seed=1,
    )  # fmt: skip
    assert [one.text for one in again] == [one.text for one in made]


def test_top_k_and_top_p_bound_what_is_sampled_and_leave_probabilities_as_they_are(word_model):
    options = {"temperature": 1.0, "n_samples": 4, "max_new_tokens": 6}
    (greedy,) = lrc.generate(word_model, "w1 w2", max_new_tokens=6)
    for bound in ({"top_k": 1}, {"top_p": 1e-6}):
        for one in lrc.generate(word_model, "w1 w2", **options, **bound):
            same(one, greedy)
    for one in lrc.generate(word_model, "w1 w2", top_k=3, **options):
        whole = torch.cat([word_model.to_tokens("w1 w2")[0], one.token_ids])
        logits = word_model(whole[None])[0, -len(one.token_ids) - 1 : -1].double().log_softmax(-1)
        likeliest = logits.topk(3).indices
        assert all(int(token) in row.tolist() for token, row in zip(one.token_ids, likeliest, strict=True))
        expected = logits.gather(1, one.token_ids[:, None])[:, 0]
        torch.testing.assert_close(one.log_probs.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3}, "top_k, top_p and n_samples are for sampled text; give temperature=1.0"),
        ({"n_samples": 2}, "are for sampled text"),
        ({"n_samples": 0, "temperature": 1.0}, "n_samples is 0"),
        ({"top_k": 0, "temperature": 1.0}, "top_k 0"),
        ({"top_p": 1.5, "temperature": 1.0}, r"top_p 1\.5; the first two must be 1 or more"),
    ],
)
def test_bad_sampling_is_refused(word_model, options, message):
    with pytest.raises(ValueError, match=message):
        lrc.generate(word_model, "w1", **options)


def test_one_steering_one_layer_and_a_bare_strength_are_enough(word_model):
    ids = word_model.to_tokens("w1 w2 w3")
    with lrc.steer(word_model, [adding()]):
        expected = word_model(ids)
    with lrc.steer(word_model, adding()):
        torch.testing.assert_close(word_model(ids), expected)
    assert adding().at(layers=2).layers == (2,)
    assert adding().at(layers=-1).hook_names(word_model) == ["blocks.2.hook_resid_post"]
    with direction().steer(word_model, strength=0.5):
        expected = word_model(ids)
    with direction().steer(word_model, 0.5):
        torch.testing.assert_close(word_model(ids), expected)
    with direction().steer(word_model, 0.5, layers=1):
        torch.testing.assert_close(word_model(ids), expected)
    with pytest.raises(TypeError, match="boolean"):
        adding().at(layers=True)


def test_known_prompts_are_taken_wherever_prompts_are(word_model):
    prompts = [lrc.Prompt(text=f"w{n} w8", subject=f"w{n}", object=f"w{30 + n % 2}") for n in range(8)]
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    places = {"subject_layer": 0, "object_layer": 2, "progress": False}
    one = lrc.LinearRelationalEmbedding.fit(word_model, known, **places)
    torch.testing.assert_close(one.weight, lrc.LinearRelationalEmbedding.fit(word_model, prompts, **places).weight)
    concepts = one.concepts(word_model, known, rank=2)
    evaluation = lrc.evaluate(word_model, concepts, known, beta=0.1, progress=False)
    assert repr(evaluation) == repr(lrc.evaluate(word_model, concepts, prompts, beta=0.1, progress=False))
