"""Baselines: other ways to a `ConceptSet`, made from the same prompts as an LRC."""

from collections import defaultdict
from collections.abc import Sequence

from lrc_tl.activations import subject_activations
from lrc_tl.directions import ConceptDirection, ConceptSet
from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.prompts import Prompt


def mean_concepts(model: HookedModel, prompts: Sequence[Prompt], *, layer: int) -> ConceptSet:
    """For each object the mean subject activation of its prompts, scaled to unit length.

    Input averaging, the simplest baseline of arXiv:2311.08968, section 4.

    Raises:
        ValueError: no prompts.
    """
    if not prompts:
        raise ValueError("no prompts to average; give at least one for each object")
    activations = subject_activations(model, prompts, layer=layer)
    rows: dict[str, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        rows[prompt.object].append(number)
    return ConceptSet(
        {
            name: ConceptDirection.from_unscaled(
                activations[own].mean(0),
                relation=prompts[own[0]].relation,
                object_name=name,
                hook_name=hook_name(model, layer),
                method="mean",
                fingerprint=ModelFingerprint.of(model),
            )
            for name, own in rows.items()
        }
    )
