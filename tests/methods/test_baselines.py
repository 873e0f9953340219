"""Baselines: scikit-learn's own coefficients, means by hand, controls at chance, and clear errors."""

import random
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.svm import LinearSVC
from test_activations import random_prompts

import lrc_tl as lrc
from lrc_tl.methods.baselines import baseline_concepts, fit_baselines, mean_concepts
from lrc_tl.methods.method import BASELINES

HOOK = "blocks.1.hook_resid_post"


def clusters(counts, *, d_model=30, spread=1.0, offset=5.0, seed=0):
    """Activations of objects `a`, `b` ... around means of their own, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(len(counts), d_model, generator=generator, dtype=torch.float64) + offset
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    noise = spread * torch.randn(len(rows), d_model, generator=generator, dtype=torch.float64)
    return means[rows] + noise, ["abcdefgh"[row] for row in rows]


def unit(rows):
    return torch.nn.functional.normalize(torch.as_tensor(np.asarray(rows)), dim=-1)


def made(activations, objects, method, **options):
    return baseline_concepts(activations, objects, method=method, hook_name=HOOK, **options)


def logistic_optimum(x, own):
    """Newton's method on `|w|^2 / 2 + sum_i c_i log(1 + exp(-y_i w x_i))`, w a combination of the samples."""
    signs, weights = np.where(own, 1.0, -1.0), balanced(own)
    gram, a = x @ x.T, np.zeros(len(own))

    def objective(a):
        return a @ gram @ a / 2 + (weights * np.logaddexp(0, -signs * (gram @ a))).sum()

    for _ in range(200):
        wrong = 1 / (1 + np.exp(signs * (gram @ a)))
        slope = a - weights * signs * wrong
        curvature = weights * wrong * (1 - wrong)
        step = np.linalg.solve(np.eye(len(own)) + curvature[:, None] * gram, -slope)
        length = 1.0
        while objective(a + length * step) > objective(a) and length > 1e-9:
            length /= 2
        a = a + length * step
        if abs(step).max() <= 1e-13 * abs(a).max():
            break
    return x.T @ a


def svm_optimum(x, own):
    """The dual of `|w|^2 / 2 + sum_i c_i max(0, 1 - y_i w x_i)^2` as a least-squares problem over a >= 0."""
    signs = np.where(own, 1.0, -1.0)
    signed = signs[:, None] * x
    lower = np.linalg.cholesky(signed @ signed.T + np.diag(1 / (2 * balanced(own))))
    a, _ = nnls(lower.T, np.linalg.solve(lower, np.ones(len(own))), maxiter=10**5)
    optimum = signed.T @ a
    # Strong duality: objective and dual meet at the optimum and nowhere else.
    slack = np.maximum(0, 1 - signed @ optimum)
    primal = optimum @ optimum / 2 + (balanced(own) * slack**2).sum()
    dual = a.sum() - optimum @ optimum / 2 - (a**2 / (4 * balanced(own))).sum()
    assert abs(primal - dual) < 1e-8 * primal
    return optimum


def balanced(own):
    return np.where(own, len(own) / (2 * own.sum()), len(own) / (2 * (~own).sum()))


OPTIMA = {"logistic": logistic_optimum, "svm": svm_optimum}


def check_optimum(x, objects, method):
    found = made(torch.as_tensor(x), list(objects), method, seed=7)
    objects = np.array(objects)
    for name in found:
        optimum = OPTIMA[method](x, objects == name)
        cosine = float(found[name].vector.double().numpy() @ optimum) / np.linalg.norm(optimum)
        assert cosine > 1 - 1e-7, (name, cosine)
        assert found[name].norm == pytest.approx(np.linalg.norm(optimum), rel=1e-4)
        assert (found[name].method, found[name].threshold) == (method, None)


@pytest.mark.parametrize(
    ("method", "offset"),
    [("logistic", 0.0), ("logistic", 5.0), ("logistic", 60.0), ("svm", 0.0), ("svm", 5.0), ("svm", 60.0)],
)
@pytest.mark.parametrize("scale", [1.0, 6500.0])
@pytest.mark.parametrize("counts", [[9, 4, 2], [30, 25, 40]], ids=["fewer_than_axes", "more_than_axes"])
def test_linear_probes_are_the_optimum_of_the_documented_objective(method, offset, scale, counts):
    activations, objects = clusters(counts, offset=offset)
    check_optimum((activations * scale).numpy(), objects, method)


