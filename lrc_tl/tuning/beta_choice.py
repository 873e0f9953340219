"""What edits of several sizes do, aim and side effects side by side, and which size is the best within limits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import swap_of
from lrc_tl.evaluation.causality import Edit, causality_curves
from lrc_tl.evaluation.collateral import side_effects, unrelated_statements
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt
from lrc_tl.steering.steering import Steering
from lrc_tl.tuning.neutral_effects import NEUTRAL_TEXTS, neutral_effects

MOST_KL_ELSEWHERE = 0.7
"""Nats, on known statements of other relations."""
MOST_PERPLEXITY_RATIO = 1.5
"""On neutral texts."""
BETAS = (0.001, 0.003, 0.01, 0.03)
"""Where the search starts; it goes on beyond and between them."""
_BELOW, _ABOVE = (3e-4, 1e-4, 3e-5, 1e-5), (0.1, 0.3, 1.0)
_REFINEMENTS = 2
_PAIRS = 30


@dataclass(frozen=True, kw_only=True)
class BetaEffect:
    """What the edits of one size do."""

    beta: float
    causality: float
    """Share of edits after which p(o') > p(o)."""
    hard_success: float
    """Share of edits after which the model itself says o'."""
    mean_log_odds_change: float
    kl_elsewhere: float | None
    """Mean KL(edited || unedited) behind known statements of other relations, nats; None without any."""
    perplexity_ratio: float
    """Of neutral texts, edited over unedited."""

    @property
    def within_limits(self) -> bool:
        """KL elsewhere at most 0.7 nats, as far as it was measured, and perplexity ratio at most 1.5."""
        quiet = self.kl_elsewhere is None or self.kl_elsewhere <= MOST_KL_ELSEWHERE
        return quiet and self.perplexity_ratio <= MOST_PERPLEXITY_RATIO


class BetaTrials:
    """Tries betas on the same edits, statements and neutral texts, for several sets of directions by name."""

    def __init__(
        self,
        model: HookedModel,
        sets: Mapping[str, ConceptSet],
        edits: Sequence[Edit],
        statements: Sequence[Prompt],
        *,
        seed: int,
        progress: bool = True,
    ) -> None:
        self.model, self.sets, self.edits, self.progress = model, sets, edits, progress
        self._pairs = unrelated_statements(edits, statements, n=_PAIRS) if statements else ()
        self._drawn = Random(seed).sample(edits, min(len(NEUTRAL_TEXTS), len(edits)))
        self._clean: Tensor | None = None

    def measured(
        self, betas: Sequence[float], *, names: Sequence[str] | None = None
    ) -> dict[str, list[BetaEffect]]:
        """The effects of each beta, by the name of the set; of all sets, or of those named."""
        sets = {name: self.sets[name] for name in (self.sets if names is None else names)}
        differences = {name: swap_differences(concepts, self.edits) for name, concepts in sets.items()}
        curves = causality_curves(
            self.model,
            self.edits,
            differences,
            betas=betas,
            generated=True,
            clean=self._clean,
            progress=self.progress,
        )
        elsewhere = side_effects(self.model, self._pairs, differences, betas=betas, progress=self.progress)
        effects: dict[str, list[BetaEffect]] = {}
        for name, concepts in sets.items():
            neutral = neutral_effects(
                self.model,
                [_at_the_end(concepts, edit) for edit in self._drawn],
                NEUTRAL_TEXTS,
                strengths=betas,
                new_tokens=None,
            )
            effects[name] = [
                BetaEffect(
                    beta=result.beta,
                    causality=result.causality,
                    hard_success=result.hard_causality or 0.0,
                    mean_log_odds_change=float(result.log_odds_change.mean()),
                    kl_elsewhere=away.mean_kl if away.n_statements else None,
                    perplexity_ratio=quiet.perplexity_ratio,
                )
                for result, away, quiet in zip(curves[name], elsewhere[name], neutral, strict=True)
            ]
            self._clean = curves[name][0].clean
        return effects


def _at_the_end(concepts: ConceptSet, edit: Edit) -> Steering:
    """The edit's swap at the last token of a prompt: neutral texts have no subject."""
    return Steering(
        operation=swap_of(concepts[edit.prompt.object], concepts[edit.target], beta=0.0),
        hook_name=concepts.hook_name,
        layers="all",
        where=-1,
        fingerprint=concepts.fingerprint,
    )


def search_betas(
    trials: BetaTrials, accuracies: Mapping[str, float], betas: Sequence[float] | None = None
) -> tuple[dict[str, list[BetaEffect]], str, BetaEffect]:
    """All effects that were measured, by name of the set; the name of the best set, and the effect chosen there.

    The best has the highest sum of its set's accuracy and hard success within the limits; of equal ones the
    higher sum with causality, then the smaller beta (or, where no edit succeeds, the larger change of the
    log-odds), then the set that stands first. Where nothing that was tried is within the limits, the smallest beta
    tried is taken as if it were.

    Without `betas`, `BETAS` are tried; as long as the best is the smallest or largest tried, the next beyond it,
    from 1e-5 to 1; then, for the best set alone, what lies half-way (in the logarithm) to its neighbours, twice.
    """
    effects = trials.measured(BETAS if betas is None else sorted(betas))
    name, best = _best(effects, accuracies)
    if betas is not None:
        return effects, name, best
    while (beyond := _beyond(best, sorted(effect.beta for effect in effects[name]))) is not None:
        for of_set, more in trials.measured([beyond]).items():
            effects[of_set] += more
        name, best = _best(effects, accuracies)
    for _ in range(_REFINEMENTS):
        tried = sorted(effect.beta for effect in effects[name])
        place = tried.index(best.beta)
        neighbours = [*tried[max(place - 1, 0) : place], *tried[place + 1 : place + 2]]
        between = {float(f"{math.sqrt(best.beta * neighbour):.2g}") for neighbour in neighbours} - set(tried)
        if not between:
            break
        effects[name] += trials.measured(sorted(between), names=[name])[name]
        best = _best({name: effects[name]}, accuracies)[1]
    in_order = {of_set: sorted(tried, key=lambda effect: effect.beta) for of_set, tried in effects.items()}
    return in_order, name, best


def _best(effects: Mapping[str, Sequence[BetaEffect]], accuracies: Mapping[str, float]) -> tuple[str, BetaEffect]:
    tried = [(name, effect) for name, of_set in effects.items() for effect in of_set]
    least = min(effect.beta for _, effect in tried)
    allowed = [(name, effect) for name, effect in tried if effect.within_limits]
    allowed = allowed or [(name, effect) for name, effect in tried if effect.beta == least]

    def worth(candidate: tuple[str, BetaEffect]) -> tuple[float, float, float, float]:
        name, effect = candidate
        accuracy = accuracies[name]
        moved = 0.0 if effect.hard_success or effect.causality else effect.mean_log_odds_change
        return accuracy + effect.hard_success, accuracy + effect.causality, moved, -effect.beta

    return max(allowed, key=worth)  # of equal ones the first


def _beyond(best: BetaEffect, tried: Sequence[float]) -> float | None:
    """The next beta outside those tried where the best is the smallest or largest of them; None at the bounds."""
    if best.beta == tried[0] and (best.hard_success or best.causality):  # below edits that do nothing is nothing
        return next((beta for beta in _BELOW if beta < best.beta), None)
    if best.beta == tried[-1]:
        return next((beta for beta in _ABOVE if beta > best.beta), None)
    return None
