"""Uses of every public entry point that takes a model: what they say of each of some rows (`test_batches`)."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from entry_point_rows import (
    EDITS,
    LAYERS,
    NEUTRAL,
    OBJECTS,
    PROMPTS,
    SUBJECTS,
    TEXTS,
    amounts,
    close,
    concepts,
    continuation,
    differences,
    direction,
    of,
    padded,
    padded_ids,
    places,
    planted,
    residuals,
)
from tiny_steering import HOOK, adding

import lrc_tl as lrc
from lrc_tl.models.unembedding import lens_logits
from lrc_tl.passes.tracking import is_steered
from lrc_tl.tuning.neutral_effects import neutral_effects

# Every public function and method that takes a model is an entry of `ENTRIES`, whose rows are run alone and in
# batches; or one that hands back no row but a figure of many, which is run with every pass over one row alone.
WHOLE = (
    "LinearRelationalEmbedding.fit",
    "SubjectStatistics.fit",
    "calibrate_strength",
    "contrast_concepts",
    "evaluate",
    "fit_baselines",
    "fit_concepts",
    "fit_erasure",
    "fit_layer_grid",
    "known_statements",
    "mean_concepts",
    "run_protocol",
    "run_sweep",
    "select_settings",
    "selectivity",
)
NO_PASS, ONE_TEXT = "runs no text", "names a place in one text, and runs nothing"
EXCEPTIONS = {
    "chat_prompt": NO_PASS,
    "chat_text": NO_PASS,
    "fit_cost": NO_PASS,
    "free_text_edits": NO_PASS,
    "ConceptDirection.readout": NO_PASS,
    "ConceptDirection.require_model": NO_PASS,
    "ConceptSet.require_model": NO_PASS,
    "ConceptSet.load": NO_PASS,
    "ConceptSet.from_hub": NO_PASS,
    "LinearRelationalEmbedding.load": NO_PASS,
    "LinearRelationalEmbedding.require_model": NO_PASS,
    "ModelFingerprint.of": "runs fixed tokens of its own, one row",
    "ModelFingerprint.require_model": "runs fixed tokens of its own, one row",
    "SearchSpace.layers": NO_PASS,
    "SubjectStatistics.load": NO_PASS,
    "SweepResult.of": NO_PASS,
    "SubjectStatistics.require_model": NO_PASS,
    "Steering.hook_names": NO_PASS,
    "Steering.require_model": NO_PASS,
    "Steering.hooks": "plain hooks act on all that they see, padding too, which has to be asked for (bos=True)",
    "explore": "runs single texts in a thread of its own, by entry points that are listed",
    "hook_name": NO_PASS,
    "next_token_metric": "runs fixed tokens of its own, one row",
    "plan_sweep": NO_PASS,
    "last_subject_token": ONE_TEXT,
    "random_weights": NO_PASS,
    "readout": NO_PASS,
    "require_hook": NO_PASS,
    "tokenize_prompt": ONE_TEXT,
}


@dataclass(frozen=True)
class Entry:
    """One use of an entry point: what it says of some of the rows, by row."""

    run: Callable
    names: tuple[str, ...]
    in_blocks: bool


ENTRIES: dict[str, Entry] = {}


def entry(*names, in_blocks=True):
    """Registers a use of the public functions `names`; `in_blocks`: it is also run while a steering is on."""

    def register(run):
        ENTRIES[run.__name__] = Entry(run=run, names=names, in_blocks=in_blocks)
        return run

    return register


@entry("prompt_activations", "subject_activations", "object_activations")
def activations_of_prompts(model, rows):
    prompts = of(rows, PROMPTS)
    found = lrc.passes.prompt_activations(
        model, prompts, subject_layers=[0, -1], object_layers=[1, -1],
        object_aggregation={1: "mean", -1: "first_token"},
    )  # fmt: skip
    subject = lrc.subject_activations(model, prompts, layer=1)
    object_ = lrc.passes.object_activations(model, prompts, layer=2)
    of_layers = [*found.subject.values(), *found.object.values(), subject, object_]
    return [[acts[place] for acts in of_layers] for place in range(len(rows))]


@entry("filter_known")
def known_prompts(model, rows):
    prompts = of(rows, said_by(model))
    answers = {}
    for whole in (True, False):
        known = lrc.filter_known(model, prompts, whole_answers=whole, progress=False)
        kept = dict(zip(known.prompts, known.answers, strict=True))
        dropped = {one.prompt: one.answer for one in known.dropped}
        for place, prompt in enumerate(prompts):
            told = (True, kept[prompt]) if prompt in kept else (False, dropped[prompt])
            answers.setdefault(place, []).append(told)
    return [answers[place] for place in range(len(prompts))]


def said_by(model):
    """The prompts with what the model says itself as the object of every second one, where that is a word."""
    made = []
    for number, prompt in enumerate(PROMPTS):
        ids = lrc.relations.tokenize_prompt(model, prompt).text_ids
        answer = model.tokenizer.decode([int(model(torch.tensor([ids]))[0, -1].argmax())])
        made.append(replace(prompt, object=answer) if number % 2 and answer.startswith("w") else prompt)
    return made


@entry("ConceptDirection.pool_texts", "ConceptSet.pool_texts")
def pooled_texts(model, rows):
    texts, subjects = of(rows, TEXTS), of(rows, SUBJECTS)
    made = [concepts().pool_texts(model, texts, by="last_subject_token", subjects=subjects)]
    for by in ("mean", "max"):
        made += [concepts().pool_texts(model, texts, by=by), direction().pool_texts(model, texts, by=by, bos=True)]
    return [[pooled[place] for pooled in made] for place in range(len(rows))]


@entry("content_activations", "ConceptSet.read", "ConceptSet.read_texts")
def read_tokens(model, rows):
    texts = of(rows, TEXTS)
    kinds = ("last", "mean", 0, slice(-2, None))
    acts = [lrc.passes.content_activations(model, texts, layer=1, at=at) for at in kinds]
    read = concepts().read_texts(model, texts)
    close([one.scores for one in read[:1]], [concepts().read(model, texts[0]).scores])
    return [[*(of_kind[place] for of_kind in acts), read[place].scores] for place in range(len(rows))]


@entry("ConceptDirection.read", "ConceptSet.classify")
def read_texts(model, rows):
    """One text a call: alone they are what the tensors of a batch give."""
    side = model.tokenizer.padding_side
    ids, mask = padded(model, rows, side)
    if len(rows) == 1:
        (text,), (subject,) = of(rows, TEXTS), of(rows, SUBJECTS)
        shares = dict(concepts().classify(model, text, subject=subject))
        return [[direction().read(model, text).scores, *(shares[name] for name in OBJECTS)]]
    resid = residuals(model, ids, mask)
    made = []
    for place, row in enumerate(rows):
        own = resid[place, mask[place].bool()]
        at = lrc.last_subject_token(model, TEXTS[row], subject=SUBJECTS[row]).position
        made.append([direction().score(own), *concepts().scores(own[at])])
    return made


@entry("logit_lens", "attribute_lens")
def lenses(model, rows):
    """One text a call: alone they are what the residuals of a batch give."""
    own_lre = planted(model)
    if len(rows) == 1:
        (text,) = of(rows, TEXTS)
        plain = lrc.directions.logit_lens(model, text, layers=[1], k=4)
        return [
            [
                plain.probabilities[0],
                lrc.lre.attribute_lens(model, own_lre, text, layers=[1], k=4).probabilities[0],
            ]
        ]
    ids, mask = padded(model, rows, model.tokenizer.padding_side)
    resid = residuals(model, ids, mask)
    made = []
    for place in range(len(rows)):
        own = resid[place, mask[place].bool()]
        states = own, own_lre.predict(own)
        logits = [torch.cat([part for _, part in lens_logits(model, given)]) for given in states]
        made.append([of_one.softmax(-1).topk(4).values for of_one in logits])
    return made


@entry("token_mask")
def pooled_tensors(model, rows):
    """`pool`, `pool_cache` and `pool_scores` with `token_mask`, of ids with a mask."""
    ids, mask = padded(model, rows, model.tokenizer.padding_side)
    cache = {HOOK: residuals(model, ids, mask)}
    made = []
    for bos in (False, True):
        shown = lrc.directions.token_mask(model, ids, attention_mask=mask, bos=bos)
        scores = concepts().scores(cache[HOOK])
        for by in ("mean", "max"):
            made += [
                concepts().pool_cache(cache, by=by, mask=shown),
                direction().pool(cache[HOOK], by=by, mask=shown),
                lrc.directions.pool_scores(scores, by=by, mask=shown),
            ]
    if lrc.directions.token_mask(model, ids).any(1).all():  # without a mask words alone are told from padding
        assert torch.equal(
            lrc.directions.token_mask(model, ids), lrc.directions.token_mask(model, ids, attention_mask=mask)
        )
    return [[pooled[place] for pooled in made] for place in range(len(rows))]


@entry("generate")
def generated(model, rows):
    texts = of(rows, TEXTS)
    several = [
        adding(strength=amounts(rows), where=-1), adding(where=places(rows)), direction(1).clamp(value=2.0),
    ]  # fmt: skip
    made = [
        lrc.generate(model, texts, steering=steering, max_new_tokens=3) for steering in ((), adding(), several)
    ]
    return [[continuation(of_all[place]) for of_all in made] for place in range(len(rows))]


@entry("generate", in_blocks=False)
def generated_at_strengths(model, rows):
    """A row is a strength, of a mixture with None and 0, over two texts."""
    strengths = of(rows, (2.5, 9.0, 0, None, -3))
    steering = adding(strength=5.0)
    made = lrc.generate(model, TEXTS[1:3], steering=steering, strengths=strengths, max_new_tokens=3)
    by_text = made[: len(rows)], made[len(rows) :]
    return [[(one[place].strength, continuation(one[place])) for one in by_text] for place in range(len(rows))]


@entry("steer", "Steering.on", "ConceptDirection.steer")
def forward_pass(model, rows):
    """Logits of a pass inside a block, of ids with a mask and of strings, padded on the tokenizer's side."""
    ids, mask = padded(model, rows, model.tokenizer.padding_side)
    blocks = [
        nullcontext(),
        adding().on(model),
        direction().steer(model, strength=0.5, where=-1),
        lrc.steer(model, [adding(strength=amounts(rows), where="prompt"), adding(where=places(rows))]),
    ]
    made = []
    for block in blocks:
        with block:
            made.append(model(ids, attention_mask=mask))
            texts = of(rows, TEXTS)
            if not any(text.startswith("<bos>") for text in texts):  # as strings they get two
                strings = model(texts, padding_side=model.tokenizer.padding_side)
                close(strings[mask.bool()], made[-1][mask.bool()])
    return [[logits[place, mask[place].bool()] for logits in made] for place in range(len(rows))]


