"""One relation and seed of the benchmark: every method on the same prompts, activations and edits."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from lrc_tl.directions.calibration import fit_multiclass, multiclass_probabilities
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import PositionError, RelationError, UnfitError
from lrc_tl.evaluation.causality import Edit, causality_curves, counterfactual_edits
from lrc_tl.evaluation.classification import Classification, classify_activations, classify_scores
from lrc_tl.evaluation.collateral import side_effects
from lrc_tl.evaluation.control_tasks import random_concepts, random_weights
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.experiments.record import curve_point, side_effect_fields
from lrc_tl.experiments.settings import BenchmarkSettings
from lrc_tl.experiments.statements import side_effect_pairs
from lrc_tl.lre.fit_settings import solver_named
from lrc_tl.methods.fitting import FittedMethod, TrainingActivations, fit_methods, training_activations
from lrc_tl.methods.method import MethodVariant
from lrc_tl.methods.settings import FitSettings
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.passes.known_prompts import KnownPrompts, filter_known
from lrc_tl.relations.prompts import Prompt, tokenize_prompt, tokens_once
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.sampling import permuted_objects, splittable_sample
from lrc_tl.tuning.selection import SearchSpace, select_settings

MIN_TEST_FACTS = 5


class _LeftOut(Exception):
    """A relation cannot be evaluated for a reason that is part of the result."""


@tokens_once()
def benchmark_relation(
    model: HookedModel,
    relation: Relation,
    seed: int,
    settings: BenchmarkSettings,
    *,
    others: Sequence[Relation] = (),
) -> dict[str, Any]:
    """What was found for one relation and seed, as plain values; `left_out` is the reason where nothing was.

    `others` are the relations whose statements show the side effects.
    """
    head = {"relation": relation.name, "seed": seed}
    try:
        return {**head, "left_out": None, **_Evaluated(model, relation, seed, settings, others).record()}
    except _LeftOut as reason:
        return {**head, "left_out": str(reason)}


class _Evaluated:
    """One relation and seed: every step's outcome, and the seconds that it took."""

    def __init__(
        self,
        model: HookedModel,
        relation: Relation,
        seed: int,
        settings: BenchmarkSettings,
        others: Sequence[Relation],
    ) -> None:
        self.model, self.relation, self.seed, self.settings = model, relation, seed, settings
        self.others = others
        self.seconds: dict[str, float] = {}

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def record(self) -> dict[str, Any]:
        """Plain values; raises _LeftOut where there is nothing to evaluate."""
        train, test = self._split()
        with self._clock("filter"):
            known, unseen = self._known(train, test)
        with self._clock("select"):
            settings, selected = self._selected(train)
        variants = settings.variants(int(self.model.cfg.n_layers))
        with self._clock("activations"):
            shown = training_activations(self.model, variants, known.prompts)
            zero_shot = train.prompts(seed=self.seed)
            plain = prompt_activations(self.model, zero_shot, subject_layers=settings.subject_layers).subject
            acts = prompt_activations(self.model, unseen.prompts, subject_layers=settings.subject_layers).subject
        try:
            fitted = self._fitted(variants, known, shown)
        except UnfitError as error:
            raise _LeftOut(str(error)) from error
        concepts = {name: own.concepts for name, own in fitted.items()}
        self.seconds["fit"] = sum(own.seconds for own in fitted.values())
        actual = [prompt.object for prompt in unseen.prompts]
        edits = self._edits(unseen.prompts, next(iter(concepts.values())))
        figures: dict[str, dict[str, Any]] = {}
        for variant in variants:
            started = time.perf_counter()
            with self._clock("accuracy"):
                layer = variant.subject_layer
                figures[variant.name] = {
                    "subject_layer": layer,
                    "object_layer": variant.object_layer,
                    "rank": variant.rank,
                    **self._accuracy(
                        fitted[variant.name],
                        known,
                        acts[layer],
                        actual,
                        plain[layer],
                        [prompt.object for prompt in zero_shot],
                    ),
                }
            figures[variant.name]["seconds_train"] = fitted[variant.name].seconds
            figures[variant.name]["seconds_evaluate"] = time.perf_counter() - started
        if settings.random_model:
            with self._clock("random model"):
                untrained = self._untrained(variants, known, unseen)
            for name, accuracy in untrained.items():
                figures[name]["control_random_model"] = accuracy
        started = time.perf_counter()
        pairs = self._add_curves(figures, variants, concepts, edits, settings)
        for own in figures.values():  # all methods run together
            own["seconds_evaluate"] += (time.perf_counter() - started) / len(figures)
        first = variants[0]
        return {
            "n_facts": len(train.facts) + len(test.facts),
            "n_known_train": len(known.prompts),
            "n_lre_prompts": min(settings.max_lre_prompts, len(known.prompts)),
            "n_test": len(test.facts),
            "n_prompts": len(unseen.prompts),
            "n_edits": len(edits),
            **pairs,
            "n_objects": len(concepts[first.name]),
            "chance": max(
                1 / len(concepts[first.name]), Counter(actual).most_common(1)[0][1] / len(unseen.prompts)
            ),
            "subject_layer": first.subject_layer,
            "object_layer": settings.object_layers[0] if settings.object_layers else None,
            "rank": settings.ranks[0] if settings.ranks else None,
            "betas": list(settings.betas or ()),
            "selected": selected,
            "test_prompts": [[prompt.text, prompt.subject, prompt.object] for prompt in unseen.prompts],
            "object_tokens": [len(tokenize_prompt(self.model, prompt).object_ids) for prompt in unseen.prompts],
            "edits": [[edit.prompt.subject, edit.prompt.object, edit.target] for edit in edits],
            "methods": figures,
            "seconds": self.seconds,
        }

    def _split(self) -> tuple[Relation, Relation]:
        relation, most, fixed = self.relation, self.settings.max_facts, self.settings.split_seed
        _require_many_to_one(relation, "it is one-to-one")
        if most is not None and fixed is None:
            relation = splittable_sample(relation, most, seed=self.seed)
            _require_many_to_one(relation, f"{most} of its facts are too few")
        try:
            train, test = relation.split(seed=self.seed if fixed is None else fixed)
        except RelationError as error:
            raise _LeftOut(str(error)) from error
        if most is None or fixed is None:
            return train, test
        n_test = most // 2
        return (
            splittable_sample(train, most - n_test, seed=self.seed),
            splittable_sample(test, n_test, seed=self.seed),
        )

    def _known(self, train: Relation, test: Relation) -> tuple[KnownPrompts, KnownPrompts]:
        try:
            prompts = train.prompts(shots=self.settings.shots, seed=self.seed)
        except ValueError as error:  # too few facts for the shots
            raise _LeftOut(str(error)) from error
        try:
            # The cheaper half first: most relations that are left out have too few known test facts.
            asked = test.prompts(seed=self.seed, templates="all")
            answered = filter_known(self.model, asked, seed=self.seed, whole_answers=False, progress=False)
            unseen = answered.one_per_fact()
            if len(unseen.prompts) < MIN_TEST_FACTS:
                raise _LeftOut(
                    f"the model knows {len(unseen.prompts)} of {len(test.facts)} test facts zero-shot, and "
                    f"{MIN_TEST_FACTS} are needed"
                )
            known = filter_known(self.model, prompts, seed=self.seed, whole_answers=False, progress=False)
        except PositionError as error:
            raise _LeftOut(str(error)) from error
        if len({prompt.object for prompt in known.prompts}) < 2:
            raise _LeftOut(
                f"the model knows {len(known.prompts)} of {len(train.facts)} training facts "
                f"{self.settings.shots}-shot, of fewer than two objects"
            )
        return known, unseen

    def _selected(self, train: Relation) -> tuple[BenchmarkSettings, dict[str, Any] | None]:
        settings = self.settings
        if not settings.select:
            return settings, None
        try:
            chosen = select_settings(
                self.model,
                train,
                space=SearchSpace(
                    subject_layers=settings.subject_layers,
                    object_layers=settings.object_layers,
                    ranks=settings.ranks or SearchSpace.ranks,
                    betas=settings.betas,
                ),
                shots=settings.shots,
                seed=self.seed,
                others=self.others or None,
                progress=False,
            )
        except ValueError as error:  # too few known training facts to choose by
            raise _LeftOut(f"settings could not be chosen: {error}") from error
        used = replace(
            settings,
            subject_layers=(chosen.subject_layer,),
            object_layers=(chosen.object_layer,),
            ranks=(chosen.rank,),
            betas=(chosen.beta,),
        )
        return used, chosen.to_dict()

    def _accuracy(
        self,
        fitted: FittedMethod,
        known: KnownPrompts,
        activations: Tensor,
        actual: Sequence[str],
        plain: Tensor,
        plain_objects: Sequence[str],
    ) -> dict[str, Any]:
        """Accuracy as it is, centred, centred and calibrated, and of two controls."""
        concepts, centre = fitted.concepts, plain.mean(0)
        found = classify_activations(concepts, activations, actual)
        centred = classify_activations(concepts, activations, actual, centre=centre)
        calibrated = self._calibrated(concepts, activations - centre, actual, plain - centre, plain_objects)
        shuffled = permuted_objects([prompt.object for prompt in known.prompts], seed=self.seed)
        controls = {"shuffled": fitted.make(shuffled), "random": random_concepts(concepts, seed=self.seed)}
        return {
            "correct": [place == 1 for place in found.places],
            "predicted": list(found.predicted),
            "accuracy": found.accuracy,
            "mean_reciprocal_rank": found.mean_reciprocal_rank,
            "top3": found.top(3),
            "correct_centred": [place == 1 for place in centred.places],
            "accuracy_centred": centred.accuracy,
            "correct_calibrated": [place == 1 for place in calibrated.places],
            "accuracy_calibrated": calibrated.accuracy,
            **{
                f"control_{name}": classify_activations(own, activations, actual).accuracy
                for name, own in controls.items()
            },
        }

    def _fitted(
        self, variants: Sequence[MethodVariant], known: KnownPrompts, shown: TrainingActivations
    ) -> dict[str, FittedMethod]:
        return fit_methods(
            self.model,
            variants,
            known,
            shown,
            relation=self.relation.name,
            seed=self.seed,
            settings=FitSettings(
                max_lre_prompts=self.settings.max_lre_prompts, solver=solver_named(self.settings.fit_method)
            ),
        )

    def _untrained(
        self, variants: Sequence[MethodVariant], known: KnownPrompts, unseen: KnownPrompts
    ) -> dict[str, float | None]:
        """Accuracy of every variant made and read in the model with random weights, on the same prompts.

        None for all where those weights give activations or Jacobians that are not finite, or no directions.
        """
        layers = list(dict.fromkeys(variant.subject_layer for variant in variants))
        with random_weights(self.model, seed=self.seed):
            try:
                shown = training_activations(self.model, variants, known.prompts)
                acts = prompt_activations(self.model, unseen.prompts, subject_layers=layers).subject
                made = self._fitted(variants, known, shown)
            except ValueError:  # the real model's figures stand without this control
                return {variant.name: None for variant in variants}
        actual = [prompt.object for prompt in unseen.prompts]
        return {
            variant.name: classify_activations(
                made[variant.name].concepts, acts[variant.subject_layer], actual
            ).accuracy
            for variant in variants
        }

    def _calibrated(
        self,
        concepts: ConceptSet,
        activations: Tensor,
        actual: Sequence[str],
        plain: Tensor,
        plain_objects: Sequence[str],
    ) -> Classification:
        """By the probabilities that `ConceptSet.calibrate(..., multiclass="standardised")` gives."""
        names = tuple(concepts)
        inside = [row for row, name in enumerate(plain_objects) if name in concepts]
        own = concepts.scores(plain[inside]).double().cpu().numpy()
        labels = [names.index(plain_objects[row]) for row in inside]
        weight, bias = fit_multiclass(own, labels, kind="standardised")
        scores = multiclass_probabilities(concepts.scores(activations), weight, bias)
        return classify_scores(names, scores, actual)

    def _edits(self, prompts: Sequence[Prompt], concepts: ConceptSet) -> tuple[Edit, ...]:
        # All methods have the same objects: those of the known training prompts.
        usable = [prompt for prompt in prompts if prompt.object in concepts]
        if len({prompt.object for prompt in usable}) < 2:
            return ()
        return counterfactual_edits(usable, seed=self.seed)

    def _add_curves(
        self,
        figures: dict[str, dict[str, Any]],
        variants: Sequence[MethodVariant],
        concepts: dict[str, ConceptSet],
        edits: Sequence[Edit],
        settings: BenchmarkSettings,
    ) -> dict[str, int]:
        """The causality curves with their side effects, into the figures of each method; numbers of pairs."""
        for own in figures.values():
            own["curve"] = []
            if settings.single_layer:
                own["curve_single_layer"] = []
        if not edits:
            return {"n_unrelated": 0, "n_same_subject": 0}
        betas = settings.betas or ()
        differences = {name: swap_differences(own, edits) for name, own in concepts.items()}
        with self._clock("causality"):
            curves = causality_curves(self.model, edits, differences, betas=betas, generated=True, progress=False)
        with self._clock("side effects"):
            unrelated, same = side_effect_pairs(
                self.model, self.relation, edits, self.others, n=settings.n_side_effects, seed=self.seed
            )
            elsewhere = side_effects(self.model, unrelated, differences, betas=betas, progress=False)
            beside = side_effects(self.model, same, differences, betas=betas, progress=False)
        for name, own in figures.items():
            own["curve"] = [
                curve_point(result)
                | side_effect_fields("unrelated", away)
                | side_effect_fields("same_subject", near)
                for result, away, near in zip(curves[name], elsewhere[name], beside[name], strict=True)
            ]
        if settings.single_layer:
            for layer in dict.fromkeys(variant.subject_layer for variant in variants):
                at_layer = {v.name: differences[v.name] for v in variants if v.subject_layer == layer}
                with self._clock("causality, single layer"):
                    single = causality_curves(
                        self.model,
                        edits,
                        at_layer,
                        betas=betas,
                        layers=[layer],
                        generated=True,
                        progress=False,
                    )
                for name, results in single.items():
                    figures[name]["curve_single_layer"] = [curve_point(result) for result in results]
        return {"n_unrelated": len(unrelated), "n_same_subject": len(same)}


def _require_many_to_one(relation: Relation, reason: str) -> None:
    counts = Counter(fact.object for fact in relation.facts)
    if sum(count > 1 for count in counts.values()) < 2:
        raise _LeftOut(f"{reason}: fewer than two objects have two facts or more")
