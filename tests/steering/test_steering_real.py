"""Steering on the packaged Gemma, whose special first token is thirteen times as long as the others."""

import pytest
import torch

import lrc_tl as lrc

pytestmark = [pytest.mark.real_model, pytest.mark.smoke]

TEXTS = ("My favourite city is", "When I was young, my parents took me to")
LYON = "Lyon is located in the country of"


@pytest.fixture(scope="module")
def concepts(gemma):
    """Mean activations of a few cities: cheap directions that mean something."""
    relation = lrc.load_relation("city_in_country")
    wanted = ("France", "Japan", "Italy")
    prompts = [prompt for prompt in relation.prompts() if prompt.object in wanted]
    acts = lrc.subject_activations(gemma, prompts, layer=9)
    fingerprint = lrc.models.ModelFingerprint.of(gemma)

    def mean(name):
        rows = [index for index, prompt in enumerate(prompts) if prompt.object == name]
        return acts[rows].mean(0) - acts.mean(0)

    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                mean(name), relation="city_in_country", object_name=name, hook_name="blocks.9.hook_resid_post",
                method="mean_difference", fingerprint=fingerprint,
            )
            for name in wanted
        }
    )  # fmt: skip


def generated(model, texts, *, cache=True, n_new=4):
    tokens = model.generate(
        list(texts), max_new_tokens=n_new, do_sample=False, verbose=False, use_past_kv_cache=cache,
        return_type="tokens", stop_at_eos=False,
    )  # fmt: skip
    return tokens[:, -n_new:].tolist()


@pytest.mark.parametrize("where", ["all", slice(-1, None)], ids=str)
def test_steered_generation_is_the_same_with_and_without_the_cache_alone_and_padded(gemma, concepts, where):
    def steered(texts, **options):
        with concepts["Japan"].steer(gemma, strength=0.3, where=where):
            return generated(gemma, texts, **options)

    alone = [steered([text])[0] for text in TEXTS]
    assert alone != generated(gemma, TEXTS)
    assert steered(TEXTS) == alone
    assert steered(TEXTS, cache=False) == alone


def test_the_special_first_token_is_long_and_left_alone(gemma, concepts):
    name = "blocks.9.hook_resid_post"
    ids = gemma.to_tokens(TEXTS[0])
    kept = []
    with gemma.hooks(fwd_hooks=[(name, lambda residual, hook: kept.append(residual.clone()))]):
        gemma(ids)
    # A hook added first sees the residual before the edit, so this one is added inside.
    with (
        concepts["Japan"].steer(gemma, strength=0.3),
        gemma.hooks(fwd_hooks=[(name, lambda residual, hook: kept.append(residual.clone()))]),
    ):
        gemma(ids)
    clean, steered = kept
    norms = clean[0].norm(dim=-1)
    assert norms[0] > 5 * norms[1:].max()
    assert torch.equal(steered[:, 0], clean[:, 0])
    moved = (steered - clean)[0, 1:].norm(dim=-1) / norms[1:]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.3), rtol=1e-4, atol=1e-4)


def test_a_swap_moves_the_answer_towards_the_new_country(gemma, concepts):
    ids = gemma.to_tokens(LYON)
    france, japan = (gemma.to_tokens(f"{LYON} {name}")[0, ids.shape[1]] for name in ("France", "Japan"))

    def log_odds():
        logits = gemma(ids)[0, -1]
        return float(logits[japan] - logits[france])

    before = log_odds()
    with concepts.swap(gemma, remove="France", add="Japan", text=LYON, subject="Lyon", beta=0.1):
        assert log_odds() > before + 2
    assert log_odds() == before


def test_reading_a_text_finds_the_city(gemma, concepts):
    read = concepts["France"].read(gemma, "We flew from Tokyo to Paris in the spring.")
    assert read.tokens[0] == "<bos>"
    words = dict(zip(read.tokens, read.scores.tolist(), strict=True))
    assert words[" Paris"] > words[" Tokyo"]
    assert read.tokens[1 + int(read.scores[1:].argmax())] == " Paris"


def test_a_saved_set_works_on_the_model_that_made_it(gemma, concepts, tmp_path):
    path = tmp_path / "countries.safetensors"
    concepts.save(path)
    loaded = lrc.ConceptSet.load(path, model=gemma)
    assert torch.equal(loaded.vectors, concepts.vectors)
    assert loaded.classify(gemma, LYON, subject="Lyon") == concepts.classify(gemma, LYON, subject="Lyon")
