"""A set of directions names, scores, centres, classifies and swaps its objects as they say."""

import pytest
import torch
from tiny_directions import FINGERPRINT, named, residuals
from tiny_steering import HOOK

import lrc_tl as lrc
from lrc_tl.storage.artifacts import read_artifact, write_artifact


@pytest.fixture
def concepts():
    return lrc.ConceptSet({name: named(seed, name) for seed, name in enumerate(("France", "Japan", "Chad"))})


def test_a_set_of_one_cannot_classify_and_an_unknown_object_is_named(word_model, direction):
    concepts = lrc.ConceptSet({"x": direction})
    with pytest.raises(ValueError, match="one object cannot classify"):
        concepts.classify(word_model, "cat is", subject="cat")
    with pytest.raises(KeyError, match="no concept 'y'; there are x"):
        concepts["y"]


def test_directions_that_do_not_belong_together_make_no_set():
    one = named(0, "a")
    with pytest.raises(ValueError, match="directions of one hook point; given are none"):
        lrc.ConceptSet({})
    with pytest.raises(ValueError, match="directions of one hook point"):
        lrc.ConceptSet({"a": one, "b": named(1, "b", hook="blocks.2.hook_resid_post")})
    narrow = lrc.ConceptDirection(vector=one.vector.float(), relation="r", object_name="b", hook_name=HOOK)
    with pytest.raises(ValueError, match="one width, dtype and device"):
        lrc.ConceptSet({"a": one, "b": narrow})
    with pytest.raises(ValueError, match="directions of one model; given are directions of several"):
        lrc.ConceptSet({"a": one, "b": named(1, "b", fingerprint=FINGERPRINT)})


def test_a_direction_under_another_name_than_its_own_is_refused(direction):
    with pytest.raises(ValueError, match="the direction of 'x' was given as 'y'; a set names directions by"):
        lrc.ConceptSet({"y": direction})


def test_a_mistyped_object_is_answered_with_near_names(concepts):
    with pytest.raises(KeyError, match="no concept 'Farnce'; near names: France"):
        concepts["Farnce"]
    assert "Farnce" not in concepts
    assert repr(concepts).startswith("ConceptSet('r', 3 concepts at blocks.1.hook_resid_post")


def test_a_swap_is_the_papers_edit_at_the_last_subject_token_of_every_layer(word_model, concepts):
    text = "w9 w9 w2 w3 w4"
    ids = word_model.to_tokens(text)
    clean = [residuals(word_model, ids, layer) for layer in range(3)]
    with concepts.swap(word_model, remove="France", add="Chad", text=text, subject="w2 w3", beta=0.2):
        swapped = [residuals(word_model, ids, layer) for layer in range(3)]
        longer = word_model.to_tokens(text + " w5")
        in_longer = residuals(word_model, longer, 2)
    difference = (concepts["Chad"].vector - concepts["France"].vector).to(clean[0])

    def by_hand(layer):
        def edit(residual, hook):
            edited = residual.clone()
            edited[0, 4] += 0.2 * residual[0, 4].norm() * difference
            return edited

        return f"blocks.{layer}.hook_resid_post", edit

    with word_model.hooks(fwd_hooks=[by_hand(layer) for layer in range(3)]):
        expected = [residuals(word_model, ids, layer) for layer in range(3)]
    for layer in range(3):
        torch.testing.assert_close(swapped[layer], expected[layer])
        assert torch.equal(swapped[layer][:, :4], clean[layer][:, :4])
    torch.testing.assert_close(in_longer[:, :6], swapped[2])


def test_a_swap_refuses_to_edit_another_text(word_model, concepts):
    swap = concepts.swap(word_model, remove="France", add="Chad", text="w1 w2 w3", subject="w2")
    with swap, pytest.raises(ValueError, match="row 1 does not begin with the text that was given"):
        word_model(["w1 w2 w4", "w1 w3 w2"])
    with pytest.raises(lrc.errors.PositionError, match="subject 'w7' is not in"):
        concepts.swap(word_model, remove="France", add="Chad", text="w1 w2", subject="w7")
    with pytest.raises(ValueError, match="beta is nan"):
        concepts.swap(word_model, remove="France", add="Chad", text="w1 w2", subject="w2", beta=float("nan"))


@pytest.mark.parametrize("cache", [True, False])
def test_a_swap_acts_the_same_with_and_without_the_cache_and_padding(word_model, concepts, cache):
    texts = ["w1 w2 w3 w4", "w1 w2"]
    results = []
    for batch in ([texts[0]], [texts[1]], texts):
        with concepts.swap(word_model, remove="Japan", add="Chad", text="w1 w2", subject="w2", beta=2.0):
            made = word_model.generate(
                batch, max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False,
                use_past_kv_cache=cache, return_type="tokens",
            )  # fmt: skip
            results.append(made[:, -4:].tolist())
    assert results[2] == results[0] + results[1]


