"""One set of directions from several sets with the same objects."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet


def combine_concepts(sets: Sequence[ConceptSet], *, method: str = "lrc-combined") -> ConceptSet:
    """For each object the mean of its directions in sets at one hook point, after subtracting each set's mean.

    LRCs of different object layers, LREs or ways to read the object (mean of its tokens, first token) err in
    different ways; what they agree on is kept. The mean over a set's objects is subtracted first, since it says
    nothing about which object a subject has and would otherwise outweigh the rest. arXiv:2311.08968 names LRCs
    over several layers as future work.

    Sets that are centred on the same activations make a set that is centred on them; calibrations are dropped,
    and so are stored betas, which were chosen for other directions.

    Raises:
        ValueError: no sets, fewer than two objects, sets of other objects, hook points or widths, or an object
            whose directions cancel.
        FingerprintMismatch: they were made on different models.
    """
    sets = as_tuple(sets, "sets", ConceptSet)
    if not sets:
        raise ValueError("no sets to combine; give at least one")
    first = sets[0]
    fingerprint = next((concepts.fingerprint for concepts in sets if concepts.fingerprint is not None), None)
    for other in sets:
        if set(other) != set(first):
            raise ValueError(f"the sets have different objects: {sorted(set(first) ^ set(other))} are not in all")
        if other.hook_name != first.hook_name:
            raise ValueError(f"the sets stand at {first.hook_name} and {other.hook_name}; combine those of one")
        if other.vectors.shape[1] != first.vectors.shape[1]:
            widths = f"{first.vectors.shape[1]} and {other.vectors.shape[1]}"
            raise ValueError(f"the sets have widths {widths}; combine those of one model")
        if fingerprint is not None and other.fingerprint is not None:
            fingerprint.require_match(other.fingerprint, what="the first set was made")
    if len(first) < 2:
        raise ValueError("a set of one object has nothing left without its mean; combine sets of two or more")
    names = list(first)
    vectors = _mean_without_shared(
        [torch.stack([concepts[name].vector for name in names]).to(first.vectors) for concepts in sets]
    )
    offsets = _mean_without_shared(
        [torch.tensor([concepts[name].offset for name in names], dtype=torch.float64) for concepts in sets]
    ).tolist()
    directions: dict[str, ConceptDirection] = {}
    for name, vector, offset in zip(names, vectors, offsets, strict=True):
        length = float(vector.norm())
        if length < 32 * torch.finfo(vector.dtype).eps:  # what is left is rounding
            raise ValueError(
                f"the directions of {name!r} cancel, or are all that its sets' objects share; leave it out"
            )
        direction = ConceptDirection.from_unscaled(
            vector,
            relation=first.relation,
            object_name=name,
            hook_name=first.hook_name,
            method=method,
            fingerprint=fingerprint,
        )
        directions[name] = replace(direction, offset=offset / length)
    combined = [concepts.settings for concepts in sets]
    return ConceptSet(directions, settings={"method": method, "combined": combined})


def _mean_without_shared(sets: Sequence[Tensor]) -> Tensor:
    """Mean over the sets, after subtracting each set's own mean row."""
    return torch.stack([rows - rows.mean(0) for rows in sets]).mean(0)
