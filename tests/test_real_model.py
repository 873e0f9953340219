"""The main job on the packaged Gemma."""

import pytest
import torch

import lrc_tl as lrc

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def fitted(gemma):
    train, test = lrc.load_relation("city_in_country").split(seed=0)
    prompts = train.prompts()
    one_an_object = list({prompt.object: prompt for prompt in prompts}.values())[:3]
    lre = lrc.LinearRelationalEmbedding.fit(gemma, one_an_object, subject_layer=8, object_layer=12, progress=False)
    return lre, prompts, test, one_an_object


def test_directions_find_the_country_of_unseen_cities(gemma, fitted):
    lre, prompts, test, _ = fitted
    concepts = lre.concepts(gemma, prompts, rank=48)
    unseen = test.prompts()[::3]
    right = sum(concepts.classify(gemma, p.text, subject=p.subject)[0][0] == p.object for p in unseen)
    assert right >= 0.5 * len(unseen)


def test_a_one_prompt_lre_reproduces_its_own_object(gemma, fitted):
    prompt = fitted[3][0]
    lre = lrc.LinearRelationalEmbedding.fit(gemma, [prompt], subject_layer=8, object_layer=9, progress=False)
    subject = lrc.subject_activations(gemma, [prompt], layer=8)
    expected = lrc.passes.object_activations(gemma, [prompt], layer=9)
    assert (lre.predict(subject) - expected).norm() / expected.norm() < 1e-5


def test_steered_text_is_the_same_with_and_without_the_cache(gemma, fitted):
    lre, prompts, _, _ = fitted
    japan = lre.concepts(gemma, prompts, rank=48)["Japan"]
    texts = []
    for use_cache in (True, False):
        with japan.steer(gemma, strength=0.1):
            texts.append(
                gemma.generate(
                    "My favourite city is", max_new_tokens=8, do_sample=False, verbose=False,
                    use_past_kv_cache=use_cache,
                )
            )  # fmt: skip
    assert texts[0] == texts[1]
    assert texts[0] != gemma.generate("My favourite city is", max_new_tokens=8, do_sample=False, verbose=False)


def test_reusing_the_prefix_gives_the_jacobian_of_the_whole_sequence(gemma, fitted, monkeypatch):
    train = fitted[2]
    tokens = lrc.relations.tokenize_prompt(gemma, train.prompts(shots=1)[0])
    assert tokens.subject_position > 5
    layers = {"subject_layer": 10, "object_layer": 12}
    reused = lrc.lre.subject_object_jacobian(gemma, tokens, **layers)
    monkeypatch.setattr("lrc_tl.lre.jacobian_graph.prefix_cache", lambda *args, **kwargs: None)
    whole = lrc.lre.subject_object_jacobian(gemma, tokens, **layers)
    for got, expected in ((reused.jacobian, whole.jacobian), (reused.object, whole.object)):
        assert (got - expected).norm() / expected.norm() < 1e-5


def test_no_prompts_is_an_error(gemma, fitted):
    with pytest.raises(ValueError, match="no prompts to fit on"):
        lrc.LinearRelationalEmbedding.fit(gemma, [], subject_layer=8, object_layer=12)
    with pytest.raises(ValueError, match="no prompts to make concepts from"):
        fitted[0].concepts(gemma, [], rank=8)
    assert torch.isfinite(fitted[0].singular_values).all()