def test_classifying_ranks_by_the_score_at_the_last_subject_token(word_model, concepts):
    ranking = concepts.classify(word_model, "w1 w2 w3", subject="w1 w2")
    act = residuals(word_model, word_model.to_tokens("w1 w2 w3"), 1)[0, 2]
    expected = {name: float(direction.score(act)) for name, direction in concepts.items()}
    assert dict(ranking) == pytest.approx(expected, rel=1e-5)
    assert [name for name, _ in ranking] == sorted(expected, key=expected.get, reverse=True)


def test_scores_and_cosines_of_a_set_are_those_of_its_directions(concepts):
    acts = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(1))
    stacked = torch.stack([direction.score(acts) for direction in concepts.values()], dim=-1)
    torch.testing.assert_close(concepts.scores(acts), stacked)
    cosines = concepts.similarity()
    for row, one in enumerate(concepts.values()):
        for column, other in enumerate(concepts.values()):
            assert float(cosines[row, column]) == pytest.approx(
                float(torch.cosine_similarity(one.vector, other.vector, dim=0))
            )
    with pytest.raises(ValueError, match="there are no activations"):
        concepts.scores(torch.zeros(0, 12))
    with pytest.raises(ValueError, match="the activations are not finite"):
        concepts.scores(torch.full((1, 12), float("nan")))


def test_a_centred_set_scores_as_if_the_mean_were_taken_from_the_activations(concepts, tmp_path):
    generator = torch.Generator().manual_seed(3)
    acts = 5 + torch.randn(7, 12, generator=generator)
    others = torch.randn(4, 12, generator=generator)
    centred = concepts.centred(acts)
    expected = concepts.scores(others - acts.mean(0))
    torch.testing.assert_close(centred.scores(others), expected, rtol=1e-5, atol=1e-5)
    for column, direction in enumerate(centred.values()):
        torch.testing.assert_close(direction.score(others), expected[:, column], rtol=1e-5, atol=1e-5)
    assert torch.equal(centred.vectors, concepts.vectors)
    torch.testing.assert_close(
        centred.scores(acts).mean(0), torch.zeros(len(concepts)).to(expected), rtol=0, atol=1e-5
    )
    assert centred.centred(torch.zeros(1, 12)).scores(others).equal(concepts.scores(others))
    centred.save(tmp_path / "c.safetensors")
    loaded = lrc.ConceptSet.load(tmp_path / "c.safetensors")
    assert torch.equal(loaded.scores(others), centred.scores(others))
    assert loaded.settings["centred_on"] == 7
    with pytest.raises(ValueError, match="there are no activations"):
        concepts.centred(torch.zeros(0, 12))


def test_a_centred_set_is_not_centred_again_and_its_random_control_starts_anew(concepts):
    acts = 5 + torch.randn(7, 12, generator=torch.Generator().manual_seed(3))
    names = [list(concepts)[row % len(concepts)] for row in range(7)]
    centred = concepts.centred(acts)
    plain = lrc.evaluation.classify_activations(concepts, acts, names, centre=acts.mean(0))
    assert lrc.evaluation.classify_activations(centred, acts, names) == plain
    with pytest.raises(ValueError, match="the set is centred already, so centre would count twice"):
        lrc.evaluation.classify_activations(centred, acts, names, centre=acts.mean(0))
    ready = centred[names[0]].calibrated(threshold=3.0)
    control = lrc.evaluation.random_concepts(lrc.ConceptSet({names[0]: ready}), seed=0)[names[0]]
    assert (control.offset, control.calibration) == (0.0, None)


def test_centring_drops_a_calibration_of_other_scores(concepts):
    acts = torch.randn(30, 12, generator=torch.Generator().manual_seed(4))
    names = [list(concepts)[row % len(concepts)] for row in range(30)]
    centred = concepts.calibrate(acts, names).centred(acts)
    assert centred.calibration is None
    assert all(direction.calibration is None for direction in centred.values())
    assert centred.calibrate(acts, names).calibration is not None


def test_a_file_from_before_there_were_offsets_loads_without_them(concepts, tmp_path):
    concepts.save(tmp_path / "new.safetensors")
    tensors, header = read_artifact(tmp_path / "new.safetensors", kind="concepts")
    for entry in header["objects"]:
        del entry["offset"]
    write_artifact(tmp_path / "old.safetensors", kind="concepts", tensors=tensors, header=header)
    assert {one.offset for one in lrc.ConceptSet.load(tmp_path / "old.safetensors").values()} == {0.0}


def test_activations_of_another_width_are_refused(concepts):
    acts, mask = torch.zeros(2, 3, 7), torch.ones(2, 3, dtype=torch.bool)
    direction = next(iter(concepts.values()))
    for use in (
        lambda: concepts.scores(acts),
        lambda: direction.score(acts),
        lambda: direction.calibrated(threshold=0.0).predict(acts),
        lambda: concepts.pool(acts, by="mean", mask=mask),
        lambda: concepts.calibrate(acts[0], ["a", "b", "a"]),
    ):
        with pytest.raises(
            ValueError, match="the activations have width 7, the directions 12; they must be equal"
        ):
            use()
