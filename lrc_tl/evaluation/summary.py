"""`evaluate`: accuracy and causality of a set of directions on known prompts, by fixed definitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.beta import BetaSource, beta_or_stored
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import writing_vector
from lrc_tl.evaluation.causality import CausalityResult, Edit, causality_curve, counterfactual_edits
from lrc_tl.evaluation.classification import Classification, classify_activations, require_several
from lrc_tl.evaluation.collateral import SideEffects, side_effects, unrelated_statements
from lrc_tl.evaluation.displays import evaluation_html
from lrc_tl.markup.progress import shows_progress
from lrc_tl.models.fingerprint import fingerprints_once
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import HOST
from lrc_tl.numerics.statistics import share_interval
from lrc_tl.passes.activations import subject_activations
from lrc_tl.relations.prompts import Prompt

_STATEMENTS = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Accuracy and causality of one set, with the counts behind them."""

    classification: Classification
    causality_result: CausalityResult
    edits: tuple[Edit, ...]
    seed: int
    beta_source: BetaSource = "given"
    """Where the beta of `causality_result` comes from."""
    elsewhere: SideEffects | None = None
    """What the edits do to the statements that they are not meant for; None: none were given."""

    @property
    def accuracy(self) -> float:
        """Share of subjects whose object has the highest score."""
        return self.classification.accuracy

    @property
    def causality(self) -> float:
        """Share of edits after which p(o') > p(o)."""
        return self.causality_result.causality

    @property
    def hard_success(self) -> float | None:
        """Share of edits after which the model itself says o': greedy decoding of the edited run gives it."""
        return self.causality_result.hard_causality

    @property
    def kl_elsewhere(self) -> float | None:
        """Mean KL(edited || unedited) of the next token behind the statements, nats; None: none were given."""
        return None if self.elsewhere is None else self.elsewhere.mean_kl

    def to_dict(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "accuracy": self.accuracy,
            "n_prompts": self.classification.n_prompts,
            "n_correct": self.classification.n_correct,
            "n_objects": len(self.classification.candidates),
            "chance": self.classification.chance,
            "uniform_chance": self.classification.uniform_chance,
            "mean_reciprocal_rank": self.classification.mean_reciprocal_rank,
            "causality": self.causality,
            "hard_success": self.hard_success,
            "kl_elsewhere": self.kl_elsewhere,
            "n_elsewhere": 0 if self.elsewhere is None else self.elsewhere.n_statements,
            "n_edits": self.causality_result.n_edits,
            "beta": self.causality_result.beta,
            "beta_source": self.beta_source,
            "edit_share": self.causality_result.edit_share,
            "mean_log_odds_change": float(self.causality_result.log_odds_change.mean()),
            "wrong_way": self.causality_result.wrong_way,
            "seed": self.seed,
        }

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, over the prompts."""
        return share_interval(self.classification.n_correct, self.classification.n_prompts)

    @property
    def causality_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the causality, as if the edits were independent."""
        return share_interval(int(self.causality_result.success.sum()), self.causality_result.n_edits)

    _repr_html_ = evaluation_html

    def __repr__(self) -> str:
        classification, effect = self.classification, self.causality_result
        hard = "" if self.hard_success is None else f", hard success {self.hard_success:.3f}"
        away = "" if self.kl_elsewhere is None else f", KL elsewhere {self.kl_elsewhere:.3f} nats"
        accuracy, causality = self.accuracy_interval, self.causality_interval
        return (
            f"Evaluation(accuracy {self.accuracy:.3f} ({classification.n_correct} of {classification.n_prompts}, "
            f"95 % {accuracy[0]:.3f} to {accuracy[1]:.3f}, "
            f"{len(classification.candidates)} objects, chance {classification.chance:.3f}), "
            f"causality {self.causality:.3f}{hard}{away} ({int(effect.success.sum())} of {effect.n_edits} edits, "
            f"95 % {causality[0]:.3f} to {causality[1]:.3f}, beta {effect.beta:g}, {self.beta_source}))"
        )


