"""One relation under the paper's protocol: every stage with lrc_tl and with the peer, measured and compared."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import Peer, forget_peak, plain, relative

import lrc_tl as lrc
from lrc_tl.evaluation.causality import Edit, causality_curves, counterfactual_edits
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.experiments.relation_prompts import MIN_TEST_FACTS
from lrc_tl.passes.known_prompts import filter_known
from lrc_tl.relations.sampling import splittable_sample
from lrc_tl.storage.json_results import peak_rss_bytes

MODEL = "packaged:gemma-3-270m"
SUBJECT_LAYER, OBJECT_LAYER, RANK, BETA = 9, 13, 64, 0.1
MAX_FACTS, LRE_PROMPTS, SHOTS, SEED = 60, 10, 4, 42
LRE_METHODS = {"lrc": (OBJECT_LAYER, "mean"), "lrc-final": (-1, "first_token")}
METHODS = (*LRE_METHODS, "svm", "mean")
STAGES = ("filter", "fit", "accuracy", "causality")


@dataclass
class Measured:
    """Seconds and peak memory of one library's stages on one relation."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside, in this process."""
        forget_peak()
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started, peak_rss_bytes() or 0)

    def add(self, name: str, seconds: float, peak: int) -> None:
        """One stage that was measured elsewhere."""
        self.seconds[name], self.peak_rss_bytes[name] = seconds, peak

    def answered(self, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        """A stage of the peer's, by its answer."""
        self.add(name, answer["seconds"], answer["peak_rss_bytes"])
        return answer


@dataclass(kw_only=True)
class Chosen:
    """What both libraries go on with."""

    known: lrc.passes.KnownPrompts
    sample: tuple[lrc.Prompt, ...]
    """Of the known training prompts, those for the LREs."""
    test: tuple[lrc.Prompt, ...]
    edits: tuple[Edit, ...] = ()


def fit_lres(model: Any, prompts: Sequence[lrc.Prompt], solver: str) -> dict[str, Any]:
    """The LRE of each method: exact ones from one pass, low-rank ones each by itself."""
    if solver == "exact":
        grid = lrc.fit_layer_grid(
            model,
            prompts,
            subject_layers=[SUBJECT_LAYER],
            object_layers=[layer for layer, _ in LRE_METHODS.values()],
            object_aggregation=dict(LRE_METHODS.values()),  # type: ignore[arg-type]
            progress=False,
        )
        return {name: lre for name, lre in zip(LRE_METHODS, grid.values(), strict=True)}
    return {
        name: lrc.LinearRelationalEmbedding.fit(
            model,
            prompts,
            subject_layer=SUBJECT_LAYER,
            object_layer=layer,
            object_aggregation=aggregation,  # type: ignore[arg-type]
            solver=lrc.LowRank(rank=RANK),
            progress=False,
        )
        for name, (layer, aggregation) in LRE_METHODS.items()
    }


def fit_ours(model: Any, chosen: Chosen, relation: str, solver: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Directions of every method, and the LREs, from one pass over the known prompts and one fit an LRE."""
    prompts = chosen.known.prompts
    names = [prompt.object for prompt in prompts]
    read = lrc.passes.prompt_activations(
        model,
        prompts,
        subject_layers=[SUBJECT_LAYER],
        object_layers=[layer for layer, _ in LRE_METHODS.values()],
        object_aggregation={layer: way for layer, way in LRE_METHODS.values()},  # type: ignore[misc]
    )
    sets, lres = {}, fit_lres(model, chosen.sample, solver)
    for name, (layer, _) in LRE_METHODS.items():
        sets[name] = lres[name].concepts_from_activations(read.object[layer], names, rank=RANK)
    for name in METHODS:
        if name not in sets:
            sets[name] = lrc.methods.baseline_concepts(
                read.subject[SUBJECT_LAYER],
                names,
                method=name,
                hook_name=lres["lrc"].subject_hook,
                relation=relation,
                fingerprint=lres["lrc"].fingerprint,
                seed=SEED,
            )
    return sets, lres


def figures(chosen: Chosen, predicted: dict[str, Any], success: dict[str, list[bool]]) -> dict[str, Any]:
    """Predictions and successes of every method, with their shares."""
    actual = [prompt.object for prompt in chosen.test]
    found: dict[str, Any] = {}
    for method in METHODS:
        correct = [one == other for one, other in zip(predicted[method], actual, strict=True)]
        found[method] = {
            "predicted": list(predicted[method]),
            "success": success[method],
            "accuracy": statistics.mean(correct),
            "causality": statistics.mean(success[method]) if success[method] else None,
            "n_correct": sum(correct),
            "n_success": sum(success[method]),
        }
    return found


def evaluate_ours(model: Any, chosen: Chosen, sets: dict[str, Any], measured: Measured) -> dict[str, Any]:
    """Accuracy and causality of every method, without the benchmark's controls, which the peer has not."""
    actual = [prompt.object for prompt in chosen.test]
    with measured.stage("accuracy"):
        subjects = lrc.passes.prompt_activations(model, chosen.test, subject_layers=[SUBJECT_LAYER]).subject
        predicted = {
            method: classify_activations(own, subjects[SUBJECT_LAYER], actual).predicted
            for method, own in sets.items()
        }
    with measured.stage("causality"):
        success: dict[str, list[bool]] = {method: [] for method in sets}
        if chosen.edits:
            differences = {method: swap_differences(own, chosen.edits) for method, own in sets.items()}
            curves = causality_curves(model, chosen.edits, differences, betas=[BETA])
            success = {method: curve[0].success.tolist() for method, curve in curves.items()}
    return figures(chosen, predicted, success)


def fit_peer(peer: Peer, chosen: Chosen, save: Path | None) -> dict[str, Any]:
    """The peer's directions of every method, kept in its process."""
    places = {id(prompt): number for number, prompt in enumerate(chosen.known.prompts)}
    return peer.ask(
        "fit_methods",
        prompts=plain(chosen.known.prompts),
        lre=[places[id(prompt)] for prompt in chosen.sample],
        methods={
            name: dict(zip(("layer", "aggregation"), LRE_METHODS[name], strict=True))
            if name in LRE_METHODS
            else None
            for name in METHODS
        },
        subject_layer=SUBJECT_LAYER,
        rank=RANK,
        seed=SEED,
        save=None if save is None else str(save),
    )


def evaluate_peer(
    model: Any, peer: Peer, chosen: Chosen, measured: Measured
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracy and causality with the peer's last directions; where its subjects are elsewhere than ours."""
    answer = measured.answered("accuracy", peer.ask("predict", prompts=plain(chosen.test)))
    elsewhere = [
        prompt.text
        for prompt, position in zip(chosen.test, answer["positions"], strict=True)
        if lrc.relations.tokenize_prompt(model, prompt).subject_position != position
    ]
    edits = [{**plain([edit.prompt])[0], "target": edit.target} for edit in chosen.edits]
    swapped = measured.answered("causality", peer.ask("swap", edits=edits, beta=BETA))
    success = {
        method: [target > original for original, target in rows] for method, rows in swapped["log_probs"].items()
    }
    return figures(chosen, answer["predicted"], success), {"subjects_elsewhere": elsewhere}


def timed(model: Any, peer: Peer, relation: lrc.Relation, arrays: Path) -> dict[str, Any]:
    """One relation with lrc_tl, exact and low-rank, and the mended peer, stage by stage in turn."""
    relation = splittable_sample(relation, MAX_FACTS, seed=SEED)
    train, test = relation.split(seed=SEED)
    lists = [train.prompts(shots=SHOTS, seed=SEED), test.prompts(seed=SEED, templates="all")]
    runs = {name: Measured() for name in ("exact", "low_rank", "peer")}
    with runs["exact"].stage("filter"):
        found = [filter_known(model, own, seed=SEED, whole_answers=False) for own in lists]
    runs["low_rank"].add("filter", runs["exact"].seconds["filter"], runs["exact"].peak_rss_bytes["filter"])
    theirs = runs["peer"].answered("filter", peer.ask("filter", lists=[plain(own) for own in lists]))
    known, unseen = found[0], found[1].one_per_fact()
    counts = {
        "n_facts": len(relation.facts),
        "n_asked": [len(own) for own in lists],
        "n_known": [len(own.prompts) for own in found],
        "filters": [
            disagreement(own, kept, answers)
            for own, kept, answers in zip(lists, found, theirs["known"], strict=True)
        ],
    }
    head = {"relation": relation.name, **counts}
    if len(unseen.prompts) < MIN_TEST_FACTS or len({prompt.object for prompt in known.prompts}) < 2:
        return {**head, "left_out": f"{len(known.prompts)} training, {len(unseen.prompts)} test facts are known"}
    chosen = Chosen(known=known, sample=known.sample(LRE_PROMPTS, seed=SEED), test=unseen.prompts)
    usable = [one for one in chosen.test if one.object in {prompt.object for prompt in known.prompts}]
    if len({prompt.object for prompt in usable}) > 1:
        chosen.edits = counterfactual_edits(usable, seed=SEED)
    own: dict[str, dict[str, Any]] = {}
    sets: dict[str, dict[str, Any]] = {}
    for name in ("exact", "low_rank"):
        with runs[name].stage("fit"):
            sets[name], lres = fit_ours(model, chosen, relation.name, name)
        if name == "exact":
            exact = lres
    answer = runs["peer"].answered("fit", fit_peer(peer, chosen, arrays))
    for name in ("exact", "low_rank"):
        own[name] = evaluate_ours(model, chosen, sets[name], runs[name])
    own["peer"], places = evaluate_peer(model, peer, chosen, runs["peer"])
    return {
        **head,
        "left_out": None,
        "n_lre_prompts": len(chosen.sample),
        "n_objects": len(sets["exact"]["lrc"]),
        "n_test": len(chosen.test),
        "n_edits": len(chosen.edits),
        "peer_fit_seconds": answer["methods"],
        "runs": {
            name: {"seconds": run.seconds, "peak_rss_bytes": run.peak_rss_bytes, "methods": own[name]}
            for name, run in runs.items()
        },
        "against_exact": {
            "low_rank": {"cosines": cosines(sets["exact"], lambda m, o: sets["low_rank"][m][o].vector)},
            "peer": {**compare(sets["exact"], exact, arrays), **places},
        },
        "chosen": {
            "known": plain(known.prompts),
            "sample": plain(chosen.sample),
            "test": plain(chosen.test),
            "edits": [edit.target for edit in chosen.edits],
            "edited": plain([edit.prompt for edit in chosen.edits]),
        },
    }


def shipped(model: Any, peer: Peer, record: dict[str, Any], arrays: Path) -> dict[str, Any]:
    """The record with the peer as shipped on the same prompts, against the mended peer's `arrays`."""

    def prompts(name: str) -> tuple[lrc.Prompt, ...]:
        return tuple(lrc.Prompt(**one) for one in record["chosen"][name])

    known, sample = prompts("known"), prompts("sample")
    by_content = {(one.text, one.object): one for one in known}
    chosen = Chosen(
        known=lrc.passes.KnownPrompts(prompts=known, dropped=()),
        sample=tuple(by_content[one.text, one.object] for one in sample),
        test=prompts("test"),
        edits=tuple(
            Edit(prompt=prompt, target=target)
            for prompt, target in zip(prompts("edited"), record["chosen"]["edits"], strict=True)
        ),
    )
    peer.ask("cache", copied=False)
    measured = Measured()
    own = arrays.with_name(f"{arrays.stem}.shipped.npz")
    measured.answered("fit", fit_peer(peer, chosen, own))
    methods, _ = evaluate_peer(model, peer, chosen, measured)
    mended, broken = np.load(arrays), np.load(own)
    found: dict[str, Any] = {"cosines": {method: {} for method in METHODS}}
    for key in mended.files:
        kind, method, *rest = key.split(" ", 2)
        if kind == "direction":
            found["cosines"][method][rest[0]] = float(mended[key] @ broken[key])
        else:
            found.setdefault(f"relative_error_{kind}", {})[method] = relative(
                torch.from_numpy(broken[key]), mended[key]
            )
    record["runs"]["peer_shipped"] = {"methods": methods}
    record["shipped_against_mended"] = found
    return record


def disagreement(asked: Sequence[lrc.Prompt], kept: lrc.passes.KnownPrompts, theirs: list[bool]) -> dict[str, Any]:
    """How the two filters judge the same prompts; the prompts that they judge differently."""
    ours = {id(prompt) for prompt in kept.prompts}
    answers = {id(entry.prompt): entry.answer for entry in kept.dropped}
    only_ours = [p for p, known in zip(asked, theirs, strict=True) if id(p) in ours and not known]
    only_theirs = [p for p, known in zip(asked, theirs, strict=True) if id(p) not in ours and known]
    return {
        "n": len(asked),
        "both": sum(theirs) - len(only_theirs),
        "only_lrc_tl": [[p.text[-60:], p.object] for p in only_ours],
        "only_peer": [[p.text[-60:], p.object, answers[id(p)]] for p in only_theirs],
    }


def cosines(sets: dict[str, Any], other: Callable[[str, str], torch.Tensor]) -> dict[str, dict[str, float]]:
    """Of each direction with the other library's or fit's."""
    return {
        method: {name: float(one.vector.float() @ other(method, name).float()) for name, one in own.items()}
        for method, own in sets.items()
    }


def compare(sets: dict[str, Any], lres: dict[str, Any], arrays: Path) -> dict[str, Any]:
    """Errors of the peer's W and b relative to themselves, and cosines of its directions with ours."""
    theirs = np.load(arrays)
    return {
        "relative_error_weight": {m: relative(lre.weight, theirs[f"weight {m}"]) for m, lre in lres.items()},
        "relative_error_bias": {m: relative(lre.bias, theirs[f"bias {m}"]) for m, lre in lres.items()},
        "cosines": cosines(sets, lambda m, o: torch.from_numpy(theirs[f"direction {m} {o}"])),
    }


def warm_up(model: Any, peer: Peer, relation: lrc.Relation) -> None:
    """A little of everything, uncounted."""
    prompts = relation.prompts(shots=SHOTS, seed=SEED)[:8]
    filter_known(model, prompts, whole_answers=False)
    peer.ask("filter", lists=[plain(prompts)])
    known = lrc.passes.KnownPrompts(prompts=tuple(prompts), dropped=())
    chosen = Chosen(known=known, sample=tuple(prompts[:1]), test=tuple(prompts[:2]))
    sets, _ = fit_ours(model, chosen, relation.name, "exact")
    evaluate_ours(model, chosen, sets, Measured())
    fit_peer(peer, chosen, None)
    evaluate_peer(model, peer, chosen, Measured())
