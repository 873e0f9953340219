"""After LEACE no linear probe finds the objects, and the edit is the paper's."""

import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from spoken import spoken_relation

import lrc_tl as lrc
from lrc_tl.numerics.precision import wide_of

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module", autouse=True)
def concept_erasure():
    return pytest.importorskip("concept_erasure")


def clusters(n=300, width=12, scale=1.0, seed=0, dtype=torch.float64):
    """Three objects with their own means, on correlated noise far from the origin."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    places = torch.arange(n) % 3
    mixing = normal(width, width)
    x = normal(n, width) @ mixing + 2 * normal(3, width)[places] + 10 * normal(width)
    return (scale * x).to(dtype), ["France", "Japan", "Chad"], places


def erased(operation, x):
    wide = wide_of(x)
    return (wide + operation.shift(wide)).to(x.dtype)


def cross_covariance(x, places):
    one_hot = torch.nn.functional.one_hot(places).double()
    return (x.double() - x.double().mean(0)).T @ (one_hot - one_hot.mean(0)) / len(x)


def explained(x, one_hot):
    """Share of the variance of `one_hot` that a linear map of `x` explains; erased axes hold rounding alone."""
    centred, wanted = x - x.mean(0), one_hot - one_hot.mean(0)
    weights = np.linalg.lstsq(centred, wanted, rcond=1e-9)[0]
    return 1 - ((wanted - centred @ weights) ** 2).sum() / (wanted**2).sum()


@pytest.mark.parametrize("shrinkage", [True, False])
@pytest.mark.parametrize("scale", [1.0, 6500.0])
def test_no_linear_information_is_left_and_the_mean_stays(scale, shrinkage):
    x, names, places = clusters(scale=scale)
    objects = [names[place] for place in places]
    operation = lrc.steering.leace(x, objects, shrinkage=shrinkage)
    after = erased(operation, x)
    assert cross_covariance(x, places).abs().max() > 0.1 * scale
    assert cross_covariance(after, places).abs().max() < 1e-6 * scale
    torch.testing.assert_close(after.mean(0), x.mean(0))
    one_hot = torch.nn.functional.one_hot(places).numpy()
    assert explained(x.numpy(), one_hot) > 0.5
    assert explained(after.numpy(), one_hot) < 1e-9
    centred = ((after - x.mean(0)) / scale).numpy()
    fitted = LogisticRegression(max_iter=1000).fit(centred, places.numpy())
    assert np.abs(fitted.predict_proba(centred) - 1 / 3).max() < 1e-3
    again = erased(operation, after)
    torch.testing.assert_close(again, after, rtol=1e-9, atol=1e-9 * scale)


def test_the_edit_is_that_of_the_papers_theorem():
    x, names, places = clusters()
    operation = lrc.steering.leace(x, [names[place] for place in places], shrinkage=False)
    samples, labels = x.numpy(), np.eye(3)[places.numpy()]
    centred = samples - samples.mean(0)
    sigma = centred.T @ centred / (len(samples) - 1)
    values, vectors = np.linalg.eigh(sigma)
    whiten = vectors @ np.diag(values**-0.5) @ vectors.T
    cross = centred.T @ (labels - labels.mean(0)) / (len(samples) - 1)
    u, s, _ = np.linalg.svd(whiten @ cross, full_matrices=False)
    u = u[:, s > 1e-9]
    expected = samples - centred @ (np.linalg.inv(whiten) @ u @ u.T @ whiten).T
    np.testing.assert_allclose(erased(operation, x).numpy(), expected, rtol=1e-8, atol=1e-8)
    assert operation.left.shape == (12, 2)
    assert operation.left.dtype == torch.float64


def test_leace_moves_activations_less_than_projecting_out_the_differences_of_the_means():
    x, names, places = clusters()
    objects = [names[place] for place in places]
    space = lrc.methods.baseline_concepts(x, objects, method="centred-mean", hook_name=HOOK).subspace()
    by_projection = space.remove(x - x.mean(0)) - (x - x.mean(0))
    assert cross_covariance(x + by_projection, places).abs().max() < 1e-6
    by_leace = erased(lrc.steering.leace(x, objects, shrinkage=False), x) - x
    assert by_leace.norm() < 0.95 * by_projection.norm()


@pytest.mark.parametrize("n", [9, 20, 64, 90])
def test_fewer_samples_than_dimensions_are_enough_with_shrinkage(n):
    x, names, places = clusters(n=n, width=64)
    after = erased(lrc.steering.leace(x, [names[place] for place in places]), x)
    assert cross_covariance(after, places).abs().max() < 1e-6


def test_float32_activations_lose_the_objects_to_float32_precision():
    x, names, places = clusters(scale=6500, dtype=torch.float32)
    operation = lrc.steering.leace(x, [names[place] for place in places])
    after = erased(operation, x)
    assert after.dtype == torch.float32
    assert cross_covariance(after, places).abs().max() < 1e-5 * x.norm(dim=-1).max()


def test_erasure_is_steering_and_leaves_the_objects_of_a_model_unreadable(word_model):
    relation = spoken_relation(word_model)
    prompts = relation.prompts()
    many = [name for name in {prompt.object for prompt in prompts} if sum(p.object == name for p in prompts) > 1]
    prompts = [prompt for prompt in prompts if prompt.object in many]
    assert len(many) >= 2
    steering = lrc.fit_erasure(word_model, prompts, layer=1)
    assert (steering.hook_name, steering.fingerprint) == (HOOK, lrc.models.ModelFingerprint.of(word_model))
    places = torch.tensor([many.index(prompt.object) for prompt in prompts])
    before = lrc.subject_activations(word_model, prompts, layer=1)
    with steering.on(word_model):
        after = lrc.subject_activations(word_model, prompts, layer=1)
    tolerance = 1e-9 if after.dtype == torch.float64 else 1e-5 * float(before.norm(dim=-1).max())
    assert cross_covariance(before, places).abs().max() > 100 * tolerance
    assert cross_covariance(after, places).abs().max() < tolerance
    score = after @ steering.operation.vector.to(after)
    torch.testing.assert_close(score, score[:1].expand_as(score), rtol=1e-4, atol=1e-4)
    made = lrc.generate(word_model, ["w1 w2", "w3"], steering=steering, max_new_tokens=3)
    assert [one.scores.shape for one in made] == [(len(one.token_ids), 1) for one in made]


def test_bad_input_is_refused_with_what_to_do(word_model, monkeypatch):
    x, names, places = clusters(n=30)
    objects = [names[place] for place in places]
    with pytest.raises(ValueError, match="30 activations and 29 objects were given"):
        lrc.steering.leace(x, objects[:-1])
    with pytest.raises(ValueError, match="30 activations of 1 objects; erasing needs two objects or more"):
        lrc.steering.leace(x, ["France"] * 30)
    with pytest.raises(ValueError, match="3 activations of 3 objects"):
        lrc.steering.leace(x[:3], objects[:3])
    with pytest.raises(ValueError, match="the activations are not finite"):
        lrc.steering.leace(x / 0, objects)
    with pytest.raises(ValueError, match="all activations are equal"):
        lrc.steering.leace(torch.ones(30, 12), objects)
    with pytest.raises(ValueError, match="the mean activations of all objects are equal"):
        lrc.steering.leace(torch.cat([x[:10]] * 3), [name for name in names for _ in range(10)])
    with pytest.raises(ValueError, match="no prompts to fit the erasure on"):
        lrc.fit_erasure(word_model, [], layer=1)
    left, right = torch.eye(12)[:, :2], torch.eye(12)[:2]
    with pytest.raises(ValueError, match=r"left \(12, 2\), right \(1, 12\) and mean \(12,\) do not fit"):
        lrc.steering.Erase(left=left, right=right[:1], mean=torch.zeros(12))
    with pytest.raises(ValueError, match="that is no projection"):
        lrc.steering.Erase(left=left, right=2 * right, mean=torch.zeros(12))
    steering = lrc.Steering(
        operation=lrc.steering.Erase(left=left[:8], right=right[:, :8], mean=torch.zeros(8)), hook_name=HOOK
    )
    with pytest.raises(ValueError, match="has width 8, but the model's d_model is 12"), steering.on(word_model):
        pass
    with monkeypatch.context() as patch:
        patch.setattr("lrc_tl.steering.erasure._TOLERANCE", 0.0)
        with pytest.raises(ValueError, match="leaves linear information; give more"):
            lrc.steering.leace(x, objects)
    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    with pytest.raises(ImportError, match=r"concept-erasure; install lrc-tl with its extra: lrc-tl\[erasure\]"):
        lrc.steering.leace(x, objects)