@entry("ConceptSet.swap", "ConceptSet.swap_steering", in_blocks=False)
def swapped(model, rows):
    """One text goes on in several ways; `where` knows the subject of all of them."""
    begun = "w1 w2 w3"
    texts = of(rows, [begun, f"{begun} <eos>", f"{begun} w4 w5 <eos>", f"{begun} <bos> w6", f"{begun} w8"])
    ids, mask = padded_ids(model, [model.to_tokens(text)[0].tolist() for text in texts])
    steering = concepts().swap_steering(
        model, remove="w9", add="w15", text=begun, subject="w2", beta=0.4 + 0.1 * amounts(rows)
    )
    with steering.on(model):
        made = [model(ids, attention_mask=mask)]
    with concepts().swap(model, remove="w9", add="w15", text=begun, subject="w2", beta=0.3):
        made.append(model(ids, attention_mask=mask))
    told = lrc.generate(model, texts, steering=steering, max_new_tokens=2)
    return [
        [*(logits[place, mask[place].bool()] for logits in made), continuation(told[place])]
        for place in range(len(rows))
    ]


@entry("causality_curve", "causality_curves")
def causality(model, rows):
    edits, own = of(rows, EDITS), {name: differences(seed)[list(rows)] for seed, name in enumerate("ab")}
    both = lrc.evaluation.causality_curves(model, edits, own, betas=[0.5, 2.0], generated=True, progress=False)
    (one,) = lrc.evaluation.causality_curve(
        model, edits, own["b"], betas=[1.0], layers={0: 1.0, 2: 0.5}, generated=True, progress=False
    )
    found = [one, *both["a"], *both["b"]]
    return [
        [(result.clean[place], result.edited[place], result.generated[place]) for result in found]
        for place in range(len(rows))
    ]


