"""Angles between what two sets of directions span."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.subspaces import Subspace


def principal_angles(one: ConceptSet | Subspace, other: ConceptSet | Subspace) -> Float[Tensor, " angle"]:
    """Principal angles between what two sets span, smallest first, in radians; float64.

    As many as the smaller rank: 0 for a shared direction, pi / 2 for one that the other set has nothing of. From
    SciPy's `subspace_angles` (Knyazev and Argentati 2002), exact for small angles too.

    Raises:
        ValueError: the two stand at different hook points or have different widths.
        FingerprintMismatch: they were made on different models.
    """
    first, second = (item.subspace() if isinstance(item, ConceptSet) else item for item in (one, other))
    if first.hook_name != second.hook_name:
        raise ValueError(
            f"one set stands at {first.hook_name}, the other at {second.hook_name}; angles mean something at one "
            "hook point only"
        )
    if first.basis.shape[1] != second.basis.shape[1]:
        raise ValueError(
            f"one set has width {first.basis.shape[1]}, the other {second.basis.shape[1]}; they must be of one "
            "model"
        )
    if first.fingerprint is not None and second.fingerprint is not None:
        first.fingerprint.require_match(second.fingerprint, what="the first set was made")
    angles = subspace_angles(*(item.basis.double().cpu().numpy().T for item in (first, second)))
    return torch.from_numpy(np.sort(angles))
