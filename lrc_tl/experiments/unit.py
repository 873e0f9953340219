"""One relation and seed: the steps that the protocol and sweeps have in common, and the seconds that each took."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from lrc_tl.evaluation.causality import CausalityResult, Edit, causality_curves, counterfactual_edits
from lrc_tl.evaluation.collateral import EditedStatement, SideEffects, side_effects
from lrc_tl.evaluation.edited_passes import LayersGiven
from lrc_tl.experiments.backgrounds import Backgrounds
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.experiments.statements import side_effect_statements
from lrc_tl.lre.fit_settings import LowRank, solver_named
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.methods.backgrounds import dual_layers
from lrc_tl.methods.fitting import FittedMethod, fit_methods
from lrc_tl.methods.method import MethodVariant
from lrc_tl.methods.settings import FitSettings
from lrc_tl.methods.training_activations import TrainingActivations
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import KnownPrompts
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation import Relation
from lrc_tl.tuning.selection import default_layers


class Unit:
    """Everything that variants of methods share on one relation and seed."""

    def __init__(
        self,
        model: HookedModel,
        relation: Relation,
        seed: int,
        *,
        settings: ExperimentSettings,
        others: Sequence[Relation],
        backgrounds: Backgrounds,
    ) -> None:
        self.model, self.relation, self.seed, self.settings = model, relation, seed, settings
        self.others, self.backgrounds = others, backgrounds
        self.held_out: tuple[str, ...] = ()
        """Subjects that no statistics of subjects may hold."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Adds the seconds of its block to the stage's."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def background(self, layers: Sequence[int], *, random_seed: int | None = None) -> SubjectStatistics:
        """How subjects vary at these layers (none: those that are tried by default), without those of the test."""
        with self.clock("statistics"):
            layers = layers or default_layers(self.model)[0]
            return self.backgrounds.at(self.model, layers, without=self.held_out, random_seed=random_seed)

    def fitted(
        self,
        variants: Sequence[MethodVariant],
        known: KnownPrompts,
        training: TrainingActivations,
        *,
        max_lre_prompts: int,
        random_seed: int | None = None,
        unfit: dict[str, str] | None = None,
    ) -> dict[str, FittedMethod]:
        """The directions of each variant, by its name; `unfit` as in `fit_methods`."""
        solver, background = solver_named(self.settings.solver), None
        ranks = [variant.rank for variant in variants if variant.rank is not None] or self.settings.ranks
        if isinstance(solver, LowRank) and ranks:
            solver = LowRank(rank=max(ranks))  # for methods that have no rank of their own too
        if layers := dual_layers(variants):
            background = self.background(layers, random_seed=random_seed)
        return fit_methods(
            self.model,
            variants,
            known,
            training,
            settings=FitSettings(
                max_lre_prompts=max_lre_prompts,
                solver=solver,
                noise=self.settings.noise,
                background=background,
            ),
            relation=self.relation.name,
            seed=self.seed,
            unfit=unfit,
        )

    def edits(self, prompts: Sequence[Prompt], objects: Collection[str]) -> tuple[Edit, ...]:
        """Edits of those prompts whose object has a direction; none where fewer than two objects are left.

        All methods have the same objects: those of the known training prompts.
        """
        usable = [prompt for prompt in prompts if prompt.object in objects]
        if len({prompt.object for prompt in usable}) < 2:
            return ()
        return counterfactual_edits(usable, seed=self.seed)

    def curves(
        self,
        edits: Sequence[Edit],
        differences: Mapping[str, Tensor],
        *,
        betas: Sequence[float],
        layers: LayersGiven | None = None,
        generated: bool = True,
        clean: Tensor | None = None,
    ) -> dict[str, tuple[CausalityResult, ...]]:
        """`causality_curves` of all methods at once."""
        return causality_curves(
            self.model,
            edits,
            differences,
            betas=betas,
            layers=layers,
            generated=generated,
            clean=clean,
            progress=False,
        )

    def statements(
        self, edits: Sequence[Edit], *, n: int
    ) -> tuple[tuple[EditedStatement, ...], tuple[EditedStatement, ...]]:
        """The (edit, statement) pairs of `side_effect_statements`: unrelated ones, and on the same subject."""
        return side_effect_statements(self.model, self.relation, edits, self.others, n=n, seed=self.seed)

    def effects(
        self,
        statements: Sequence[EditedStatement],
        differences: Mapping[str, Tensor],
        *,
        betas: Sequence[float],
        layers: LayersGiven | None = None,
    ) -> dict[str, tuple[SideEffects, ...]]:
        """`side_effects` of all methods at once."""
        return side_effects(self.model, statements, differences, betas=betas, layers=layers, progress=False)
