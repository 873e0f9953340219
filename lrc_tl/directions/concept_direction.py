"""ConceptDirection: a linear probe and a steering hook in one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.direction_fields import description, require_fields
from lrc_tl.directions.displays import direction_html
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
from lrc_tl.directions.readouts import Readout, direction_readout
from lrc_tl.directions.score_calibration import Knots, ScoreCalibration
from lrc_tl.directions.token_scores import TokenScores, token_scores
from lrc_tl.directions.writing import OWN_VECTOR, Vector, WriteRule, scaled_to_unit, settled_writing
from lrc_tl.models.chat import Text
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, hook_layer, require_hook
from lrc_tl.models.jacobian_lens import JacobianLens
from lrc_tl.steering.along_vector import Dual
from lrc_tl.steering.operations import Add, Amount, Clamp, FromClean, Operation, Reflect, Unit
from lrc_tl.steering.places import Where
from lrc_tl.steering.steering import Gate, Hook, Schedule, Steering


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptDirection:
    """The unit vector along which a model holds `relation` -> `object_name`.

    It reads (`score`) with `vector` and writes (`steer` and the other operations) with `write_vector`, which is
    the same vector where none is given.

    Raises:
        ValueError: a vector is not one finite vector of unit length in float32 or wider, the two have a cosine
            below 1e-3, norm or offset is not finite, or a name holds control characters.
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
    """Length before scaling; None: not recorded. With a writing vector of its own the score keeps this length."""
    offset: float = 0.0
    """Subtracted to give the score: 0, or the score of the mean activation (`ConceptSet.centred`, `lrc-map`)."""
    write_vector: Float[Tensor, " d_model"] | None = None
    """Unit vector that operations add along; after `__init__` never None, but `vector` where none was given."""
    write_rule: WriteRule | None = None
    """How the writing vector came about; after `__init__` never None. See `WriteRule`."""
    calibration: ScoreCalibration | None = None
    """What `predict` and `probability` make of the score; None: not calibrated."""
    fingerprint: ModelFingerprint | None = None
    """The model that it was made on, checked whenever it is used on one; None: not recorded."""

    def __post_init__(self) -> None:
        require_fields(self)
        vector, rule = settled_writing(
            self.vector, self.write_vector, self.write_rule, norm=self.norm, of=repr(self.object_name)
        )
        object.__setattr__(self, "write_vector", vector)
        object.__setattr__(self, "write_rule", rule)

    __repr__ = description
    _repr_html_ = direction_html

    @classmethod
    @numbers_checked
    def from_unscaled(
        cls,
        vector: Vector,
        *,
        relation: str,
        object_name: str,
        hook_name: str,
        method: str = "lrc",
        fingerprint: ModelFingerprint | None = None,
        write_vector: Vector | None = None,
        write_rule: WriteRule | None = None,
        offset: float = 0.0,
    ) -> "ConceptDirection":
        """A direction from vectors (tensors or NumPy arrays) of any length but zero, scaled in float32 or wider.

        `norm` keeps the length of `vector`, and `write_vector` gets its dtype and device.

        Raises:
            ValueError: a vector is zero or not finite, or they have a cosine below 1e-3.
        """
        unit, norm = scaled_to_unit(vector, f"the vector for {object_name!r}")
        written = None
        if write_vector is not None:
            written = scaled_to_unit(write_vector, f"the writing vector for {object_name!r}")[0].to(unit)
        return cls(
            vector=unit,
            write_vector=written,
            write_rule=write_rule,
            offset=offset,
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

    @property
    def scale(self) -> float:
        """What the projection is multiplied with to give the score: `norm` with another writing vector, else 1."""
        return 1.0 if self.write_rule == OWN_VECTOR or self.norm is None else self.norm

    @property
    def _dual(self) -> Dual | None:
        if self.write_rule == OWN_VECTOR or self.write_vector is None:
            return None
        return Dual(write=self.write_vector, scale=self.scale, offset=self.offset)

    @checked
    def score(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """`scale v.a - offset`, in the dtype of `vector`.

        In residual-stream units without a writing vector of its own, where the scale is 1; else in the method's
        own units, in which scores of different objects compare.

        Raises:
            ValueError: the activations are of another width.
        """
        require_width(acts, self.vector)
        projection = acts.to(self.vector) @ self.vector
        return (projection if self.scale == 1 else self.scale * projection) - self.offset

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

    def read(self, model: HookedModel, text: Text) -> TokenScores:
        """The score of every token of `text`, special tokens included and marked.

        Raises:
            FingerprintMismatch: the direction was made on another model.
            LookupError: the model has no such hook point.
            ValueError: `text` is empty or fills the model's context, the model is of another width, or its
                residuals are not finite.
        """
        label = f"{self.relation}: {self.object_name} at {self.hook_name}"
        return token_scores(self, self.score, model, text, label=label)

    @numbers_checked
    def readout(
        self, model: HookedModel, *, k: int = 10, lens: JacobianLens | None = None, writing: bool = False
    ) -> Readout:
        """The `k` top and bottom words of `W_U (w * v)`, `w` being the final norm's weight: the logit lens.

        `v` is centred first where that norm is a LayerNorm; biases and soft caps are left out, and the length is
        what the norm would give it. With a TransformerLens Jacobian `lens` it is `W_U (w * J v)`. `writing` reads
        out the vector that edits add.

        Raises:
            FingerprintMismatch: the direction was made on another model.
            ModelError, ValueError: what `lrc_tl.directions.readout` refuses.
        """
        return direction_readout(self, model, k=k, lens=lens, writing=writing)

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
        texts: Sequence[Text],
        *,
        by: Pool,
        subjects: Sequence[str] | None = None,
        bos: bool = False,
        progress: bool = True,
    ) -> Float[Tensor, " text"]:
        """One score per text; options and errors are those of `pooling.pool_texts`."""
        return pool_texts(self, self.score, model, texts, by=by, subjects=subjects, bos=bos, progress=progress)

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
        """Steering that adds the writing vector: `strength` is a share of `|h|`, or residual-stream units.

        With `unit="score"` the score moves by exactly `strength`.

        Raises:
            ValueError: `strength` is not finite.
        """
        return self._steering(Add(vector=self.vector, strength=strength, unit=unit, dual=self._dual))

    @numbers_checked
    def clamp(self, *, value: Amount | Literal["clean"]) -> Steering:
        """Steering that sets the score to `value`; `"clean"` holds it at that of the clean run (see `FromClean`).

        Raises:
            ValueError: `value` is not finite, or another word.
        """
        if isinstance(value, str):
            return self._from_clean("clamp", value)
        if (dual := self._dual) is not None:
            return self._steering(Clamp(vector=self.vector, value=value, dual=dual))
        projection = value + self.offset if self.offset else value
        return self._steering(Clamp(vector=self.vector, value=projection))

    def ablate(self, *, value: Literal["current", "clean"] = "current") -> Steering:
        """Steering that projects the direction out, whatever the offset of its score.

        With a writing vector of its own it sets the score, offset included, to 0. `"clean"` takes away the score
        of the clean run, and leaves what other steerings wrote (see `FromClean`).
        """
        if value != "current":
            return self._from_clean("ablate", value)
        return self._steering(Clamp(vector=self.vector, value=0.0, dual=self._dual))

    def reflect(self, *, value: Literal["current", "clean"] = "current") -> Steering:
        """Steering that turns the sign of the projection, whatever the offset of the score.

        With a writing vector of its own it turns the sign of the score, offset included. `"clean"` sets minus the
        score of the clean run, so that the next layer does not turn it back (see `FromClean`).
        """
        if value != "current":
            return self._from_clean("reflect", value)
        return self._steering(Reflect(vector=self.vector, dual=self._dual))

    def _from_clean(self, does: Literal["reflect", "clamp", "ablate"], value: str) -> Steering:
        if value != "clean":
            other = "a number" if does == "clamp" else "'current'"
            raise ValueError(f"value is {value!r}; allowed are {other} and 'clean'")
        return self._steering(FromClean(does=does, vector=self.vector, dual=self._dual))

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
        return Gate(
            vector=self.vector, hook_name=self.hook_name, threshold=(used + self.offset) / self.scale, above=above
        )

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
        strength: Amount,
        *,
        unit: Unit = "share",
        where: Where = "all",
        bos: bool = False,
        layers: Literal["own", "all"] | int | Sequence[int] = "own",
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
