"""ConceptDirection: a linear probe and a steering hook in one."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.no_booleans import no_booleans
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.calibration import Knots, interpolated
from lrc_tl.directions.pooling import Pooling
from lrc_tl.directions.token_scores import TokenScores, decoded
from lrc_tl.errors import unprintable
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, hook_layer, require_hook
from lrc_tl.passes.batches import kept_residuals, whole_text_ids
from lrc_tl.relations.special_tokens import special_ids
from lrc_tl.steering.operations import Add, Amount, Clamp, Operation, Reflect, Unit
from lrc_tl.steering.places import Where
from lrc_tl.steering.steering import Gate, Hook, Schedule, Steering


@no_booleans
@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptDirection(Pooling):
    """The unit vector along which a model holds `relation` -> `object_name`; it reads and it writes.

    Raises:
        ValueError: it is not one finite vector of unit length in float32 or wider, a threshold or calibration is
            not finite, or a name holds control characters.
    """

    vector: Float[Tensor, " d_model"]
    """Unit L2 norm, float32 or wider."""
    relation: str
    object_name: str
    hook_name: str
    """Where it was trained and where it acts, e.g. `"blocks.6.hook_resid_post"`."""
    method: str = "lrc"
    """How it was made: `"lrc"`, or the name of a baseline."""
    norm: float | None = None
    """Length before scaling; None: not recorded."""
    offset: float = 0.0
    """Subtracted from the projection to give the score: 0, or what `ConceptSet.centred` found."""
    threshold: float | None = None
    """Score above which `predict` says yes; None: not calibrated."""
    slope: float | None = None
    intercept: float | None = None
    """`probability` is `sigmoid(slope * score + intercept)`; None: it is not."""
    knots: Knots | None = None
    """`probability` is linear between these (score, probability) pairs and constant outside; None: it is not."""
    fingerprint: ModelFingerprint | None = None
    """The model that it was made on, checked whenever it is used on one; None: not recorded."""

    def __post_init__(self) -> None:
        for field in ("relation", "object_name", "method", "hook_name"):
            if unprintable(getattr(self, field)):
                raise ValueError(
                    f"the {field} of a direction, {getattr(self, field)!r}, holds a control character or half of "
                    "a surrogate pair, which tables and files cannot show; take it out"
                )
        if self.vector.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the direction of {self.object_name!r} is {self.vector.dtype}; it must be float32 or float64; "
                "use from_unscaled"
            )
        if self.vector.ndim != 1:
            raise ValueError(
                f"the direction of {self.object_name!r} has the shape {tuple(self.vector.shape)}; it must be one "
                "vector"
            )
        norm = float(self.vector.norm())
        if not abs(norm - 1) < 1e-4:
            raise ValueError(f"the direction of {self.object_name!r} has norm {norm}; it must be a unit vector")
        if self.offset is None or not math.isfinite(self.offset):
            raise ValueError(f"the offset of {self.object_name!r} is {self.offset}; it must be a finite number")
        for name in ("norm", "threshold", "slope", "intercept"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"the {name} of {self.object_name!r} is {value}; it must be a finite number")
        if (self.slope is None) != (self.intercept is None):
            raise ValueError("a calibration needs both slope and intercept, or neither")
        if self.knots is not None:
            _check_knots(self.knots)
            if self.slope is not None:
                raise ValueError("a calibration is either slope and intercept, or knots; both are given")

    @classmethod
    def from_unscaled(
        cls,
        vector: Float[Tensor, " d_model"],
        *,
        relation: str,
        object_name: str,
        hook_name: str,
        method: str = "lrc",
        fingerprint: ModelFingerprint | None = None,
    ) -> "ConceptDirection":
        """A direction from a vector of any length but zero, scaled in float32 or wider; `norm` keeps its length.

        Raises:
            ValueError: the vector is zero or not finite.
        """
        wide = vector.to(torch.promote_types(vector.dtype, torch.float32))
        norm = float(wide.norm())
        if not (math.isfinite(norm) and norm > 0):
            raise ValueError(f"the vector for {object_name!r} has norm {norm}; it must be finite and not zero")
        return cls(
            vector=wide / wide.norm(),
            relation=relation,
            object_name=object_name,
            hook_name=hook_name,
            method=method,
            norm=norm,
            fingerprint=fingerprint,
        )

    @property
    def layer(self) -> int:
        """Layer of the hook point."""
        return hook_layer(self.hook_name)

    @checked
    def score(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Dot product with the direction less `offset`, in residual-stream units; in the dtype of `vector`.

        Raises:
            ValueError: the activations are of another width.
        """
        require_width(resid, self.vector)
        scores: Tensor = resid.to(self.vector) @ self.vector - self.offset
        return scores

    def _token_scores(self, resid: Tensor) -> Tensor:
        scores: Tensor = self.score(resid)
        return scores

    @no_booleans
    def calibrated(
        self,
        *,
        threshold: float,
        slope: float | None = None,
        intercept: float | None = None,
        knots: Knots | None = None,
    ) -> "ConceptDirection":
        """The same direction with a threshold for `predict`, and for `probability` slope and intercept, or knots.

        Raises:
            ValueError: a number is not finite, only one of slope and intercept is given, or they and knots; scores
                of knots that do not grow, or probabilities outside 0 to 1.
        """
        return replace(self, threshold=float(threshold), slope=slope, intercept=intercept, knots=knots)

    @checked
    def predict(self, resid: Float[Tensor, "*batch d_model"]) -> Bool[Tensor, "*batch"]:
        """Whether the score lies above the threshold.

        Raises:
            ValueError: the direction has no threshold.
        """
        if self.threshold is None:
            raise ValueError(
                f"the direction of {self.object_name!r} has no threshold; use `.calibrated(threshold=...)`, or "
                "`score` for the number itself"
            )
        fires: Tensor = self.score(resid) > self.threshold
        return fires

    @checked
    def probability(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """How likely it is that the concept is there, from the calibration of the score.

        Raises:
            ValueError: the direction is not calibrated.
        """
        probabilities: Tensor = self.probability_at(self.score(resid))
        return probabilities

    @checked
    def probability_at(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`probability` from scores: `sigmoid(slope * score + intercept)`, or linear between the knots.

        Raises:
            ValueError: the direction is not calibrated.
        """
        if self.knots is not None:
            return interpolated(scores, self.knots)
        if self.slope is None or self.intercept is None:
            raise ValueError(
                f"the direction of {self.object_name!r} has no calibration; use `ConceptSet.calibrate`, or "
                "`.calibrated(threshold=..., slope=..., intercept=...)`"
            )
        probabilities: Tensor = torch.sigmoid(self.slope * scores + self.intercept)
        return probabilities

    def read(self, model: HookedModel, text: str) -> TokenScores:
        """The score of every token of `text`, special tokens included and marked.

        Raises:
            FingerprintMismatch: the direction was made on another model.
            LookupError: the model has no such hook point.
            ValueError: `text` is empty or fills the model's context, the model is of another width, or its
                residuals are not finite.
        """
        if not text.strip():
            raise ValueError("the text is empty; give at least one word")
        self.require_model(model)
        ids = whole_text_ids(model, text)
        kept = kept_residuals(model, [ids], [self.hook_name], read=lambda _, residual: residual[0].detach())
        scores = self.score(kept[self.hook_name])
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(f"the residuals at {self.hook_name} are not finite; load the model in float32")
        special = special_ids(model.tokenizer)
        return TokenScores(
            label=f"{self.relation}: {self.object_name} at {self.hook_name}",
            tokens=decoded(model.tokenizer, torch.tensor(ids)),
            scores=scores.cpu(),
            special=tuple(place for place, token in enumerate(ids) if token in special),
        )

    def require_model(self, model: HookedModel) -> None:
        """Check that the direction means something on this model.

        Raises:
            FingerprintMismatch: it was made on another model.
            LookupError: the model has no such hook point.
            ValueError: the model is of another width.
        """
        # First, since it says the most about what is wrong.
        if self.fingerprint is not None:
            what = f"the direction of {self.object_name!r} was made"
            self.fingerprint.require_model(model, what=what)
        require_hook(model, self.hook_name)
        if self.vector.shape[0] != model.cfg.d_model:
            raise ValueError(
                f"the direction of {self.object_name!r} has width {self.vector.shape[0]}, but the model's "
                f"d_model is {model.cfg.d_model}; use it on the model that it was made on"
            )

    def _steering(self, operation: Operation) -> Steering:
        return Steering(operation=operation, hook_name=self.hook_name, fingerprint=self.fingerprint)

    @no_booleans
    def add(self, *, strength: Amount, unit: Unit = "share") -> Steering:
        """Steering that adds the direction: `strength` is a share of `|h|`, or residual-stream units.

        Raises:
            ValueError: `strength` is not finite.
        """
        return self._steering(Add(vector=self.vector, strength=strength, unit=unit))

    @no_booleans
    def clamp(self, *, value: Amount) -> Steering:
        """Steering that sets the score to `value`.

        Raises:
            ValueError: `value` is not finite.
        """
        projection = value + self.offset if self.offset else value
        return self._steering(Clamp(vector=self.vector, value=projection))

    def ablate(self) -> Steering:
        """Steering that projects the direction out, whatever the offset of its score."""
        return self._steering(Clamp(vector=self.vector, value=0.0))

    def reflect(self) -> Steering:
        """Steering that turns the sign of the projection, whatever the offset of the score."""
        return self._steering(Reflect(vector=self.vector))

    @no_booleans
    def gate(self, *, threshold: float | None = None, above: bool = True) -> Gate:
        """A condition for steering: only where the score lies above (or below) `threshold`, by default its own.

        Raises:
            ValueError: no threshold is given and the direction has none.
        """
        used = self.threshold if threshold is None else threshold
        if used is None:
            raise ValueError(
                f"the direction of {self.object_name!r} has no threshold; give one, or use `.calibrated(...)`"
            )
        return Gate(vector=self.vector, hook_name=self.hook_name, threshold=used + self.offset, above=above)

    @no_booleans
    def hook(self, *, strength: float, unit: Unit = "share") -> tuple[str, Hook]:
        """`(hook_name, fn)` that adds the direction at every position that it sees.

        It acts on beginning-of-sequence tokens and on padding too: a plain hook cannot know where it stands.
        `steer` leaves them alone.

        Raises:
            ValueError: `strength` is not finite.
        """
        return self.hook_name, self.add(strength=strength, unit=unit).everywhere

    @no_booleans
    def steer(
        self,
        model: HookedModel,
        *,
        strength: Amount,
        unit: Unit = "share",
        where: Where = "all",
        bos: bool = False,
        layers: Literal["own", "all"] | Sequence[int] = "own",
        when: Schedule | None = None,
    ) -> AbstractContextManager[None]:
        """The direction is added inside the block and not outside, whatever happens.

        `strength` is a share of `|h|` at each position, or residual-stream units; one number, or a tensor with one
        for each row. Beginning-of-sequence tokens, unless asked for, and padding are left alone. Right in
        `generate` with and without a key-value cache. Other operations: `clamp`, `ablate`, `reflect`.

        Raises:
            FingerprintMismatch: the direction was made on another model.
            LookupError: the model has no such hook point.
            ValueError: `strength` is not finite, the model is of another width, or the place does not exist.
        """
        steering = self.add(strength=strength, unit=unit)
        return steering.at(where=where, bos=bos, layers=layers, when=when).on(model)


def require_width(acts: Tensor, vectors: Tensor) -> None:
    """Raise ValueError unless the activations are as wide as the vectors."""
    if acts.shape[-1] != vectors.shape[-1]:
        raise ValueError(
            f"the activations have width {acts.shape[-1]}, the directions {vectors.shape[-1]}; they must be equal"
        )


def _check_knots(knots: Knots) -> None:
    scores, probabilities = [score for score, _ in knots], [share for _, share in knots]
    grow = all(low < high for low, high in pairwise(scores))
    if not knots or not grow or not all(map(math.isfinite, scores)) or not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(
            "the knots of a calibration must be pairs of growing, finite scores and probabilities from 0 to 1; "
            f"given are {knots[:3]}..."
        )
