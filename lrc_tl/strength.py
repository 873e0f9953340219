"""Strength that is chosen, not guessed: the smallest that reaches a wanted success rate within limits."""

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.directions import ConceptSet
from lrc_tl.edits import Add, Swap
from lrc_tl.evaluation.causality import Edit
from lrc_tl.fingerprint import ModelFingerprint
from lrc_tl.generation import generate
from lrc_tl.models import HookedModel
from lrc_tl.neutral_texts import NEUTRAL_TEXTS, NeutralEffects, neutral_effects
from lrc_tl.no_booleans import no_booleans
from lrc_tl.positions import LastTokenOf
from lrc_tl.prompts import Prompt, tokenize_prompt
from lrc_tl.steering import Steering
from lrc_tl.strength_result import Limits, StrengthCalibration, StrengthPoint
from lrc_tl.strength_rows import map_logits, require_adjustable

STRENGTHS = tuple(10 ** (step / 4 - 2) for step in range(9))
"""0.01 to 1 in steps of a factor 1.78: shares of |h|, or betas."""

Success: TypeAlias = Callable[[HookedModel, Edit, Steering, Sequence[float]], Float[Tensor, " strength"]]
"""Margins of one edit at each of some strengths: above 0 is success, and below the margin at strength 0 (which is
always asked for too) is the wrong way. Batched strengths must give what single ones would."""
SteeringOf: TypeAlias = Callable[[Edit], Steering]
"""Makes the steering of each edit, where it depends on the edit's text or objects."""


@no_booleans
def target_beats_object(
    model: HookedModel, edit: Edit, steering: Steering, strengths: Sequence[float]
) -> Float[Tensor, " strength"]:
    """log p(o') - log p(o) after the edit's text, in nats: above 0 the target is the more probable.

    Each object is teacher-forced, its least probable token stands for it, and `where` sees its tokens as generated
    ones. The default success of `calibrate_strength`.
    """
    least = {}
    for name in (edit.prompt.object, edit.target):
        tokens = tokenize_prompt(model, replace(edit.prompt, object=name))
        wanted = torch.tensor(tokens.object_ids)

        def smallest(log_probs: Tensor, wanted: Tensor = wanted) -> Tensor:
            index = wanted.to(log_probs.device)[None, :, None].expand(len(log_probs), -1, 1)
            return log_probs.gather(-1, index).amin(dim=(1, 2))

        least[name] = map_logits(
            model,
            steering,
            tokens.input_ids,
            n_prompt=len(tokens.text_ids),
            strengths=strengths,
            reduce=smallest,
        ).double()
    return least[edit.target] - least[edit.prompt.object]


@no_booleans
def object_named(*, within: int = 12, words: Mapping[str, Sequence[str]] | None = None) -> Success:
    """Success for free text: the greedy continuation names the target within `within` tokens.

    Margins are 1 and -1. `words` holds, for a target, further words that count as naming it. A name counts as a
    whole word, in the case given.

    Raises:
        ValueError: `within` is below 1.
    """
    if within < 1:
        raise ValueError(f"within is {within}; give 1 token or more")

    def named(
        model: HookedModel, edit: Edit, steering: Steering, strengths: Sequence[float]
    ) -> Float[Tensor, " strength"]:
        made = generate(
            model, edit.prompt.text, steering=steering, strengths=list(strengths), max_new_tokens=within
        )
        names = [edit.target, *(words or {}).get(edit.target, ())]
        pattern = "|".join(rf"(?<!\w){re.escape(name.strip())}(?!\w)" for name in names)
        return torch.tensor([1.0 if re.search(pattern, one.text) else -1.0 for one in made])

    named.__name__ = f"object_named(within={within})"
    return named


def edits_towards(prompts: Sequence[Prompt], target: str) -> tuple[Edit, ...]:
    """Each prompt from its own object to `target`; prompts whose object that is already are left out.

    Raises:
        ValueError: no prompt is left.
    """
    edits = tuple(Edit(prompt=prompt, target=target) for prompt in prompts if prompt.object != target)
    if not edits:
        raise ValueError(f"none of the {len(prompts)} prompts has another object than {target!r}")
    return edits


def free_text_edits(texts: Sequence[str], target: str) -> tuple[Edit, ...]:
    """Texts to be continued, with the object that should be named: for `object_named`, and no other success.

    The last word of a text stands for its subject, and the target for its object.

    Raises:
        ValueError: a text has no word in its last line.
    """
    edits = []
    for text in texts:
        words = re.findall(r"\w+", text.rstrip().rpartition("\n")[2])
        if not words:
            raise ValueError(f"the text {text!r} has no word in its last line; give a text to be continued")
        edits.append(Edit(prompt=Prompt(text=text, subject=words[-1], object=target), target=target))
    return tuple(edits)


def at_subject(model: HookedModel, steering: Steering) -> SteeringOf:
    """The same steering at the last subject token of each edit's text."""
    return lambda edit: steering.at(where=_subject_token(model, edit.prompt))


def _subject_token(model: HookedModel, prompt: Prompt) -> LastTokenOf:
    # Not `last_subject_token`, which knows nothing of `subject_start`.
    tokens = tokenize_prompt(model, prompt)
    return LastTokenOf(ids=tokens.text_ids[: tokens.subject_position + 1])


def swap_at_subject(model: HookedModel, concepts: ConceptSet) -> SteeringOf:
    """Each edit's own object for its target at the last subject token, in all layers (arXiv:2311.08968, eq. 7).

    Raises:
        KeyError: when it is used on an edit whose object or target has no direction.
    """

    def swap(edit: Edit) -> Steering:
        return Steering(
            operation=Swap(remove=concepts[edit.prompt.object].vector, add=concepts[edit.target].vector, beta=0.0),
            hook_name=concepts.hook_name,
            layers="all",
            where=_subject_token(model, edit.prompt),
            fingerprint=concepts.fingerprint,
        )

    return swap


