"""How well one set names the objects of subjects: as it is, centred, and centred and calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lrc_tl.directions.calibration import fit_multiclass, multiclass_probabilities
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.evaluation.classification import Classification, classify_activations, classify_scores
from lrc_tl.relations.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Readings:
    """The three classifications of the same subjects."""

    as_it_is: Classification
    centred: Classification
    """Less what all subjects share: the mean over the training facts' zero-shot prompts."""
    calibrated: Classification
    """Centred, and by probabilities fitted on the training facts."""


def has_centre(concepts: ConceptSet) -> bool:
    """Whether scores of the set count from a centre of its own."""
    return any(direction.offset for direction in concepts.values())


def readings(
    concepts: ConceptSet, acts: Tensor, actual: Sequence[str], *, plain: Tensor, plain_prompts: Sequence[Prompt]
) -> Readings:
    """Of `acts` with the objects `actual`; `plain` are the training facts' zero-shot subjects.

    A set with a centre of its own is centred on `plain` in its place.
    """
    as_it_is = classify_activations(concepts, acts, actual)
    if has_centre(concepts):
        recentred = concepts.centred(plain)
        centred = classify_activations(recentred, acts, actual)
        calibrated = _calibrated(recentred, acts, actual, plain, plain_prompts)
    else:
        centre = plain.mean(0)
        centred = classify_activations(concepts, acts, actual, centre=centre)
        calibrated = _calibrated(concepts, acts - centre, actual, plain - centre, plain_prompts)
    return Readings(as_it_is=as_it_is, centred=centred, calibrated=calibrated)


def _calibrated(
    concepts: ConceptSet, acts: Tensor, actual: Sequence[str], plain: Tensor, plain_prompts: Sequence[Prompt]
) -> Classification:
    """By the probabilities that `ConceptSet.calibrate(..., multiclass="standardised")` gives."""
    names = tuple(concepts)
    inside = [row for row, prompt in enumerate(plain_prompts) if prompt.object in concepts]
    plain_scores = concepts.scores(plain[inside]).double().cpu().numpy()
    labels = [names.index(plain_prompts[row].object) for row in inside]
    weight, bias = fit_multiclass(plain_scores, labels, kind="standardised")
    scores = multiclass_probabilities(concepts.scores(acts), weight, bias)
    return classify_scores(names, scores, actual)
