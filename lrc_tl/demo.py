"""The main job from end to end on one relation: what `lrc-tl demo` runs."""

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.beta import BetaSource
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.evaluation.causality import CausalityResult, causality_curve
from lrc_tl.evaluation.classification import Classification, classify_activations
from lrc_tl.evaluation.statements import known_statements
from lrc_tl.evaluation.summary import Evaluation, evaluate, random_differences, swap_differences
from lrc_tl.methods.baselines import mean_concepts
from lrc_tl.methods.fitting import fit_concepts
from lrc_tl.methods.method import METHODS, default_method
from lrc_tl.methods.settings import FitSettings
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import subject_activations
from lrc_tl.passes.known_prompts import KnownPrompts, filter_known
from lrc_tl.relations.relation import Relation
from lrc_tl.steering.generation import generate
from lrc_tl.tuning.selection import Settings, select_settings

STRENGTHS = (0.02, 0.03, 0.05, 0.08, 0.12)
_NEW_TOKENS = 12


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Every number of the demo; field names are those of its JSON."""

    relation: str
    n_known: int
    """Training prompts (few-shot) that the model answers correctly."""
    n_test: int
    """Test facts that the model answers correctly zero-shot, on at least one template."""
    n_objects: int
    n_test_objects: int
    chance: float
    accuracy: float
    mean_baseline_accuracy: float
    causality: float
    """Share of swaps after which the new object is more probable than the old one."""
    hard_success: float
    """Share of swaps after which the model itself says the new object."""
    kl_elsewhere: float | None
    """Mean KL(edited || unedited) behind known statements of other relations, nats; None: none is known."""
    n_elsewhere: int
    """(swap, statement) pairs behind it."""
    random_causality: float
    """The same edits with random directions of the same norms."""
    random_hard_success: float
    beta: float
    beta_source: BetaSource
    n_edits: int
    reload_max_abs_diff: float
    method: str
    subject_layer: int
    object_layer: int
    n_lre_prompts: int
    validation: dict[str, Any]
    """What the choice of layers and beta was based on: held-out training facts."""
    prompt: str
    subject: str
    ranking: list[tuple[str, float]]
    concept: str
    strength: float
    steering_succeeded: bool
    """Whether the steered text names the concept or one of its training subjects."""
    text_unsteered: str
    text_steered: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judgement:
    """What the directions do on subjects that they were not made from."""

    evaluation: Evaluation
    baseline: Classification
    """Of mean activations."""
    control: CausalityResult
    """Of random directions of the same norms."""
    hard_success: float
    random_hard_success: float


@dataclass(frozen=True, kw_only=True)
class _Steered:
    """Texts without and with steering."""

    concept: str
    strength: float
    succeeded: bool
    """Whether the steered text names the concept or one of its training subjects."""
    unsteered: str
    steered: str


@numbers_checked
def run_demo(
    model: HookedModel,
    relation: Relation,
    *,
    neutral_text: str = "My favourite city is",
    seed: int = 0,
    shots: int = 4,
    n_lre_prompts: int = 12,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> DemoResult:
    """Relation -> directions -> probe, swap and steer; layers, beta and strength from training facts.

    The directions are those of the default method of `fit_concepts`.

    Raises:
        ValueError: the model knows too few of the facts.
    """
    train, test = relation.split(seed=seed)
    say(f"1. What the model knows of {relation.name} ({len(train.facts)} training, {len(test.facts)} test facts)")
    known = filter_known(model, train.prompts(shots=shots, seed=seed), seed=seed, progress=progress)
    known.require_nonempty()
    asked = test.prompts(templates="all")
    unseen = filter_known(model, asked, seed=seed, progress=progress).one_per_fact()
    unseen.require_nonempty()
    say(
        f"   {len(known.prompts)} training prompts ({shots}-shot) and {len(unseen.prompts)} test facts (zero-shot)"
    )

    method = default_method(rank=None)
    say("2. Layers and beta, chosen on held-out training facts (select_settings)")
    settings = select_settings(model, train, method=method, shots=shots, seed=seed, progress=progress)
    say(_described(settings))
    say("   a larger beta makes the new object likelier than the old one, but breaks what the model says")

    say(f"3. One direction for each object, from {n_lre_prompts} prompts for each LRE (fit_concepts)")
    say(f"   {method}: {METHODS[method].summary}")
    concepts = fit_concepts(
        model,
        known.prompts,
        method=method,
        subject_layer=settings.subject_layer,
        object_layer=settings.object_layer,
        seed=seed,
        settings=FitSettings(max_lre_prompts=n_lre_prompts),
        progress=progress,
    ).with_beta(settings.beta)

    say("4. Unseen subjects")
    acts = subject_activations(model, unseen.prompts, layer=concepts.layer)
    judgement = _judgement(model, relation, concepts, known, unseen, acts, seed=seed, progress=progress)
    for line in _judged(judgement, concepts):
        say(line)

    first = unseen.prompts[0]
    ranking = concepts.classify(model, first.text, subject=first.subject)
    say(f"5. One prompt: {first.text!r}")
    say("   " + ", ".join(f"{name} {score:,.2f}" for name, score in ranking[:5]))

    steered = _steering(model, concepts, train, neutral_text, seed=seed)
    outcome = "the smallest that names it or a training subject" if steered.succeeded else "none tried names it"
    say(f"6. Steering towards {steered.concept} with strength {steered.strength:g} ({outcome})")
    say(f"   without: {steered.unsteered!r}")
    say(f"   with:    {steered.steered!r}")

    difference = _difference_after_loading(model, concepts, acts)
    say(f"7. Saved and loaded: scores differ by at most {difference:g}")
    return _demo_result(
        known=known,
        unseen=unseen,
        settings=settings,
        n_lre_prompts=min(n_lre_prompts, len(known.prompts)),
        concepts=concepts,
        judgement=judgement,
        ranking=ranking,
        steered=steered,
        reload_max_abs_diff=difference,
        relation=relation,
    )


def _described(settings: Settings) -> str:
    return (
        f"   subject layer {settings.subject_layer}, object layer {settings.object_layer}, "
        f"beta {settings.beta:g} (accuracy {settings.accuracy:.2f}, hard success {settings.hard_success:.2f}, "
        f"causality {settings.causality:.2f}{_nats(settings.kl_elsewhere)}, perplexity of neutral texts "
        f"x{settings.perplexity_ratio:.2f} on {settings.n_validation} held-out facts)"
    )


def _judgement(
    model: HookedModel,
    relation: Relation,
    concepts: ConceptSet,
    known: KnownPrompts,
    unseen: KnownPrompts,
    acts: Float[Tensor, "prompt d_model"],
    *,
    seed: int,
    progress: bool,
) -> _Judgement:
    """Accuracy and causality on the unseen prompts, of the directions and of what they are compared with."""
    statements = known_statements(model, relation, seed=seed, progress=progress)
    evaluation = evaluate(model, concepts, unseen.prompts, seed=seed, elsewhere=statements, progress=progress)
    actual = [prompt.object for prompt in unseen.prompts]
    baseline = classify_activations(mean_concepts(model, known.prompts, layer=concepts.layer), acts, actual)
    differences = random_differences(swap_differences(concepts, evaluation.edits), seed=seed)
    (control,) = causality_curve(
        model,
        evaluation.edits,
        differences,
        betas=[evaluation.causality_result.beta],
        generated=True,
        clean=evaluation.causality_result.clean,
        progress=progress,
    )
    assert evaluation.hard_success is not None
    assert control.hard_causality is not None
    return _Judgement(
        evaluation=evaluation,
        baseline=baseline,
        control=control,
        hard_success=evaluation.hard_success,
        random_hard_success=control.hard_causality,
    )


def _judged(judgement: _Judgement, concepts: ConceptSet) -> tuple[str, str]:
    """What the demo says of accuracy and of the swaps."""
    evaluation, control = judgement.evaluation, judgement.control
    classification = evaluation.classification
    return (
        f"   accuracy {classification.accuracy:.3f} ({classification.n_correct} of {classification.n_prompts}, "
        f"{len(concepts)} objects; chance {classification.chance:.3f}, mean-activation baseline "
        f"{judgement.baseline.accuracy:.3f})",
        f"   {len(evaluation.edits)} swaps at beta {evaluation.causality_result.beta:g} "
        f"({evaluation.beta_source}): the model itself says the new object in {judgement.hard_success:.3f} (hard "
        f"success), it is likelier than the old one in {evaluation.causality:.3f} "
        f"(causality){_nats(evaluation.kl_elsewhere)}; random directions of the same norm: "
        f"{judgement.random_hard_success:.3f} and {control.causality:.3f}",
    )


def _difference_after_loading(
    model: HookedModel, concepts: ConceptSet, acts: Float[Tensor, "prompt d_model"]
) -> float:
    """The largest difference of scores between the concepts and what comes back from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "concepts.safetensors"
        concepts.save(path)
        loaded = ConceptSet.load(path, model=model)
    return float((loaded.scores(acts) - concepts.scores(acts)).abs().max())