@no_booleans
def calibrate_strength(
    model: HookedModel,
    steering: Steering | SteeringOf,
    edits: Sequence[Edit],
    *,
    wanted: float = 0.8,
    limits: Limits | None = None,
    success: Success = target_beats_object,
    strengths: Sequence[float] | None = None,
    refinements: int = 4,
    neutral_texts: Sequence[str] = NEUTRAL_TEXTS,
    seed: int = 0,
) -> StrengthCalibration:
    """The smallest strength with which the share `wanted` of training edits succeeds, side effects within limits.

    Success need not grow with strength. All `strengths` are tried, as the rows of a batch; then the first interval
    between two of them at whose end everything holds (or inside which it may: success reached at its end, no limit
    exceeded at its start) is halved `refinements` times in its logarithm. What comes back was itself tried
    and holds. With a ratio r between neighbours it is at most `r ** 2 ** -refinements` times the smallest feasible
    strength of that interval, where that interval holds one threshold.

    Args:
        steering: one that adds (its strength is put in place of its own) or swaps (its beta); or a function that
            makes it for each edit: `at_subject(model, steering)`, `swap_at_subject(model, concepts)`.
        edits: texts, what they say and should say; `edits_towards(prompts, "Japan")`, `counterfactual_edits`,
            `free_text_edits`. Take them from training facts.
        strengths: by default nine from 0.01 to 1; to be given for an `Add` in absolute units.
        neutral_texts: where side effects are measured; each takes the steering of one edit, drawn with `seed`.

    Raises:
        ValueError: no edits, no or bad strengths, `wanted` not in (0, 1], `refinements` below 0, a steering
            without one strength or of another kind or unit than the others, or margins that do not fit.
    """
    limits = limits or Limits()
    made = [steering if isinstance(steering, Steering) else steering(edit) for edit in edits]
    grid = _checked_grid(made, strengths)
    if not 0 < wanted <= 1 or refinements < 0:
        raise ValueError(
            f"wanted is {wanted} and refinements {refinements}; the first must be a share above 0 and at most 1, "
            "the second 0 or more"
        )
    order = random.Random(seed).sample(made, len(made))
    base = _margins(model, success, edits, made, [0.0])
    quiet = _neutral(model, order, neutral_texts, [0.0], limits)

    def measure(tried: Sequence[float]) -> list[StrengthPoint]:
        margins = _margins(model, success, edits, made, tried)
        effects = _neutral(model, order, neutral_texts, tried, limits)
        return [
            _point(strength, margins[:, row], base[:, 0], effects[row], quiet[0], wanted, limits)
            for row, strength in enumerate(tried)
        ]

    points = measure(grid)
    extra, strength = _refined(points, lambda value: measure([value])[0], refinements)
    operation: Any = made[0].operation
    return StrengthCalibration(
        strength=strength,
        points=tuple(sorted([*points, *extra], key=lambda point: point.strength)),
        unsteered=_point(0.0, base[:, 0], base[:, 0], quiet[0], quiet[0], wanted, limits),
        wanted=wanted,
        limits=limits,
        operation=type(operation).__name__,
        unit=getattr(operation, "unit", "share"),
        hook_name=made[0].hook_name,
        success=getattr(success, "__name__", type(success).__name__),
        n_edits=len(edits),
        n_neutral_texts=len(neutral_texts),
        grid=tuple(grid),
        refinements=refinements,
        seed=seed,
        fingerprint=ModelFingerprint.of(model),
    )


def _checked_grid(made: Sequence[Steering], strengths: Sequence[float] | None) -> list[float]:
    if not made:
        raise ValueError("no edits to calibrate on; give at least one text with the object that it should name")
    for one in made:
        require_adjustable(one)
    kinds = {(type(one.operation).__name__, getattr(one.operation, "unit", "share")) for one in made}
    if len(kinds) > 1:
        raise ValueError(f"the edits are steered in different ways, {sorted(kinds)}; give one operation and unit")
    if strengths is None:
        if isinstance(made[0].operation, Add) and made[0].operation.unit == "absolute":
            raise ValueError("strengths in residual-stream units depend on the model; give `strengths`")
        strengths = STRENGTHS
    grid = sorted(set(map(float, strengths)))
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
    made: Sequence[Steering],
    strengths: Sequence[float],
) -> Float[Tensor, "edit strength"]:
    rows = []
    for edit, steering in zip(edits, made, strict=True):
        margins = success(model, edit, steering, strengths)
        if tuple(margins.shape) != (len(strengths),):
            raise ValueError(
                f"the success callable gave margins of shape {tuple(margins.shape)} for {len(strengths)} "
                "strengths; it must give one each"
            )
        rows.append(margins.double().cpu())
    return torch.stack(rows)


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
    rate = float((margins > 0).double().mean())
    more = None if effects.repetition is None else effects.repetition - (quiet.repetition or 0.0)
    measured = {"kl": effects.kl, "perplexity_ratio": effects.perplexity_ratio, "repetition": more}
    allowed = asdict(limits)
    broken = [
        name
        for name, value in measured.items()
        # Not `>`: NaN exceeds every limit.
        if allowed[name] is not None and value is not None and not value <= allowed[name]
    ]
    return StrengthPoint(
        strength=strength,
        success_rate=rate,
        wrong_way=float((~(margins >= base)).double().mean()),
        mean_margin=float(margins.mean()),
        kl=effects.kl,
        perplexity_ratio=effects.perplexity_ratio,
        repetition=effects.repetition,
        reached=rate >= wanted,
        broken=tuple(broken),
    )


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
