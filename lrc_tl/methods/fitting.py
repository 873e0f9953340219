"""Directions of every method and setting from the same prompts, activations and Jacobians."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.combining import combine_concepts
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import ModelError, UnfitError
from lrc_tl.lre.dual import DualFit
from lrc_tl.lre.dual_means import MeansShare, joined_with_means, weights_by_lead
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.joining import combined
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.markup.progress import shows_progress
from lrc_tl.methods.backgrounds import background_for, require_background
from lrc_tl.methods.baselines import baseline_concepts
from lrc_tl.methods.lre_grids import Grid, LreGrids
from lrc_tl.methods.method import (
    METHODS,
    Method,
    MethodVariant,
    components_of,
    default_method,
    meant_method,
    require_methods,
)
from lrc_tl.methods.options import ignored_options, require_method_options, require_places
from lrc_tl.methods.settings import FitSettings
from lrc_tl.methods.training_activations import TrainingActivations, training_activations
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.models.next_token_metric import next_token_metric
from lrc_tl.numerics.dual import LEAST_UNROTATED_NOISE
from lrc_tl.passes.finite import finite_prompts
from lrc_tl.passes.known_prompts import KnownPrompts
from lrc_tl.relations.prompts import Prompt

DualKey: TypeAlias = tuple[int, bool, str | None]
"""The LRE (its id), whether the noise is tiny, and the name of its metric."""
MakeByLabels: TypeAlias = Callable[[Sequence[str]], ConceptSet]
"""Directions from the object of each known training prompt, in their order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedMethod:
    """The directions of one variant."""

    concepts: ConceptSet
    make: MakeByLabels
    """Makes them again, or with other labels."""
    seconds: float
    """Work that several variants share is split evenly."""
    lre: LinearRelationalEmbedding | None = None
    """The one that all directions come from; None: there is none, or there are several."""


