"""LREs of several sets of prompts as one."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.lre.embedding import LinearRelationalEmbedding


def combined(lres: Sequence[LinearRelationalEmbedding]) -> LinearRelationalEmbedding:
    """The LRE of all prompts of several LREs at the same layers: means weighted by their numbers of prompts.

    Raises:
        ValueError: no LREs, or some of other layers, aggregations, solvers or models.
    """
    lres = as_tuple(lres, "lres", LinearRelationalEmbedding)
    if not lres:
        raise ValueError("no LREs to combine; give at least one")
    first = lres[0]
    for lre in lres:
        for name in ("subject_layer", "object_layer", "object_aggregation", "solver", "rank_limit", "fingerprint"):
            if getattr(lre, name) != getattr(first, name):
                raise ValueError(f"the LREs differ in {name}; combine LREs of the same layers and model")
    n = sum(lre.n_prompts for lre in lres)
    return replace(
        first,
        weight=sum((lre.weight * (lre.n_prompts / n) for lre in lres), torch.zeros_like(first.weight)),
        bias=sum((lre.bias * (lre.n_prompts / n) for lre in lres), torch.zeros_like(first.bias)),
        n_prompts=n,
        prompts_hash=" + ".join(lre.prompts_hash for lre in lres),
        relation=" + ".join(dict.fromkeys(lre.relation for lre in lres)),
        direction_errors=None,  # they belong to the directions of each LRE alone
    )