@pytest.mark.parametrize("method", OPTIMA)
def test_linear_probes_are_the_optimum_where_no_plane_separates_the_objects(method):
    activations, objects = clusters([40] * 3, d_model=12, spread=3)
    random.Random(0).shuffle(objects)
    check_optimum(activations.numpy() * 300, objects, method)


@pytest.mark.real_model
def test_linear_probes_are_the_optimum_on_real_activations(gemma):
    train, _ = lrc.load_relation("city_in_country").split(seed=0)
    prompts = train.prompts(shots=4, seed=0)
    acts = lrc.passes.prompt_activations(gemma, prompts, subject_layers=[3, 8, 12]).subject
    for x in acts.values():
        for method in OPTIMA:
            check_optimum(x.double().numpy(), [prompt.object for prompt in prompts], method)


@pytest.mark.parametrize("counts", [[9, 4, 5], [6, 7]])
def test_lda_is_that_of_scikit_learn_less_the_mean_coefficients(counts):
    activations, objects = clusters(counts)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(activations.numpy(), objects)
    # Of two objects scikit-learn gives one row, the second's coefficients less the first's.
    whole = fitted.coef_ if len(counts) > 2 else np.concatenate([-fitted.coef_ / 2, fitted.coef_ / 2])
    expected = whole - whole.mean(0)
    found = made(activations, objects, "lda")
    torch.testing.assert_close(found.vectors, unit(expected), rtol=0, atol=1e-5)
    assert [found[name].norm for name in found] == pytest.approx(np.linalg.norm(expected, axis=1), rel=1e-5)


def test_lda_takes_an_object_with_one_prompt_without_a_warning():
    activations, objects = clusters([5, 1, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(made(activations, objects, "lda")) == 3


def test_means_are_as_computed_by_hand():
    activations = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 6.0]])
    objects = ["a", "a", "b"]
    mean, centred, difference = (
        made(activations, objects, method) for method in ("mean", "centred-mean", "mean-difference")
    )
    torch.testing.assert_close(mean.vectors, torch.eye(2))
    assert [mean[name].norm for name in "ab"] == [3, 6]
    slope = torch.tensor([1.0, -2.0]) / 5**0.5  # (3, 0) - (0, 6)
    torch.testing.assert_close(centred.vectors, torch.stack([slope, -slope]))
    torch.testing.assert_close(difference.vectors, torch.stack([slope, -slope]))
    assert difference["a"].norm == pytest.approx(2 * centred["a"].norm)


def test_principal_components_keep_the_means_that_lie_in_a_plane_and_drop_the_rest():
    base = torch.zeros(5, 8, dtype=torch.float64)
    base[:4, :2] = torch.tensor([[3.0, 0], [-3, 0], [0, 3], [0, -3]])
    base[4, :3] = torch.tensor([3.0, 3, 0.3])  # a fifth object slightly off the plane of the others
    found = made(base + 100, list("abcde"), "pca")
    plane = torch.linalg.svd(base - base.mean(0)).Vh[:2]
    centred = (base - base.mean(0)) @ plane.T @ plane
    torch.testing.assert_close(found.vectors, unit(centred), rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", BASELINES)
def test_every_method_gives_unit_directions_in_the_order_of_the_objects_and_the_same_twice(method):
    activations, objects = clusters([4, 3, 5])
    found = made(activations.float(), objects, method, seed=3, relation="r")
    assert list(found) == ["a", "b", "c"]
    assert found.vectors.dtype == torch.float32
    assert found.relation == "r"
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(3))
    again = made(activations.float(), objects, method, seed=3)
    torch.testing.assert_close(again.vectors, found.vectors, rtol=0, atol=0)
    if method == "random" or method.startswith("shuffled"):
        assert not torch.allclose(made(activations.float(), objects, method, seed=4).vectors, found.vectors)


