"""The facts and prompts that one relation and seed is evaluated on, or why there are too few."""

from collections import Counter
from dataclasses import dataclass

from lrc_tl.errors import PositionError, RelationError
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import KnownPrompts, filter_known
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
    model: HookedModel, train: Relation, test: Relation, seed: int, settings: ExperimentSettings
) -> RelationPrompts:
    """The prompts of the training and the test facts, those that the model answers told apart.

    Raises:
        LeftOut: the model knows too few, or a prompt's tokens cannot be placed.
    """
    try:
        prompts = train.prompts(shots=settings.shots, seed=seed)
    except ValueError as error:  # too few facts for the shots
        raise LeftOut(str(error)) from error
    try:
        # The cheaper half first: most relations that are left out have too few known test facts.
        asked = test.prompts(seed=seed, templates="all")
        unseen = filter_known(model, asked, seed=seed, whole_answers=False, progress=False).one_per_fact()
        if len(unseen.prompts) < MIN_TEST_FACTS:
            raise LeftOut(
                f"the model knows {len(unseen.prompts)} of {len(test.facts)} test facts zero-shot, and "
                f"{MIN_TEST_FACTS} are needed"
            )
        known = filter_known(model, prompts, seed=seed, whole_answers=False, progress=False)
    except PositionError as error:
        raise LeftOut(str(error)) from error
    if len({prompt.object for prompt in known.prompts}) < 2:
        raise LeftOut(
            f"the model knows {len(known.prompts)} of {len(train.facts)} training facts "
            f"{settings.shots}-shot, of fewer than two objects"
        )
    return RelationPrompts(known=known, plain=tuple(train.prompts(seed=seed)), unseen=unseen)


def _require_many_to_one(relation: Relation, reason: str) -> None:
    counts = Counter(fact.object for fact in relation.facts)
    if sum(count > 1 for count in counts.values()) < 2:
        raise LeftOut(f"{reason}: fewer than two objects have two facts or more")
