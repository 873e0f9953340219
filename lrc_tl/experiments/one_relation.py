"""One relation and seed of the benchmark: every method on the same prompts, activations and edits."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import UnfitError
from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.classification import Classification, classify_activations
from lrc_tl.evaluation.collateral import EditedStatement
from lrc_tl.evaluation.control_tasks import random_concepts, random_weights
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.experiments.backgrounds import Backgrounds
from lrc_tl.experiments.method_outcome import CurvePoint, MethodOutcome
from lrc_tl.experiments.readings import has_centre, readings
from lrc_tl.experiments.record import AskedEdit, AskedPrompt, LeftOutRelation, Record, RelationRecord
from lrc_tl.experiments.relation_prompts import LeftOut, RelationPrompts, known_prompts, split_facts
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.experiments.unit import Unit
from lrc_tl.methods.fitting import FittedMethod
from lrc_tl.methods.method import METHODS, MethodVariant
from lrc_tl.methods.training_activations import TrainingActivations, training_activations, training_residuals
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.passes.known_prompts import KnownPrompts
from lrc_tl.passes.residuals import PromptResiduals
from lrc_tl.relations.prompts import tokenize_prompt, tokens_once
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.sampling import permuted_objects
from lrc_tl.tuning.selection import SearchSpace, select_settings


@dataclass(frozen=True, kw_only=True, eq=False)
class _Activations:
    """Residuals at the last subject token, by layer, one row per prompt."""

    plain: Mapping[int, Tensor]
    unseen: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class _Edits:
    """The edits of one relation, the statements of their side effects, and their sizes."""

    edits: tuple[Edit, ...]
    unrelated: tuple[EditedStatement, ...]
    same_subject: tuple[EditedStatement, ...]
    betas: tuple[float, ...]


@tokens_once()
def benchmark_relation(
    model: HookedModel,
    relation: Relation,
    seed: int,
    methods: Sequence[str],
    settings: ExperimentSettings,
    *,
    others: Sequence[Relation] = (),
    backgrounds: Backgrounds | None = None,
) -> Record:
    """What was measured for one relation and seed, or the reason why it is left out.

    `others` are the relations whose statements show the side effects. `backgrounds` are shared by a run.
    """
    shared = Backgrounds() if backgrounds is None else backgrounds
    try:
        return _Measurement(model, relation, seed, methods, settings, others, shared).record()
    except LeftOut as reason:
        return LeftOutRelation(relation=relation.name, seed=seed, left_out=str(reason))


class _Measurement:
    """One relation and seed of the protocol."""

    def __init__(
        self,
        model: HookedModel,
        relation: Relation,
        seed: int,
        methods: Sequence[str],
        settings: ExperimentSettings,
        others: Sequence[Relation],
        backgrounds: Backgrounds,
    ) -> None:
        self.model, self.relation, self.seed, self.settings = model, relation, seed, settings
        self.methods, self.others = methods, others
        self.unit = Unit(model, relation, seed, settings=settings, others=others, backgrounds=backgrounds)

    def record(self) -> RelationRecord:
        """The measurements; raises LeftOut where there is nothing to evaluate."""
        train, test = split_facts(self.relation, self.seed, self.settings)
        if not self.settings.keep_test_subjects:
            self.unit.held_out = tuple(fact.subject for fact in test.facts)
        of_known, of_unseen = self._residuals()
        with self.unit.clock("filter"):
            prompts = known_prompts(
                self.model, train, test, self.seed, self.settings, of_known=of_known, of_unseen=of_unseen
            )
        with self.unit.clock("select"):
            settings, selected = self._selected(train)
        known, unseen = prompts.known, prompts.unseen
        variants = settings.variants(self.methods, int(self.model.cfg.n_layers))
        layers = settings.subject_layers
        with self.unit.clock("activations"):
            training = training_activations(self.model, variants, known.prompts, residuals=of_known)
            if of_unseen is None:
                of_unseen = PromptResiduals(self.model, subject_layers=layers)
            of_unseen.read(unseen.prompts)
            activations = _Activations(
                plain=prompt_activations(self.model, prompts.plain, subject_layers=layers).subject,
                unseen={layer: of_unseen.of(unseen.prompts, layer, "subject") for layer in layers},
            )
        try:
            fitted = self._fitted(variants, known, training)
        except UnfitError as error:
            raise LeftOut(str(error)) from error
        self.unit.seconds["fit"] = sum(method.seconds for method in fitted.values())
        outcomes = {
            variant.name: self._outcome(variant, fitted[variant.name], prompts, activations)
            for variant in variants
        }
        if settings.random_model:
            outcomes = self._with_random_model(outcomes, variants, prompts)
        concepts = {name: method.concepts for name, method in fitted.items()}
        first = variants[0]
        edits = self.unit.edits(unseen.prompts, concepts[first.name])
        outcomes, (n_unrelated, n_same_subject) = self._with_curves(outcomes, variants, concepts, edits, settings)
        return RelationRecord(
            relation=self.relation.name,
            seed=self.seed,
            n_facts=len(train.facts) + len(test.facts),
            n_known_train=len(known.prompts),
            n_lre_prompts=min(settings.max_lre_prompts, len(known.prompts)),
            n_test=len(test.facts),
            n_prompts=len(unseen.prompts),
            n_edits=len(edits),
            n_unrelated=n_unrelated,
            n_same_subject=n_same_subject,
            n_objects=len(concepts[first.name]),
            chance=_chance(prompts.actual, len(concepts[first.name])),
            subject_layer=first.subject_layer,
            object_layer=settings.object_layers[0] if settings.object_layers else None,
            rank=settings.ranks[0] if settings.ranks else None,
            betas=tuple(settings.betas or ()),
            selected=selected,
            test_prompts=tuple(
                AskedPrompt(prompt.text, prompt.subject, prompt.object) for prompt in unseen.prompts
            ),
            object_tokens=tuple(len(tokenize_prompt(self.model, prompt).object_ids) for prompt in unseen.prompts),
            edits=tuple(AskedEdit(edit.prompt.subject, edit.prompt.object, edit.target) for edit in edits),
            methods=outcomes,
            seconds=self.unit.seconds,
        )

    def _residuals(self) -> tuple[PromptResiduals | None, PromptResiduals | None]:
        """What is wanted of the training and the test prompts, where the layers do not have to be chosen first."""
        if self.settings.select:
            return None, None
        variants = self.settings.variants(self.methods, int(self.model.cfg.n_layers))
        return training_residuals(self.model, variants), PromptResiduals(
            self.model, subject_layers=self.settings.subject_layers
        )

    def _selected(self, train: Relation) -> tuple[ExperimentSettings, dict[str, Any] | None]:
        settings = self.settings
        if not settings.select:
            return settings, None
        with_lre = [METHODS[name] for name in self.methods if not METHODS[name].is_baseline]
        for_dual = bool(with_lre) and all(method.is_dual for method in with_lre)
        object_layers = settings.object_layers
        if for_dual and all(method.object_layer == "last" for method in with_lre):
            object_layers = (-1,)
        try:
            selection = select_settings(
                self.model,
                train,
                space=SearchSpace(
                    subject_layers=settings.subject_layers,
                    object_layers=object_layers,
                    ranks=settings.ranks or SearchSpace.ranks,
                    betas=settings.betas,
                    noises=SearchSpace.noises if settings.noise is None else (settings.noise,),
                    background=self.unit.background(settings.subject_layers) if for_dual else None,
                ),
                shots=settings.shots,
                method="lrc-map" if for_dual else "lrc",
                seed=self.seed,
                others=self.others or None,
                progress=False,
            )
        except ValueError as error:  # too few known training facts to choose by
            raise LeftOut(f"settings could not be chosen: {error}") from error
        used = replace(
            settings,
            subject_layers=(selection.subject_layer,),
            object_layers=(selection.object_layer,),
            ranks=settings.ranks if selection.rank is None else (selection.rank,),
            betas=(selection.beta,),
        )
        return used, selection.to_dict()

    def _fitted(
        self,
        variants: Sequence[MethodVariant],
        known: KnownPrompts,
        training: TrainingActivations,
        *,
        random_seed: int | None = None,
    ) -> dict[str, FittedMethod]:
        most = self.settings.max_lre_prompts
        return self.unit.fitted(variants, known, training, max_lre_prompts=most, random_seed=random_seed)

    def _outcome(
        self, variant: MethodVariant, fitted: FittedMethod, prompts: RelationPrompts, activations: _Activations
    ) -> MethodOutcome:
        """Accuracy as it is, centred, centred and calibrated, and of two controls; no edits yet."""
        started = time.perf_counter()
        with self.unit.clock("accuracy"):
            concepts, actual = fitted.concepts, prompts.actual
            plain, unseen = activations.plain[variant.subject_layer], activations.unseen[variant.subject_layer]
            read = readings(concepts, unseen, actual, plain=plain, plain_prompts=prompts.plain)
            shuffled = permuted_objects([prompt.object for prompt in prompts.known.prompts], seed=self.seed)
            drawn = random_concepts(concepts, seed=self.seed)
            if has_centre(concepts):
                drawn = drawn.centred(plain)
            controls = {"shuffled": fitted.make(shuffled), "random": drawn}
            accuracy = {
                name: classify_activations(control, unseen, actual).accuracy for name, control in controls.items()
            }
        return MethodOutcome(
            subject_layer=variant.subject_layer,
            object_layer=variant.object_layer,
            rank=variant.rank,
            noise=concepts.settings.get("noise"),
            correct=_first_and_alone(read.as_it_is),
            predicted=tuple(read.as_it_is.predicted),
            accuracy=read.as_it_is.accuracy,
            mean_reciprocal_rank=read.as_it_is.mean_reciprocal_rank,
            top3=read.as_it_is.top(3),
            correct_centred=_first_and_alone(read.centred),
            accuracy_centred=read.centred.accuracy,
            correct_calibrated=_first_and_alone(read.calibrated),
            accuracy_calibrated=read.calibrated.accuracy,
            control_shuffled=accuracy["shuffled"],
            control_random=accuracy["random"],
            seconds_train=fitted.seconds,
            seconds_evaluate=time.perf_counter() - started,
        )

    def _with_random_model(
        self, outcomes: Mapping[str, MethodOutcome], variants: Sequence[MethodVariant], prompts: RelationPrompts
    ) -> dict[str, MethodOutcome]:
        """The outcomes with the accuracy in the model with random weights."""
        with self.unit.clock("random model"):
            accuracy = self._untrained(variants, prompts)
        return {
            name: replace(outcome, asked_of_random_model=True, control_random_model=accuracy[name])
            for name, outcome in outcomes.items()
        }

    def _untrained(self, variants: Sequence[MethodVariant], prompts: RelationPrompts) -> dict[str, float | None]:
        """Accuracy of every variant made and read in the model with random weights, on the same prompts.

        None for all where those weights give activations or Jacobians that are not finite, or no directions.
        """
        layers = list(dict.fromkeys(variant.subject_layer for variant in variants))
        with random_weights(self.model, seed=self.seed):
            try:
                training = training_activations(self.model, variants, prompts.known.prompts)
                acts = prompt_activations(self.model, prompts.unseen.prompts, subject_layers=layers).subject
                fitted = self._fitted(variants, prompts.known, training, random_seed=self.seed)
            except ValueError:  # what the real model gave stands without this control
                return {variant.name: None for variant in variants}
        return {
            variant.name: classify_activations(
                fitted[variant.name].concepts, acts[variant.subject_layer], prompts.actual
            ).accuracy
            for variant in variants
        }

    def _with_curves(
        self,
        outcomes: Mapping[str, MethodOutcome],
        variants: Sequence[MethodVariant],
        concepts: Mapping[str, ConceptSet],
        edits: Sequence[Edit],
        settings: ExperimentSettings,
    ) -> tuple[dict[str, MethodOutcome], tuple[int, int]]:
        """The outcomes with their curves, and how many (edit, statement) pairs of each kind there were.

        All methods run together, so each gets its share of the seconds.
        """
        started = time.perf_counter()
        curves: Mapping[str, tuple[CurvePoint, ...]] = dict.fromkeys(outcomes, ())
        single_layer: Mapping[str, tuple[CurvePoint, ...] | None]
        single_layer = dict.fromkeys(outcomes, () if settings.single_layer else None)
        unrelated: tuple[EditedStatement, ...] = ()
        same: tuple[EditedStatement, ...] = ()
        if edits:
            differences = {name: swap_differences(directions, edits) for name, directions in concepts.items()}
            with self.unit.clock("side effects"):
                unrelated, same = self.unit.statements(edits, n=settings.n_side_effects)
            work = _Edits(tuple(edits), unrelated, same, settings.betas or ())
            curves = self._curves(work, differences)
            if settings.single_layer:
                single_layer = self._single_layer_curves(work, variants, differences)
        seconds = (time.perf_counter() - started) / len(outcomes)
        with_curves = {
            name: replace(
                outcome,
                curve=curves[name],
                curve_single_layer=single_layer[name],
                seconds_evaluate=outcome.seconds_evaluate + seconds,
            )
            for name, outcome in outcomes.items()
        }
        return with_curves, (len(unrelated), len(same))

    def _curves(
        self, work: "_Edits", differences: Mapping[str, Tensor], layers: Sequence[int] | None = None
    ) -> dict[str, tuple[CurvePoint, ...]]:
        """A curve with side effects for each method, of edits at these layers (None: at every layer)."""
        single, betas = "" if layers is None else ", single layer", work.betas
        with self.unit.clock(f"causality{single}"):
            curves = self.unit.curves(work.edits, differences, betas=betas, layers=layers)
        with self.unit.clock(f"side effects{single}"):
            elsewhere, beside = (
                self.unit.effects(statements, differences, betas=betas, layers=layers)
                for statements in (work.unrelated, work.same_subject)
            )
        return {
            name: tuple(
                CurvePoint.of(result, unrelated=away, same_subject=near)
                for result, away, near in zip(curve, elsewhere[name], beside[name], strict=True)
            )
            for name, curve in curves.items()
        }

    def _single_layer_curves(
        self, work: "_Edits", variants: Sequence[MethodVariant], differences: Mapping[str, Tensor]
    ) -> dict[str, tuple[CurvePoint, ...]]:
        """Edits at each method's subject layer alone."""
        points: dict[str, tuple[CurvePoint, ...]] = {}
        for layer in dict.fromkeys(variant.subject_layer for variant in variants):
            at_layer = {v.name: differences[v.name] for v in variants if v.subject_layer == layer}
            points |= self._curves(work, at_layer, layers=[layer])
        return points


def _first_and_alone(classification: Classification) -> tuple[bool, ...]:
    return tuple(place == 1 for place in classification.places)


def _chance(actual: Sequence[str], n_objects: int) -> float:
    """What naming the commonest right object every time reaches, or drawing one, where that is more."""
    return max(1 / n_objects, Counter(actual).most_common(1)[0][1] / len(actual))