@entry("side_effects")
def effects_elsewhere(model, rows):
    pairs = [(row, PROMPTS[(row + 2) % len(PROMPTS)]) for row in rows]
    own = {name: differences(seed) for seed, name in enumerate("ab")}
    found = lrc.evaluation.side_effects(model, pairs, own, betas=[0.5, 2.0], progress=False)
    return [
        [(one.kl[place], one.kept[place], one.log_prob_change[place]) for name in own for one in found[name]]
        for place in range(len(rows))
    ]


@entry("lre_faithfulness")
def faithfulness(model, rows):
    relation = planted(model, object_layer=2, aggregation="first_token")
    found = lrc.evaluation.lre_faithfulness(model, relation, of(rows, PROMPTS))
    return list(zip(found.lre_tokens, found.model_tokens, strict=True))


@entry("lre_causality")
def causality_of_an_lre(model, rows):
    found = lrc.evaluation.lre_causality(model, planted(model), of(rows, EDITS), PROMPTS, rank=8, generated=True)
    return [(found.clean[place], found.edited[place], found.generated[place]) for place in range(len(rows))]


@entry("LinearRelationalEmbedding.concepts")
def concepts_of_an_lre(model, rows):
    own = list(dict.fromkeys(of(rows, PROMPTS)))
    made = planted(model).concepts(model, own, rank=8)
    return [made[PROMPTS[row].object].vector for row in rows]


