"""What `select_settings` chooses from at a pair of layers: ranks, a noise of dual directions, or whole sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.lre.dual import DualFit
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.methods.fitting import fit_methods
from lrc_tl.methods.method import Method, method_variants
from lrc_tl.methods.settings import FitSettings
from lrc_tl.methods.training_activations import training_activations
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.passes.known_prompts import KnownPrompts
from lrc_tl.relations.prompts import Prompt

Pair: TypeAlias = tuple[int, int]
Lres: TypeAlias = Mapping[Pair, LinearRelationalEmbedding]


class Candidates(Protocol):
    """Sets of directions at each pair of layers, by the value of what they differ in."""

    @property
    def name(self) -> Literal["rank", "noise"]:
        """What they differ in."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """Subject and object layers."""

    @property
    def objects(self) -> Sequence[str]:
        """The objects that directions are made for; one for each training prompt."""

    def values(self, pair: Pair) -> list[float]:
        """What can be had at a pair of layers; nothing where its LRE is zero."""

    def concepts(self, pair: Pair, value: float) -> ConceptSet:
        """The directions of one candidate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankCandidates:
    """Method `lrc` at several ranks; those above the numerical rank of an LRE count as that."""

    lres: Lres
    object_acts: Mapping[int, Tensor]
    """By object layer, one row per prompt."""
    objects: list[str]
    """The name of each row's object."""
    ranks: Sequence[int]
    name: Literal["rank"] = "rank"

    @property
    def pairs(self) -> Sequence[Pair]:
        """Subject and object layers."""
        return list(self.lres)

    def values(self, pair: Pair) -> list[float]:
        """The ranks that the LRE of the pair has."""
        limit = self.lres[pair].numerical_rank
        return sorted({min(rank, limit) for rank in self.ranks}) if limit else []

    def concepts(self, pair: Pair, value: float) -> ConceptSet:
        """The directions at a rank."""
        return self.lres[pair].concepts_from_activations(self.object_acts[pair[1]], self.objects, rank=int(value))


@dataclass(frozen=True, kw_only=True, eq=False)
class DualCandidates:
    """Method `lrc-map`, at each pair with the one noise that reads left-out training prompts best."""

    lres: Lres
    object_acts: Mapping[int, Tensor]
    """By object layer, one row per prompt."""
    objects: list[str]
    """The name of each row's object."""
    subject_acts: Mapping[int, Tensor]
    """By subject layer, one row per prompt without its examples."""
    background: SubjectStatistics
    noises: Sequence[float]
    name: Literal["noise"] = "noise"
    _fits: dict[Pair, DualFit] = field(default_factory=dict)

    @property
    def pairs(self) -> Sequence[Pair]:
        """Subject and object layers."""
        return list(self.lres)

    def values(self, pair: Pair) -> list[float]:
        """The noise chosen for the pair; one that is given alone is kept."""
        if not self.lres[pair].numerical_rank:
            return []
        if len(self.noises) == 1:
            return list(self.noises)
        choice = self._fit(pair).choose_noise(
            self.object_acts[pair[1]], self.objects, self.subject_acts[pair[0]], noises=self.noises
        )
        return [choice.noise]

    def concepts(self, pair: Pair, value: float) -> ConceptSet:
        """The directions with a noise."""
        return self._fit(pair).concepts(
            self.object_acts[pair[1]], self.objects, self.subject_acts[pair[0]], noise=value
        )

    def _fit(self, pair: Pair) -> DualFit:
        if pair not in self._fits:
            self._fits[pair] = DualFit.of(self.lres[pair], self.background[pair[0]], noise=min(self.noises))
        return self._fits[pair]


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeCandidates:
    """A method that has nothing to choose at a pair of layers, such as `lrc-map-combined` with its own noise."""

    made: Mapping[Pair, ConceptSet]
    objects: list[str]
    noise: float
    name: Literal["noise"] = "noise"

    @property
    def pairs(self) -> Sequence[Pair]:
        """Subject and object layers."""
        return list(self.made)

    def values(self, pair: Pair) -> list[float]:
        """The method's noise."""
        return [self.noise]

    def concepts(self, pair: Pair, value: float) -> ConceptSet:
        """The directions of the pair."""
        return self.made[pair]


def rank_candidates(
    model: HookedModel, lres: Lres, prompts: Sequence[Prompt], ranks: Sequence[int]
) -> RankCandidates:
    """Of `lrc`, from the known training prompts."""
    object_layers = sorted({object_layer for _, object_layer in lres})
    return RankCandidates(
        lres=lres,
        object_acts=prompt_activations(model, prompts, object_layers=object_layers).object,
        objects=[prompt.object for prompt in prompts],
        ranks=ranks,
    )


def dual_candidates(
    model: HookedModel,
    lres: Lres,
    prompts: Sequence[Prompt],
    background: SubjectStatistics,
    noises: Sequence[float],
) -> DualCandidates:
    """Of `lrc-map`, from the known training prompts."""
    subject_layers, object_layers = sorted({pair[0] for pair in lres}), sorted({pair[1] for pair in lres})
    plain = [prompt.without_examples() for prompt in prompts]
    return DualCandidates(
        lres=lres,
        object_acts=prompt_activations(model, prompts, object_layers=object_layers).object,
        objects=[prompt.object for prompt in prompts],
        subject_acts=prompt_activations(model, plain, subject_layers=subject_layers).subject,
        background=background,
        noises=noises,
    )


def whole_candidates(
    model: HookedModel,
    known: KnownPrompts,
    method: Method,
    layers: tuple[Sequence[int], Sequence[int]],
    settings: FitSettings,
    *,
    seed: int,
    progress: bool,
) -> WholeCandidates:
    """The method's directions at every pair of subject and object `layers`."""
    variants = method_variants(
        [method.name],
        n_layers=int(model.cfg.n_layers),
        subject_layers=layers[0],
        object_layers=layers[1],
        ranks=[],
    )
    fitted = fit_methods(
        model,
        variants,
        known,
        training_activations(model, variants, known.prompts),
        relation=known.prompts[0].relation,
        seed=seed,
        settings=settings,
        progress=progress,
    )
    assert method.noise is not None
    return WholeCandidates(
        made={
            (of.subject_layer, of.object_layer): fitted[of.name].concepts
            for of in variants
            if of.object_layer is not None
        },
        objects=[prompt.object for prompt in known.prompts],
        noise=method.noise,
    )
