"""Directions of the same objects from several sources, made into one set."""

from collections.abc import Sequence

import torch

from lrc_tl.directions import ConceptDirection, ConceptSet


def combine_concepts(sets: Sequence[ConceptSet], *, method: str = "lrc-combined") -> ConceptSet:
    """For each object the mean of its directions in several sets at one hook point, each less its set's mean.

    LRCs of different object layers, LREs or ways to read the object (mean of its tokens, first token) err in
    different ways; what they agree on is kept. The mean over a set's objects is taken off first, since it says
    nothing about which object a subject has and would otherwise outweigh the rest. arXiv:2311.08968 names LRCs
    over several layers as future work.

    Raises:
        ValueError: no sets, fewer than two objects, sets of other objects, hook points or models, or an object
            whose directions cancel.
    """
    if not sets:
        raise ValueError("no sets to combine; give at least one")
    first = sets[0]
    for other in sets:
        if set(other) != set(first):
            raise ValueError(f"the sets have different objects: {sorted(set(first) ^ set(other))} are not in all")
        if other.hook_name != first.hook_name:
            raise ValueError(f"the sets stand at {first.hook_name} and {other.hook_name}; combine those of one")
        if other.fingerprint != first.fingerprint:
            raise ValueError("the sets were made on different models; combine those of one")
    if len(first) < 2:
        raise ValueError("a set of one object has nothing left without its mean; combine sets of two or more")
    names = list(first)
    stacked = torch.stack([torch.stack([one[name].vector for name in names]).to(first.vectors) for one in sets])
    vectors = (stacked - stacked.mean(1, keepdim=True)).mean(0)
    return ConceptSet(
        {
            name: ConceptDirection.from_unscaled(
                vector,
                relation=first.relation,
                object_name=name,
                hook_name=first.hook_name,
                method=method,
                fingerprint=first.fingerprint,
            )
            for name, vector in zip(names, vectors, strict=True)
        },
        settings={"method": method, "combined": [one.settings for one in sets]},
    )
