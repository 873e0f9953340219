"""Strength that is chosen, not guessed: the smallest that reaches a wanted success rate within limits."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.plain_numbers import real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import NotFiniteError
from lrc_tl.evaluation.causality import Edit
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.chat import Text, as_texts
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.steering.steering import Steering
from lrc_tl.tuning.neutral_effects import NEUTRAL_TEXTS, NeutralEffects, neutral_effects
from lrc_tl.tuning.strength_batches import require_adjustable
from lrc_tl.tuning.strength_edits import SteeringOf
from lrc_tl.tuning.strength_result import Limits, StrengthCalibration, StrengthPoint
from lrc_tl.tuning.success import Success, success_for

_STEPS_IN_TEN = 4


def _steps(first: int, last: int) -> list[float]:
    """Strengths from step `first` to `last`: step 0 is 0.001, and four steps make a factor of 10."""
    return [10 ** (step / _STEPS_IN_TEN - 3) for step in range(first, last + 1)]


STRENGTHS = tuple(_steps(0, 12))
"""0.001 to 1 in steps of a factor 1.78: shares of |h|, or betas."""
_FURTHER_DOWN, _FURTHER_UP = (_steps(-4, -1), _steps(-8, -5)), (_steps(13, 16),)
"""What is tried beyond them, in this order, where the answer does not lie inside: down to 1e-5 and up to 10."""


@shows_progress
@numbers_checked
@fingerprints_once()
def calibrate_strength(
    model: HookedModel,
    steering: Steering | SteeringOf,
    edits: Sequence[Edit],
    *,
    wanted: float = 0.8,
    limits: Limits | None = None,
    success: Success | None = None,
    strengths: Sequence[float] | None = None,
    refinements: int = 4,
    neutral_texts: Sequence[Text] = NEUTRAL_TEXTS,
    seed: int = 0,
    progress: bool = True,
) -> StrengthCalibration:
    """The smallest strength with which the share `wanted` of training edits succeeds, side effects within limits.

    Success need not grow with strength. All `strengths` are tried, as the rows of a batch. Then one interval
    between two of them is halved `refinements` times in its logarithm: the first at whose end everything holds, or
    inside which it may (success is reached at its end, no limit is exceeded at its start). What comes back was
    itself tried and holds. With a ratio r between neighbours it is at most `r ** 2 ** -refinements` times the
    smallest feasible strength of that interval, where that interval holds one threshold.

    Args:
        steering: one that adds (its strength is put in place of its own) or swaps (its beta); or a function that
            makes it for each edit: `at_subject(model, steering)`, `swap_at_subject(model, concepts)`.
        edits: texts, what they say and should say; `edits_towards(prompts, "Japan")`, `counterfactual_edits`,
            `free_text_edits`. Take them from training facts.
        success: by default `target_beats_object`, or `object_named()` where every target is its text's own object,
            as in `free_text_edits`.
        strengths: the only ones on the grid; they must be given for an `Add` in absolute units. By default 13 from
            0.001 to 1, then further down while the smallest works (to 1e-5), and up while none works and no limit
            is exceeded (to 10).
        neutral_texts: texts or chats where side effects are measured; each takes the steering of one edit, drawn
            with `seed`.

    Raises:
        ValueError: no edits, no or bad strengths, `wanted` not in (0, 1], `refinements` below 0, a steering
            without one strength or of another kind or unit than the others, margins that do not fit, or edits that
            cannot succeed: a target that is to beat itself.
        NotFiniteError: the unsteered model's own log-probabilities are not finite. A strength that makes them so
            is counted in its point (`not_finite`) and never chosen.
    """
    edits = as_tuple(edits, "edits", Edit)
    neutral_texts = as_texts(model, neutral_texts, "neutral_texts")
    strengths = None if strengths is None else as_tuple(strengths, "strengths")
    limits = limits or Limits()
    success = success_for(edits, success)
    steerings = [steering if isinstance(steering, Steering) else steering(edit) for edit in edits]
    grid = _checked_grid(steerings, strengths)
    if not 0 < wanted <= 1 or refinements < 0:
        raise ValueError(
            f"wanted is {wanted} and refinements {refinements}; the first must be a share above 0 and at most 1, "
            "the second 0 or more"
        )
    order = random.Random(seed).sample(steerings, len(steerings))
    with ProgressBar("unsteered", total=len(edits), progress=progress) as bar:
        base = _margins(model, success, edits, steerings, [0.0], bar)
        quiet = _neutral(model, order, neutral_texts, [0.0], limits)
        _require_finite(edits, base[:, 0], quiet[0])

        def measure(tried: Sequence[float]) -> list[StrengthPoint]:
            bar.restart(f"{len(tried)} strengths from {tried[0]:.3g}", total=len(edits))
            margins = _margins(model, success, edits, steerings, tried, bar)
            effects = _neutral(model, order, neutral_texts, tried, limits)
            return [
                _point(strength, margins[:, row], base[:, 0], effects[row], quiet[0], wanted, limits)
                for row, strength in enumerate(tried)
            ]

        points = measure(grid)
        if strengths is None:
            points = _extended(points, measure)
        extra, strength = _refined(points, lambda value: measure([value])[0], refinements)
    return StrengthCalibration(
        strength=strength,
        points=tuple(sorted([*points, *extra], key=lambda point: point.strength)),
        unsteered=_point(0.0, base[:, 0], base[:, 0], quiet[0], quiet[0], wanted, limits),
        wanted=wanted,
        limits=limits,
        operation=steerings[0].operation.kind,
        unit=str(steerings[0].operation.unit),
        hook_name=steerings[0].hook_name,
        success=getattr(success, "__name__", type(success).__name__),
        n_edits=len(edits),
        n_neutral_texts=len(neutral_texts),
        grid=tuple(point.strength for point in points),
        refinements=refinements,
        seed=seed,
        fingerprint=ModelFingerprint.of(model),
    )


def _checked_grid(steerings: Sequence[Steering], strengths: Sequence[float] | None) -> list[float]:
    if not steerings:
        raise ValueError("no edits to calibrate on; give at least one text with the object that it should name")
    for steering in steerings:
        require_adjustable(steering)
    kinds = {(steering.operation.kind, steering.operation.unit) for steering in steerings}
    if len(kinds) > 1:
        raise ValueError(f"the edits are steered in different ways, {sorted(kinds)}; give one operation and unit")
    if strengths is None:
        if steerings[0].operation.unit != "share":
            raise ValueError(
                f"strengths with unit={steerings[0].operation.unit!r} depend on the model and the direction; give "
                "`strengths`"
            )
        strengths = STRENGTHS
    grid = sorted(set(real_numbers(strengths, "strengths")))
    if not grid or not all(0 < strength < math.inf for strength in grid):
        raise ValueError(
            f"strengths are {list(strengths)}; give one or more finite numbers above 0 (turn the vector to go the "
            "other way)"
        )
    return grid


def _margins(
    model: HookedModel,
    success: Success,
    edits: Sequence[Edit],
    steerings: Sequence[Steering],
    strengths: Sequence[float],
    bar: ProgressBar,
) -> Float[Tensor, "edit strength"]:
    rows = []
    for edit, steering in bar.over(zip(edits, steerings, strict=True)):
        margins = success(model, edit, steering, strengths)
        if tuple(margins.shape) != (len(strengths),):
            raise ValueError(
                f"the success callable gave margins of shape {tuple(margins.shape)} for {len(strengths)} "
                "strengths; it must give one for each"
            )
        rows.append(margins.double().cpu())
    return torch.stack(rows)


def _require_finite(edits: Sequence[Edit], base: Float[Tensor, " edit"], quiet: NeutralEffects) -> None:
    """What a strength is compared with must be finite; what a strength breaks is counted in its own point."""
    advice = "load the model in float32 and check its weights"
    if not bool(base.isfinite().all()):
        rows = (~base.isfinite()).nonzero()[:, 0].tolist()
        raise NotFiniteError(
            f"without steering the margins of {len(rows)} of {len(edits)} edits are not finite, the first that of "
            f"{edits[rows[0]].prompt.text!r}; {advice}"
        )
    if not (math.isfinite(quiet.kl) and math.isfinite(quiet.perplexity_ratio)):
        raise NotFiniteError(
            f"without steering the log-probabilities of the neutral texts are not finite; {advice}"
        )


def _neutral(
    model: HookedModel,
    steerings: Sequence[Steering],
    texts: Sequence[str],
    strengths: Sequence[float],
    limits: Limits,
) -> tuple[NeutralEffects, ...]:
    new = None if limits.repetition is None else 16
    return neutral_effects(model, steerings, texts, strengths=strengths, new_tokens=new)


def _point(
    strength: float,
    margins: Tensor,
    base: Tensor,
    effects: NeutralEffects,
    quiet: NeutralEffects,
    wanted: float,
    limits: Limits,
) -> StrengthPoint:
    finite = margins.isfinite()
    rate = float(((margins > 0) & finite).double().mean())
    lost = int((~finite).sum())
    more = None if effects.repetition is None else effects.repetition - (quiet.repetition or 0.0)
    measured = {"kl": effects.kl, "perplexity_ratio": effects.perplexity_ratio, "repetition": more}
    allowed = asdict(limits)
    broken = [
        name
        for name, value in measured.items()
        # Not `>`: NaN exceeds every limit, and the lack of one.
        if value is not None and not value <= (math.inf if allowed[name] is None else allowed[name])
    ]
    if lost:
        broken.append("not_finite")
    return StrengthPoint(
        strength=strength,
        success_rate=rate,
        wrong_way=float(((margins < base) & finite).double().mean()),
        mean_margin=float(margins[finite].mean()),
        kl=effects.kl,
        perplexity_ratio=effects.perplexity_ratio,
        repetition=effects.repetition,
        reached=rate >= wanted,
        broken=tuple(broken),
        not_finite=lost,
    )


def _extended(
    points: list[StrengthPoint], measure: Callable[[Sequence[float]], list[StrengthPoint]]
) -> list[StrengthPoint]:
    """The points with further ones below or above them, as far as the answer may lie there."""
    for lower in _FURTHER_DOWN:
        if points[0].feasible:
            points = [*measure(lower), *points]
    for higher in _FURTHER_UP:
        if not any(point.feasible for point in points) and not points[-1].broken:
            points = [*points, *measure(higher)]
    return points


def _refined(
    points: Sequence[StrengthPoint], measure: Callable[[float], StrengthPoint], steps: int
) -> tuple[list[StrengthPoint], float | None]:
    """Points tried inside the first interval that may hold a smaller feasible strength, and the smallest found."""
    if points[0].feasible:
        return [], points[0].strength
    tried: list[StrengthPoint] = []
    for before, after in pairwise(points):
        window = after.reached and not before.reached and not before.broken
        if not (after.feasible or window):
            continue
        low, high = before.strength, after.strength
        best = high if after.feasible else None
        for _ in range(steps):
            middle = measure(math.sqrt(low * high))
            tried.append(middle)
            if middle.feasible:
                best = high = middle.strength
            elif best is None and middle.reached:
                high = middle.strength
            else:
                low = middle.strength
        if best is not None:
            return tried, best
    return tried, None
