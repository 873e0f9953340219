"""The LREs of methods, from as few passes as there can be."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.fit_settings import LowRank
from lrc_tl.lre.layer_grid import fit_exact_pairs, fit_layer_grid
from lrc_tl.methods.method import Method, MethodVariant
from lrc_tl.methods.settings import FitSettings
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import KnownPrompts
from lrc_tl.relations.prompts import Prompt

Grid: TypeAlias = dict[tuple[int, int], LinearRelationalEmbedding]
"""LREs by subject layer and object layer."""


def lre_prompts(known: KnownPrompts, method: Method, *, most: int, seed: int) -> tuple[Prompt, ...]:
    """The known prompts that a method's LREs are fitted on, balanced over objects; none for a baseline.

    At most `most`, but at least one of each object for methods with an LRE for each object.
    """
    if method.is_baseline:
        return ()
    if method.lre_for_each:
        most = max(most, len({prompt.object for prompt in known.prompts}))
    return known.sample(most, seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class LreGrids:
    """Fits the LREs of groups of variants, each of which `Method.shared_work` puts together."""

    model: HookedModel
    known: KnownPrompts
    seed: int
    settings: FitSettings
    progress: bool

    def of(self, group: Sequence[MethodVariant]) -> dict[str, Grid]:
        """LREs of every pair of layers; by object where the methods have one for each, else under no name."""
        method = group[0].method
        pairs = pairs_of(group)
        solver, fit_dtype = self.settings.solver, self.settings.fit_dtype
        ranks = [variant.rank for variant in group if variant.rank is not None]
        if isinstance(solver, LowRank) and ranks:
            solver = solver.for_rank(max(ranks))

        def fit(prompts: Sequence[Prompt]) -> Grid:
            shared: dict[str, Any] = {"object_aggregation": method.aggregation, "progress": self.progress}
            if solver == "exact":
                return fit_exact_pairs(self.model, prompts, pairs, fit_dtype=fit_dtype, **shared)
            return fit_layer_grid(
                self.model,
                prompts,
                subject_layers=sorted({subject for subject, _ in pairs}),
                object_layers=sorted({object_ for _, object_ in pairs}),
                solver=solver,
                fit_dtype=fit_dtype,
                **shared,
            )

        sample = lre_prompts(self.known, method, most=self.settings.max_lre_prompts, seed=self.seed)
        if not method.lre_for_each:
            return {"": fit(sample)}
        names = dict.fromkeys(prompt.object for prompt in self.known.prompts)
        return {name: fit([prompt for prompt in sample if prompt.object == name]) for name in names}

    def together(
        self, groups: Mapping[object, Sequence[MethodVariant]]
    ) -> dict[object, tuple[dict[str, Grid], float]]:
        """The exact LREs of groups that are `joined`, as `of` gives them, and each one's seconds.

        Groups that no other is joined with are left out.
        """
        exact = groups if self.settings.solver == "exact" else {}
        found: dict[object, tuple[dict[str, Grid], float]] = {}
        for keys in joined(exact):
            if len(keys) == 1:
                continue
            started = time.perf_counter()
            sample = lre_prompts(
                self.known, groups[keys[0]][0].method, most=self.settings.max_lre_prompts, seed=self.seed
            )
            ways = {
                layer: group[0].method.aggregation
                for group in map(groups.__getitem__, keys)
                for _, layer in pairs_of(group)
            }
            grid = fit_exact_pairs(
                self.model,
                sample,
                sorted({pair for key in keys for pair in pairs_of(groups[key])}),
                object_aggregation=ways,
                fit_dtype=self.settings.fit_dtype,
                progress=self.progress,
            )
            seconds = (time.perf_counter() - started) / sum(len(pairs_of(groups[key])) for key in keys)
            for key in keys:
                own = pairs_of(groups[key])
                found[key] = {"": {pair: grid[pair] for pair in own}}, seconds * len(own)
        return found


def pairs_of(group: Sequence[MethodVariant]) -> list[tuple[int, int]]:
    """The pairs of layers of a group's LREs."""
    return sorted({(v.subject_layer, v.object_layer) for v in group if v.object_layer is not None})


def joined(groups: Mapping[object, Sequence[MethodVariant]]) -> list[list[object]]:
    """The keys of groups with LREs, those together whose exact LREs come from the same passes.

    These have the same subject layers, and read no object layer in two ways. Baselines have no LREs, and methods
    with an LRE for each object are fitted by themselves.
    """
    found: list[list[object]] = []
    for key, group in groups.items():
        if group[0].method.is_baseline:
            continue
        alone = group[0].method.lre_for_each is not None
        for keys in [] if alone else found:
            if all(_go_together(groups[other], group) for other in keys):
                keys.append(key)
                break
        else:
            found.append([key])
    return found


def _go_together(one: Sequence[MethodVariant], other: Sequence[MethodVariant]) -> bool:
    of_one, of_other = pairs_of(one), pairs_of(other)
    if one[0].method.lre_for_each or {subject for subject, _ in of_one} != {subject for subject, _ in of_other}:
        return False
    same_way = one[0].method.aggregation == other[0].method.aggregation
    return same_way or not {layer for _, layer in of_one} & {layer for _, layer in of_other}
