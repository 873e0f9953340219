"""How much of an accuracy is the concept's: the same classifier on tasks in which there is nothing to find.

Control tasks follow Hewitt and Liang 2019 (arXiv:1909.03368): accuracy counts as far as it exceeds theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.evaluation.classification import Classification, classify_activations
from lrc_tl.markup.progress import shows_progress
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import Block, Session, inside, without_gradients
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.activations import subject_activations
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.sampling import permuted_objects

MakeConcepts = Callable[[HookedModel, Sequence[Prompt]], ConceptSet]
"""Directions from a model and its training prompts, by any method."""


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """Accuracy of one method on the real task and on three control tasks, on the same test prompts."""

    accuracy: float
    shuffled_labels: float
    """The same method, with the objects permuted among the training prompts."""
    random_directions: float
    """Gaussian directions with the norms of the real ones."""
    random_model: float
    """The same method on the same prompts in the model with random weights."""
    chance: float
    n_prompts: int

    @property
    def selectivity(self) -> float:
        """Accuracy less that with shuffled labels, the control task proper."""
        return self.accuracy - self.shuffled_labels

    def to_dict(self) -> dict[str, float]:
        """All numbers, for JSON."""
        return {
            "accuracy": self.accuracy,
            "shuffled_labels": self.shuffled_labels,
            "random_directions": self.random_directions,
            "random_model": self.random_model,
            "selectivity": self.selectivity,
            "chance": self.chance,
            "n_prompts": self.n_prompts,
        }


@shows_progress
@numbers_checked
def selectivity(
    model: HookedModel,
    train: Sequence[Prompt],
    test: Sequence[Prompt],
    make: MakeConcepts,
    *,
    seed: int = 0,
    progress: bool = True,
) -> Selectivity:
    """Accuracy of `make(model, train)` on `test`, next to that of the three controls.

    `make` also gets prompts whose objects are permuted, so an LRE is fitted on those too. For LRCs that changes
    the activations only where an object has several tokens.

    Raises:
        ValueError: no prompts, or fewer than two objects.
    """
    train, test = as_tuple(train, "train", Prompt), as_tuple(test, "test", Prompt)
    if not train or not test:
        raise ValueError(f"{len(train)} training and {len(test)} test prompts were given; give some of both")
    actual = [prompt.object for prompt in test]

    def classification(concepts: ConceptSet) -> Classification:
        activations = subject_activations(model, test, layer=concepts.layer)
        return classify_activations(concepts, activations, actual)

    def accuracy(concepts: ConceptSet) -> float:
        return classification(concepts).accuracy

    real = make(model, train)
    classified = classification(real)
    shuffled = accuracy(make(model, with_shuffled_objects(train, seed=seed)))
    drawn = accuracy(random_concepts(real, seed=seed))
    untrained = inside(random_weights(model, seed=seed), lambda: accuracy(make(model, train)))
    return Selectivity(
        accuracy=classified.accuracy,
        shuffled_labels=shuffled,
        random_directions=drawn,
        random_model=untrained,
        chance=classified.chance,
        n_prompts=classified.n_prompts,
    )


def with_shuffled_objects(prompts: Sequence[Prompt], *, seed: int) -> tuple[Prompt, ...]:
    """The prompts with their objects permuted, each as often as before."""
    prompts = as_tuple(prompts, "prompts", Prompt)
    objects = permuted_objects([prompt.object for prompt in prompts], seed=seed)
    return tuple(replace(prompt, object=name) for prompt, name in zip(prompts, objects, strict=True))


@numbers_checked
def random_concepts(concepts: ConceptSet, *, seed: int) -> ConceptSet:
    """The same objects with Gaussian unit directions, at the same place and with the same recorded norms.

    They have no offsets, thresholds and calibration, which belong to the real directions, and write with the
    vector that they read with. Where the set is centred, centre these on the same activations.
    """
    generator = torch.Generator(device=HOST).manual_seed(seed)
    directions: dict[str, ConceptDirection] = {}
    for name, direction in concepts.items():
        drawn = torch.randn(direction.vector.shape, generator=generator, dtype=torch.float64, device=HOST)
        unit = (drawn / drawn.norm()).to(direction.vector)
        directions[name] = replace(
            direction,
            vector=unit,
            write_vector=None,
            write_rule=None,
            method="random",
            offset=0.0,
            calibration=None,
        )
    return ConceptSet(directions, settings={"method": "random", "seed": seed})


@numbers_checked
def random_weights(model: HookedModel, *, seed: int) -> Block:
    """A block in which each weight is Gaussian with its own mean and spread; after it the model is as before.

    A copy of all weights is kept meanwhile. Tokenizer, architecture and the scale of every weight stay.
    """

    def put_on(session: Session) -> None:
        generator = torch.Generator(device=HOST).manual_seed(seed)
        before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]

        def restore() -> None:
            for parameter, kept in before:
                parameter.copy_(kept)

        def draw() -> None:
            for parameter, kept in before:
                if parameter.numel() < 2 or not parameter.is_floating_point():
                    continue
                wide = kept.double()
                drawn = torch.randn(parameter.shape, generator=generator, device=HOST)
                spread, mean = wide.std().to(parameter), wide.mean().to(parameter)
                parameter.copy_(drawn.to(parameter) * spread + mean)

        session.undo_at_close(partial(without_gradients, restore))
        without_gradients(draw)

    return Block(put_on)
