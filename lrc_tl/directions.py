"""ConceptSet: the directions of one relation, to classify with, to swap one for another, and to keep in a file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

from lrc_tl.activations import subject_activations
from lrc_tl.artifacts import ArtifactError, read_artifact, required, write_artifact
from lrc_tl.calibration import Criterion, best_threshold
from lrc_tl.concept_direction import ConceptDirection
from lrc_tl.edits import Amount, Swap
from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.models import HookedModel
from lrc_tl.positions import hook_layer, last_subject_token
from lrc_tl.prompts import Prompt
from lrc_tl.steering import Steering

__all__ = ["ConceptDirection", "ConceptSet"]

_KIND = "concepts"
_SAVED = ("relation", "method", "norm", "threshold", "slope", "intercept")


class ConceptSet(Mapping[str, ConceptDirection]):
    """Directions of one relation by object; iteration follows the order in which they were given.

    Raises:
        ValueError: no directions, or directions of different hook points, widths, dtypes, devices or models.
    """

    def __init__(
        self, directions: Mapping[str, ConceptDirection], *, settings: Mapping[str, Any] | None = None
    ) -> None:
        names = {direction.hook_name for direction in directions.values()}
        if len(names) != 1:
            raise ValueError(f"a set needs directions of one hook point; given are {sorted(names) or 'none'}")
        kinds = {f"width {d.vector.shape[0]}, {d.vector.dtype}, {d.vector.device}" for d in directions.values()}
        if len(kinds) != 1:
            raise ValueError(f"a set needs directions of one width, dtype and device; given are {sorted(kinds)}")
        fingerprints = [direction.fingerprint for direction in directions.values()]
        if any(fingerprint != fingerprints[0] for fingerprint in fingerprints):
            raise ValueError("a set needs directions of one model; given are directions of several")
        self._directions = dict(directions)
        self.hook_name = names.pop()
        self.settings = dict(settings or {})
        """What made the set (rank, seed, layers, the prompts' hash ...), as JSON values; kept in its file."""

    def __getitem__(self, object_name: str) -> ConceptDirection:
        if object_name not in self._directions:
            near = get_close_matches(object_name, self._directions, n=3)
            hint = f"near names: {', '.join(near)}" if near else f"there are {', '.join(self._directions)}"
            raise KeyError(f"no concept {object_name!r}; {hint}")
        return self._directions[object_name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._directions)

    def __len__(self) -> int:
        return len(self._directions)

    def __repr__(self) -> str:
        return f"ConceptSet({self.relation!r}, {len(self)} concepts at {self.hook_name}: {', '.join(self)})"

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
        """All directions, one a row."""
        return torch.stack([direction.vector for direction in self._directions.values()])

    @jaxtyped(typechecker=beartype)
    def scores(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch concept"]:
        """Scores of every concept, in the order of the set (arXiv:2311.08968, eq. 6).

        Raises:
            ValueError: the activations are empty or not finite.
        """
        if acts.numel() == 0:
            raise ValueError("there are no activations; give at least one row")
        if not bool(torch.isfinite(acts).all()):
            raise ValueError("the activations are not finite; load the model in float32")
        vectors = self.vectors
        scores: Tensor = acts.to(vectors) @ vectors.T
        return scores

    def similarity(self) -> Float[Tensor, "concept concept"]:
        """Cosines between the directions."""
        vectors = self.vectors
        cosines: Tensor = vectors @ vectors.T
        return cosines

    def calibrate(
        self,
        acts: Float[Tensor, "sample d_model"],
        objects: Sequence[str],
        *,
        by: Criterion = "balanced_accuracy",
    ) -> "ConceptSet":
        """The same set with a threshold for every concept: the best at telling its own samples from the others.

        Give held-out activations and the object of each.

        Raises:
            ValueError: not one object an activation, or a concept without samples of both kinds.
        """
        if len(objects) != acts.shape[0]:
            raise ValueError(f"{len(objects)} objects for {acts.shape[0]} activations; give one each")
        scores = self.scores(acts)
        made = {}
        for column, (name, direction) in enumerate(self.items()):
            positive = torch.tensor([other == name for other in objects], device=scores.device)
            try:
                threshold = best_threshold(scores[:, column], positive, by=by)
            except ValueError as error:
                raise ValueError(f"concept {name!r}: {error}") from error
            made[name] = replace(direction, threshold=threshold)
        return ConceptSet(made, settings=self.settings)

    def classify(self, model: HookedModel, text: str, *, subject: str) -> list[tuple[str, float]]:
        """Objects with their scores, best first, for the last subject token (arXiv:2311.08968, eq. 6).

        Raises:
            FingerprintMismatch: the set was made on another model.
            ValueError: the set has one object only, so there is nothing to choose from.
        """
        if len(self) < 2:
            raise ValueError("a set with one object cannot classify; make concepts from prompts with two or more")
        self.require_model(model)
        prompt = Prompt(text=text, subject=subject, object=next(iter(self)))
        activation = subject_activations(model, [prompt], layer=self.layer)[0]
        scores = self.scores(activation).tolist()
        return sorted(zip(self, scores, strict=True), key=lambda pair: pair[1], reverse=True)

    def swap(
        self, model: HookedModel, *, remove: str, add: str, text: str, subject: str, beta: Amount = 0.1
    ) -> AbstractContextManager[None]:
        """Inside the block one concept stands for another at the last subject token of `text`.

        At every layer `h <- h + beta |h| (v_add - v_remove)` at that position, |h| taken in the edited run
        (arXiv:2311.08968, eq. 7). Every row that is run must begin with `text` up to its subject.

        Raises:
            FingerprintMismatch: the set was made on another model.
            KeyError: no such concept.
            PositionError: the subject is not in the text.
            ValueError: `beta` is not finite; or, while the model runs, another text.
        """
        vectors = self[remove].vector, self[add].vector
        return Steering(
            operation=Swap(remove=vectors[0], add=vectors[1], beta=beta),
            hook_name=self.hook_name,
            layers="all",
            where=last_subject_token(model, text, subject=subject),
            fingerprint=self.fingerprint,
        ).on(model)

    def save(self, path: str | Path) -> None:
        """Write the set to a safetensors file with everything that made it; the file appears whole or not at all.

        Raises:
            ArtifactError: the folder is missing, or `settings` holds something that is not JSON.
        """
        fingerprint = self.fingerprint
        header = {
            "relation": self.relation,
            "hook_name": self.hook_name,
            "layer": self.layer,
            "objects": [
                {"name": name, **{field: getattr(direction, field) for field in _SAVED}}
                for name, direction in self.items()
            ],
            "fingerprint": None if fingerprint is None else fingerprint.to_dict(),
            "settings": self.settings,
        }
        write_artifact(path, kind=_KIND, tensors={"vectors": self.vectors}, header=header)

    @classmethod
    def load(cls, path: str | Path, *, model: HookedModel | None = None) -> "ConceptSet":
        """The set that `save` wrote, bit for bit, on the CPU; checked against `model` where one is given.

        Raises:
            ArtifactError: the file is missing, damaged, changed, or no concept set of a known version.
            FingerprintMismatch: the set was made on another model.
        """
        tensors, header = read_artifact(path, kind=_KIND)
        objects = required(header, "objects", list, path=path)
        vectors = tensors.get("vectors")
        if vectors is None or vectors.ndim != 2 or vectors.shape[0] != len(objects):
            shape = None if vectors is None else tuple(vectors.shape)
            raise ArtifactError(
                f"{path}: vectors of shape {shape} for {len(objects)} objects; it must be one a row"
            )
        if vectors.dtype not in (torch.float32, torch.float64):
            raise ArtifactError(f"{path}: vectors are {vectors.dtype}; they must be float32 or float64")
        try:
            data = header["fingerprint"]
            fingerprint = None if data is None else ModelFingerprint.from_dict(data)
            directions = {
                entry["name"]: ConceptDirection(
                    vector=vector.clone(),
                    object_name=entry["name"],
                    hook_name=header["hook_name"],
                    fingerprint=fingerprint,
                    **{field: entry[field] for field in _SAVED},
                )
                for entry, vector in zip(objects, vectors, strict=True)
            }
            concepts = cls(directions, settings=header["settings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: its header does not describe a set of concepts: {error}") from error
        if model is not None:
            concepts.require_model(model)
        return concepts
