"""ConceptDirection: a linear probe and a steering hook in one."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.typechecking import checked
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
from lrc_tl.directions.score_calibration import Knots, ScoreCalibration
from lrc_tl.directions.token_scores import TokenScores, token_scores
from lrc_tl.errors import unprintable
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, hook_layer, require_hook
from lrc_tl.numerics.precision import wide_of
from lrc_tl.steering.operations import Add, Amount, Clamp, Operation, Reflect, Unit
from lrc_tl.steering.places import Where
from lrc_tl.steering.steering import Gate, Hook, Schedule, Steering


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptDirection:
    """The unit vector along which a model holds `relation` -> `object_name`; it reads and it writes.

    Raises:
        ValueError: it is not one finite vector of unit length in float32 or wider, norm or offset is not finite,
            or a name holds control characters.
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
    calibration: ScoreCalibration | None = None
    """What `predict` and `probability` make of the score; None: not calibrated."""
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
        if self.norm is not None and not math.isfinite(self.norm):
            raise ValueError(f"the norm of {self.object_name!r} is {self.norm}; it must be a finite number")

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
        wide = wide_of(vector)
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

    @property
    def threshold(self) -> float | None:
        """Score above which `predict` says yes; None: not calibrated."""
        return None if self.calibration is None else self.calibration.threshold

    @checked
    def score(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Dot product with the direction less `offset`, in residual-stream units; in the dtype of `vector`.

        Raises:
            ValueError: the activations are of another width.
        """
        require_width(acts, self.vector)
        return acts.to(self.vector) @ self.vector - self.offset

    @numbers_checked
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
        try:
            calibration = ScoreCalibration(
                threshold=float(threshold), slope=slope, intercept=intercept, knots=knots
            )
        except ValueError as error:
            raise ValueError(f"the calibration of {self.object_name!r}: {error}") from error
        return replace(self, calibration=calibration)

    @checked
    def predict(self, acts: Float[Tensor, "*batch d_model"]) -> Bool[Tensor, "*batch"]:
        """Whether the score lies above the threshold.

        Raises:
            ValueError: the direction has no threshold.
        """
        if self.calibration is None:
            raise ValueError(
                f"the direction of {self.object_name!r} has no threshold; use `.calibrated(threshold=...)`, or "
                "`score` for the number itself"
            )
        return self.calibration.fires(self.score(acts))

    @checked
    def probability(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """How likely it is that the concept is there, from the calibration of the score.

        Raises:
            ValueError: the direction is not calibrated.
        """
        if self.calibration is None or not self.calibration.has_probability:
            raise ValueError(
                f"the direction of {self.object_name!r} has no calibration; use `ConceptSet.calibrate`, or "
                "`.calibrated(threshold=..., slope=..., intercept=...)`"
            )
        return self.calibration.probability(self.score(acts))

    def read(self, model: HookedModel, text: str) -> TokenScores:
        """The score of every token of `text`, special tokens included and marked.

        Raises:
            FingerprintMismatch: the direction was made on another model.
            LookupError: the model has no such hook point.
            ValueError: `text` is empty or fills the model's context, the model is of another width, or its
                residuals are not finite.
        """
        label = f"{self.relation}: {self.object_name} at {self.hook_name}"
        return token_scores(self, self.score, model, text, label=label)

    def pool(
        self,
        acts: Float[Tensor, "batch pos d_model"],
        *,
        by: Pool,
        mask: TokenMask | None = None,
        positions: Positions | None = None,
    ) -> Float[Tensor, " batch"]:
        """One score per row of stored residuals; options, units and errors are those of `pooling.pool_acts`."""
        return pool_acts(self.score, acts, by=by, mask=mask, positions=positions)

    def pool_cache(
        self,
        cache: SupportsHookNames,
        *,
        by: Pool,
        mask: TokenMask | None = None,
        positions: Positions | None = None,
    ) -> Float[Tensor, " batch"]:
        """`pool` of what a cache of `run_with_cache` (or a plain dict) holds at the hook point: `cached_acts`."""
        return self.pool(cached_acts(cache, self.hook_name), by=by, mask=mask, positions=positions)

    def pool_texts(
        self,
        model: HookedModel,
        texts: Sequence[str],
        *,
        by: Pool,
        subjects: Sequence[str] | None = None,
        bos: bool = False,
    ) -> Float[Tensor, " text"]:
        """One score per text; options and errors are those of `pooling.pool_texts`."""
        return pool_texts(self, self.score, model, texts, by=by, subjects=subjects, bos=bos)

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

    @numbers_checked
    def add(self, *, strength: Amount, unit: Unit = "share") -> Steering:
        """Steering that adds the direction: `strength` is a share of `|h|`, or residual-stream units.

        Raises:
            ValueError: `strength` is not finite.
        """
        return self._steering(Add(vector=self.vector, strength=strength, unit=unit))

    @numbers_checked
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

    @numbers_checked
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

    @numbers_checked
    def hook(self, *, strength: float, unit: Unit = "share") -> tuple[str, Hook]:
        """`(hook_name, fn)` that adds the direction at every position that it sees.

        It acts on beginning-of-sequence tokens and on padding too: a plain hook cannot know where it stands.
        `steer` leaves them alone.

        Raises:
            ValueError: `strength` is not finite.
        """
        return self.hook_name, self.add(strength=strength, unit=unit).everywhere

    @numbers_checked
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