def _steering(model: HookedModel, concepts: ConceptSet, train: Relation, text: str, *, seed: int) -> _Steered:
    """Concept and smallest strength whose text names the concept or one of its training subjects.

    At most three concepts are tried, in seeded order, each with all strengths as one batch; where none succeeds,
    the first at the largest strength comes back.
    """
    names = {name: [name, *(fact.subject for fact in train.facts if fact.object == name)] for name in concepts}
    (plain,) = generate(model, text, max_new_tokens=_NEW_TOKENS)
    candidates = sorted(name for name in concepts if not _mentions(plain.text, names[name]))
    tried = random.Random(seed).sample(candidates, min(3, len(candidates)))
    strongest = ""
    for name in tried:
        steering = concepts[name].add(strength=0.0).at()
        swept = generate(model, text, steering=steering, strengths=STRENGTHS, max_new_tokens=_NEW_TOKENS)
        for strength, generated in zip(STRENGTHS, swept, strict=True):
            if _mentions(generated.text, names[name]):
                return _Steered(
                    concept=name,
                    strength=strength,
                    succeeded=True,
                    unsteered=plain.text,
                    steered=generated.text,
                )
        strongest = strongest or swept[-1].text
    return _Steered(
        concept=tried[0], strength=STRENGTHS[-1], succeeded=False, unsteered=plain.text, steered=strongest
    )


