"""Directions read and write by the same vector."""

from dataclasses import replace

import pytest
import torch
from tiny_directions import named, residuals
from tiny_steering import HOOK

import lrc_tl as lrc


def scores(model, direction):
    _, cache = model.run_with_cache(torch.tensor([[3, 14, 15, 9, 26]]), names_filter=HOOK)
    return direction.score(cache[HOOK][0])


@pytest.mark.parametrize("strength", [-2.0, 0.0, 3.5])
def test_steering_moves_the_probe_score_by_exactly_the_strength(word_model, direction, strength):
    clean = scores(word_model, direction)
    with direction.steer(word_model, strength=strength, unit="absolute"):
        steered = scores(word_model, direction)
    torch.testing.assert_close(steered - clean, torch.full_like(clean, strength), rtol=1e-5, atol=1e-5)
    assert torch.equal(scores(word_model, direction), clean)


def test_a_share_is_measured_in_lengths_of_the_residual(word_model, direction):
    residual = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, add = direction.hook(strength=0.25)
    moved = direction.score(add(residual, None)) - direction.score(residual)
    torch.testing.assert_close(moved, 0.25 * residual.norm(dim=-1))


def test_the_hook_is_gone_after_an_exception(word_model, direction):
    clean = scores(word_model, direction)

    def fail():
        with direction.steer(word_model, strength=1.0):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(scores(word_model, direction), clean)


def test_a_hook_that_the_model_lacks_is_refused_with_near_names(word_model):
    other = lrc.ConceptDirection(
        vector=torch.eye(12)[0], relation="r", object_name="x", hook_name="blocks.1.hook_resid_pots"
    )
    with (
        pytest.raises(LookupError, match=r"near names: .*blocks\.1\.hook_resid_post"),
        other.steer(word_model, strength=1),
    ):
        pass


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_not_finite_is_refused(direction, strength):
    with pytest.raises(ValueError, match="must be a finite number"):
        direction.hook(strength=strength)


def test_a_vector_that_is_not_unit_or_not_finite_is_refused():
    for vector in (torch.ones(3), torch.tensor([float("nan"), 0.0, 0.0])):
        with pytest.raises(ValueError, match="must be a unit vector"):
            lrc.ConceptDirection(vector=vector, relation="r", object_name="x", hook_name=HOOK)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_a_vector_that_is_narrower_than_float32_is_refused(dtype):
    with pytest.raises(ValueError, match="must be float32 or float64; use from_unscaled"):
        lrc.ConceptDirection(vector=torch.eye(3, dtype=dtype)[0], relation="r", object_name="x", hook_name=HOOK)


def test_the_length_before_scaling_is_kept():
    vector = torch.tensor([3.0, 0.0, 4.0])
    made = lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="x", hook_name=HOOK, method="mean")
    assert (made.norm, made.method, made.layer) == (5.0, "mean", 1)
    with pytest.raises(ValueError, match=r"has norm 0\.0; it must be finite and not zero"):
        lrc.ConceptDirection.from_unscaled(torch.zeros(3), relation="r", object_name="x", hook_name=HOOK)


def test_predicting_needs_a_threshold_and_compares_with_it(direction):
    acts = torch.randn(50, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"has no threshold; use `\.calibrated\(threshold=\.\.\.\)`"):
        direction.predict(acts)
    with pytest.raises(ValueError, match="has no calibration"):
        direction.probability(acts)
    made = direction.calibrated(threshold=0.3, slope=2.0, intercept=-0.6)
    assert torch.equal(made.predict(acts), direction.score(acts) > 0.3)
    assert torch.equal(made.predict(acts), made.probability(acts) > 0.5)
    assert direction.threshold is None
    with pytest.raises(ValueError, match="the calibration of 'x': the threshold is nan"):
        direction.calibrated(threshold=float("nan"))
    with pytest.raises(ValueError, match="both slope and intercept"):
        direction.calibrated(threshold=0.0, slope=1.0)


def test_reading_scores_every_token_and_keeps_the_special_one_out_of_the_colours(word_model):
    made = named(0, "<b>")
    text = "w1 w2 w3"
    read = made.read(word_model, text)
    ids = word_model.to_tokens(text)
    assert read.tokens == ("<bos>", "w1", "w2", "w3")
    torch.testing.assert_close(read.scores, made.score(residuals(word_model, ids, 1)[0]))
    assert read.special == (0,)
    assert read.scale == float(read.scores[1:].abs().max())
    with pytest.raises(ValueError, match="the text is empty"):
        made.read(word_model, " ")
    with pytest.raises(ValueError, match="has width 3, but the model's d_model is 12"):
        lrc.ConceptDirection(vector=torch.eye(3)[0], relation="r", object_name="x", hook_name=HOOK).read(
            word_model, text
        )


def test_an_offset_that_is_no_number_is_refused(direction):
    with pytest.raises(ValueError, match="the offset of 'x' is"):
        replace(direction, offset=float("nan"))
    with pytest.raises(TypeError, match="offset is None"):
        replace(direction, offset=None)


def test_the_operations_of_a_direction_do_what_they_say(word_model, direction):
    ids = word_model.to_tokens("w1 w2 w3")
    before = direction.score(residuals(word_model, ids, 1))[0, 1:]
    expected = {
        direction.add(strength=2.5, unit="absolute"): before + 2.5,
        direction.clamp(value=-3.0): torch.full_like(before, -3),
        direction.ablate(): torch.zeros_like(before),
        direction.reflect(): -before,
    }
    for steering, score in expected.items():
        with steering.on(word_model):
            after = direction.score(residuals(word_model, ids, 1))[0, 1:]
        torch.testing.assert_close(after, score, rtol=1e-4, atol=1e-4)


