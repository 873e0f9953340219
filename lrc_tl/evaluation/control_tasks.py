"""How much of an accuracy is the concept's: the same classifier on tasks in which there is nothing to find.

Control tasks follow Hewitt and Liang 2019 (arXiv:1909.03368): accuracy counts as far as it exceeds theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from lrc_tl.arguments.no_booleans import no_booleans
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.models.hooking import Block, Session, inside, without_gradients
from lrc_tl.models.loading import HookedModel
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
        """All figures, for JSON."""
        return {
            "accuracy": self.accuracy,
            "shuffled_labels": self.shuffled_labels,
            "random_directions": self.random_directions,
            "random_model": self.random_model,
            "selectivity": self.selectivity,
            "chance": self.chance,
            "n_prompts": self.n_prompts,
        }


@no_booleans
def selectivity(
    model: HookedModel,
    train: Sequence[Prompt],
    test: Sequence[Prompt],
    make: MakeConcepts,
    *,
    seed: int = 0,
) -> Selectivity:
    """Accuracy of `make(model, train)` on `test`, next to that of the three controls.

    For LRCs a permuted object changes what is read only where it has several tokens: `make` gets prompts whose
    objects are permuted, so an LRE is fitted on those as well.

    Raises:
        ValueError: no prompts, or fewer than two objects.
    """
    train, test = as_tuple(train, "train", Prompt), as_tuple(test, "test", Prompt)
    if not train or not test:
        raise ValueError(f"{len(train)} training and {len(test)} test prompts were given; give some of both")
    actual = [prompt.object for prompt in test]

    def accuracy(concepts: ConceptSet) -> float:
        read = subject_activations(model, test, layer=concepts.layer)
        return classify_activations(concepts, read, actual).accuracy

    real = make(model, train)
    found = classify_activations(real, subject_activations(model, test, layer=real.layer), actual)
    shuffled = accuracy(make(model, with_shuffled_objects(train, seed=seed)))
    drawn = accuracy(random_concepts(real, seed=seed))
    untrained = inside(random_weights(model, seed=seed), lambda: accuracy(make(model, train)))
    return Selectivity(
        accuracy=found.accuracy,
        shuffled_labels=shuffled,
        random_directions=drawn,
        random_model=untrained,
        chance=found.chance,
        n_prompts=found.n_prompts,
    )


def with_shuffled_objects(prompts: Sequence[Prompt], *, seed: int) -> tuple[Prompt, ...]:
    """The prompts with their objects permuted, each as often as before."""
    prompts = as_tuple(prompts, "prompts", Prompt)
    objects = permuted_objects([prompt.object for prompt in prompts], seed=seed)
    return tuple(replace(prompt, object=name) for prompt, name in zip(prompts, objects, strict=True))


@no_booleans
def random_concepts(concepts: ConceptSet, *, seed: int) -> ConceptSet:
    """The same objects with Gaussian unit directions, at the same place and with the same recorded norms.

    Without offsets, thresholds and calibration, which are the real directions'. Where the set is centred, centre
    these on the same activations.
    """
    plain: dict[str, Any] = {"offset": 0.0, **dict.fromkeys(("threshold", "slope", "intercept", "knots"))}
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, ConceptDirection] = {}
    for name, direction in concepts.items():
        drawn = torch.randn(direction.vector.shape, generator=generator, dtype=torch.float64)
        unit = (drawn / drawn.norm()).to(direction.vector)
        made[name] = replace(direction, vector=unit, method="random", **plain)
    return ConceptSet(made, settings={"method": "random", "seed": seed})


@no_booleans
def random_weights(model: HookedModel, *, seed: int) -> Block:
    """A block in which each weight is Gaussian with its own mean and spread; after it the model is as before.

    A copy of all weights is kept meanwhile. Tokenizer, architecture and the scale of every weight stay.
    """

    def put_on(session: Session) -> None:
        module: Any = model
        generator = torch.Generator().manual_seed(seed)
        before = [(parameter, parameter.detach().clone()) for parameter in module.parameters()]

        def restore() -> None:
            for parameter, kept in before:
                parameter.copy_(kept)

        def draw() -> None:
            for parameter, kept in before:
                if parameter.numel() < 2 or not parameter.is_floating_point():
                    continue
                wide = kept.double()
                drawn = torch.randn(parameter.shape, generator=generator)
                spread, mean = wide.std().to(parameter), wide.mean().to(parameter)
                parameter.copy_(drawn.to(parameter) * spread + mean)

        session.undo_at_close(partial(without_gradients, restore))
        without_gradients(draw)

    return Block(put_on)