def accuracy(concepts, activations, objects):
    return lrc.evaluation.classify_activations(concepts, activations, objects).accuracy


def test_probes_find_unseen_subjects_and_controls_stay_near_chance():
    # A common offset would let any direction prefer one object; without it controls are at 1/4 on average.
    activations, objects = clusters([40] * 4, offset=0.0, spread=1.5)
    rows = random.Random(0).sample(range(160), 160)
    train, test = rows[:80], rows[80:]
    shown = [objects[row] for row in train]

    def result(method, seed=0):
        concepts = made(activations[train], shown, method, seed=seed)
        return accuracy(concepts, activations[test], [objects[row] for row in test])

    for method in ("mean", "centred-mean", "mean-difference", "svm", "logistic", "lda", "pca"):
        assert result(method) > 0.9
    for method in ("random", "shuffled-mean", "shuffled-svm"):
        assert np.mean([result(method, seed) for seed in range(30)]) == pytest.approx(0.25, abs=0.1)


def test_the_model_wrapper_reads_the_subjects_once_and_gives_every_method(word_model, monkeypatch):
    prompts = [
        lrc.Prompt(text=p.text, subject=p.subject, object=f"w{number % 3}", relation="r")
        for number, p in enumerate(random_prompts(12))
    ]
    passes = []
    read = lrc.subject_activations
    monkeypatch.setattr(
        "lrc_tl.methods.baselines.subject_activations",
        lambda *args, **options: passes.append(1) or read(*args, **options),
    )
    found = fit_baselines(word_model, prompts, layer=-2, methods=("mean", "svm"), seed=1)
    assert passes == [1]
    assert list(found) == ["mean", "svm"]
    activations = read(word_model, prompts, layer=1)
    for method, concepts in found.items():
        expected = made(activations, [prompt.object for prompt in prompts], method, seed=1)
        torch.testing.assert_close(concepts.vectors, expected.vectors)
        assert concepts.hook_name == HOOK
        concepts.require_model(word_model)
    torch.testing.assert_close(
        mean_concepts(word_model, prompts, layer=1).vectors, found["mean"].vectors, rtol=0, atol=0
    )


def test_bad_input_is_refused_with_what_was_given():
    activations, objects = clusters([3, 2])
    with pytest.raises(ValueError, match="no baseline 'svn'; there are mean, centred-mean"):
        made(activations, objects, "svn")
    with pytest.raises(ValueError, match="5 activations and 4 objects were given"):
        made(activations, objects[1:], "mean")
    with pytest.raises(ValueError, match="svm compares objects, but all 5 prompts have the object 'a'"):
        made(activations, ["a"] * 5, "svm")
    assert len(made(activations, ["a"] * 5, "mean")) == 1
    with pytest.raises(ValueError, match=r"lda needs more prompts than objects.*2 prompts of 2 objects"):
        made(activations[[0, 4]], ["a", "b"], "lda")
    with pytest.raises(ValueError, match="not finite"):
        made(activations / 0, objects, "mean")
    with pytest.raises(ValueError, match="norm 0"):
        made(activations[[0, 0]], ["a", "b"], "centred-mean")


def test_no_prompts_and_unknown_methods_are_refused_before_the_model_runs():
    with pytest.raises(ValueError, match="no prompts to fit baselines on"):
        fit_baselines(None, [], layer=1)
    with pytest.raises(ValueError, match="no baseline 'lrc'"):
        fit_baselines(None, random_prompts(2), layer=1, methods=("mean", "lrc"))


def test_other_warnings_of_a_solver_are_passed_on(monkeypatch):
    fit = LinearSVC.fit

    def warning(self, *given):
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        return fit(self, *given)

    monkeypatch.setattr(LinearSVC, "fit", warning)
    with pytest.warns(RuntimeWarning, match="something else"):
        made(*clusters([6, 6]), "svm")


def test_a_solver_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr("lrc_tl.methods.baselines._MAX_ITERATIONS", 1)
    activations, objects = clusters([6, 6], spread=6)
    with pytest.warns(UserWarning, match="the solver of 'a' stopped before it converged, after 1 steps"):
        made(activations, objects, "logistic")
