"""The facts and prompts that one relation and seed is evaluated on, or why there are too few."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_tl.errors import PositionError, RelationError
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import KnownPrompts, known_and_read
from lrc_tl.passes.residuals import PromptResiduals
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.sampling import splittable_sample

MIN_TEST_FACTS = 5


class LeftOut(Exception):
    """A relation cannot be evaluated for a reason that is part of the result."""


@dataclass(frozen=True, kw_only=True)
class RelationPrompts:
    """The prompts of one relation and seed that everything is made from and judged on."""

    known: KnownPrompts
    """Few-shot prompts of the training facts that the model answers."""
    plain: tuple[Prompt, ...]
    """Zero-shot prompts of all training facts, for centring."""
    unseen: KnownPrompts
    """Zero-shot prompts of the test facts that the model answers, one per fact."""

    @property
    def actual(self) -> list[str]:
        """The right object of each test prompt."""
        return [prompt.object for prompt in self.unseen.prompts]


def split_facts(relation: Relation, seed: int, settings: ExperimentSettings) -> tuple[Relation, Relation]:
    """Training and test facts, drawn and split by the seed.

    Raises:
        LeftOut: there are too few facts of the same object.
    """
    most, fixed = settings.max_facts, settings.split_seed
    _require_many_to_one(relation, "it is one-to-one")
    if most is not None and fixed is None:
        relation = splittable_sample(relation, most, seed=seed)
        _require_many_to_one(relation, f"{most} of its facts are too few")
    try:
        train, test = relation.split(seed=seed if fixed is None else fixed)
    except RelationError as error:
        raise LeftOut(str(error)) from error
    if most is None or fixed is None:
        return train, test
    n_test = most // 2
    return (
        splittable_sample(train, most - n_test, seed=seed),
        splittable_sample(test, n_test, seed=seed),
    )


def known_prompts(
    model: HookedModel,
    train: Relation,
    test: Relation,
    seed: int,
    settings: ExperimentSettings,
    *,
    of_known: PromptResiduals | None = None,
    of_unseen: PromptResiduals | None = None,
) -> RelationPrompts:
    """The prompts of the training and the test facts, those that the model answers told apart.

    The passes that find them read the residuals that are wanted of each.

    Raises:
        LeftOut: the model knows too few, or a prompt's tokens cannot be placed.
    """
    prompts = training_prompts(train, seed, shots=settings.shots)
    # The cheaper half first: most relations that are left out have too few known test facts.
    unseen = known_test_prompts(model, test, seed, residuals=of_unseen)
    known = known_training_prompts(model, train, prompts, seed, shots=settings.shots, residuals=of_known)
    return RelationPrompts(known=known, plain=tuple(train.prompts(seed=seed)), unseen=unseen)


def training_prompts(train: Relation, seed: int, *, shots: int) -> tuple[Prompt, ...]:
    """Few-shot prompts of the training facts.

    Raises:
        LeftOut: there are too few facts for the examples.
    """
    try:
        return train.prompts(shots=shots, seed=seed)
    except ValueError as error:
        raise LeftOut(str(error)) from error


def known_test_prompts(
    model: HookedModel,
    test: Relation,
    seed: int,
    *,
    least: int = MIN_TEST_FACTS,
    residuals: PromptResiduals | None = None,
) -> KnownPrompts:
    """Zero-shot prompts of the test facts that the model answers to one template or more, one per fact.

    The pass that finds them reads `residuals` too.

    Raises:
        LeftOut: it knows fewer than `least`, or a prompt's tokens cannot be placed.
    """
    try:
        asked = test.prompts(seed=seed, templates="all")
        unseen = known_and_read(model, asked, residuals, seed=seed).one_per_fact()
    except PositionError as error:
        raise LeftOut(str(error)) from error
    if len(unseen.prompts) < least:
        raise LeftOut(
            f"the model knows {len(unseen.prompts)} of {len(test.facts)} test facts zero-shot, and {least} are "
            "needed"
        )
    return unseen


def known_training_prompts(
    model: HookedModel,
    train: Relation,
    prompts: Sequence[Prompt],
    seed: int,
    *,
    shots: int,
    residuals: PromptResiduals | None = None,
) -> KnownPrompts:
    """Those of the training prompts that the model answers; the pass that finds them reads `residuals` too.

    Raises:
        LeftOut: they are of fewer than two objects, or a prompt's tokens cannot be placed.
    """
    try:
        known = known_and_read(model, prompts, residuals, seed=seed)
    except PositionError as error:
        raise LeftOut(str(error)) from error
    if len({prompt.object for prompt in known.prompts}) < 2:
        raise LeftOut(
            f"the model knows {len(known.prompts)} of {len(train.facts)} training facts {shots}-shot, of fewer "
            "than two objects"
        )
    return known


def _require_many_to_one(relation: Relation, reason: str) -> None:
    counts = Counter(fact.object for fact in relation.facts)
    if sum(count > 1 for count in counts.values()) < 2:
        raise LeftOut(f"{reason}: fewer than two objects have two facts or more")
