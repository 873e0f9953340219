"""Directions of one kind as one linear probe: their vectors, and the scores of activations and texts."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.near_names import near_names
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.pooling import (
    Pool,
    Positions,
    SupportsHookNames,
    TokenMask,
    cached_acts,
    pool_acts,
    pool_texts,
)
from lrc_tl.directions.probe import require_width
from lrc_tl.directions.token_scores import ConceptScores, scores_of_texts
from lrc_tl.directions.writing import writing_vector
from lrc_tl.models.chat import Text
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, hook_layer
from lrc_tl.numerics.precision import HOST
from lrc_tl.relations.words import same_name


class LinearProbe(Mapping[str, ConceptDirection]):
    """Directions by object, all at one hook point of one model, in the order in which they were given.

    An object is found under each spelling that `same_name` counts as the same.

    Raises:
        ValueError: no directions, one under another name than its object, one object in two spellings, or
            directions of different hook points, widths, dtypes, devices or models.
    """

    def __init__(self, directions: Mapping[str, ConceptDirection]) -> None:
        for name, direction in directions.items():
            if name != direction.object_name:
                raise ValueError(
                    f"the direction of {direction.object_name!r} was given as {name!r}; a set names "
                    "directions by their objects"
                )
        spellings: dict[str, str] = {}
        for name in directions:
            if (other := spellings.setdefault(same_name(name), name)) != name:
                raise ValueError(
                    f"{other!a} and {name!a} are one object in two spellings; make one direction from the prompts "
                    "of both"
                )
        hook_names = {direction.hook_name for direction in directions.values()}
        if len(hook_names) != 1:
            given = sorted(hook_names) or "none"
            raise ValueError(f"a set needs directions of one hook point; given are {given}")
        kinds = {f"width {d.vector.shape[0]}, {d.vector.dtype}, {d.vector.device}" for d in directions.values()}
        if len(kinds) != 1:
            raise ValueError(f"a set needs directions of one width, dtype and device; given are {sorted(kinds)}")
        fingerprints = [direction.fingerprint for direction in directions.values()]
        if any(fingerprint != fingerprints[0] for fingerprint in fingerprints):
            raise ValueError("a set needs directions of one model; given are directions of several")
        self._directions = dict(directions)
        self._spellings = spellings
        self.hook_name = hook_names.pop()

    def __getitem__(self, object_name: str) -> ConceptDirection:
        if object_name not in self._directions and isinstance(object_name, str):
            object_name = self._spellings.get(same_name(object_name), object_name)
        if object_name not in self._directions:
            near = near_names(object_name, self._directions)
            hint = f"near names: {', '.join(near)}" if near else f"there are {', '.join(self._directions)}"
            raise KeyError(f"no concept {object_name!r}; {hint}")
        return self._directions[object_name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._directions)

    def __len__(self) -> int:
        return len(self._directions)

    @property
    def relation(self) -> str:
        """Name of the relation; of the first direction, where they differ."""
        return next(iter(self._directions.values())).relation

    @property
    def layer(self) -> int:
        """Layer of the hook point."""
        return hook_layer(self.hook_name)

    @property
    def fingerprint(self) -> ModelFingerprint | None:
        """The model that the set was made on; None: not recorded."""
        return next(iter(self._directions.values())).fingerprint

    def require_model(self, model: HookedModel) -> None:
        """`ConceptDirection.require_model` for the set."""
        next(iter(self._directions.values())).require_model(model)

    @property
    def vectors(self) -> Float[Tensor, "concept d_model"]:
        """All reading vectors, one per row."""
        return torch.stack([direction.vector for direction in self._directions.values()])

    @property
    def write_vectors(self) -> Float[Tensor, "concept d_model"]:
        """All writing vectors, one per row; those that read, where a direction has no other."""
        return torch.stack([writing_vector(direction) for direction in self._directions.values()])

    def similarity(self) -> Float[Tensor, "concept concept"]:
        """Cosines between the vectors that the directions read with."""
        vectors = self.vectors
        return vectors @ vectors.T

    def similarity_frame(self) -> pd.DataFrame:
        """`similarity` with the objects as index and columns."""
        return pd.DataFrame(self.similarity().cpu().numpy(), index=list(self), columns=list(self))

    def read(self, model: HookedModel, text: Text) -> ConceptScores:
        """The score of every concept for every token of `text`, special tokens included and marked.

        Raises:
            FingerprintMismatch: the set was made on another model.
            LookupError: the model has no such hook point.
            ValueError: `text` is empty or fills the model's context, the model is of another width, or its
                residuals are not finite.
        """
        return self.read_texts(model, [text], progress=False)[0]

    def read_texts(
        self, model: HookedModel, texts: Sequence[Text], *, progress: bool = True
    ) -> tuple[ConceptScores, ...]:
        """`read` of several texts, from few passes.

        Raises:
            FingerprintMismatch, LookupError, ValueError: as `read`.
        """
        label = f"{self.relation} at {self.hook_name}"
        return tuple(
            ConceptScores(label=label, tokens=tokens, concepts=tuple(self), scores=scores, special=special)
            for tokens, scores, special in scores_of_texts(self, self.scores, model, texts, progress=progress)
        )

    @checked
    def scores(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch concept"]:
        """Scores of every concept, in the order of the set (arXiv:2311.08968, eq. 6).

        Raises:
            ValueError: the activations are empty, not finite or of another width.
        """
        if acts.numel() == 0:
            raise ValueError("there are no activations; give at least one row")
        if not bool(torch.isfinite(acts).all()):
            raise ValueError("the activations are not finite; load the model in float32")
        vectors = self.vectors
        require_width(acts, vectors)
        offsets = torch.tensor([direction.offset for direction in self.values()], dtype=torch.float64, device=HOST)
        projections = acts.to(vectors) @ vectors.T
        scales = torch.tensor([direction.scale for direction in self.values()], dtype=torch.float64, device=HOST)
        if bool((scales != 1).any()):
            projections = projections * scales.to(vectors)
        return projections - offsets.to(vectors)

    def pool(
        self,
        acts: Float[Tensor, "batch pos d_model"],
        *,
        by: Pool,
        mask: TokenMask | None = None,
        positions: Positions | None = None,
    ) -> Float[Tensor, " batch concept"]:
        """Scores per row of stored residuals; options, units and errors are those of `pooling.pool_acts`."""
        return pool_acts(self.scores, acts, by=by, mask=mask, positions=positions)

    def pool_cache(
        self,
        cache: SupportsHookNames,
        *,
        by: Pool,
        mask: TokenMask | None = None,
        positions: Positions | None = None,
    ) -> Float[Tensor, " batch concept"]:
        """`pool` of what a cache of `run_with_cache` (or a plain dict) holds at the hook point: `cached_acts`."""
        return self.pool(cached_acts(cache, self.hook_name), by=by, mask=mask, positions=positions)

    def pool_texts(
        self,
        model: HookedModel,
        texts: Sequence[Text],
        *,
        by: Pool,
        subjects: Sequence[str] | None = None,
        bos: bool = False,
        progress: bool = True,
    ) -> Float[Tensor, " text concept"]:
        """Scores per text; options and errors are those of `pooling.pool_texts`."""
        return pool_texts(self, self.scores, model, texts, by=by, subjects=subjects, bos=bos, progress=progress)
