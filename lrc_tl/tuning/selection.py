"""`select_settings`: layers, rank and beta chosen on training facts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.plain_numbers import real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.evaluation.causality import counterfactual_edits
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.statements import known_statements
from lrc_tl.lre.dual import NOISES
from lrc_tl.lre.layer_grid import fit_layer_grid
from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.markup.brief import brief_fields
from lrc_tl.markup.progress import shows_progress
from lrc_tl.methods.backgrounds import held_out_subjects
from lrc_tl.methods.method import METHODS
from lrc_tl.methods.settings import FitSettings, require_noise_or_none
from lrc_tl.models.fingerprint import fingerprints_once
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.models.weights import require_fittable
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.passes.known_prompts import filter_known
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation import Relation
from lrc_tl.tuning.beta_choice import BetaEffect, BetaTrials, search_betas
from lrc_tl.tuning.candidates import (
    Candidates,
    Pair,
    dual_candidates,
    rank_candidates,
    whole_candidates,
)
from lrc_tl.tuning.displays import settings_html, settings_text

_SELECTABLE = ("lrc", "lrc-map", "lrc-map-combined")
_FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `select_settings` chose, and every candidate that it tried."""

    subject_layer: int
    object_layer: int
    rank: int | None
    """None: of methods with dual directions, which have a noise in its place."""
    beta: float
    """Keep it with the directions: `concepts.with_beta(settings.beta)`."""
    accuracy: float
    """Of the chosen layers and rank on the validation facts, which they were chosen by."""
    causality: float
    """Of the chosen beta on the validation facts: share of edits after which p(o') > p(o)."""
    hard_success: float
    """Of the chosen beta on the validation facts, which it was chosen by: share of edits after which the model
    itself says o'."""
    kl_elsewhere: float | None
    """Mean KL(edited || unedited) behind `n_statements` known statements of other relations, nats; None: no such
    statement."""
    perplexity_ratio: float
    """Of neutral texts, edited over unedited."""
    within_limits: bool
    """KL elsewhere at most 0.7, perplexity ratio at most 1.5. False: for no beta tried; the smallest was taken."""
    n_statements: int
    n_validation: int
    validation_shots: int
    """Examples in the validation prompts: 0, or as in training where too few are known without."""
    tried: pd.DataFrame
    """One row for each candidate: subject_layer, object_layer, rank (or noise), accuracy, mean_reciprocal_rank."""
    tried_edits: pd.DataFrame
    """One row for each rank (or noise) and beta tried at the chosen layers: rank, accuracy, the fields of
    `BetaEffect`, and within_limits."""
    noise: float | None = None
    """That was chosen for `lrc-map`, or that `lrc-map-combined` has; None: of `lrc`."""
    method: str = "lrc"
    """What they are for."""

    __repr__ = settings_text
    _repr_html_ = settings_html

    def to_dict(self) -> dict[str, Any]:
        """Plain values without the tables, for JSON; noise and method where there is a noise."""
        left_out = ("tried", "noise", "method") if self.noise is None else ("tried",)
        return {key: value for key, value in asdict(self).items() if not key.startswith(left_out)}


