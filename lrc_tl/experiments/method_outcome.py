"""What one method reached on the test prompts and edits of one relation and seed."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeAlias

from lrc_tl.evaluation.causality import CausalityResult
from lrc_tl.evaluation.collateral import SideEffects
from lrc_tl.experiments.stored_fields import (
    Count,
    CountOrNone,
    Extra,
    JsonForm,
    Number,
    NumberOrNone,
    Outcomes,
    Share,
    Texts,
    is_number,
    is_share,
    json_forms,
    or_none,
    other_fields,
    read_fields,
    require_field,
    shortened,
    written_fields,
    written_rows,
)


@dataclass(frozen=True, kw_only=True)
class SideEffectMeans:
    """What edits of one size did to statements that they were not meant for; None where there were none."""

    kl: NumberOrNone
    """Mean KL(edited || unedited) of the next token, nats."""
    kept: NumberOrNone
    """Share of statements whose next token stayed."""
    log_prob_change: NumberOrNone
    """Mean change of the log-probability of the statement's object, nats."""

    @classmethod
    def of(cls, effects: SideEffects) -> "SideEffectMeans":
        """The means over (edit, statement) pairs."""
        if not effects.n_statements:
            return cls(kl=None, kept=None, log_prob_change=None)
        return cls(
            kl=effects.mean_kl,
            kept=effects.share_kept,
            log_prob_change=float(effects.log_prob_change.mean()),
        )

    def with_prefix(self, prefix: str) -> dict[str, float | None]:
        """The values under flat names, such as `unrelated_kl`."""
        return {f"{prefix}_{name}": value for name, value in written_fields(self).items()}


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One beta of a causality curve, with its side effects."""

    STATISTICS: ClassVar[tuple[str, ...]] = (
        "causality",
        "hard_causality",
        "unrelated_kl",
        "mean_log_odds_change",
        "wrong_way",
        "edit_share",
        "unrelated_kept",
        "unrelated_log_prob_change",
        "same_subject_kl",
        "same_subject_kept",
        "same_subject_log_prob_change",
    )
    """The names in `statistics`, in the order of the result's tables."""

    beta: Number
    success: Outcomes
    """For each edit: whether the target is more probable than the original object afterwards."""
    causality: Share
    hard_success: Outcomes
    """For each edit: whether the model itself says the target afterwards."""
    hard_causality: Share
    edit_share: NumberOrNone
    """Mean of |edit| / |h|."""
    mean_log_odds_change: NumberOrNone
    wrong_way: NumberOrNone
    unrelated: SideEffectMeans | None = None
    """On statements of other relations; None: not measured, as for one layer in older files."""
    same_subject: SideEffectMeans | None = None
    """On other facts about the edited subject."""
    extra: Extra = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        result: CausalityResult,
        *,
        unrelated: SideEffects | None = None,
        same_subject: SideEffects | None = None,
    ) -> "CurvePoint":
        """The point of a measured curve; its continuations must have been generated."""
        assert result.generated is not None
        assert result.hard_causality is not None
        return cls(
            beta=result.beta,
            success=tuple(result.success.tolist()),
            causality=result.causality,
            hard_success=tuple(result.generated.tolist()),
            hard_causality=result.hard_causality,
            edit_share=result.edit_share,
            mean_log_odds_change=float(result.log_odds_change.mean()),
            wrong_way=result.wrong_way,
            unrelated=None if unrelated is None else SideEffectMeans.of(unrelated),
            same_subject=None if same_subject is None else SideEffectMeans.of(same_subject),
        )

    @classmethod
    def from_dict(cls, value: Any, *, place: str = "point") -> "CurvePoint":
        """The point that `to_dict` gave.

        Raises:
            ValueError: a field is missing or of another type; the text names the place.
        """
        fields = read_fields(cls, value, place)
        known = {*fields}
        for kind in ("unrelated", "same_subject"):
            effects = {f"{kind}_{name}": name for name in json_forms(SideEffectMeans)}
            known |= {*effects}
            if any(name in value for name in effects):
                for name in effects:
                    require_field(value, name, or_none(is_number), place)
                fields[kind] = SideEffectMeans(**{short: value[name] for name, short in effects.items()})
        return cls(**fields, extra=other_fields(value, known))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**written_fields(self), **self._side_effects(), **self.extra}

    def statistics(self) -> dict[str, float | None]:
        """The numbers of this point by name, those of `STATISTICS`; None where one was not measured."""
        values = {**written_fields(self), **self._side_effects()}
        return {name: values.get(name) for name in self.STATISTICS}

    def _side_effects(self) -> dict[str, float | None]:
        unrelated = self.unrelated.with_prefix("unrelated") if self.unrelated else {}
        return unrelated | (self.same_subject.with_prefix("same_subject") if self.same_subject else {})