def _demo_result(
    *,
    relation: Relation,
    known: KnownPrompts,
    unseen: KnownPrompts,
    settings: Settings,
    n_lre_prompts: int,
    concepts: ConceptSet,
    judgement: _Judgement,
    ranking: list[tuple[str, float]],
    steered: _Steered,
    reload_max_abs_diff: float,
) -> DemoResult:
    evaluation = judgement.evaluation
    classification = evaluation.classification
    return DemoResult(
        relation=relation.name,
        n_known=len(known.prompts),
        n_test=len(unseen.prompts),
        n_objects=len(concepts),
        n_test_objects=len({prompt.object for prompt in unseen.prompts}),
        chance=classification.chance,
        accuracy=classification.accuracy,
        mean_baseline_accuracy=judgement.baseline.accuracy,
        causality=evaluation.causality,
        hard_success=judgement.hard_success,
        kl_elsewhere=evaluation.kl_elsewhere,
        n_elsewhere=0 if evaluation.elsewhere is None else evaluation.elsewhere.n_statements,
        random_causality=judgement.control.causality,
        random_hard_success=judgement.random_hard_success,
        beta=evaluation.causality_result.beta,
        beta_source=evaluation.beta_source,
        n_edits=len(evaluation.edits),
        reload_max_abs_diff=reload_max_abs_diff,
        method=settings.method,
        subject_layer=settings.subject_layer,
        object_layer=settings.object_layer,
        n_lre_prompts=n_lre_prompts,
        validation=settings.to_dict(),
        prompt=unseen.prompts[0].text,
        subject=unseen.prompts[0].subject,
        ranking=ranking,
        concept=steered.concept,
        strength=steered.strength,
        steering_succeeded=steered.succeeded,
        text_unsteered=steered.unsteered,
        text_steered=steered.steered,
    )


def _nats(kl_elsewhere: float | None) -> str:
    return "" if kl_elsewhere is None else f", KL elsewhere {kl_elsewhere:.2f} nats"


def _mentions(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)