@shows_progress
@numbers_checked
@fingerprints_once()
def evaluate(
    model: HookedModel,
    concepts: ConceptSet,
    prompts: Sequence[Prompt],
    *,
    beta: float | None = None,
    seed: int = 0,
    edits_per_object: int = 5,
    elsewhere: Sequence[Prompt] = (),
    clean: Evaluation | None = None,
    progress: bool = True,
) -> Evaluation:
    """Accuracy on the prompts' subjects, causality of swaps between their objects (arXiv:2311.08968, section 4).

    Give prompts that the model answers correctly (`filter_known`), of subjects that the set was not made from. A
    prompt whose object has no direction counts as wrong and takes no part in the edits.

    Args:
        beta: the factor of eq. 7: the edit adds `beta |h| (w_o' - w_o)`, the difference of the vectors that the
            two directions write with, at the subject token of every layer. None: the one that the set carries
            (`ConceptSet.with_beta`), else `lrc_tl.directions.beta.DEFAULT_BETA`; `beta_source` says which. A
            larger beta makes o' more probable against o, but beyond a size that depends on the model it breaks
            what the model says: look at hard success and KL elsewhere, not at causality alone. The paper's is 0.1.
        seed: draws the edits, the same for every set on the same prompts.
        clean: an earlier result on the same model, prompts, objects and seed, whose unedited runs are taken over.
            Without it every call runs the unedited prompts again: in a loop over layers or methods that is up to
            half of the work.
        elsewhere: statements that the edits should leave alone, such as `known_statements(model, relation)`.
            `kl_elsewhere` is measured on at most 60 of them, each with one edit.

    Raises:
        ValueError: no prompts, one object only, a beta that is not finite, or a `clean` with other edits.
        NotFiniteError: the model or the edit gives numbers that are not finite.
        FingerprintMismatch: the set was made on another model.
    """
    prompts, elsewhere = as_tuple(prompts, "prompts", Prompt), as_tuple(elsewhere, "elsewhere", Prompt)
    size, source = beta_or_stored(beta, concepts.settings)
    require_several(concepts)
    concepts.require_model(model)
    with_direction = [prompt for prompt in prompts if prompt.object in concepts]
    edits = counterfactual_edits(with_direction, seed=seed, per_object=edits_per_object)
    if clean is not None and clean.edits != edits:
        raise ValueError(
            f"clean has other edits ({len(clean.edits)} with seed {clean.seed}) than these "
            f"({len(edits)} with seed {seed}); "
            "give a result on the same prompts, objects, seed and edits_per_object, or none"
        )
    activations = subject_activations(model, prompts, layer=concepts.layer)
    classification = classify_activations(concepts, activations, [prompt.object for prompt in prompts])
    differences = swap_differences(concepts, edits)
    (effect,) = causality_curve(
        model,
        edits,
        differences,
        betas=[size],
        generated=True,
        clean=None if clean is None else clean.causality_result.clean,
        progress=progress,
    )
    away = None
    if elsewhere:
        statements = unrelated_statements(edits, elsewhere, n=_STATEMENTS)
        (away,) = side_effects(model, statements, {"": differences}, betas=[size], progress=progress)[""]
    return Evaluation(
        classification=classification,
        causality_result=effect,
        edits=edits,
        seed=seed,
        beta_source=source,
        elsewhere=away,
    )


@checked
def swap_differences(concepts: ConceptSet, edits: Sequence[Edit]) -> Float[Tensor, "edit d_model"]:
    """`w_o' - w_o` for each edit: the difference of the writing vectors."""
    return torch.stack(
        [writing_vector(concepts[edit.target]) - writing_vector(concepts[edit.prompt.object]) for edit in edits]
    )


@checked
def random_differences(differences: Float[Tensor, "edit d_model"], *, seed: int) -> Float[Tensor, "edit d_model"]:
    """A random direction for each edit, with the norm of its own difference: the control for causality."""
    generator = torch.Generator(device=HOST).manual_seed(seed)
    drawn = torch.randn(differences.shape, generator=generator, dtype=torch.float64, device=HOST).to(differences)
    scaled: Tensor = drawn / drawn.norm(dim=-1, keepdim=True) * differences.norm(dim=-1, keepdim=True)
    return scaled
