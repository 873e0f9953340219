"""One set of directions from several sets with the same objects."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import OWN_VECTOR, writing_vector
from lrc_tl.numerics.precision import HOST


def combine_concepts(sets: Sequence[ConceptSet], *, method: str = "lrc-combined") -> ConceptSet:
    """For each object the mean of its directions in sets at one hook point, after subtracting each set's mean.

    LRCs of different object layers, LREs or ways to read the object (mean of its tokens, first token) err in
    different ways; what they agree on is kept. The mean over a set's objects is subtracted first, since it says
    nothing about which object a subject has and would otherwise outweigh the rest. arXiv:2311.08968 names LRCs
    over several layers as future work.

    Where the directions of all sets write with vectors of their own, these are combined in the same way as those
    that read, and the rule becomes `"given"`. Then lengths count: reading vectors and offsets are divided by the
    mean length in their set, not each by its own, so that scores of different objects still compare. One such set
    alone keeps its scores, less what its objects share and in another unit.

    Sets that are centred on the same activations make a set that is centred on them; calibrations are dropped,
    and so are stored betas, which were chosen for other directions.

    Raises:
        ValueError: no sets, fewer than two objects, sets of other objects, hook points or widths, an object whose
            directions cancel, or writing vectors that only some directions have or that no longer fit those that
            read.
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
    has_write_vectors = _have_write_vectors(sets)
    names = list(first)
    reading, writing, offsets = (
        _mean_without_shared(rows)
        for rows in zip(*(_rows(concepts, names, like=first.vectors) for concepts in sets), strict=True)
    )
    directions: dict[str, ConceptDirection] = {}
    for name, vector, write_vector, offset in zip(names, reading, writing, offsets.tolist(), strict=True):
        length = float(vector.norm())
        shortest = min(length, float(write_vector.norm()))
        if shortest < 32 * torch.finfo(vector.dtype).eps:  # what is left is rounding
            raise ValueError(
                f"the directions of {name!r} cancel, or are all that its sets' objects share; leave it out"
            )
        directions[name] = ConceptDirection.from_unscaled(
            vector,
            write_vector=write_vector if has_write_vectors else None,
            offset=offset if has_write_vectors else offset / length,
            relation=first.relation,
            object_name=name,
            hook_name=first.hook_name,
            method=method,
            fingerprint=fingerprint,
        )
    combined = [concepts.settings for concepts in sets]
    return ConceptSet(directions, settings={"method": method, "combined": combined})


def _have_write_vectors(sets: Sequence[ConceptSet]) -> bool:
    """Whether the directions write with other vectors than they read with: all of them, or none.

    Raises:
        ValueError: only some of them do.
    """
    with_others = [
        [name for name, direction in concepts.items() if direction.write_rule != OWN_VECTOR] for concepts in sets
    ]
    if any(with_others) and [len(names) for names in with_others] != [len(concepts) for concepts in sets]:
        counts = ", ".join(
            f"{len(names)} of {len(concepts)}" for names, concepts in zip(with_others, sets, strict=True)
        )
        raise ValueError(
            f"in these sets {counts} directions write with another vector than they read with; combine sets in "
            "which all do or none does"
        )
    return any(with_others)


def _rows(concepts: ConceptSet, names: Sequence[str], *, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reading vectors, writing vectors and offsets of these objects, lengths counted in the set's mean length."""
    directions = [concepts[name] for name in names]
    lengths = torch.tensor([direction.scale for direction in directions], dtype=torch.float64, device=HOST)
    shares = lengths / lengths.mean()  # 1 where directions write with what they read
    offsets = torch.tensor([direction.offset for direction in directions], dtype=torch.float64, device=HOST)
    offsets /= lengths.mean()
    reading = torch.stack([direction.vector for direction in directions]).to(like) * shares.to(like)[:, None]
    writing = torch.stack([writing_vector(direction) for direction in directions]).to(like)
    return reading, writing, offsets


def _mean_without_shared(sets: Sequence[Tensor]) -> Tensor:
    """Mean over the sets, after subtracting each set's own mean row."""
    return torch.stack([rows - rows.mean(0) for rows in sets]).mean(0)
