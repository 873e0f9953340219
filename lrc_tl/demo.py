"""The main job from end to end on one relation: what `lrc-tl demo` runs."""

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.beta import BetaSource
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.evaluation.causality import causality_curve
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.statements import known_statements
from lrc_tl.evaluation.summary import evaluate, random_differences, swap_differences
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.methods.baselines import mean_concepts
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.activations import subject_activations
from lrc_tl.passes.known_prompts import filter_known
from lrc_tl.relations.relation import Relation
from lrc_tl.steering.generation import generate
from lrc_tl.tuning.selection import select_settings

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
    subject_layer: int
    object_layer: int
    rank: int
    n_lre_prompts: int
    validation: dict[str, Any]
    """What the choice of layers, rank and beta was based on: held-out training facts."""
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
    """Relation -> LRE -> directions -> probe, swap and steer; layers, rank, beta and strength from training facts.

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

    say("2. Layers, rank and beta, chosen on held-out training facts (select_settings)")
    settings = select_settings(model, train, shots=shots, seed=seed, progress=progress)
    say(
        f"   subject layer {settings.subject_layer}, object layer {settings.object_layer}, rank {settings.rank}, "
        f"beta {settings.beta:g} (accuracy {settings.accuracy:.2f}, hard success {settings.hard_success:.2f}, "
        f"causality {settings.causality:.2f}{_nats(settings.kl_elsewhere)}, perplexity of neutral texts "
        f"x{settings.perplexity_ratio:.2f} on {settings.n_validation} held-out facts)"
    )
    say("   a larger beta makes the new object likelier than the old one, but breaks what the model says")

    say(f"3. The LRE, from {n_lre_prompts} prompts, and one direction for each object")
    lre_prompts = known.sample(n_lre_prompts, seed=seed)
    lre = LinearRelationalEmbedding.fit(
        model,
        lre_prompts,
        subject_layer=settings.subject_layer,
        object_layer=settings.object_layer,
        progress=progress,
    )
    concepts = lre.concepts(model, known.prompts, rank=settings.rank).with_beta(settings.beta)

    say("4. Unseen subjects")
    statements = known_statements(model, relation, seed=seed, progress=progress)
    result = evaluate(model, concepts, unseen.prompts, seed=seed, elsewhere=statements, progress=progress)
    actual = [prompt.object for prompt in unseen.prompts]
    read = subject_activations(model, unseen.prompts, layer=concepts.layer)
    baseline = classify_activations(mean_concepts(model, known.prompts, layer=concepts.layer), read, actual)
    differences = random_differences(swap_differences(concepts, result.edits), seed=seed)
    (control,) = causality_curve(
        model,
        result.edits,
        differences,
        betas=[settings.beta],
        generated=True,
        clean=result.causality_result.clean,
        progress=progress,
    )
    hard_success, random_hard_success = result.hard_success, control.hard_causality
    assert hard_success is not None
    assert random_hard_success is not None
    found = result.classification
    say(
        f"   accuracy {found.accuracy:.3f} ({found.n_correct} of {found.n_prompts}, {len(concepts)} objects; "
        f"chance {found.chance:.3f}, mean-activation baseline {baseline.accuracy:.3f})"
    )
    say(
        f"   {len(result.edits)} swaps at beta {result.causality_result.beta:g} ({result.beta_source}): the model "
        f"itself says the new object in {hard_success:.3f} (hard success), it is likelier than the old one in "
        f"{result.causality:.3f} (causality){_nats(result.kl_elsewhere)}; random directions of the same norm: "
        f"{random_hard_success:.3f} and {control.causality:.3f}"
    )

    shown = unseen.prompts[0]
    ranking = concepts.classify(model, shown.text, subject=shown.subject)
    say(f"5. One prompt: {shown.text!r}")
    say("   " + ", ".join(f"{name} {score:,.0f}" for name, score in ranking[:5]))

    concept, strength, named, unsteered, steered = _steering(model, concepts, train, neutral_text, seed=seed)
    outcome = "the smallest that names it or a training subject" if named else "none tried names it"
    say(f"6. Steering towards {concept} with strength {strength:g} ({outcome})")
    say(f"   without: {unsteered!r}")
    say(f"   with:    {steered!r}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "concepts.safetensors"
        concepts.save(path)
        again = ConceptSet.load(path, model=model)
    difference = float((again.scores(read) - concepts.scores(read)).abs().max())
    say(f"7. Saved and loaded: scores differ by at most {difference:g}")
    return DemoResult(
        relation=relation.name,
        n_known=len(known.prompts),
        n_test=len(unseen.prompts),
        n_objects=len(concepts),
        n_test_objects=len(set(actual)),
        chance=found.chance,
        accuracy=found.accuracy,
        mean_baseline_accuracy=baseline.accuracy,
        causality=result.causality,
        hard_success=hard_success,
        kl_elsewhere=result.kl_elsewhere,
        n_elsewhere=0 if result.elsewhere is None else result.elsewhere.n_statements,
        random_causality=control.causality,
        random_hard_success=random_hard_success,
        beta=result.causality_result.beta,
        beta_source=result.beta_source,
        n_edits=len(result.edits),
        reload_max_abs_diff=difference,
        subject_layer=settings.subject_layer,
        object_layer=settings.object_layer,
        rank=settings.rank,
        n_lre_prompts=len(lre_prompts),
        validation=settings.to_dict(),
        prompt=shown.text,
        subject=shown.subject,
        ranking=ranking,
        concept=concept,
        strength=strength,
        steering_succeeded=named,
        text_unsteered=unsteered,
        text_steered=steered,
    )


def _steering(
    model: HookedModel, concepts: ConceptSet, train: Relation, text: str, *, seed: int
) -> tuple[str, float, bool, str, str]:
    """Concept and smallest strength whose text names the concept or one of its training subjects.

    At most three concepts are tried, in seeded order, each with all strengths as one batch; where none succeeds,
    the first at the largest strength comes back.
    """
    names = {name: [name, *(fact.subject for fact in train.facts if fact.object == name)] for name in concepts}
    (plain,) = generate(model, text, max_new_tokens=_NEW_TOKENS)
    unsteered = plain.text
    candidates = sorted(name for name in concepts if not _mentions(unsteered, names[name]))
    tried = random.Random(seed).sample(candidates, min(3, len(candidates)))
    last = ""
    for name in tried:
        steering = concepts[name].add(strength=0.0).at()
        swept = generate(model, text, steering=steering, strengths=STRENGTHS, max_new_tokens=_NEW_TOKENS)
        for strength, generated in zip(STRENGTHS, swept, strict=True):
            if _mentions(generated.text, names[name]):
                return name, strength, True, unsteered, generated.text
        last = last or swept[-1].text
    return tried[0], STRENGTHS[-1], False, unsteered, last


def _nats(kl_elsewhere: float | None) -> str:
    return "" if kl_elsewhere is None else f", KL elsewhere {kl_elsewhere:.2f} nats"


def _mentions(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)