def test_clamping_and_gates_know_the_offset_of_a_score(word_model, direction):
    moved = replace(direction, offset=1.5).calibrated(threshold=0.25)
    ids = word_model.to_tokens("w1 w2 w3")
    before = direction.score(residuals(word_model, ids, 1))[0, 1:]
    for steering, score in {moved.clamp(value=-3.0): -3.0, moved.ablate(): -1.5}.items():
        with steering.on(word_model):
            after = moved.score(residuals(word_model, ids, 1))[0, 1:]
        torch.testing.assert_close(after, torch.full_like(before, score), rtol=1e-4, atol=1e-4)
    assert moved.gate().threshold == 1.75
    assert moved.gate(threshold=-1.0).threshold == 0.5
    with moved.reflect().on(word_model):
        torch.testing.assert_close(
            direction.score(residuals(word_model, ids, 1))[0, 1:], -before, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("kind", ["centred", "oblique"])
def test_the_clean_run_may_give_the_value(word_model, direction, kind):
    tilted = direction.vector + 0.6 * torch.eye(12, dtype=torch.float64)[0]
    written = {}
    if kind == "oblique":
        written = {"write_vector": tilted / tilted.norm(), "write_rule": "given", "norm": 0.4}
    moved = replace(direction, offset=1.5, **written)
    clean = scores(word_model, moved)
    # Without a writing vector of its own, what turns or goes is the projection, the offset counted.
    base = 0.0 if written else 1.5
    layers = {"layers": [0, 1]}
    for steering, wanted in {
        moved.clamp(value="clean").at(**layers): clean,
        moved.reflect(value="clean").at(**layers): -(clean + base) - base,
    }.items():
        with lrc.steer(word_model, [direction.add(strength=0.3), steering]):
            torch.testing.assert_close(scores(word_model, moved), wanted, rtol=1e-4, atol=1e-4)
    added = replace(direction, **written).add(strength=0.7, unit="score")
    with lrc.steer(word_model, [moved.ablate(value="clean"), added]):
        torch.testing.assert_close(
            scores(word_model, moved), torch.full_like(clean, 0.7 - base), rtol=1e-4, atol=1e-4
        )
    for make, allowed in ((moved.clamp, "a number"), (moved.ablate, "'current'"), (moved.reflect, "'current'")):
        with pytest.raises(ValueError, match=f"value is 'clear'; allowed are {allowed} and 'clean'"):
            make(value="clear")


def test_a_gate_uses_the_calibrated_threshold(direction):
    assert direction.calibrated(threshold=0.7).gate().threshold == 0.7
    assert direction.gate(threshold=0.2, above=False).above is False
    with pytest.raises(ValueError, match="has no threshold; give one"):
        direction.gate()


def test_the_plain_hook_acts_on_every_position_and_steer_spares_the_special_one(word_model, direction):
    ids = word_model.to_tokens("w1 w2 w3")
    clean = residuals(word_model, ids, 1)
    with word_model.hooks(fwd_hooks=[direction.hook(strength=0.3)]):
        by_hook = residuals(word_model, ids, 1)
    with direction.steer(word_model, strength=0.3):
        by_steer = residuals(word_model, ids, 1)
    with direction.steer(word_model, strength=0.3, bos=True):
        assert torch.equal(residuals(word_model, ids, 1), by_hook)
    assert torch.equal(by_steer[:, 1:], by_hook[:, 1:])
    assert torch.equal(by_steer[:, 0], clean[:, 0])
    assert not torch.equal(by_hook[:, 0], clean[:, 0])


def test_any_steering_may_act_at_the_last_subject_token_alone(word_model, direction):
    texts = ["w1 w2 w3 w4", "w5 w2 w6"]
    places = [
        lrc.last_subject_token(word_model, text, subject=subject)
        for text, subject in zip(texts, ("w2 w3", "w5"), strict=True)
    ]
    assert [place.position for place in places] == [3, 1]
    clean = residuals(word_model, word_model.to_tokens(texts[0]), 1)
    with direction.steer(word_model, strength=0.5, where=places[0]):
        steered = residuals(word_model, word_model.to_tokens(texts[0]), 1)
        with pytest.raises(ValueError, match="row 0 does not begin with the text that was given"):
            word_model(texts[1])
    moved = (steered - clean)[0].norm(dim=-1) > 0.01
    assert moved.tolist() == [False, False, False, True, False]
    with direction.steer(word_model, strength=0.5, where=[place.position for place in places]):
        batch = residuals(word_model, texts, 1)
    torch.testing.assert_close(batch[0], steered[0])


@pytest.mark.parametrize("vector", [torch.tensor(2.0), torch.ones(1, 1), torch.eye(12)[:1]])
def test_a_direction_is_one_vector(vector):
    with pytest.raises(ValueError, match=r"direction of 'a' has the shape \(.*\); it must be one vector"):
        lrc.ConceptDirection.from_unscaled(
            vector, relation="r", object_name="a", hook_name="blocks.1.hook_resid_post"
        )
    with pytest.raises(ValueError, match="it must be one vector"):
        lrc.directions.concepts_by_layer({"a": {1: vector}})
