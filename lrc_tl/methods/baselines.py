"""Baselines: other ways to a `ConceptSet`, made from the same prompts as an LRC.

All are fitted on the subject activations of known prompts, one direction for each object, without an intercept.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.methods.method import BASELINES, METHODS
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.precision import wide_dtype
from lrc_tl.passes.activations import subject_activations
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.sampling import permuted_objects

_Array = npt.NDArray[np.float64]
_PCA_SHARE = 0.9
_MAX_ITERATIONS = 20_000


@numbers_checked
def fit_baselines(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    layer: int,
    methods: Sequence[str] = ("mean", "svm", "logistic"),
    seed: int = 0,
    progress: bool = True,
) -> dict[str, ConceptSet]:
    """A `ConceptSet` for each method, all from one pass that reads the prompts' subjects at `layer`.

    The methods are those of `baseline_concepts`.

    Raises:
        ValueError: no prompts, or what `baseline_concepts` refuses.
    """
    prompts, methods = as_tuple(prompts, "prompts", Prompt), as_tuple(methods, "methods", str)
    for method in methods:
        require_baseline(method)
    if not prompts:
        raise ValueError("no prompts to fit baselines on; give at least one for each object")
    activations = subject_activations(model, prompts, layer=layer, progress=progress)
    with ProgressBar("baselines", total=len(methods), progress=progress) as bar:
        return {
            method: baseline_concepts(
                activations,
                [prompt.object for prompt in prompts],
                method=method,
                hook_name=hook_name(model, layer),
                relation=prompts[0].relation,
                fingerprint=ModelFingerprint.of(model),
                seed=seed,
            )
            for method in bar.over(methods)
        }


@numbers_checked
@checked
def baseline_concepts(
    activations: Float[Tensor, "prompt d_model"],
    objects: Sequence[str],
    *,
    method: str,
    hook_name: str,
    relation: str = "",
    fingerprint: ModelFingerprint | None = None,
    seed: int = 0,
) -> ConceptSet:
    """One unit direction for each object by a method that needs activations and labels only.

    Computed in float64, returned in the dtype of `activations`; `norm` holds the length before scaling. Directions
    that compare an object with the others (`centred-mean`, `mean-difference`, `lda`, `pca`) rank objects well on
    centred activations only: the offset that all activations share is no part of what they tell apart. Methods:

    - `mean`: the object's mean activation, "input averaging" of arXiv:2311.08968, section 4.
    - `centred-mean`: the same less the mean of all objects' means, so that each object weighs the same.
    - `mean-difference`: the object's mean less the mean of all other activations.
    - `svm`, `logistic`: coefficients of scikit-learn's LinearSVC and LogisticRegression (C = 1) for the object
      against the rest, with balanced class weights and without an intercept, on activations as they are. Solved on
      rescaled ones with C rescaled to match, which has the same optimum, and to a tolerance that reaches it.
    - `lda`: coefficients of scikit-learn's LDA with Ledoit-Wolf shrinkage, less their mean over the objects; LDA's
      own decision does not see that mean, but a dot product without LDA's intercepts does.
    - `pca`: the centred means, projected on those of their principal components that explain 90 % of their
      variance.
    - `random`: Gaussian directions, a control.
    - `shuffled-mean`, `shuffled-svm`: the method with the labels permuted among the prompts, a control.

    Args:
        seed: of the solver's, the random and the shuffled draws.

    Raises:
        ValueError: an unknown method, as many objects as activations are not given, activations that are not
            finite, fewer than two objects where a method compares them, or one prompt per object for `lda`.
    """
    require_baseline(method)
    objects = as_tuple(objects, "objects", str)
    if len(objects) != len(activations) or not objects:
        raise ValueError(
            f"{len(activations)} activations and {len(objects)} objects were given; give one object for each of "
            "at least one activation"
        )
    if not bool(torch.isfinite(activations).all()):
        raise ValueError("the activations are not finite; load the model in float32")
    baseline = METHODS[method]
    labels = permuted_objects(objects, seed=seed) if baseline.shuffles else list(objects)
    names = list(dict.fromkeys(objects))
    if len(names) < 2 and baseline.compares_objects:
        raise ValueError(
            f"{method} compares objects, but all {len(labels)} prompts have the object {names[0]!r}; give prompts "
            "of two objects or more"
        )
    places = {name: place for place, name in enumerate(names)}
    rows = _FUNCTIONS[baseline.shuffles or method](
        activations.detach().double().cpu().numpy(), np.array([places[label] for label in labels]), names, seed
    )
    vectors = torch.from_numpy(rows).to(activations.device, wide_dtype(activations.dtype))
    return ConceptSet(
        {
            name: ConceptDirection.from_unscaled(
                vector,
                relation=relation,
                object_name=name,
                hook_name=hook_name,
                method=method,
                fingerprint=fingerprint,
            )
            for name, vector in zip(names, vectors, strict=True)
        },
        settings={"method": method, "seed": seed, "n_prompts": len(labels)},
    )


@numbers_checked
def mean_concepts(
    model: HookedModel, prompts: Sequence[Prompt], *, layer: int, progress: bool = True
) -> ConceptSet:
    """For each object the mean subject activation of its prompts, scaled to unit length.

    Input averaging, the simplest baseline of arXiv:2311.08968, section 4.

    Raises:
        ValueError: no prompts.
    """
    return fit_baselines(model, prompts, layer=layer, methods=("mean",), progress=progress)["mean"]


def require_baseline(method: str) -> None:
    """Raise ValueError unless `method` is the name of a baseline."""
    if method not in BASELINES:
        raise ValueError(f"no baseline {method!r}; there are {', '.join(BASELINES)}")


def _means(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    return np.stack([x[labels == place].mean(0) for place in range(len(names))])


def _centred_means(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    means = _means(x, labels, names, seed)
    centred: _Array = means - means.mean(0)
    return centred


def _mean_differences(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    rest = np.stack([x[labels != place].mean(0) for place in range(len(names))])
    differences: _Array = _means(x, labels, names, seed) - rest
    return differences


def _svms(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    def solved(samples: _Array, is_object: npt.NDArray[np.bool_], c: float) -> _Array:
        def converged(*, dual: bool, tolerance: float) -> _Array | None:
            """The coefficients, or None where the solver stopped before it got there."""
            solver = LinearSVC(
                C=c, fit_intercept=False, class_weight="balanced", random_state=seed % 2**32,
                dual=dual, tol=tolerance, max_iter=_MAX_ITERATIONS,
            )  # fmt: skip
            with warnings.catch_warnings(), suppress(ConvergenceWarning):
                warnings.simplefilter("error", ConvergenceWarning)
                coefficients: _Array = solver.fit(samples, is_object).coef_[0]
                return coefficients
            return None

        # The primal is for objects that no plane separates, where the dual is slow. Where one does, the primal may
        # stop early without a word; fewer samples than coordinates can always be separated.
        if len(samples) > samples.shape[1]:
            by_primal = converged(dual=False, tolerance=1e-6)
            if by_primal is not None and not ((samples @ by_primal > 0) == is_object).all():
                return by_primal
        by_dual = converged(dual=True, tolerance=1e-8)
        return _svm_by_active_set(samples, is_object, c) if by_dual is None else by_dual

    return _one_vs_rest(solved, x, labels, names)


def _svm_by_active_set(samples: _Array, is_object: npt.NDArray[np.bool_], c: float) -> _Array:
    """The same optimum where coordinate descent does not get there: samples that share almost everything.

    The dual of the squared hinge loss is a least-squares problem over multipliers that are not negative, which an
    active-set method solves in finitely many steps; its time grows with the cube of the number of samples.
    """
    n, n_object = len(is_object), is_object.sum()
    weights = c * np.where(is_object, n / (2 * n_object), n / (2 * (n - n_object)))
    signed = np.where(is_object, 1.0, -1.0)[:, None] * samples
    lower = np.linalg.cholesky(signed @ signed.T + np.diag(1 / (2 * weights)))
    multipliers, _ = nnls(lower.T, np.linalg.solve(lower, np.ones(n)), maxiter=_MAX_ITERATIONS)
    fitted: _Array = signed.T @ multipliers
    return fitted


def _logistic(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    def solved(samples: _Array, is_object: npt.NDArray[np.bool_], c: float) -> _Array:
        estimator = LogisticRegression(
            C=c, fit_intercept=False, class_weight="balanced", solver="newton-cholesky", max_iter=_MAX_ITERATIONS,
            tol=1e-6 / (c * len(samples)),  # of the size of the penalty's gradient, |w| / (C n)
        )  # fmt: skip
        fitted: _Array = estimator.fit(samples, is_object).coef_[0]
        return fitted

    return _one_vs_rest(solved, x, labels, names)


def _one_vs_rest(
    solved: Callable[[_Array, npt.NDArray[np.bool_], float], _Array], x: _Array, labels: _Array, names: list[str]
) -> _Array:
    """Coefficients at C = 1 for each object against the rest; `solved` gives those of samples, labels and a C.

    The penalty keeps the coefficients in the span of the samples, so they are solved for in coordinates of that
    span, of which there are no more than samples. With samples `x / s` and C `s^2` the objective is the same times
    `s^2`, and its coefficients are those at C = 1 times `s`: a solver's tolerances mean samples of length about 1.
    """
    left, lengths, axes = np.linalg.svd(x, full_matrices=False)
    kept = lengths > lengths[0] * max(x.shape) * np.finfo(x.dtype).eps
    coordinates, axes = left[:, kept] * lengths[kept], axes[kept]
    scale = float(np.sqrt((coordinates**2).sum(1).mean())) or 1.0
    rows = []
    for place, name in enumerate(names):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            rows.append(solved(coordinates / scale, labels == place, scale**2) @ axes / scale)
        for warning in caught:
            if not issubclass(warning.category, ConvergenceWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            warnings.warn(
                f"the solver of {name!r} stopped before it converged, after {_MAX_ITERATIONS} steps; its "
                "direction is approximate",
                stacklevel=2,
            )
    return np.stack(rows)


def _lda(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    if len(labels) <= len(names):
        raise ValueError(
            f"lda needs more prompts than objects, to see how activations vary within one; given are "
            f"{len(labels)} prompts of {len(names)} objects"
        )
    with warnings.catch_warnings():
        # An object with one prompt has no variance of its own; it takes that of the others.
        warnings.filterwarnings("ignore", message="Only one sample available", category=UserWarning)
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, labels)
    if len(names) == 2:
        return np.stack([-fitted.coef_[0], fitted.coef_[0]]) / 2  # scikit-learn gives their difference
    coefficients: _Array = fitted.coef_ - fitted.coef_.mean(0)
    return coefficients


def _pca(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    means = _means(x, labels, names, seed)
    fitted = PCA(n_components=_PCA_SHARE, svd_solver="full").fit(means)
    projected: _Array = fitted.transform(means) @ fitted.components_
    return projected


def _random(x: _Array, labels: _Array, names: list[str], seed: int) -> _Array:
    # RandomState's stream is frozen across NumPy versions.
    return np.random.RandomState(seed % 2**32).standard_normal((len(names), x.shape[1]))


_Baseline: TypeAlias = Callable[[_Array, _Array, list[str], int], _Array]
"""From activations (a row for each prompt, float64), labels (for each prompt the place of its object among the
names), names and seed: a row for each name, of any length but zero."""
_FUNCTIONS: dict[str, _Baseline] = {
    "mean": _means,
    "centred-mean": _centred_means,
    "mean-difference": _mean_differences,
    "svm": _svms,
    "logistic": _logistic,
    "lda": _lda,
    "pca": _pca,
    "random": _random,
}
"""For every baseline, except those that shuffle the objects of another."""
