"""One relation and seed of the benchmark: every method on the same prompts, activations and edits."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from random import Random
from typing import Any

from torch import Tensor

from lrc_tl.activations import prompt_activations
from lrc_tl.baselines import BASELINES, baseline_concepts
from lrc_tl.directions import ConceptSet
from lrc_tl.evaluation.causality import CausalityResult, Edit, causality_curve, counterfactual_edits
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.jacobian import ObjectAggregation
from lrc_tl.knowledge import KnownPrompts, filter_known, one_prompt_a_fact
from lrc_tl.lre import LinearRelationalEmbedding
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.prompts import PositionError, Prompt, spread_over_objects
from lrc_tl.relations import Fact, Relation, RelationError
from lrc_tl.selection import BETAS, RANKS, select_settings

METHODS = ("lrc", "lrc-final", *BASELINES)
"""Names of all methods: LRC, LRC from the first object token at the final layer, and the baselines."""
MIN_TEST_FACTS = 5


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What the result of one relation and seed depends on, beside these two and the model."""

    methods: tuple[str, ...]
    subject_layer: int | None
    object_layer: int | None
    rank: int | None
    betas: tuple[float, ...] | None
    max_lre_prompts: int
    max_facts: int | None
    shots: int
    select: bool


class _LeftOut(Exception):
    """A relation cannot be evaluated for a reason that is part of the result."""


def require_methods(methods: Sequence[str]) -> None:
    """Raise ValueError unless there is at least one, each is known, and none comes twice."""
    if not methods:
        raise ValueError(f"no methods were given; there are {', '.join(METHODS)}")
    for number, method in enumerate(methods):
        if method not in METHODS:
            near = get_close_matches(method, METHODS, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(METHODS)}"
            raise ValueError(f"no method {method!r}; {hint}")
        if method in methods[:number]:
            raise ValueError(f"method {method!r} was given twice")


def benchmark_relation(
    model: HookedModel, relation: Relation, seed: int, settings: BenchmarkSettings
) -> dict[str, Any]:
    """What was found for one relation and seed, as plain values; `left_out` is the reason where nothing was."""
    head = {"relation": relation.name, "seed": seed}
    try:
        return {**head, "left_out": None, **_Evaluated(model, relation, seed, settings).record()}
    except _LeftOut as reason:
        return {**head, "left_out": str(reason)}


