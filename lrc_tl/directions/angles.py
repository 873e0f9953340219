"""Angles between what two sets of directions span."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.subspaces import Subspace


def principal_angles(first: ConceptSet | Subspace, second: ConceptSet | Subspace) -> Float[Tensor, " angle"]:
    """Principal angles between what two sets span, smallest first, in radians; float64.

    As many as the smaller rank: 0 for a shared direction, pi / 2 for one that the other set has nothing of. From
    SciPy's `subspace_angles` (Knyazev and Argentati 2002), exact for small angles too.

    Raises:
        ValueError: the two stand at different hook points or have different widths.
        FingerprintMismatch: they were made on different models.
    """
    left, right = (item.subspace() if isinstance(item, ConceptSet) else item for item in (first, second))
    if left.hook_name != right.hook_name:
        raise ValueError(
            f"one set stands at {left.hook_name}, the other at {right.hook_name}; angles mean something at one "
            "hook point only"
        )
    if left.basis.shape[1] != right.basis.shape[1]:
        raise ValueError(
            f"one set has width {left.basis.shape[1]}, the other {right.basis.shape[1]}; they must be of one model"
        )
    if left.fingerprint is not None and right.fingerprint is not None:
        left.fingerprint.require_match(right.fingerprint, what="the first set was made")
    angles = subspace_angles(*(item.basis.double().cpu().numpy().T for item in (left, right)))
    return torch.from_numpy(np.sort(angles))
