"""Directions read and write by the same vector."""

import pytest
import torch

import lrc_tl as lrc

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def direction():
    vector = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="x", hook_name=HOOK)


def scores(model, direction):
    _, cache = model.run_with_cache(torch.tensor([[3, 1, 4, 1, 5]]), names_filter=HOOK)
    return direction.score(cache[HOOK][0])


@pytest.mark.parametrize("strength", [-2.0, 0.0, 3.5])
def test_steering_moves_the_probe_score_by_exactly_the_strength(tiny_model, direction, strength):
    clean = scores(tiny_model, direction)
    with direction.steer(tiny_model, strength=strength, unit="absolute"):
        steered = scores(tiny_model, direction)
    torch.testing.assert_close(steered - clean, torch.full_like(clean, strength))
    assert torch.equal(scores(tiny_model, direction), clean)


def test_a_share_is_measured_in_lengths_of_the_residual(tiny_model, direction):
    residual = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, add = direction.hook(strength=0.25)
    moved = direction.score(add(residual, None)) - direction.score(residual)
    torch.testing.assert_close(moved, 0.25 * residual.norm(dim=-1))


def test_the_hook_is_gone_after_an_exception(tiny_model, direction):
    clean = scores(tiny_model, direction)

    def fail():
        with direction.steer(tiny_model, strength=1.0):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(scores(tiny_model, direction), clean)


def test_a_hook_that_the_model_lacks_is_refused_with_near_names(tiny_model):
    other = lrc.ConceptDirection(
        vector=torch.eye(12)[0], relation="r", object_name="x", hook_name="blocks.1.hook_resid_pots"
    )
    with (
        pytest.raises(LookupError, match=r"near names: .*blocks\.1\.hook_resid_post"),
        other.steer(tiny_model, strength=1),
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


def test_a_set_of_one_cannot_classify_and_an_unknown_object_is_named(tiny_model, direction):
    concepts = lrc.ConceptSet({"x": direction})
    with pytest.raises(ValueError, match="one object cannot classify"):
        concepts.classify(tiny_model, "cat is", subject="cat")
    with pytest.raises(KeyError, match="no concept 'y'; there are x"):
        concepts["y"]