def splittable_sample(relation: Relation, n: int, *, seed: int) -> Relation:
    """The relation with at most `n` of its facts: two of each object as far as they go, then evenly over objects.

    Two facts of an object are what a split needs to test it; a plain balanced sample of a relation with many
    objects would hold one of each.
    """
    if n >= len(relation.facts):
        return relation
    generator = Random(seed)
    counts = Counter(fact.object for fact in relation.facts)
    objects = sorted(name for name, count in counts.items() if count > 1)
    chosen = set(generator.sample(objects, min(len(objects), n // 2)))
    pool = [fact for fact in relation.facts if fact.object in chosen]
    facts: list[Fact] = spread_over_objects(pool, min(2 * len(chosen), n), generator)
    rest = [fact for fact in relation.facts if fact not in facts]
    facts += spread_over_objects(rest, n - len(facts), generator)
    return replace(relation, facts=tuple(fact for fact in relation.facts if fact in set(facts)))


class _Evaluated:
    """One relation and seed: every step's outcome, and the seconds that it took."""

    def __init__(self, model: HookedModel, relation: Relation, seed: int, settings: BenchmarkSettings) -> None:
        self.model, self.relation, self.seed, self.settings = model, relation, seed, settings
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
        self.subject_layer, self.object_layer = settings.subject_layer, settings.object_layer
        assert self.subject_layer is not None
        assert self.object_layer is not None
        layers: dict[int, ObjectAggregation] = {}
        if "lrc" in settings.methods:
            layers[self.object_layer] = "mean"
        if "lrc-final" in settings.methods:
            layers[-1] = "first_token"
        with self._clock("activations"):
            shown = prompt_activations(
                self.model,
                known.prompts,
                subject_layers=[self.subject_layer],
                object_layers=list(layers),
                object_aggregation=layers,
            )
            acts = prompt_activations(self.model, unseen.prompts, subject_layers=[self.subject_layer])
        concepts: dict[str, ConceptSet] = {}
        seconds_train: dict[str, float] = {}
        n_lre_prompts = min(settings.max_lre_prompts, len(known.prompts))
        for method in settings.methods:
            with self._clock(f"fit {method}"):
                if method in BASELINES:
                    concepts[method] = self._baseline(method, shown.subject[self.subject_layer], known.prompts)
                else:
                    assert settings.rank is not None
                    layer = self.object_layer if method == "lrc" else -1
                    concepts[method] = self._lrc(
                        method, layer, layers[layer], shown.object[layer], known, settings.rank
                    )
            seconds_train[method] = self.seconds.pop(f"fit {method}")
        self.seconds["fit"] = sum(seconds_train.values())
        edits = self._edits(unseen.prompts, concepts[settings.methods[0]])
        actual = [prompt.object for prompt in unseen.prompts]
        clean: Tensor | None = None
        figures = {}
        for method, own in concepts.items():
            started = time.perf_counter()
            with self._clock("accuracy"):
                found = classify_activations(own, acts.subject[self.subject_layer], actual)
            curve: Sequence[CausalityResult] = ()
            if edits:
                with self._clock("causality"):
                    curve = causality_curve(
                        self.model,
                        edits,
                        swap_differences(own, edits),
                        betas=settings.betas or (),
                        clean=clean,
                    )
                    clean = curve[0].clean
            figures[method] = {
                "correct": [rank == 1 for rank in found.ranks],
                "accuracy": found.accuracy,
                "mean_reciprocal_rank": found.mean_reciprocal_rank,
                "curve": [_point(result) for result in curve],
                "seconds_train": seconds_train[method],
                "seconds_evaluate": time.perf_counter() - started,
            }
        return {
            "n_facts": len(train.facts) + len(test.facts),
            "n_known_train": len(known.prompts),
            "n_lre_prompts": n_lre_prompts,
            "n_test": len(test.facts),
            "n_prompts": len(unseen.prompts),
            "n_edits": len(edits),
            "n_objects": len(found.candidates),
            "chance": found.chance,
            "subject_layer": self.subject_layer,
            "object_layer": self.object_layer,
            "rank": settings.rank,
            "betas": list(settings.betas or ()),
            "selected": selected,
            "test_prompts": [[prompt.text, prompt.subject, prompt.object] for prompt in unseen.prompts],
            "edits": [[edit.prompt.subject, edit.prompt.object, edit.target] for edit in edits],
            "methods": figures,
            "seconds": self.seconds,
        }

    def _split(self) -> tuple[Relation, Relation]:
        relation = self.relation
        _require_many_to_one(relation, "it is one-to-one")
        if self.settings.max_facts is not None:
            relation = splittable_sample(relation, self.settings.max_facts, seed=self.seed)
            _require_many_to_one(relation, f"{self.settings.max_facts} of its facts are too few")
        try:
            return relation.split(seed=self.seed)
        except RelationError as error:
            raise _LeftOut(str(error)) from error

    def _known(self, train: Relation, test: Relation) -> tuple[KnownPrompts, KnownPrompts]:
        try:
            prompts = train.prompts(shots=self.settings.shots, seed=self.seed)
        except ValueError as error:  # too few facts for the shots
            raise _LeftOut(str(error)) from error
        try:
            # The cheaper half first: most relations that are left out have too few known test facts.
            asked = test.prompts(seed=self.seed, templates="all")
            unseen = one_prompt_a_fact(filter_known(self.model, asked, seed=self.seed))
            if len(unseen.prompts) < MIN_TEST_FACTS:
                raise _LeftOut(
                    f"the model knows {len(unseen.prompts)} of {len(test.facts)} test facts zero-shot, and "
                    f"{MIN_TEST_FACTS} are needed"
                )
            known = filter_known(self.model, prompts, seed=self.seed)
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
                subject_layers=None if settings.subject_layer is None else [settings.subject_layer],
                object_layers=None if settings.object_layer is None else [settings.object_layer],
                ranks=RANKS if settings.rank is None else [settings.rank],
                betas=settings.betas or BETAS,
                shots=settings.shots,
                seed=self.seed,
                progress=False,
            )
        except ValueError as error:  # too few known training facts to choose by
            raise _LeftOut(f"settings could not be chosen: {error}") from error
        used = replace(
            settings,
            subject_layer=chosen.subject_layer,
            object_layer=chosen.object_layer,
            rank=chosen.rank,
            betas=(chosen.beta,),
        )
        return used, chosen.to_dict()

    def _baseline(self, method: str, activations: Tensor, prompts: Sequence[Prompt]) -> ConceptSet:
        assert self.subject_layer is not None
        try:
            return baseline_concepts(
                activations,
                [prompt.object for prompt in prompts],
                method=method,
                hook_name=hook_name(self.model, self.subject_layer),
                relation=self.relation.name,
                fingerprint=ModelFingerprint.of(self.model),
                seed=self.seed,
            )
        except ValueError as error:  # too few prompts of an object, or means that coincide
            raise _LeftOut(f"{method}: {error}") from error

    def _lrc(
        self,
        method: str,
        object_layer: int,
        aggregation: ObjectAggregation,
        objects: Tensor,
        known: KnownPrompts,
        rank: int,
    ) -> ConceptSet:
        assert self.subject_layer is not None
        lre = LinearRelationalEmbedding.fit(
            self.model,
            known.sample(self.settings.max_lre_prompts, seed=self.seed),
            subject_layer=self.subject_layer,
            object_layer=object_layer,
            object_aggregation=aggregation,
            progress=False,
        )
        if lre.numerical_rank < rank:
            raise _LeftOut(f"{method}: rank {rank} is above the numerical rank of its LRE, {lre.numerical_rank}")
        return lre.concepts_from_activations(objects, [prompt.object for prompt in known.prompts], rank=rank)

    def _edits(self, prompts: Sequence[Prompt], concepts: ConceptSet) -> tuple[Edit, ...]:
        # All methods have the same objects: those of the known training prompts.
        usable = [prompt for prompt in prompts if prompt.object in concepts]
        if len({prompt.object for prompt in usable}) < 2:
            return ()
        return counterfactual_edits(usable, seed=self.seed)


def _require_many_to_one(relation: Relation, reason: str) -> None:
    counts = Counter(fact.object for fact in relation.facts)
    if sum(count > 1 for count in counts.values()) < 2:
        raise _LeftOut(f"{reason}: fewer than two objects have two facts or more")


def _point(result: CausalityResult) -> dict[str, Any]:
    return {
        "beta": result.beta,
        "success": result.success.tolist(),
        "causality": result.causality,
        "edit_share": result.edit_share,
        "mean_log_odds_change": float(result.log_odds_change.mean()),
        "wrong_way": result.wrong_way,
    }
