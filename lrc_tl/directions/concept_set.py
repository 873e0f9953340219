"""ConceptSet: the directions of one relation, to classify with, to swap one for another, and to keep in a file."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.beta import BETA_KEY, beta_or_stored
from lrc_tl.directions.calibration import (
    Calibration,
    Criterion,
    Missing,
    MulticlassKind,
    ProbabilityKind,
    multiclass_probabilities,
)
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_file import KIND, content_of, file_content
from lrc_tl.directions.displays import Ranking, set_html
from lrc_tl.directions.hub import OnHub
from lrc_tl.directions.linear_probe import LinearProbe
from lrc_tl.directions.probe_metrics import ProbeReport
from lrc_tl.directions.set_calibration import calibrated_set, require_options, set_report
from lrc_tl.directions.subspaces import Subspace
from lrc_tl.directions.writing import swap_of
from lrc_tl.errors import ArtifactError
from lrc_tl.markup.brief import some_of
from lrc_tl.models.chat import Text, as_text
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import text_activation
from lrc_tl.relations.words import as_spelled
from lrc_tl.steering.operations import Amount
from lrc_tl.steering.places import last_subject_token
from lrc_tl.steering.steering import Steering
from lrc_tl.storage.artifacts import read_artifact, write_artifact


class ConceptSet(OnHub, LinearProbe):
    """Directions of one relation by object; iteration follows the order in which they were given.

    Raises:
        ValueError: what `LinearProbe` refuses, a beta among the settings that is no finite number, or a
            calibration of another number of concepts.
    """

    def __init__(
        self,
        directions: Mapping[str, ConceptDirection],
        *,
        settings: Mapping[str, Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(directions)
        self.settings = dict(settings or {})
        """What made the set (rank, seed, layers, the prompts' hash ...) and the beta chosen for it, as JSON
        values; kept in its file."""
        beta_or_stored(None, self.settings)  # refuses what is no beta
        self.calibration = calibration
        """What `calibrate` found; None: not calibrated."""
        weight = None if calibration is None else calibration.weight
        if weight is not None and weight.shape[0] != len(directions):
            raise ValueError(
                f"the calibration is for {weight.shape[0]} concepts, and the set has {len(directions)}"
            )

    def __repr__(self) -> str:
        return f"ConceptSet({self.relation!r}, {len(self)} concepts at {self.hook_name}: {some_of(list(self))})"

    _repr_html_ = set_html

    def subspace(self) -> Subspace:
        """What the reading vectors span, with the singular values that show how far they repeat each other.

        For what the set writes with it is `Subspace.of(concepts.write_vectors, hook_name=concepts.hook_name)`.
        Its rank is the numerical rank of `lrc_tl.directions.orthonormal_basis`, in the dtype of the set.
        """
        return Subspace.of(self.vectors, hook_name=self.hook_name, fingerprint=self.fingerprint)

    @checked
    def centred(self, acts: Float[Tensor, "sample d_model"]) -> "ConceptSet":
        """The same directions with scores counted from those of the mean of `acts`, without a calibration.

        What all subjects share says nothing about which object one has, yet favours directions that happen to lie
        along it. Take the subjects of the training facts' zero-shot prompts; their objects are not needed. The
        ranking of objects changes, and with it `classify`; steering does not, but for the values of `clamp` and
        thresholds, which are scores. Where directions write with another vector, `ablate` and `reflect` go by the
        score too.

        Raises:
            ValueError: the activations are empty, not finite or of another width.
        """
        self.scores(acts)  # refuses what cannot be read
        vectors = self.vectors.double()
        projections = (vectors @ acts.to(vectors).mean(0)).tolist()
        directions = {
            name: replace(direction, offset=direction.scale * projection, calibration=None)
            for (name, direction), projection in zip(self.items(), projections, strict=True)
        }
        return ConceptSet(directions, settings={**self.settings, "centred_on": acts.shape[0]})

    @numbers_checked
    def calibrate(
        self,
        acts: Float[Tensor, "sample d_model"],
        objects: Sequence[str],
        *,
        by: Criterion = "balanced_accuracy",
        rate: float | None = None,
        probabilities: ProbabilityKind = "platt",
        multiclass: MulticlassKind = "temperature",
        missing: Missing = "error",
        n_bins: int = 5,
    ) -> "ConceptSet":
        """The same set with thresholds and probabilities: each concept against the rest, and all together.

        Give held-out activations and the object of each; objects that are not in the set are negatives alone.
        `by` (and `rate`, a false-positive rate) choose the thresholds of `predict`, `probabilities` the map of
        `probability`, `multiclass` that of `probabilities`; see `lrc_tl.directions.calibration`. With
        `missing="skip"` a concept of which no sample is given stays without threshold and `probability`, is listed
        in `calibration.report.left_out`, and still takes part in `probabilities`. `calibration` keeps all of it
        with a report, and `save` writes it.

        Raises:
            ValueError: an unknown option, not one object per activation, a concept without samples of both kinds
                (but see `missing`), no concept with both, a rate without its criterion, or too few samples for
                isotonic regression or for `multiclass`.
        """
        require_options(by=by, probabilities=probabilities, multiclass=multiclass, missing=missing)
        objects = as_spelled(as_tuple(objects, "objects", str), self)
        directions, calibration = calibrated_set(
            self,
            self._checked_scores(acts, objects),
            objects,
            by=by,
            rate=rate,
            probabilities=probabilities,
            multiclass=multiclass,
            missing=missing,
            n_bins=n_bins,
        )
        return ConceptSet(directions, settings=self.settings, calibration=calibration)

    @checked
    def probabilities(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch concept"]:
        """Probabilities over the concepts of the set, which sum to 1; for one against the rest ask its direction.

        In the dtype of `vectors`, computed in float64.

        Raises:
            ValueError: the set is not calibrated or has one concept only, or the activations are empty or not
                finite.
        """
        calibration = self.calibration
        if calibration is None or calibration.weight is None or calibration.bias is None:
            raise ValueError(
                "the set has no probabilities over its concepts; use `.calibrate(acts, objects)` on a set of two "
                "or more"
            )
        scores = self.scores(acts)
        return multiclass_probabilities(scores, calibration.weight, calibration.bias).to(scores)

    @numbers_checked
    def report(
        self, acts: Float[Tensor, "sample d_model"], objects: Sequence[str], *, n_bins: int = 5
    ) -> ProbeReport:
        """How well the set reads activations with these objects: ranking, and its probabilities where calibrated.

        Concepts without samples of both kinds have no metrics; `left_out` lists them.

        Raises:
            ValueError: not one object per activation, or no concept with samples of both kinds.
        """
        objects = as_spelled(as_tuple(objects, "objects", str), self)
        scores = self._checked_scores(acts, objects)
        calibration, shares = self.calibration, None
        if calibration is not None and calibration.weight is not None and calibration.bias is not None:
            shares = multiclass_probabilities(scores, calibration.weight, calibration.bias)
        return set_report(self, scores, objects, shares, n_bins)

    def _checked_scores(self, acts: Tensor, objects: Sequence[str]) -> Tensor:
        if len(objects) != acts.shape[0]:
            raise ValueError(f"{len(objects)} objects for {acts.shape[0]} activations; give one each")
        return self.scores(acts).detach()

    @numbers_checked
    def classify(
        self, model: HookedModel, text: Text, *, subject: str, subject_start: int | None = None
    ) -> Ranking:
        """Objects with their scores, best first, for the last subject token (arXiv:2311.08968, eq. 6).

        The text is run as it is, a chat as `lrc_tl.models.chat_text` puts it. The subject is its last occurrence
        as a whole word, or the one at character `subject_start`.

        Raises:
            FingerprintMismatch: the set was made on another model.
            PositionError: the subject is not in the text.
            ValueError: the set has one object only, so there is nothing to choose from.
        """
        if len(self) < 2:
            raise ValueError("a set with one object cannot classify; make concepts from prompts with two or more")
        self.require_model(model)
        text = as_text(model, text)
        activation = text_activation(model, text, subject=subject, subject_start=subject_start, layer=self.layer)
        scores = self.scores(activation).tolist()
        return Ranking(sorted(zip(self, scores, strict=True), key=lambda pair: pair[1], reverse=True))

    @property
    def beta(self) -> float:
        """The size of this set's swaps if no other is given: what `with_beta` stored, else `DEFAULT_BETA`."""
        return beta_or_stored(None, self.settings)[0]

    @numbers_checked
    def with_beta(self, beta: float) -> "ConceptSet":
        """The same set with the size that its swaps have if no other is given; `save` keeps it.

        For a beta that was chosen for these directions, as `select_settings` does:
        `concepts.with_beta(settings.beta)`.

        Raises:
            ValueError: `beta` is not finite.
        """
        return ConceptSet(
            self._directions, settings={**self.settings, BETA_KEY: float(beta)}, calibration=self.calibration
        )

    @numbers_checked
    def swap(
        self,
        model: HookedModel,
        *,
        remove: str,
        add: str,
        text: Text,
        subject: str,
        subject_start: int | None = None,
        beta: Amount | None = None,
    ) -> AbstractContextManager[None]:
        """Inside the block one concept stands for another at the last subject token: `swap_steering`, on.

        A larger `beta` makes the new object more probable against the old one. Beyond a size, which depends on the
        model, it also breaks what the model says, and the new object is seldom said. None: the set's own `beta`.

        Raises:
            FingerprintMismatch: the set was made on another model.
            KeyError: no such concept.
            PositionError: the subject is not in the text.
            ValueError: `beta` is not finite; or, while the model runs, another text.
        """
        steering = self.swap_steering(
            model, remove=remove, add=add, text=text, subject=subject, subject_start=subject_start, beta=beta
        )
        return steering.on(model)

    @numbers_checked
    def swap_steering(
        self,
        model: HookedModel,
        *,
        remove: str,
        add: str,
        text: Text,
        subject: str,
        subject_start: int | None = None,
        beta: Amount | None = None,
    ) -> Steering:
        """Steering that puts one concept in the place of another at the last subject token of `text`.

        At every layer `h <- h + beta |h| (w_add - w_remove)` at that position (arXiv:2311.08968, eq. 7), with the
        vectors that the two directions write with and |h| as it is in the edited run. Every row that is run must
        begin with `text` up to its subject: the last occurrence of it as a whole word, or the one at character
        `subject_start`.
        Without `beta` it is the set's own: what `with_beta` stored, else `lrc_tl.directions.beta.DEFAULT_BETA`;
        the paper's is 0.1.

        Raises:
            KeyError: no such concept.
            PositionError: the subject is not in the text.
            ValueError: `beta` is not finite.
        """
        return Steering(
            operation=swap_of(self[remove], self[add], beta=self.beta if beta is None else beta),
            hook_name=self.hook_name,
            layers="all",
            where=last_subject_token(model, text, subject=subject, subject_start=subject_start),
            fingerprint=self.fingerprint,
        )

    def save(self, path: str | Path) -> None:
        """Write the set to a safetensors file with everything that made it; the file appears whole or not at all.

        Raises:
            ArtifactError: the folder is missing, or `settings` holds something that is not JSON.
        """
        tensors, header = file_content(self, settings=self.settings, calibration=self.calibration)
        write_artifact(path, kind=KIND, tensors=tensors, header=header)

    @classmethod
    def load(cls, path: str | Path, *, model: HookedModel | None = None) -> "ConceptSet":
        """The set that `save` wrote, bit for bit, on the CPU; checked against `model` where one is given.

        Raises:
            ArtifactError: the file is missing, damaged, changed, or no concept set of a known version.
            FingerprintMismatch: the set was made on another model.
        """
        tensors, header = read_artifact(path, kind=KIND)
        try:
            directions, settings, calibration = content_of(tensors, header)
            concepts = cls(directions, settings=settings, calibration=calibration)
        except ValueError as error:
            raise ArtifactError(f"{path}: its header does not describe a set of concepts: {error}") from error
        if model is not None:
            concepts.require_model(model)
        return concepts
