"""Does the direction with the highest score name the right object?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import NotFiniteError
from lrc_tl.markup.brief import brief_fields
from lrc_tl.relations.words import as_spelled


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Predictions of one set on one list of subjects."""

    candidates: tuple[str, ...]
    """Objects that could be predicted."""
    actual: tuple[str, ...]
    predicted: tuple[str, ...]
    places: tuple[int, ...]
    """Place of the right object in each ranking, 1 for the best. Ties count against it; 0: it is no candidate."""

    __repr__ = brief_fields

    @property
    def n_prompts(self) -> int:
        """Number of subjects."""
        return len(self.actual)

    @property
    def n_correct(self) -> int:
        """Subjects whose right object came first and alone."""
        return self.places.count(1)

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return self.n_correct / self.n_prompts

    @property
    def chance(self) -> float:
        """Accuracy of a classifier that reads nothing and names the commonest right object every time.

        One over the number of candidates where that is more. See `uniform_chance` for drawing an object.
        """
        return max(1 / len(self.candidates), Counter(self.actual).most_common(1)[0][1] / self.n_prompts)

    @property
    def uniform_chance(self) -> float:
        """One over the number of candidates: the accuracy of drawing evenly where all objects have directions."""
        return 1 / len(self.candidates)

    @property
    def mean_reciprocal_rank(self) -> float:
        """Mean of one over the right object's place; 0 for an object without a direction."""
        return sum(1 / place for place in self.places if place) / self.n_prompts

    @numbers_checked
    def top(self, k: int) -> float:
        """Share of subjects whose right object is among the first `k`."""
        return sum(1 <= place <= k for place in self.places) / self.n_prompts

    @property
    def confusion(self) -> Counter[tuple[str, str]]:
        """How often each (actual, predicted) pair occurred."""
        return Counter(zip(self.actual, self.predicted, strict=True))

    def confusion_matrix(self) -> pd.DataFrame:
        """How often each right object (row) was taken for each candidate (column); objects in candidate order.

        Right objects without a direction come last.
        """
        without_direction = sorted(set(self.actual) - set(self.candidates))
        rows = [name for name in self.candidates if name in self.actual] + without_direction
        counts = self.confusion
        table = [[counts[actual, predicted] for predicted in self.candidates] for actual in rows]
        return pd.DataFrame(
            table,
            index=pd.Index(rows, name="actual"),
            columns=pd.Index(self.candidates, name="predicted"),
        )


@checked
def classify_activations(
    concepts: ConceptSet,
    activations: Float[Tensor, "prompt d_model"],
    actual: Sequence[str],
    *,
    centre: Float[Tensor, " d_model"] | None = None,
    calibrated: bool = False,
) -> Classification:
    """Argmax of the dot product with each direction (arXiv:2311.08968, section 3), against the right objects.

    A subject whose object has no direction counts as wrong.

    Args:
        centre: subtracted from every activation first. Take the mean activation of the training facts' zero-shot
            prompts. The part that all subjects share says nothing about the object, but it favours directions
            that happen to point along it.
        calibrated: rank by the set's probabilities, made from activations that were centred alike. They come from
            `ConceptSet.calibrate` with `multiclass="standardised"` or `"multinomial"`; a temperature would keep
            the order.

    Raises:
        ValueError: fewer than two directions, no subjects, another number of objects than of activations, or
            `calibrated` with a set that is not.
    """
    require_several(concepts)
    actual = as_spelled(as_tuple(actual, "actual", str), concepts)
    if not actual or len(actual) != len(activations):
        raise ValueError(
            f"{len(activations)} activations and {len(actual)} objects were given; give one object for each of at "
            "least one activation"
        )
    if centre is not None and any(direction.offset for direction in concepts.values()):
        raise ValueError("the set is centred already, so centre would count twice; give a plain set, or no centre")
    centred = activations if centre is None else activations - centre.to(activations)
    scores = concepts.probabilities(centred) if calibrated else concepts.scores(centred)
    return classify_scores(tuple(concepts), scores, actual)


@checked
def classify_scores(
    names: tuple[str, ...], scores: Float[Tensor, "prompt concept"], actual: Sequence[str]
) -> Classification:
    """The classification by the highest score in each row; the columns are those of `names`.

    Raises:
        NotFiniteError: a score is NaN or infinite.
    """
    if not bool(scores.isfinite().all()):
        rows = (~scores.isfinite().all(-1)).nonzero()[:, 0].tolist()
        raise NotFiniteError(
            f"the scores of {len(rows)} of {len(scores)} subjects are not finite, the first in row {rows[0]}; "
            "load the model in float32"
        )
    predicted = tuple(names[index] for index in scores.argmax(-1).tolist())
    places = tuple(
        int((row >= row[names.index(name)]).sum()) if name in names else 0
        for row, name in zip(scores, actual, strict=True)
    )
    return Classification(candidates=names, actual=tuple(actual), predicted=predicted, places=places)


def require_several(concepts: ConceptSet) -> None:
    """Raise ValueError where there is nothing to tell apart."""
    if len(concepts) < 2:
        raise ValueError("a set with one object cannot classify; make concepts from prompts with two or more")
