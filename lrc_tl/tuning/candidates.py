"""What `select_settings` chooses from at a pair of layers: ranks of an inverse, or a noise of dual directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.lre.dual import DualFit
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.subject_statistics import SubjectStatistics

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