def default_layers(model: HookedModel) -> tuple[list[int], list[int]]:
    """Subject and object layers to try: around 45 % and 70 % of the depth, where the paper's choices lie."""
    n_layers = int(model.cfg.n_layers)
    subject = sorted({max(0, min(n_layers - 2, round(share * n_layers) - 1)) for share in (0.45, 0.5, 0.55)})
    object_ = sorted({min(n_layers - 1, max(subject[-1] + 1, round(share * n_layers))) for share in (0.67, 0.72)})
    return subject, object_


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What `select_settings` chooses from. Lists of any kind may be given; they are kept as tuples.

    Raises:
        ValueError: no ranks or noises, a rank below 1, or a noise that is not above 0.
    """

    subject_layers: Sequence[int] | None = None
    """None or empty: three around the middle of the model."""
    object_layers: Sequence[int] | None = None
    """None or empty: two at about 70 % of the depth."""
    ranks: Sequence[int] = (16, 32, 64, 128, 192)
    """Those above the numerical rank of an LRE count as that."""
    betas: Sequence[float] | None = None
    """Sizes of edits to try, and no others. None: as many as the search needs (`select_settings`)."""
    noises: Sequence[float] = NOISES
    """Of `lrc-map`, which has no rank."""
    background: SubjectStatistics | None = field(default=None, hash=False)
    """How subjects vary, for `lrc-map`, without subjects that the chosen directions are to be tested on. None: the
    built-in subjects, without those of the relation that is chosen on unless they are among its facts."""

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        for name in ("subject_layers", "object_layers", "ranks", "betas", "noises"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_tuple(values, name))
        if self.betas is not None:
            object.__setattr__(self, "betas", real_numbers(self.betas, "betas"))
        if not self.ranks or min(self.ranks) < 1:
            raise ValueError(f"ranks are {list(self.ranks)}; give at least one, each of them 1 or more")
        object.__setattr__(self, "noises", real_numbers(self.noises, "noises"))
        if not self.noises:
            raise ValueError("noises are empty; give at least one, each of them above 0")
        for noise in self.noises:
            require_noise_or_none(noise)

    def layers(self, model: HookedModel) -> tuple[list[int], list[int]]:
        """Subject and object layers in this model, counted from the start.

        Raises:
            ValueError: a layer outside the model, or no pair of a subject layer and an object layer above it.
        """
        default_subject, default_object = default_layers(model)
        subject = [layer_number(model, layer) for layer in self.subject_layers or default_subject]
        object_ = [layer_number(model, layer) for layer in self.object_layers or default_object]
        if min(subject) >= max(object_):
            raise ValueError(f"no object layer of {object_} lies above a subject layer of {subject}; give one")
        return subject, object_


@shows_progress
@numbers_checked
@fingerprints_once()
def select_settings(
    model: HookedModel,
    train: Relation,
    *,
    space: SearchSpace = SearchSpace(),
    shots: int = 4,
    n_prompts: int = 5,
    method: str = "lrc",
    seed: int = 0,
    others: Sequence[Relation] | None = None,
    progress: bool = True,
) -> Settings:
    """Layers by accuracy, then rank and beta by accuracy plus hard success within limits, on held-out facts.

    The facts of `train` are split again: LREs and directions come from known few-shot prompts of the one part, and
    are judged on known zero-shot prompts of the other, one per fact, asked with every zero-shot template (few-shot
    ones where fewer than five facts are known zero-shot).
    The layers are those with the best accuracy on average over the ranks, ties by mean reciprocal rank: a few
    dozen facts cannot tell single candidates apart.

    With `method="lrc-map"` there are no ranks: at each pair of layers the noise is the one that reads the known
    few-shot facts best when each is left out (`DualFit.choose_noise`), and the last layer is among the object
    layers. With `method="lrc-map-combined"` nothing but layers and beta is chosen: the noise is the method's own.
    The covariance of subjects never holds those of the facts held out for choosing.

    A beta is within limits while the edits change little else: KL elsewhere at most 0.7 nats and a perplexity
    ratio of neutral texts of at most 1.5 (`Settings` says what they are). Larger edits reach more soft causality
    but break what the model says. Unless `space` names them, betas are tried from 0.001 to 0.03 in steps of about
    3, further out as long as the best is the smallest or largest, and between the best and its neighbours. Ties go
    to the higher causality, then to the smaller beta (where no edit succeeds, to the larger change of the
    log-odds) and rank.

    Args:
        space: layers, ranks and betas to choose from.
        shots: examples in the prompts of the first part.
        n_prompts: LRE prompts for each pair of layers, balanced over objects.
        method: what the settings are for, `"lrc"`, `"lrc-map"` or `"lrc-map-combined"`.
        others: relations that give the statements elsewhere; the built-in ones by default.

    Raises:
        ValueError: too few known facts to choose by, layers without a pair subject < object, or another method.
    """
    if method not in _SELECTABLE:
        raise ValueError(f"method is {method!r}; settings can be chosen for {' or '.join(_SELECTABLE)}")
    is_dual, is_whole = METHODS[method].is_dual, bool(METHODS[method].combines)
    subject_layers, object_layers = space.layers(model)
    require_fittable(model)
    if is_dual and not is_whole and not space.object_layers:
        object_layers = sorted({*object_layers, int(model.cfg.n_layers) - 1})
    if n_prompts < 1:
        raise ValueError(f"n_prompts is {n_prompts}; it must be 1 or more")
    fit_on, validate_on = train.split(seed=seed)
    known = filter_known(model, fit_on.prompts(shots=shots, seed=seed), seed=seed, progress=progress)
    known.require_nonempty()
    validation_shots, validation = _validation_prompts(
        model, validate_on, shots=shots, seed=seed, progress=progress
    )
    subject_acts = prompt_activations(model, validation, subject_layers=subject_layers).subject
    background = None
    if is_dual:
        held_out = [fact.subject for fact in validate_on.facts]
        background = _background(model, subject_layers, known.prompts, held_out, space, progress=progress)
    candidates: Candidates
    if is_whole:
        candidates = whole_candidates(
            model, known, METHODS[method], (subject_layers, object_layers),
            FitSettings(max_lre_prompts=n_prompts, background=background), seed=seed, progress=progress,
        )  # fmt: skip
    else:
        lres = fit_layer_grid(
            model,
            known.sample(n_prompts, seed=seed),
            subject_layers=subject_layers,
            object_layers=object_layers,
            progress=progress,
        )
        if background is None:
            candidates = rank_candidates(model, lres, known.prompts, space.ranks)
        else:
            candidates = dual_candidates(model, lres, known.prompts, background, space.noises)
    tried = _accuracies(candidates, subject_acts, [prompt.object for prompt in validation])
    pair = _best_pair(tried)
    at_pair = tried[(tried.subject_layer == pair[0]) & (tried.object_layer == pair[1])]
    accuracies = {
        str(value): float(accuracy)
        for value, accuracy in zip(at_pair[candidates.name].tolist(), at_pair.accuracy, strict=True)
    }
    edits = counterfactual_edits([p for p in validation if p.object in candidates.objects], seed=seed)
    sets = {value: candidates.concepts(pair, float(value)) for value in accuracies}
    statements = known_statements(model, train, seed=seed, others=others, progress=progress)
    trials = BetaTrials(model, sets, edits, statements, seed=seed, progress=progress)
    effects, best, chosen = search_betas(trials, accuracies, space.betas)
    return Settings(
        subject_layer=pair[0],
        object_layer=pair[1],
        rank=None if is_dual else int(best),
        beta=chosen.beta,
        accuracy=accuracies[best],
        causality=chosen.causality,
        hard_success=chosen.hard_success,
        kl_elsewhere=chosen.kl_elsewhere,
        perplexity_ratio=chosen.perplexity_ratio,
        within_limits=chosen.within_limits,
        n_statements=len(statements),
        n_validation=len(validation),
        validation_shots=validation_shots,
        tried=tried,
        tried_edits=_edits_table(effects, accuracies, candidates.name),
        noise=float(best) if is_dual else None,
        method=method,
    )


def _background(
    model: HookedModel,
    layers: Sequence[int],
    prompts: Sequence[Prompt],
    held_out: Sequence[str],
    space: SearchSpace,
    *,
    progress: bool,
) -> SubjectStatistics:
    """How subjects vary, without `held_out`, the subjects that the candidates are judged on."""
    if space.background is None:
        whole = SubjectStatistics.fit(model, layers=layers, progress=progress)
        return whole.without([*held_out_subjects(prompts), *held_out])
    space.background.require_model(model)
    return space.background.without(held_out)


def _accuracies(candidates: Candidates, subject_acts: Mapping[int, Tensor], actual: Sequence[str]) -> pd.DataFrame:
    """One row for each candidate: how well its directions tell the objects of the subjects.

    Raises:
        ValueError: no LRE has any rank.
    """
    rows = []
    for pair in candidates.pairs:
        for value in candidates.values(pair):
            result = classify_activations(candidates.concepts(pair, value), subject_acts[pair[0]], actual)
            rows.append(
                {
                    "subject_layer": pair[0],
                    "object_layer": pair[1],
                    candidates.name: value,
                    "accuracy": result.accuracy,
                    "mean_reciprocal_rank": result.mean_reciprocal_rank,
                }
            )
    if not rows:
        raise ValueError(
            "every LRE is zero: the objects do not depend on the subjects at these layers; give others"
        )
    return pd.DataFrame(rows)


def _best_pair(tried: pd.DataFrame) -> Pair:
    """The pair of layers with the best accuracy on average over the ranks, ties by mean reciprocal rank."""
    criteria = ["accuracy", "mean_reciprocal_rank"]
    by_pair = tried.groupby(["subject_layer", "object_layer"], sort=True)[criteria].mean()
    first: Pair = by_pair.sort_values(criteria, ascending=False, kind="stable").index[0]
    return int(first[0]), int(first[1])


def _edits_table(
    effects: Mapping[str, Sequence[BetaEffect]], accuracies: Mapping[str, float], name: str
) -> pd.DataFrame:
    """One row for each rank or noise and beta tried; `name` says which of the two."""
    kind = int if name == "rank" else float
    rows = [
        {
            name: kind(value),
            "accuracy": accuracies[value],
            **asdict(effect),
            "within_limits": effect.within_limits,
        }
        for value, of_value in effects.items()
        for effect in of_value
    ]
    return pd.DataFrame(rows)


def _validation_prompts(
    model: HookedModel, relation: Relation, *, shots: int, seed: int, progress: bool
) -> tuple[int, tuple[Prompt, ...]]:
    for used in (0, shots):
        # As test facts are: zero-shot with every template, one known prompt per fact.
        asked = relation.prompts(shots=used, seed=seed, templates="one" if used else "all")
        known = filter_known(model, asked, seed=seed, whole_answers=False, progress=progress).one_per_fact()
        if len(known.prompts) >= _FEWEST and len({prompt.object for prompt in known.prompts}) >= 2:
            return used, known.prompts
    raise ValueError(
        f"the model knows only {len(known.prompts)} of the {len(relation.facts)} facts held out for choosing, and "
        f"{_FEWEST} of two objects are needed; give more training facts, or choose layers and rank yourself"
    )