def _read_curve(points: Any, place: str) -> tuple[CurvePoint, ...]:
    if not isinstance(points, list):
        raise ValueError(f"{place} must be a list, not {shortened(points)}")
    return tuple(CurvePoint.from_dict(point, place=f"{place}[{number}]") for number, point in enumerate(points))


_Curve: TypeAlias = Annotated[
    tuple[CurvePoint, ...], JsonForm(lambda points: isinstance(points, list), _read_curve, written_rows)
]


@dataclass(frozen=True, kw_only=True)
class MethodOutcome:
    """What one method, at one setting, reached on a relation's test prompts and edits."""

    subject_layer: Count
    object_layer: CountOrNone
    rank: CountOrNone
    correct: Outcomes
    """For each test prompt: whether the right object came first."""
    predicted: Texts
    accuracy: Share
    mean_reciprocal_rank: Share
    top3: Share
    correct_centred: Outcomes
    accuracy_centred: Share
    """Less what all subjects share: the mean over the training facts' zero-shot prompts."""
    correct_calibrated: Outcomes
    accuracy_calibrated: Share
    """Centred, and by probabilities fitted on the training facts."""
    control_shuffled: Share
    """Accuracy of directions made with shuffled labels."""
    control_random: Share
    """Accuracy of random directions."""
    seconds_train: Number
    seconds_evaluate: Number
    asked_of_random_model: bool = False
    """Whether `control_random_model` was asked for."""
    control_random_model: float | None = None
    """Accuracy in the model with random weights; None: not asked for, or its activations were not finite."""
    curve: _Curve = ()
    """Edits at every layer, one point for each beta; empty where there are no edits."""
    curve_single_layer: tuple[CurvePoint, ...] | None = None
    """Edits at the subject layer alone; None: not asked for."""
    noise: float | None = None
    """Of dual directions, given or chosen; None: the method has none."""
    extra: Extra = field(default_factory=dict)

    @classmethod
    def from_dict(cls, value: Any, *, place: str = "outcome") -> "MethodOutcome":
        """The outcome that `to_dict` gave.

        Raises:
            ValueError: a field is missing or of another type; the text names the place.
        """
        fields = read_fields(cls, value, place)
        known = {*fields, "control_random_model", "curve_single_layer", "noise"}
        if "noise" in value:
            require_field(value, "noise", is_number, place)
            fields["noise"] = value["noise"]
        if "control_random_model" in value:
            require_field(value, "control_random_model", or_none(is_share), place)
            fields |= {"asked_of_random_model": True, "control_random_model": value["control_random_model"]}
        if "curve_single_layer" in value:
            fields["curve_single_layer"] = _read_curve(
                value["curve_single_layer"], f"{place}['curve_single_layer']"
            )
        return cls(**fields, extra=other_fields(value, known))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = written_fields(self)
        curve = values.pop("curve")
        if self.asked_of_random_model:
            values["control_random_model"] = self.control_random_model
        values["curve"] = curve
        if self.curve_single_layer is not None:
            values["curve_single_layer"] = written_rows(self.curve_single_layer)
        if self.noise is not None:
            values["noise"] = self.noise
        return values | dict(self.extra)

    @property
    def at_first_beta(self) -> CurvePoint | None:
        """The point that heads the curve; None where there are no edits."""
        return self.curve[0] if self.curve else None