@shows_progress
@numbers_checked
@fingerprints_once()
def fit_concepts(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    method: str | None = None,
    subject_layer: int | None = None,
    object_layer: int | None = None,
    rank: int | None = None,
    seed: int = 0,
    settings: FitSettings = FitSettings(),
    progress: bool = True,
) -> ConceptSet:
    """Directions by any method of the benchmark, by its name, as the benchmark makes them.

    `"lrc"` is the paper's (arXiv:2311.08968, eqs. 4 and 5), `"lrc-final"` the original LRE inverted; `"lrc-ridge"`
    has a ridge in place of the rank, and `"lrc-combined"` joins three such, of two object layers and of the first
    object token at the last. `"lrc-map-combined"` reads with one vector and writes with another, from two LREs,
    the covariance of subjects and class means; it reads best (`benchmarks/verdict.md`). Baselines such as `"svm"`
    go by their names. `lrc_tl.methods.METHODS` says of every method what it is.

    Args:
        prompts: known few-shot prompts. All give object means (or samples); LREs are fitted on some of them, as
            `settings` says.
        method: by default `"lrc"` where a rank is given, and `"lrc-map-combined"` where none is.
        subject_layer: by default half way through the model.
        object_layer: of the LREs, above the subject layer; by default at 0.72 of the depth. Baselines have none,
            and `"lrc-final"` has the last. `"lrc-map"` has the last too, unless one is given.
        rank: of the inverse. Methods with a ridge and baselines have none.
        seed: of the choice of LRE prompts and of the draws of baselines.

    A layer or rank that a method does not have is ignored with a warning, so that methods can be compared with the
    same options. `lrc-tl fit` does the same, with the same defaults. Prompts that are not finite are left out with
    a warning.

    Raises:
        ValueError: no prompts, an unknown method, a rank that is missing, a background of other layers, or what
            fitting refuses.
        FingerprintMismatch: the background was made on another model.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    method = default_method(rank=rank) if method is None else method
    require_methods([method])
    asked = meant_method(METHODS[method], object_layer=object_layer)
    require_method_options(asked, rank=rank, solver=settings.solver)
    if not prompts:
        raise ValueError("no prompts to make concepts from; give at least one for each object")
    if ignored := ignored_options(asked, object_layer=object_layer, rank=rank):
        warn_caller(ignored)
    variant = require_places(model, asked, subject_layer=subject_layer, object_layer=object_layer, rank=rank)
    require_background(model, [variant], settings)
    prompts, activations = finite_prompts(prompts, lambda given: training_activations(model, [variant], given))
    known = KnownPrompts(prompts=prompts, dropped=())
    fitted = fit_methods(
        model,
        [variant],
        known,
        activations,
        relation=prompts[0].relation,
        seed=seed,
        settings=settings,
        progress=progress,
    )
    return fitted[variant.name].concepts


def fit_methods(
    model: HookedModel,
    variants: Sequence[MethodVariant],
    known: KnownPrompts,
    activations: TrainingActivations,
    *,
    relation: str,
    seed: int,
    settings: FitSettings = FitSettings(),
    unfit: dict[str, str] | None = None,
    progress: bool = False,
) -> dict[str, FittedMethod]:
    """The directions of each variant, by its name.

    Where `unfit` is given, variants without directions are left out and the reasons are put there, by name.

    Variants that differ in layers and rank alone share the passes of `lrc_tl.lre.fit_layer_grid`; in exact fits so
    do those that read objects in other ways at other layers. A low-rank fit is made for the largest of the ranks.
    Where there are dual directions, the background is as `fit_concepts` says.

    Raises:
        ValueError: a rank above that of the solver, none where it needs one, or what the background refuses.
        FingerprintMismatch: the background was made on another model.
        UnfitError: a rank above the numerical rank, too few prompts of an object, or directions that coincide.
    """
    fitting = _Fitting(
        model=model,
        known=known,
        activations=activations,
        relation=relation,
        seed=seed,
        settings=settings,
        background=background_for(model, variants, known.prompts, settings, progress=progress),
    )
    groups: dict[object, list[MethodVariant]] = {}
    for variant in components_of(variants, int(model.cfg.n_layers)):
        groups.setdefault(variant.method.shared_work, []).append(variant)
    names = [prompt.object for prompt in known.prompts]
    parts: dict[str, FittedMethod] = {}
    lres = LreGrids(model=model, known=known, seed=seed, settings=settings, progress=progress)
    together = lres.together(groups)
    for key, group in groups.items():
        started = time.perf_counter()
        grids, seconds_together = together.pop(key, ({}, 0.0))
        if not grids and not group[0].method.is_baseline:
            grids = lres.of(group)
        fitted: dict[str, tuple[ConceptSet, MakeByLabels]] = {}
        for variant in group:
            try:
                make = fitting.maker(variant, grids)
                fitted[variant.name] = make(names), make
            except ValueError as error:
                if unfit is None:
                    raise UnfitError(f"{variant.name}: {error}") from error
                unfit[variant.name] = str(error).removeprefix(f"{variant.name}: ")
        seconds = (seconds_together + time.perf_counter() - started) / len(group)
        for variant in group:
            if variant.name in fitted:
                concepts, make = fitted[variant.name]
                lre = grids.get("", {}).get((variant.subject_layer, variant.object_layer or 0))
                parts[variant.name] = FittedMethod(concepts=concepts, make=make, seconds=seconds, lre=lre)
    n_layers = int(model.cfg.n_layers)
    directions: dict[str, FittedMethod] = {}
    for variant in variants:
        components = variant.components(n_layers)
        if unfit is not None and (reasons := [unfit[part.name] for part in components if part.name in unfit]):
            unfit[variant.name] = reasons[0]
            continue
        try:
            directions[variant.name] = fitting.combined(
                [parts[part.name] for part in components], variant, components
            )
        except UnfitError as error:
            if unfit is None:
                raise
            unfit[variant.name] = str(error).removeprefix(f"{variant.name}: ")
    return directions


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fitting:
    """What the fits of all variants share."""

    model: HookedModel
    known: KnownPrompts
    activations: TrainingActivations
    relation: str
    seed: int
    settings: FitSettings
    background: SubjectStatistics | None
    """None where no variant has dual directions."""
    duals: dict[DualKey, DualFit] = field(default_factory=dict)
    """What all labels and noises share."""
    metrics: dict[str, Tensor | None] = field(default_factory=dict)
    """By name; None: the model has none."""

    def maker(self, variant: MethodVariant, grids: Mapping[str, Grid]) -> MakeByLabels:
        """How the variant's directions come from labels; all that does not depend on them is done."""
        if variant.object_layer is None:
            return self._baseline(variant)
        pair, rank = (variant.subject_layer, variant.object_layer), variant.rank
        objects = self.activations.object[variant.object_layer, variant.method.aggregation]
        lres = {name: grid[pair] for name, grid in grids.items()}
        if variant.method.lre_for_each == "other_objects":
            lres = {name: combined([lres[other] for other in lres if other != name]) for name in lres}
        for lre in lres.values():
            if rank is not None and lre.numerical_rank < rank:
                raise UnfitError(
                    f"{variant.name}: rank {rank} is above the numerical rank of its LRE, {lre.numerical_rank}"
                )
        if variant.method.is_dual:
            return self._dual(lres[""], objects, variant)
        if not variant.method.lre_for_each:
            return lambda names: lres[""].concepts_from_activations(
                objects, list(names), rank=rank, ridge=variant.ridge
            )

        def by_object(names: Sequence[str]) -> ConceptSet:
            directions = {}
            for name, lre in lres.items():
                rows = [row for row, other in enumerate(names) if other == name]
                directions[name] = lre.concepts_from_activations(
                    objects[rows], [name] * len(rows), rank=rank, ridge=variant.ridge
                )[name]
            return ConceptSet(directions, settings={"rank": rank, "method": variant.method.name})

        return by_object

    def combined(
        self, parts: Sequence[FittedMethod], variant: MethodVariant, components: Sequence[MethodVariant]
    ) -> FittedMethod:
        """The directions of a variant from those of its components; UnfitError where they do not go together."""
        if not variant.method.combines:
            return parts[0]

        def make(names: Sequence[str]) -> ConceptSet:
            sets = [part.make(names) for part in parts]
            if not variant.method.adds_means:
                return combine_concepts(sets, method=variant.method.name)
            assert self.background is not None
            layer, name = variant.subject_layer, variant.method.name
            read, written = self.activations.zero_shot[layer], self.activations.subject[layer]
            return joined_with_means(
                sets,
                read,
                list(names),
                self.background[layer],
                write_acts=written,
                share=MeansShare(),
                method=name,
                weights=self._weights(parts, components, names),
            )

        started = time.perf_counter()
        try:
            concepts = make([prompt.object for prompt in self.known.prompts])
        except ValueError as error:
            raise UnfitError(f"{variant.name}: {error}") from error
        seconds = time.perf_counter() - started + sum(part.seconds for part in parts)
        return FittedMethod(concepts=concepts, make=make, seconds=seconds)

    def _weights(
        self, parts: Sequence[FittedMethod], components: Sequence[MethodVariant], names: Sequence[str]
    ) -> tuple[float, ...]:
        """How much the dual of each component counts, by how well it reads facts that are left out."""
        leads = []
        for part, component in zip(parts, components, strict=True):
            noise = self._noise(component)
            assert part.lre is not None
            assert component.object_layer is not None
            assert noise is not None
            objects = self.activations.object[component.object_layer, component.method.aggregation]
            subjects = self.activations.zero_shot[component.subject_layer]
            fit = self.duals[_dual_key(part.lre, noise, component.method)]
            leads.append(fit.left_out_lead(objects, names, subjects, noise=noise))
        return weights_by_lead(leads)

    def _noise(self, variant: MethodVariant) -> float | None:
        given = (variant.noise, self.settings.noise, variant.method.noise)
        return next((noise for noise in given if noise is not None), None)

    def _dual(self, lre: LinearRelationalEmbedding, objects: Tensor, variant: MethodVariant) -> MakeByLabels:
        """Dual directions; what does not depend on the labels and the noise is computed once."""
        assert self.background is not None
        noise, write_noise = self._noise(variant), variant.method.write_noise
        subjects = self.activations.zero_shot[lre.subject_layer]
        key = _dual_key(lre, noise, variant.method)
        if key not in self.duals:
            prior, name = self.background[lre.subject_layer], variant.method.metric
            metric = None if name is None else self._metric(name)
            self.duals[key] = DualFit.of(lre, prior, noise=noise, metric=metric, metric_name=str(name))
        fit = self.duals[key]  # holds the LRE, so that no other gets its id
        return lambda names: fit.directions(objects, list(names), subjects, noise=noise, write_noise=write_noise)

    def _metric(self, name: str) -> Tensor | None:
        """The metric of this name at the known prompts; None, with a warning, where the model has none."""
        if name not in self.metrics:
            last = int(self.model.cfg.n_layers) - 1
            try:
                self.metrics[name] = next_token_metric(self.model, self.activations.object[last, "first_token"])
            except ModelError as error:
                warn_caller(
                    f"noise counts alike in all directions, since there is no metric of the next token: {error}"
                )
                self.metrics[name] = None
        return self.metrics[name]

    def _baseline(self, variant: MethodVariant) -> MakeByLabels:
        activations = self.activations.subject[variant.subject_layer]
        fingerprint = ModelFingerprint.of(self.model)
        place = hook_name(self.model, variant.subject_layer)

        def baseline(names: Sequence[str]) -> ConceptSet:
            return baseline_concepts(
                activations,
                list(names),
                method=variant.method.name,
                hook_name=place,
                relation=self.relation,
                fingerprint=fingerprint,
                seed=self.seed,
            )

        return baseline


def _dual_key(lre: LinearRelationalEmbedding, noise: float | None, method: Method) -> DualKey:
    return id(lre), noise is not None and noise < LEAST_UNROTATED_NOISE, method.metric