@entry("subject_object_jacobian", "subject_object_jacobians", "LinearRelationalEmbedding.fit", "fit_layer_grid")
def jacobians(model, rows):
    """Mean weight and bias over a batch are the means over its rows, in any order."""
    if len(rows) == 1:
        prompt = PROMPTS[rows[0]]
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        one = lrc.lre.subject_object_jacobian(model, tokens, **LAYERS)
        other = lrc.lre.subject_object_jacobians(model, tokens, subject_layers=[1], object_layer=2)[1]
        for found, subject_layer, object_layer in ((one, 0, 1), (other, 1, 2)):
            read = lrc.passes.prompt_activations(
                model, [prompt], subject_layers=[subject_layer], object_layers=[object_layer]
            )
            close((found.subject, found.object), (read.subject[subject_layer][0], read.object[object_layer][0]))
        return [[value for j in (one, other) for value in (j.jacobian, j.object - j.jacobian @ j.subject)]]
    alone = [jacobians_alone(model, row) for row in rows]
    prompts = of(rows, PROMPTS)
    one = lrc.LinearRelationalEmbedding.fit(model, prompts, **LAYERS, progress=False)
    other = lrc.fit_layer_grid(model, prompts, subject_layers=[1], object_layers=[2], progress=False)[1, 2]
    means = [one.weight, one.bias, other.weight, other.bias]
    for value, own in zip(means, zip(*alone, strict=True), strict=True):
        close(value, torch.stack(own).mean(0))
    return alone


_kept_jacobians = {}


def jacobians_alone(model, row):
    key = model, row, is_steered(model)
    if key not in _kept_jacobians:
        (_kept_jacobians[key],) = jacobians(model, (row,))
    return _kept_jacobians[key]


@entry("target_beats_object", "at_subject", "swap_at_subject", in_blocks=False)
def margins(model, rows):
    """A row is a strength, of every edit."""
    strengths = of(rows, (0.5, 0.0, 1e-3, 2.0, -1.0))
    made = []
    adding_there, swapping = lrc.tuning.at_subject(model, adding()), lrc.swap_at_subject(model, concepts())
    for steering_of, edit in ((adding_there, EDITS[0]), (swapping, EDITS[2]), (lambda edit: adding(), EDITS[3])):
        made.append(lrc.tuning.target_beats_object(model, edit, steering_of(edit), strengths))
    return [[own[place] for own in made] for place in range(len(rows))]


@entry("calibrate_strength", in_blocks=False)
def success_and_effects_of_strengths(model, rows):
    """A row is a strength: `object_named`, and what is done to neutral texts."""
    strengths = of(rows, (9.0, 0.0, 1e-3, 20.0, 3.0))
    (edit,) = lrc.free_text_edits([TEXTS[0]], "w10")
    named = lrc.tuning.object_named(within=3, words={"w10": [f"w{number}" for number in range(20)]})
    made = named(model, edit, adding(), strengths)
    effects = neutral_effects(model, [adding(where=-1)], NEUTRAL, strengths=strengths, new_tokens=4)
    return [(made[place], one.kl, one.perplexity_ratio, one.repetition) for place, one in enumerate(effects)]
