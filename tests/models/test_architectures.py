"""Models whose Hugging Face code shapes the last layer's output as the batch was, on the Bridge, beside others."""

import pytest
import tiny_models
import torch

import lrc_tl as lrc
from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.edited_passes import EditedSequence, edited_logits
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.passes.batches import logits_at
from lrc_tl.tuning.success import target_beats_object

NAMES = ("GPT-2", "GPT-J", "GPT-Neo", "GPT-BigCode", "GPT-NeoX", "Llama")
SEQUENCES = ([1, 5, 6, 7], [1, 9, 8, 7, 6, 5, 4], [1, 11])
POSITIONS = ([3], [2, 6], [0])


@pytest.fixture(scope="module", params=NAMES)
def both(request, one_thread, tmp_path_factory):
    """The plain Hugging Face model, and a Bridge around another of the same weights."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"), request.param)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, tiny_models.D_MODEL)
    return tiny_models.hugging_face(request.param), model.eval().requires_grad_(False)


def prompts():
    return [
        lrc.Prompt(text=f"w{subject} w3 w{template}", subject=f"w{subject}", object=f"w{30 + subject % 2}")
        for subject in range(10, 16)
        for template in (4, 5)
    ]


def steering(strength=1.0):
    vector = torch.randn(tiny_models.D_MODEL, generator=torch.Generator().manual_seed(0))
    add = lrc.steering.Add(vector=vector / vector.norm(), strength=strength, unit="absolute")
    return lrc.Steering(operation=add, hook_name="blocks.1.hook_resid_post")


def plain_logits(hf_model, ids):
    with torch.no_grad():
        return hf_model(torch.tensor([ids])).logits[0]


def test_logits_at_picked_positions_are_those_of_the_plain_model(both):
    hf_model, model = both
    found = dict(logits_at(model, SEQUENCES, POSITIONS))
    for row, (ids, at) in enumerate(zip(SEQUENCES, POSITIONS, strict=True)):
        torch.testing.assert_close(found[row], plain_logits(hf_model, ids)[at], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_rows", [1, 40])
def test_logits_behind_an_edit_are_those_of_an_edit_by_hand(both, n_rows):
    _, model = both
    sequences = [EditedSequence(ids=tuple(SEQUENCES[1]), edited_position=2, wanted=(3, 6))]
    shift = torch.randn(tiny_models.D_MODEL, generator=torch.Generator().manual_seed(0))

    def by_hand(residual, hook):
        changed = residual.clone()
        changed[:, 2] += shift
        return changed

    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", by_hand)]):
        expected = model(torch.tensor([SEQUENCES[1]]))[0, [3, 6]]
    rows = torch.zeros(n_rows, dtype=torch.long)
    for _, logits in edited_logits(model, sequences, rows, shift.repeat(n_rows, 1), layers=[1], unit="absolute"):
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def test_what_is_known_is_what_the_plain_model_says(both):
    hf_model, model = both
    said = {}
    for prompt in prompts():
        ids = model.to_tokens(prompt.text)[0].tolist()
        said[prompt.text] = model.tokenizer.decode(int(plain_logits(hf_model, ids)[-1].argmax()))
    told = [lrc.Prompt(text=p.text, subject=p.subject, object=said[p.text]) for p in prompts()]
    told = [prompt for prompt in told if prompt.object.startswith("w") and prompt.object != prompt.subject]
    assert told
    known = lrc.filter_known(model, told)
    assert {prompt.text for prompt in known.prompts} == {prompt.text for prompt in told}


def test_the_margin_of_no_edit_is_the_plain_models_difference(both):
    hf_model, model = both
    prompt = prompts()[0]
    ids = model.to_tokens(prompt.text)[0].tolist()
    log_probs = plain_logits(hf_model, ids)[-1].log_softmax(-1)
    target, own = model.tokenizer.convert_tokens_to_ids(["w31", prompt.object])
    margins = target_beats_object(model, Edit(prompt=prompt, target="w31"), steering(), [0.0, 3.0])
    torch.testing.assert_close(margins[0], (log_probs[target] - log_probs[own]).double(), rtol=1e-3, atol=1e-3)
    assert abs(margins[1] - margins[0]) > 1e-3


def test_the_whole_way_from_fit_to_steered_text(both):
    _, model = both
    lre = lrc.LinearRelationalEmbedding.fit(model, prompts()[:4], subject_layer=0, object_layer=1)
    assert torch.isfinite(lre.weight).all()
    assert lre.weight.norm() > 0
    concepts = lre.concepts(model, prompts(), rank=4)
    result = lrc.evaluate(model, concepts, prompts(), beta=0.1)
    assert result.to_dict()["n_prompts"] == len(prompts())
    (made,) = lrc.generate(model, "w10 w3 w4", steering=steering(3.0), max_new_tokens=4)
    assert torch.isfinite(made.kl).all()
    assert made.kl.sum() > 1e-3


def test_the_edited_run_of_an_evaluation_is_the_swap_by_hand(both):
    _, model = both
    lre = lrc.LinearRelationalEmbedding.fit(model, prompts()[:4], subject_layer=0, object_layer=1)
    concepts = lre.concepts(model, prompts(), rank=4)
    edits = [Edit(prompt=prompt, target="w31") for prompt in prompts() if prompt.object == "w30"]
    (found,) = lrc.evaluation.causality_curve(model, edits, swap_differences(concepts, edits), betas=[0.3])
    for edit, edited in zip(edits, found.edited, strict=True):
        prompt = edit.prompt
        with concepts.swap(model, remove="w30", add="w31", text=prompt.text, subject=prompt.subject, beta=0.3):
            expected = model(model.to_tokens(prompt.text))[0, -1].log_softmax(-1)
        own, other = model.tokenizer.convert_tokens_to_ids(["w30", "w31"])
        torch.testing.assert_close(edited, expected[[own, other]].to(edited), rtol=1e-3, atol=1e-3)


def test_settings_are_selected(both):
    _, model = both
    relation = tiny_models.relation_known_by(model)
    settings = lrc.select_settings(
        model, relation, shots=0, n_prompts=3, progress=False,
        space=lrc.SearchSpace(subject_layers=[0], object_layers=[1], ranks=[2], betas=[0.1]),
    )  # fmt: skip
    assert (settings.subject_layer, settings.object_layer, settings.rank) == (0, 1, 2)
    assert settings.n_validation > 0


def test_only_the_wanted_positions_go_through_the_unembedding(both):
    _, model = both
    shapes = []
    with model.hooks(fwd_hooks=[("unembed.hook_out", lambda logits, hook: shapes.append(tuple(logits.shape)))]):
        list(logits_at(model, SEQUENCES[:1] * 3, [[1, 3]] * 3))
    assert shapes == [(3, 2, int(model.cfg.d_vocab))]


def test_a_jacobian_over_a_cached_prefix_is_that_of_the_whole_text(both, monkeypatch):
    _, model = both
    tokens = lrc.relations.tokenize_prompt(model, lrc.Prompt(text="w3 w8 w9 w10 w4", subject="w10", object="w30"))
    cached = lrc.lre.subject_object_jacobian(model, tokens, subject_layer=0, object_layer=2)
    monkeypatch.setattr("lrc_tl.lre.jacobian_graph.prefix_cache", lambda *args, **given: None)
    whole = lrc.lre.subject_object_jacobian(model, tokens, subject_layer=0, object_layer=2)
    torch.testing.assert_close(cached.jacobian, whole.jacobian, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(cached.object, whole.object, rtol=1e-3, atol=1e-4)
